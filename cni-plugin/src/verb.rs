//! The verbs of the specification.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use sluice_api::{Answer, Call, Client, EndpointRecord, PortMapping, Records, SOCKET};

use crate::arguments::{Arguments, Verb};
use crate::config::NetworkConfig;
use crate::error::{CniError, Code, all};
use crate::handover::Handover;
use crate::ipam::{Given, Ipam};
use crate::log;
use crate::name::{container_mac, host_interface, mac_text};
use crate::output::{AddResult, Previous, Version};
use crate::wire::{self, GATEWAY_MAC, Pair};

/// How long the agent may take for an answer. Runtimes give a plugin minutes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take where its answer is not needed.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to say how it is: it says so while it is busy, too.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for an agent that gives way to another.
const PACE: Duration = Duration::from_millis(100);

/// Does what is asked, and prints what is to be told. What is not told has not happened: an ADD is undone.
///
/// # Errors
/// Where it cannot be done or told.
pub fn run(arguments: &Arguments, input: &[u8], print: impl FnOnce(&str) -> io::Result<()>) -> Result<(), CniError> {
    let tell = |text: &str| print(text).map_err(|error| CniError::io("writing the result to standard output", error));
    let act: Act = match arguments.verb {
        Verb::Version => return tell(&Version::answer()),
        Verb::Add => |call| call.add().map(Some),
        Verb::Del => |call| call.clear().map(|()| None),
        Verb::Check => |call| call.check().map(|()| None),
        Verb::Gc => |call| call.gc().map(|()| None),
        Verb::Status => |call| call.status().map(|()| None),
    };
    let (config, version) = NetworkConfig::parse(input)?;
    version.has(arguments.verb)?;
    let call = PluginCall { arguments, input, config: &config };
    let result = act(&call).and_then(|result| match result {
        Some(added) => tell(&added.to_json(version)).inspect_err(|error| call.undo(&error.message)),
        None => Ok(()),
    });
    let outcome = match &result {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("failed, code {}: {error}", error.code),
    };
    call.log(&outcome);
    result
}

/// What a verb does; ADD has a result.
type Act = fn(&PluginCall<'_>) -> Result<Option<AddResult>, CniError>;

/// A call of the plugin.
struct PluginCall<'a> {
    arguments: &'a Arguments,
    input: &'a [u8],
    config: &'a NetworkConfig,
}

