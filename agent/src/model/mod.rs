//! The model: one thread knows everything, and writes everything. Others bring it events.

mod answer;
mod apply;
mod asked;
mod changes;
mod configuration;
mod inbox;
mod local;
mod measure;
mod pace;
mod policies;
mod problems;
mod served;
mod services;
mod waiting;

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use sluice_abi::Reason;
use sluice_api::{Call, ErrorKind, Outcome, Records, SOCKET, last_error};
use sluice_netlink::{Change, Monitor};
use sluice_policy::{Index, View as PolicyView};
use sluice_topology::{Local, NodeObject, NodeView, Pool, Range, Slots};

use crate::config::{ApiServer, Config, PoolRange, Served, Source as SourceConfig};
use crate::disconnect::{self, Pods};
use crate::health::{self, Checks, Health, Wanted};
use crate::host::View;
use crate::kernel::{Kernel, Sockets};
use crate::leftovers::{self, Onlooker};
use crate::metrics::{Changes, Flows, Gathering, Measures};
use crate::ports::{self, Claimed, Loopbacks};
use crate::source::{Change as SourceChange, Claimant, Directory, Kubernetes, Source};
use crate::{check, exhaustion, host, metrics, plugin, prepare, rivals, server};
use answer::failure;
use configuration::Configuration;
use inbox::Inbox;
use pace::Pace;
use policies::Policies;
use problems::Problems;
use services::Services;

/// Something that the model has to act on.
enum Event {
    /// What a source knows has changed, and when it said so.
    Changes(Vec<SourceChange>, Instant),
    /// Somebody asks.
    Call(Box<Call>, Sender<Outcome>),
    /// Somebody measures.
    Measure(Sender<Measures>),
    /// The host's network has changed.
    Host(Vec<Change>),
    /// These health checks of Services are not served.
    Unserved(Vec<String>),
    /// What others have left here is this.
    Leftovers(leftovers::Problems),
    /// Something may have happened to CNI configurations, and this is wrong with others' and with the plugin.
    Configurations(Vec<String>),
    /// Ports that both Services and processes of the node have are these.
    Shared(Vec<String>),
    /// Source ports run out, or no longer do.
    Exhausted(Vec<String>),
    /// Somebody wants the agent to end.
    End(Signal),
    /// A thread cannot go on, and with it the agent.
    Dead(anyhow::Error),
}

/// What the node has become, once its Node object is known.
#[derive(Default)]
struct Ready {
    local: Option<Local>,
    uplinks: Vec<String>,
    mtu: u32,
    view: Vec<NodeView>,
}

/// The model.
struct Model {
    config: Config,
    kernel: Kernel,
    records: Records,
    slots: Slots,
    /// Whether the source has told of all that there is.
    is_listed: bool,
    /// The nodes that it knows, by name.
    nodes: BTreeMap<String, NodeObject>,
    policies: Policies,
    services: Services,
    /// What sockets of services are translated by; `None`: nothing was attached yet.
    sockets: Option<Sockets>,
    /// Who disconnects sockets from backends that are gone.
    ended: Sender<Pods>,
    /// Who looks whether processes of the node have the ports of Services,
    claimed: Sender<Claimed>,
    /// and which they have.
    shared_ports: Problems,
    /// What the source cannot read.
    source_problems: Problems,
    /// Of what the source does not have and need not.
    notes: Vec<String>,
    /// What is wrong with the ways between nodes.
    problems: Problems,
    waiting_for: Option<String>,
    /// The CNI configuration, as it was written, and who stands in its way.
    configuration: Configuration,
    /// The host's network, as the plan was made for it, with the routes that came of it.
    view: View,
    ready: Ready,
    pace: Pace,
    /// How long changes of objects take.
    changes: Changes,
    /// What load balancers are told of this node,
    health: Health,
    /// and of its Services,
    checks: Checks,
    /// as far as that can be served.
    check_problems: Problems,
    /// What others have left here that keeps Sluice from its work,
    leftovers: Problems,
    /// and that may.
    suspects: Problems,
    /// What is wrong with source ports.
    exhaustion: Problems,
}

