//! The model: one thread knows everything, and writes everything. Others bring it events.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use sluice_abi::{Config as KernelConfig, Features, Timeouts, Uplink};
use sluice_api::{
    Answer, Call, EndpointRecord, ErrorKind, Failure, NodeStatus, ObjectCounts, Outcome, Records, SOCKET, Status,
};
use sluice_netlink::{Change, Monitor, Route};
use sluice_topology::{Local, Mode, NodeView, Slots, Underlay, plan};

use crate::config::{Config, Source as SourceConfig};
use crate::host::{self, Device};
use crate::kernel::{Kernel, KernelError, Sizes, UplinkDevice, jiffies};
use crate::source::{Change as SourceChange, Directory, Kubernetes, Objects, Source};
use crate::{conflist, server};

/// Seconds that flows may be idle, in the order of `TimeoutClass`.
const TIMEOUTS: [u32; 5] = [60, 21_600, 30, 120, 30];
/// Rest between two rounds through the flow table.
const REAP: Duration = Duration::from_secs(5);
/// Changes of the host's network come in swarms: so long is waited for the rest of one.
const SWARM: Duration = Duration::from_millis(20);
/// Bytes that the overlay adds: outer Ethernet aside, IP, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD6: u32 = 40 + 8 + 8 + 14;

/// Something that the model has to act on.
enum Event {
    /// What a source knows has changed.
    Changes(Vec<SourceChange>),
    /// Somebody asks.
    Call(Box<Call>, Sender<Outcome>),
    /// The host's network has changed.
    Host(Vec<Change>),
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
    problems: Vec<String>,
}

/// The model.
struct Model {
    config: Config,
    kernel: Kernel,
    records: Records,
    slots: Slots,
    /// What the source knows; `None` until it has listed all.
    objects: Option<Objects>,
    waiting_for: Option<String>,
    routes: Vec<Route>,
    ready: Ready,
}