impl PluginCall<'_> {
    fn host(&self) -> String {
        host_interface(&self.arguments.container_id, &self.arguments.interface)
    }

    fn agent(&self, patience: Duration) -> Result<Client, CniError> {
        Ok(Client::connect(&self.config.run_dir.join(SOCKET), patience)?)
    }

    fn records(&self) -> Records {
        Records::below(&self.config.run_dir)
    }

    fn log(&self, text: &str) {
        log::line(self.config.log_file.as_deref(), &format!("{}: {text}", self.arguments.described()));
    }

    fn ipam(&self) -> Ipam<'_> {
        Ipam::of(self.config, self.input)
    }

    fn add(&self) -> Result<AddResult, CniError> {
        if self.config.prev_result.is_some() {
            let message = "sluice makes the interface and must be the first plugin of its chain";
            return Err(CniError::new(Code::InvalidConfiguration, message));
        }
        let ports = self.config.port_mappings()?;
        let netns = self.arguments.netns.clone().unwrap_or_default();
        let namespace = wire::open_namespace(&netns)?;
        // Asked first: without it nothing is to be left behind.
        let agent = self.agent(PATIENCE)?;
        let host = self.host();
        if nix::net::if_::if_nametoindex(host.as_str()).is_ok() {
            let (id, name) = (&self.arguments.container_id, &self.arguments.interface);
            let message =
                format!("{name} of {id} is wired already (its host side is {host}); DEL comes before another ADD");
            return Err(CniError::new(Code::Exists, message));
        }
        // What an ADD that was killed has left. Where that does not go, this one may still succeed.
        if self.records().read(&host).map_or(true, |record| record.is_some()) {
            self.undo("an ADD that was killed");
        }
        self.wire(agent, &host, &netns, &namespace, ports).inspect_err(|error| self.undo(&error.message))
    }

    /// Clears up after something that is told already, or that nobody waits for.
    fn undo(&self, after: &str) {
        if let Err(error) = self.clear() {
            self.log(&format!("undoing after {after}: {error}"));
        }
    }

    fn wire(
        &self,
        mut agent: Client,
        host: &str,
        netns: &std::path::Path,
        namespace: &std::fs::File,
        port_mappings: Vec<PortMapping>,
    ) -> Result<AddResult, CniError> {
        let Given { addresses, routes, dns, settling } = self.ipam().take(self.arguments)?;
        let container = self.arguments.interface.as_str();
        let mac = container_mac(&self.arguments.container_id, container);
        let record = EndpointRecord {
            container_id: self.arguments.container_id.clone(),
            interface: container.into(),
            netns: netns.into(),
            host_interface: host.into(),
            mac: mac_text(mac),
            addresses: addresses.clone(),
            network: self.config.name.clone(),
            pod: self.arguments.pod(),
            port_mappings,
            ipam: self.ipam().source(),
        };
        self.records().write(&record)?;
        let mtu = self.config.mtu();
        let pair = Pair { host, container, mac, addresses: &addresses, routes: &routes, mtu };
        let mut wired = pair.wire(namespace, netns)?;
        // While the agent works, the container's side is set up and the disk keeps the addresses.
        agent.send(Call::Enforce(record))?;
        wired.set_up_container()?;
        agent.answer()?;
        if let Some(settling) = settling {
            settling.wait()?;
        }
        wired.open()?;
        Ok(AddResult {
            host: (host.into(), mac_text(GATEWAY_MAC)),
            container: (container.into(), mac_text(mac)),
            netns: netns.display().to_string(),
            mtu,
            addresses,
            routes,
            dns: self.config.dns().or(dns),
        })
    }

    /// Removes all that there is of a container's interface. Each step finds its work done without complaint.
    fn clear(&self) -> Result<(), CniError> {
        let host = self.host();
        let record = self.records().read(&host);
        let mut agent = match &record {
            Ok(None) => None,
            Ok(Some(_)) | Err(_) => self.agent(SHORT_PATIENCE).ok(),
        };
        self.end(&host, &mut agent)?;
        self.ipam().give_back(self.arguments, record.ok().flatten().as_ref())?;
        Ok(self.records().remove(&host)?)
    }

    /// Ends a pair. The agent need not be there: it notices by itself, only later. Where it is, it takes its programs off
    /// first, which is quicker than to let the kernel do it. One that fails is not asked again: its next answer would be late,
    /// and to this.
    fn end(&self, host: &str, agent: &mut Option<Client>) -> Result<(), CniError> {
        if let Some(client) = agent {
            wire::close(host);
            if client.call(Call::Release { host_interface: host.to_owned() }).is_err() {
                *agent = None;
            }
        }
        Ok(wire::unwire(host)?)
    }

    fn check(&self) -> Result<(), CniError> {
        let previous = self.config.prev_result.clone().ok_or_else(|| {
            CniError::new(Code::InvalidConfiguration, "CHECK needs prevResult, the result of ADD, in the configuration")
        })?;
        let previous: Previous = serde_json::from_value(previous)
            .map_err(|error| CniError::new(Code::Decoding, format!("prevResult is not a result: {error}")))?;
        let netns = self.arguments.netns.clone().unwrap_or_default();
        let namespace = wire::open_namespace(&netns)?;
        let container = self.arguments.interface.as_str();
        let ours = previous
            .interfaces
            .iter()
            .position(|interface| interface.name == container && !interface.sandbox.is_empty());
        let Some(ours) = ours else {
            return Err(CniError::new(
                Code::Damaged,
                format!("prevResult names no interface {container} of the container"),
            ));
        };
        let mac = container_mac(&self.arguments.container_id, container);
        if previous.interfaces[ours].mac != mac_text(mac) {
            return Err(CniError::new(
                Code::Damaged,
                "the link-layer address in prevResult is not the one that ADD gave",
            ));
        }
        let told: Vec<IpAddr> =
            previous.ips.iter().filter(|ip| ip.interface == Some(ours)).map(|ip| ip.address.addr()).collect();
        let host = self.host();
        let record = self.records().read(&host)?.ok_or_else(|| {
            CniError::new(
                Code::Damaged,
                format!("the endpoint record of {host} is gone; delete the pod and let it come again"),
            )
        })?;
        // Plugins behind this one may have added others, and taken routes away.
        let addresses = &record.addresses[..];
        if let Some(missing) = addresses.iter().find(|address| !told.contains(address)) {
            return Err(CniError::new(
                Code::Damaged,
                format!("prevResult lacks the address {missing}, which ADD gave"),
            ));
        }
        let ports = |mappings: &[PortMapping]| mappings.iter().cloned().collect::<BTreeSet<_>>();
        if ports(&record.port_mappings) != ports(&self.config.port_mappings()?) {
            return Err(CniError::new(
                Code::Damaged,
                format!("{host} has other port mappings than these; delete the pod and let it come again"),
            ));
        }
        let ours = previous.routes.iter().filter(|route| route.gw == Some(wire::gateway(route.dst.addr())));
        let routes: Vec<IpNet> = ours.map(|route| route.dst).collect();
        Pair { host: &host, container, mac, addresses, routes: &routes, mtu: 0 }.check(&namespace, &netns)?;
        self.ipam().check(self.arguments, addresses)?;
        let Answer::Endpoints(endpoints) = self.agent(PATIENCE)?.call(Call::Endpoints {})? else {
            return Err(CniError::new(Code::Decoding, "the agent answered something else than its endpoints"));
        };
        if endpoints.iter().any(|endpoint| endpoint.record.host_interface == host) {
            Ok(())
        } else {
            Err(CniError::new(
                Code::Damaged,
                format!("the agent does not know {host}; delete the pod and let it come again"),
            ))
        }
    }

    fn gc(&self) -> Result<(), CniError> {
        let valid = self.config.valid_attachments()?;
        let stays = |record: &EndpointRecord| {
            record.network != self.config.name
                || valid.iter().any(|attachment| {
                    attachment.container_id == record.container_id && attachment.interface == record.interface
                })
        };
        let mut agent = self.agent(SHORT_PATIENCE).ok();
        let records = self.records();
        let listed = records.list().and_then(|mut listed| {
            listed.extend(records.list_unfinished()?);
            Ok(listed)
        });
        let (listed, listing) = match listed {
            Ok(listed) => (listed, Ok(())),
            Err(error) => (Vec::new(), Err(error.into())),
        };
        // A damaged one names nobody: it is DEL's, by its name.
        let gone = listed.into_iter().flatten().filter(|record| !stays(record));
        let ended = all(gone.map(|record| {
            self.end(&record.host_interface, &mut agent)?;
            self.ipam().give_back_recorded(&record, self.arguments)?;
            Ok(records.remove(&record.host_interface)?)
        }));
        all([listing, ended, self.ipam().collect(self.arguments, valid)])
    }

    fn status(&self) -> Result<(), CniError> {
        let unavailable = |message: String| CniError::new(Code::Unavailable, message);
        let handover = Handover::at(&self.config.run_dir);
        let mut patience = STATUS_PATIENCE;
        // Never so little that a ready agent could not answer.
        while let Err(why) = self.is_served(patience.max(PACE)) {
            patience = handover.left();
            if patience.is_zero() {
                return Err(unavailable(why));
            }
            thread::sleep(PACE);
        }
        handover.is_over();
        self.ipam().ready(self.arguments).map_err(|error| unavailable(error.message))
    }

    /// Whether there is an agent that takes pods, or why not.
    fn is_served(&self, patience: Duration) -> Result<(), String> {
        let answer = self.agent(patience).and_then(|mut agent| Ok(agent.call(Call::Status {})?));
        match answer.map_err(|error| error.message)? {
            Answer::Status(status) if status.ready => Ok(()),
            Answer::Status(status) => {
                let what = status.waiting_for.unwrap_or_else(|| "it does not say for what".into());
                Err(format!("the agent is not ready; it waits for: {what}"))
            }
            _ => Err("the agent answered something else than its status".into()),
        }
    }
}