/// Runs the agent.
///
/// # Errors
/// Where it cannot start or go on.
pub fn run(config: Config) -> Result<()> {
    check::essentials()?;
    let _lock = prepare::lock(&config.run_dir)?;
    prepare::ensure_bpffs(&config.bpf_dir)?;
    prepare::lift_memory_limit();
    let kernel = Kernel::open(&config.bpf_dir, &config.run_dir, &prepare::sizes(&config)?)?;
    let (events, inbox) = mpsc::channel();
    // Before there are other threads, which take over what this one does not want to hear.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("taking signals")?;
    let told = events.clone();
    start("signals", move || {
        let event = signals.wait().map_or_else(|errno| Event::Dead(errno.into()), Event::End);
        let _ = told.send(event);
    })?;
    let (source, messenger): (Box<dyn Source>, _) = match &config.source {
        SourceConfig::Directory(path) => (Box::new(Directory::new(path)), None),
        SourceConfig::Kubernetes(kubeconfig) => {
            let (source, messenger) = Kubernetes::new(kubeconfig.as_deref());
            let source =
                source.with_services().with_pool(claimant(&config)).with_addresses_anywhere(config.ipam.is_some());
            (Box::new(source.at(config.api_server.clone().map(|ApiServer(uri)| uri))), Some(messenger))
        }
    };
    let (claimed, told) = mpsc::channel();
    let teller = events.clone();
    let loopbacks = Loopbacks { are_served: config.socket_lb, nets: config.node_port_addresses.clone() };
    start("ports", move || {
        ports::watch(&told, &loopbacks, |problems| teller.send(Event::Shared(problems)).is_ok());
    })?;
    let (ended, told) = mpsc::channel();
    let peers = kernel.peers()?;
    start("sockets", move || disconnect::run(&peers, &told))?;
    let health = Health::default();
    let told = events.clone();
    let checks = Checks::start(health.clone(), move |problems| drop(told.send(Event::Unserved(problems))))?;
    let index = Index::new(PolicyView::Node(config.node_name.clone()), kernel.limits());
    let index = index.numbered_after(kernel.numbers());
    let mut model = Model {
        slots: Slots::seeded(kernel.nodes().clone()),
        records: Records::below(&config.run_dir),
        is_listed: false,
        nodes: BTreeMap::new(),
        services: Services::new(&config.node_name, messenger.is_none(), config.maglev),
        sockets: None,
        ended,
        claimed,
        shared_ports: Problems::default(),
        policies: Policies::new(&config.node_name, index, messenger),
        source_problems: Problems::default(),
        notes: Vec::new(),
        problems: Problems::default(),
        waiting_for: Some("the first listing of all objects".into()),
        configuration: Configuration::default(),
        view: View::default(),
        ready: Ready::default(),
        pace: Pace::default(),
        changes: Changes::default(),
        health,
        checks,
        check_problems: Problems::default(),
        leftovers: Problems::default(),
        suspects: Problems::default(),
        exhaustion: Problems::default(),
        kernel,
        config,
    };
    // Before the endpoints are looked at: what vanishes from now on is told of.
    let monitor = Monitor::open()?;
    model.take_over()?;
    model.spawn(source, monitor, &events)?;
    // From now on this one can be asked, and those before it count no more.
    if let Err(error) = last_error::forget(&model.config.run_dir) {
        tracing::warn!(%error, "what the last agent has ended with is still noted");
    }
    tracing::info!(node = model.config.node_name, version = env!("CARGO_PKG_VERSION"), "started");
    model.work(Inbox::new(inbox))
}