/// Takes the agent's lock on a node.
///
/// # Errors
/// Where another agent has it.
pub fn lock(run_dir: &Path) -> Result<Flock<fs::File>> {
    fs::create_dir_all(run_dir).with_context(|| format!("making {}", run_dir.display()))?;
    let path = run_dir.join("agent.lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| anyhow::anyhow!("another agent runs on this node: it holds {} ({errno})", path.display()))
}

/// Runs the agent.
///
/// # Errors
/// Where it cannot start or go on.
pub fn run(config: Config) -> Result<()> {
    let _lock = lock(&config.run_dir)?;
    ensure_bpffs(&config.bpf_dir)?;
    let kernel = Kernel::open(&config.bpf_dir, &config.run_dir, &sizes(&config)?)?;
    let (events, inbox) = mpsc::channel();
    let mut model = Model {
        slots: Slots::seeded(kernel.nodes().clone()),
        records: Records::below(&config.run_dir),
        objects: None,
        waiting_for: Some("the first listing of all objects".into()),
        routes: Vec::new(),
        ready: Ready::default(),
        kernel,
        config,
    };
    model.take_over()?;
    model.spawn(&events)?;
    tracing::info!(node = model.config.node_name, version = env!("CARGO_PKG_VERSION"), "started");
    model.work(&inbox)
}

fn sizes(config: &Config) -> Result<Sizes> {
    let text = fs::read_to_string("/proc/meminfo").context("reading the node's memory from /proc/meminfo")?;
    let kilobytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .context("finding the node's memory in /proc/meminfo")?;
    let mut sizes = Sizes::from_memory(kilobytes * 1024);
    if config.flow_entries != 0 {
        sizes.flows = config.flow_entries;
        sizes.openings = config.flow_entries;
    }
    Ok(sizes)
}

/// Mounts the BPF file system where it should be and is not.
fn ensure_bpffs(bpf_dir: &Path) -> Result<()> {
    const MOUNT: &str = "/sys/fs/bpf";
    /// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
    const MAGIC: i64 = 0xcafe_4a11;
    let mounted = nix::sys::statfs::statfs(MOUNT).is_ok_and(|stat| stat.filesystem_type().0 == MAGIC);
    if mounted || !bpf_dir.starts_with(MOUNT) {
        return Ok(());
    }
    tracing::info!("mounting a BPF file system at {MOUNT}");
    let nothing = None::<&str>;
    nix::mount::mount(Some("bpf"), MOUNT, Some("bpf"), nix::mount::MsFlags::empty(), nothing)
        .with_context(|| format!("mounting a BPF file system at {MOUNT}; mount one by hand: mount -t bpf bpf {MOUNT}"))
}

impl Model {
    /// Takes over the endpoints that an earlier agent has left.
    fn take_over(&mut self) -> Result<()> {
        let mut kept = 0;
        for record in self.records.list()? {
            let result = match &record {
                Ok(record) if nix::net::if_::if_nametoindex(record.host_interface.as_str()).is_ok() => {
                    self.kernel.enforce(record).map(|_| kept += 1)
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
    fn spawn(&self, events: &Sender<Event>) -> Result<()> {
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

        let source: Box<dyn Source> = match &self.config.source {
            SourceConfig::Directory(path) => Box::new(Directory::new(path)),
            SourceConfig::Kubernetes(kubeconfig) => Box::new(Kubernetes::new(kubeconfig.as_deref())),
        };
        let told = events.clone();
        start("source", move || {
            let mut tell = |changes| told.send(Event::Changes(changes)).is_ok();
            if let Err(error) = source.run(&mut tell) {
                let _ = told.send(Event::Dead(error));
            }
        })?;

        let monitor = Monitor::open()?;
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

        let mut reaper = self.kernel.reaper()?;
        start("reaper", move || {
            loop {
                thread::sleep(REAP);
                match reaper.round() {
                    Ok(0) => {}
                    Ok(ended) => tracing::debug!(ended, "ended idle flows"),
                    Err(error) => tracing::warn!(%error, "idle flows are not ended"),
                }
            }
        })
    }

    fn work(&mut self, inbox: &Receiver<Event>) -> Result<()> {
        let mut swarm: Vec<Change> = Vec::new();
        loop {
            let event = if swarm.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(SWARM)
            };
            match event {
                Ok(Event::Host(changes)) => swarm.extend(changes),
                Ok(Event::Changes(changes)) => {
                    let first = self.objects.is_none();
                    let objects = self.objects.get_or_insert_default();
                    let matters = changes.into_iter().fold(first, |matters, change| objects.apply(change) | matters);
                    if matters {
                        self.apply();
                    }
                }
                Ok(Event::Call(call, reply)) => {
                    let outcome = self.answer(*call);
                    // Who has asked may have gone.
                    let _ = reply.send(outcome);
                }
                Ok(Event::Dead(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => self.host_changed(&std::mem::take(&mut swarm))?,
                Err(RecvTimeoutError::Disconnected) => bail!("all sources of events have ended"),
            }
        }
    }

    fn host_changed(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            if let Change::LinkGone(name) = change
                && host::is_pods(name)
                && nix::net::if_::if_nametoindex(name.as_str()).is_err()
                && self.kernel.release(name, false)?
            {
                tracing::info!(interface = name, "endpoint is gone");
            }
        }
        // Pods come and go with links, addresses and routes of their own: only what is left matters.
        let routes = host::view_routes()?;
        if routes != self.routes {
            self.routes = routes;
            self.kernel.bump_routes()?;
            self.apply();
        }
        Ok(())
    }

    /// Makes the node what the objects and the host say that it should be.
    fn apply(&mut self) {
        match self.try_apply() {
            Ok(()) => self.waiting_for = None,
            Err(error) => {
                let text = format!("{error:#}");
                if self.waiting_for.as_ref() != Some(&text) {
                    tracing::warn!("waiting for: {text}");
                }
                self.waiting_for = Some(text);
            }
        }
    }

    fn try_apply(&mut self) -> Result<()> {
        let Some(objects) = &self.objects else { bail!("the first listing of all objects") };
        let devices = host::devices()?;
        let local = self.local(objects, &devices)?;
        let uplinks =
            host::find_uplinks(&devices, &self.config.uplinks, &local.addresses).map_err(anyhow::Error::msg)?;
        let names: Vec<String> = uplinks.iter().map(|device| device.name.clone()).collect();
        for change in host::sysctl::apply(&names).map_err(anyhow::Error::msg)? {
            tracing::info!("set {change}");
        }
        let mode = Mode::from(self.config.routing);
        let wire = uplinks.iter().map(|device| device.mtu).min().unwrap_or(1500);
        let overhead = if local.addresses.iter().any(std::net::IpAddr::is_ipv4) { OVERHEAD4 } else { OVERHEAD6 };
        let inner = wire.saturating_sub(overhead);
        let overlay = match mode {
            Mode::Native => None,
            Mode::Vxlan | Mode::Auto => Some(host::ensure_overlay(self.config.vxlan.port, inner)?),
        };
        let mtu = match (self.config.mtu, mode) {
            (0, Mode::Vxlan) => inner,
            (0, Mode::Native | Mode::Auto) => wire,
            (mtu, _) => mtu,
        };
        self.kernel.set_config(&self.kernel_config(&local, overlay, inner))?;
        self.kernel.set_uplinks(&uplinks.iter().map(uplink).collect::<Vec<_>>())?;
        self.kernel.set_overlay(overlay.map(|_| host::OVERLAY))?;

        let near = |address| host::directly_connected(&devices, address);
        let plan = plan(&local, &objects.nodes, objects.pods.values(), mode, near, &mut self.slots);
        let mut changed = self.kernel.set_nodes(&plan.nodes)?;
        changed |= self.kernel.set_addresses(&plan.addresses)?;
        let tunnel = overlay.map(|index| (index, self.config.vxlan.vni, inner));
        changed |= host::apply_routes(&plan.routes, &local.addresses, tunnel)?;
        if changed {
            self.routes = host::view_routes()?;
            self.kernel.bump_routes()?;
        }

        for problem in objects.problems.iter().chain(&plan.problems) {
            if !self.ready.problems.contains(problem) {
                tracing::warn!("{problem}");
            }
        }
        let content = conflist::content(&self.config, &local.pod_cidrs, mtu);
        if conflist::write(&self.config.cni_conf_dir, &content)
            .with_context(|| format!("writing the CNI configuration into {}", self.config.cni_conf_dir.display()))?
        {
            tracing::info!(uplinks = names.join(","), mtu, "ready; the CNI configuration is written");
        }
        let problems = objects.problems.iter().chain(&plan.problems).cloned().collect();
        self.ready = Ready { local: Some(local), uplinks: names, mtu, view: plan.view, problems };
        Ok(())
    }

    /// What is known of this node.
    fn local(&self, objects: &Objects, devices: &[Device]) -> Result<Local> {
        let name = &self.config.node_name;
        let object = objects.nodes.get(name);
        let choose = |own: &[std::net::IpAddr]| {
            if own.is_empty() { object.map_or_else(Vec::new, |node| node.addresses.clone()) } else { own.to_vec() }
        };
        let addresses = choose(&self.config.addresses);
        let pod_cidrs = if self.config.pod_cidrs.is_empty() {
            object.map_or_else(Vec::new, |node| node.pod_cidrs.clone())
        } else {
            self.config.pod_cidrs.clone()
        };
        if addresses.is_empty() {
            bail!("the Node {name} with its addresses (status.addresses); is node_name right?");
        }
        if pod_cidrs.is_empty() && self.config.ipam.is_none() {
            bail!("a pod CIDR of the Node {name} (spec.podCIDRs), or pod_cidrs in the settings");
        }
        let host_addresses = devices.iter().flat_map(|device| &device.addresses).map(IpNet::addr).collect();
        Ok(Local {
            name: name.clone(),
            addresses,
            pod_cidrs,
            host_addresses,
            exempt: self.config.masquerade.exempt.clone(),
        })
    }

    fn kernel_config(&self, local: &Local, overlay: Option<u32>, inner: u32) -> KernelConfig {
        let masquerade = &self.config.masquerade;
        let bit = |on: bool, feature: Features| if on { feature.0 } else { 0 };
        let mut config = KernelConfig {
            features: Features(
                bit(masquerade.ipv4, Features::MASQUERADE4) | bit(masquerade.ipv6, Features::MASQUERADE6),
            ),
            overlay: overlay.unwrap_or(0),
            overlay_mtu: inner,
            vni: self.config.vxlan.vni,
            port_first: masquerade.port_first,
            port_last: masquerade.port_last,
            timeouts: Timeouts::new(TIMEOUTS.map(jiffies)),
            ..KernelConfig::default()
        };
        for address in &local.addresses {
            match address {
                std::net::IpAddr::V4(address) => config.ipv4 = (*address).into(),
                std::net::IpAddr::V6(address) => config.ipv6 = (*address).into(),
            }
        }
        config
    }

    fn answer(&mut self, call: Call) -> Outcome {
        match call {
            Call::Enforce(record) => self.enforce(&record),
            Call::Release { host_interface } => {
                let still_passes = host::is_up(&host_interface);
                match self.kernel.release(&host_interface, still_passes) {
                    Ok(_) => Outcome::Ok(Answer::Done),
                    Err(error) => refused(&error),
                }
            }
            Call::Status {} => Outcome::Ok(Answer::Status(self.status())),
            Call::Endpoints {} => Outcome::Ok(Answer::Endpoints(self.kernel.endpoints())),
            Call::Nodes {} => Outcome::Ok(Answer::Nodes(self.ready.view.iter().map(node_status).collect())),
            Call::Flows { limit } => match self.kernel.flows(limit) {
                Ok(flows) => Outcome::Ok(Answer::Flows(flows)),
                Err(error) => refused(&error),
            },
            Call::Counters {} => match self.kernel.counters() {
                Ok(counters) => Outcome::Ok(Answer::Counters(counters)),
                Err(error) => refused(&error),
            },
        }
    }

    fn enforce(&mut self, record: &EndpointRecord) -> Outcome {
        if let Some(what) = &self.waiting_for {
            return failure(ErrorKind::Unavailable, format!("the agent is not ready; it waits for: {what}"));
        }
        match self.kernel.enforce(record) {
            Ok(_) => {
                tracing::info!(interface = record.host_interface, addresses = ?record.addresses, "endpoint is in force");
                Outcome::Ok(Answer::Done)
            }
            Err(error) => refused(&error),
        }
    }

    fn status(&self) -> Status {
        let local = self.ready.local.as_ref();
        Status {
            ready: self.waiting_for.is_none(),
            waiting_for: self.waiting_for.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            node: self.config.node_name.clone(),
            addresses: local.map_or_else(Vec::new, |local| local.addresses.clone()),
            pod_cidrs: local.map_or_else(Vec::new, |local| local.pod_cidrs.iter().map(ToString::to_string).collect()),
            uplinks: self.ready.uplinks.clone(),
            mtu: self.ready.mtu,
            endpoints: self.kernel.endpoints().len(),
            objects: self.objects.as_ref().map_or_else(ObjectCounts::default, |objects| ObjectCounts {
                nodes: objects.nodes.len(),
                pods: objects.pods.len(),
                namespaces: objects.namespaces.len(),
            }),
            problems: self.ready.problems.clone(),
        }
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread: io::Result<_> = thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).with_context(|| format!("starting the thread {name}"))
}

fn uplink(device: &Device) -> UplinkDevice {
    let mut uplink = Uplink { mtu: device.mtu, ..Uplink::default() };
    for net in &device.addresses {
        match net.addr() {
            std::net::IpAddr::V4(address) if uplink.ipv4 == Default::default() => uplink.ipv4 = address.into(),
            std::net::IpAddr::V6(address) if uplink.ipv6 == Default::default() && !address.is_unicast_link_local() => {
                uplink.ipv6 = address.into();
            }
            _ => {}
        }
    }
    UplinkDevice { interface: device.index, name: device.name.clone(), uplink }
}

fn node_status(view: &NodeView) -> NodeStatus {
    NodeStatus {
        name: view.object.name.clone(),
        addresses: view.object.addresses.clone(),
        pod_cidrs: view.object.pod_cidrs.iter().map(ToString::to_string).collect(),
        routing: match view.underlay {
            Underlay::Local => "local",
            Underlay::Native => "native",
            Underlay::Overlay(_) => "vxlan",
        }
        .into(),
    }
}

fn failure(kind: ErrorKind, message: String) -> Outcome {
    Outcome::Error(Failure { kind, message })
}

fn refused(error: &KernelError) -> Outcome {
    let kind = match error {
        KernelError::Record { .. } => ErrorKind::Invalid,
        KernelError::Full(_) => ErrorKind::Exhausted,
        KernelError::NoObject
        | KernelError::NoBtf
        | KernelError::NoBpffs(_)
        | KernelError::Layout { .. }
        | KernelError::Failed { .. } => ErrorKind::Internal,
    };
    tracing::warn!(%error, "refused");
    failure(kind, error.to_string())
}