impl Model {
    /// Takes over the endpoints that an earlier agent has left.
    fn take_over(&mut self) -> Result<()> {
        let records = self.records.list()?;
        let unrecorded = self.kernel.unclaimed_and_there();
        ensure!(
            !records.is_empty() || unrecorded == 0,
            "the programs at {} serve {unrecorded} pods of this node, and {} has a record of none, so they would be cut off: if run_dir was \
             another when they were added, set it back, or drain the node and have that one's agent uninstalled first \
             (sluice-agent uninstall); if the records are lost, delete these pods",
            self.config.bpf_dir.display(),
            self.config.run_dir.display(),
        );
        let mut kept = 0;
        for record in records {
            let result = match &record {
                Ok(record) if nix::net::if_::if_nametoindex(record.host_interface.as_str()).is_ok() => {
                    self.kernel.enforce(record).map(|_| {
                        self.policies.adopt(record);
                        kept += 1;
                    })
                }
                // Its pod is gone; DEL or GC will see to the record.
                Ok(_) => Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "endpoint is left out");
                    Ok(())
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "endpoint is left out");
            }
        }
        let ended = self.kernel.release_unclaimed()?;
        if kept + ended > 0 {
            tracing::info!(kept, ended, "took over endpoints");
        }
        Ok(())
    }

    /// Starts the threads that bring events, and the one that ends flows.
    fn spawn(&self, source: Box<dyn Source>, monitor: Monitor, events: &Sender<Event>) -> Result<()> {
        let asked = events.clone();
        let answer = move |call| {
            let (reply, answer) = mpsc::channel();
            let gone = || failure(ErrorKind::Unavailable, "the agent is ending".into());
            if asked.send(Event::Call(Box::new(call), reply)).is_err() {
                return gone();
            }
            answer.recv().unwrap_or_else(|_| gone())
        };
        let socket = self.config.run_dir.join(SOCKET);
        server::listen(&socket, Arc::new(answer)).with_context(|| format!("listening on {}", socket.display()))?;

        if let Served::At(address) = self.config.healthz_address {
            health::serve(address, self.health.clone())?;
        }

        let (told, health) = (events.clone(), self.health.clone());
        start("source", move || {
            let mut tell = |changes| {
                health.pending();
                told.send(Event::Changes(changes, Instant::now())).is_ok()
            };
            if let Err(error) = source.run(&mut tell) {
                let _ = told.send(Event::Dead(error));
            }
        })?;

        let told = events.clone();
        start("network", move || {
            loop {
                let event = match monitor.wait() {
                    Ok(changes) => Event::Host(changes),
                    Err(error) => Event::Dead(error.into()),
                };
                let dead = matches!(event, Event::Dead(_));
                if told.send(event).is_err() || dead {
                    return;
                }
            }
        })?;

        let told = events.clone();
        let onlooker = Onlooker::of(&self.config);
        start("leftovers", move || onlooker.watch(|problems| told.send(Event::Leftovers(problems)).is_ok()))?;

        let (told, directory) = (events.clone(), self.config.cni_conf_dir.clone());
        let plugins = self.config.cni_bin_dir.clone();
        start("configurations", move || {
            rivals::watch(&directory, |mut problems| {
                problems.extend(plugins.as_deref().and_then(plugin::problem));
                told.send(Event::Configurations(problems)).is_ok()
            });
        })?;

        let (told, dropped) = (events.clone(), self.kernel.tally(Reason::PortsExhausted)?);
        let ports = self.config.masquerade.port_first..=self.config.masquerade.port_last;
        start("exhaustion", move || {
            exhaustion::watch(&dropped, &ports, |problems| told.send(Event::Exhausted(problems)).is_ok());
        })?;

        let flows = Flows::default();
        self.serve_metrics(&flows, events)?;

        let mut reaper = self.kernel.reaper()?;
        start("reaper", move || {
            let mut rest = pace::reap_after(Duration::ZERO, 0);
            loop {
                thread::sleep(rest);
                let before = cpu_time();
                match reaper.round() {
                    Ok(round) => {
                        let left = round.fills.iter().map(|fill| fill.entries).sum();
                        rest = pace::reap_after(cpu_time().saturating_sub(before), left);
                        if round.removed > 0 {
                            tracing::debug!(ended = round.removed, "ended idle flows");
                        }
                        *flows.lock().unwrap_or_else(PoisonError::into_inner) = round.fills;
                    }
                    Err(error) => tracing::warn!(%error, "idle flows are not ended"),
                }
            }
        })
    }

    /// Starts the thread that serves metrics, if somebody wants them.
    fn serve_metrics(&self, flows: &Flows, events: &Sender<Event>) -> Result<()> {
        let Served::At(address) = self.config.metrics_address else { return Ok(()) };
        let asked = events.clone();
        let ask = move |patience| {
            let (reply, answer) = mpsc::channel();
            asked.send(Event::Measure(reply)).ok()?;
            answer.recv_timeout(patience).ok()
        };
        let meter = Mutex::new(self.kernel.meter()?);
        let read = move || meter.lock().unwrap_or_else(PoisonError::into_inner).read();
        metrics::listen(address, Gathering { ask: Box::new(ask), read: Box::new(read), flows: Arc::clone(flows) })
    }

    fn work(&mut self, mut inbox: Inbox) -> Result<()> {
        let mut swarm: Vec<Change> = Vec::new();
        loop {
            match inbox.next(self.due()) {
                Ok(Event::Host(changes)) => {
                    swarm.extend(changes);
                    self.pace.changed(Instant::now());
                }
                Ok(Event::Changes(changes, since)) => self.change(changes, since),
                Ok(Event::Call(call, reply)) => self.answer(*call, reply),
                Ok(Event::Measure(reply)) => {
                    // Who has asked may have gone.
                    let _ = reply.send(self.measure());
                }
                Ok(Event::Unserved(problems)) => self.check_problems.set(problems),
                Ok(Event::Leftovers(problems)) => {
                    self.leftovers.set(problems.errors);
                    self.suspects.set(problems.warnings);
                }
                Ok(Event::Configurations(problems)) => {
                    if self.configuration.look(&self.config.cni_conf_dir, problems, Instant::now()) {
                        self.apply();
                    }
                }
                Ok(Event::Shared(problems)) => self.shared_ports.set(problems),
                Ok(Event::Exhausted(problems)) => self.exhaustion.set(problems),
                Ok(Event::End(signal)) => {
                    tracing::info!(%signal, "ending; what is in force stays");
                    return Ok(());
                }
                Ok(Event::Dead(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("all sources of events have ended"),
            }
            // However much comes in, what is due is done.
            let now = Instant::now();
            if self.pace.swarm_is_over(now)
                && let Err(error) = self.host_changed(&std::mem::take(&mut swarm))
            {
                tracing::warn!("looking at the host's network again later: {error:#}");
                self.pace.failed(now);
            }
            if self.pace.is_retry_due(now) {
                let ended = self.policies.end_vanished(&mut self.kernel);
                self.apply();
                if let Err(error) = ended {
                    tracing::warn!("ending endpoints again later: {error:#}");
                    self.pace.failed(now);
                }
            }
            self.policies.work(&mut self.kernel, now);
            self.serve(now);
            if self.policies.are_in_force() && self.services.are_in_force() {
                self.health.applied();
            }
        }
    }

    /// Has the tables of services be what has become of objects, of pods and of their host ports.
    fn serve(&mut self, now: Instant) {
        self.tell_services();
        if self.services.work(&mut self.kernel, now) {
            self.tell_load_balancers();
        }
        if let Some(claimed) = self.services.take_claimed() {
            // Who looks ends with the agent only.
            let _ = self.claimed.send(claimed);
        }
        if self.kernel.take_ended_backends() {
            let pods = self.kernel.records().map(|record| record.netns.clone()).collect();
            // Who does it ends with the agent only.
            let _ = self.ended.send(pods);
        }
    }

    /// Tells services what has become of pods, of their host ports and of the node's addresses.
    fn tell_services(&mut self) {
        self.services.own_addresses(&self.view.given.addresses, &self.config.node_port_addresses);
        for name in self.policies.take_touched() {
            self.services.pod(&name, self.policies.index().pod(&name));
        }
        self.services.endpoints(self.kernel.records());
    }

    /// Has load balancers told of the Services that there are, at the addresses that there are.
    fn tell_load_balancers(&self) {
        let checks = self.services.index().health().map(|check| (check.service.clone(), check.clone())).collect();
        let addresses = health::addresses(&self.config.node_port_addresses, &self.view.given.addresses);
        self.checks.set(Wanted { checks, addresses });
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Option<Instant> {
        self.pace.next().into_iter().chain(self.policies.due()).chain(self.services.due()).min()
    }

    fn host_changed(&mut self, changes: &[Change]) -> Result<()> {
        let pod_gone = |change: &Change| match change {
            Change::LinkGone(name) => host::is_pods(name),
            Change::Overrun => true,
            Change::Link | Change::Address | Change::Route => false,
        };
        if changes.iter().any(pod_gone) {
            self.policies.end_vanished(&mut self.kernel)?;
        }
        // Pods come and go with links, addresses and routes of their own: only what is left matters. What is ours may have
        // been taken away.
        if host::view()? != self.view {
            self.apply();
        }
        Ok(())
    }
}

/// Who takes pod CIDRs for this node, if there is a pool of them.
fn claimant(config: &Config) -> Option<Claimant> {
    if config.pod_cidr_pool.is_empty() {
        return None;
    }
    let ranges = config.pod_cidr_pool.iter().map(|PoolRange { cidr, block }| Range { cidr: *cidr, block: *block });
    let (records, is_of_pool) = (Records::below(&config.run_dir), config.ipam.is_none());
    Some(Claimant {
        pool: Pool(ranges.collect()),
        node: config.node_name.clone(),
        // What another plugin gives says nothing of blocks.
        in_use: Box::new(move || {
            let records = if is_of_pool { records.list()? } else { Vec::new() };
            Ok(records.into_iter().flatten().flat_map(|record| record.addresses).collect())
        }),
        takes: config.pod_cidrs.is_empty(),
    })
}

/// What this thread has taken of the CPU.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread: io::Result<_> = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).with_context(|| format!("starting the thread {name}"))
}
