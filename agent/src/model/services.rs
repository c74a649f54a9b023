//! Services: what the source says of them, and what the tables are told.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use sluice_api::{EndpointRecord, PortProtocol};
use sluice_policy::object::PodObject as KnownPod;
use sluice_policy::{Kind, ObjectName, PodName, Severity};
use sluice_service::object::PodObject;
use sluice_service::{Event, HostPort, Index, Place, PortName, ServicePort, Transport, View};
use sluice_topology::serves_node_ports;

use super::pace::Pace;
use super::problems::Problems;
use crate::kernel::{Kernel, KernelError};
use crate::ports::{Claim, Claimed};

/// What services need of the kernel; see [`Kernel`] for what each of these does.
pub trait Balancer {
    fn take_over_services(
        &mut self,
        spreads: bool,
        ports: &mut dyn Iterator<Item = (PortName, Arc<ServicePort>)>,
    ) -> Result<(), KernelError>;
    fn apply_services(&mut self, changes: Vec<(PortName, Option<Arc<ServicePort>>)>) -> Result<(), KernelError>;
    fn service_problems(&self) -> Vec<(PortName, String)>;
}

impl Balancer for Kernel {
    fn take_over_services(
        &mut self,
        spreads: bool,
        ports: &mut dyn Iterator<Item = (PortName, Arc<ServicePort>)>,
    ) -> Result<(), KernelError> {
        self.take_over_services(self.own_addresses(), spreads, ports)
    }

    fn apply_services(&mut self, changes: Vec<(PortName, Option<Arc<ServicePort>>)>) -> Result<(), KernelError> {
        self.apply_services(changes)
    }

    fn service_problems(&self) -> Vec<(PortName, String)> {
        self.service_problems()
    }
}

/// How a pod's manifest says that it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Condition {
    is_ready: bool,
    is_terminating: bool,
}

/// What services are about, and what the kernel was told of it.
pub struct Services {
    index: Index,
    /// Whether endpoints are made of pods here, by their selectors.
    is_standalone: bool,
    /// Whether clients from outside are spread by Maglev tables.
    spreads: bool,
    /// Whether it has been told of all that there is. Until then, tables stay as an earlier agent has left them.
    is_started: bool,
    /// What is yet to be told.
    pending: Vec<Event>,
    /// How pods are that are not simply there.
    conditions: BTreeMap<PodName, Condition>,
    /// The ports of the node that ports of services have, and whether they are others than were told of last.
    node_ports: BTreeMap<PortName, Vec<u16>>,
    node_ports_changed: bool,
    /// Whose host ports are known.
    host_ports: BTreeSet<String>,
    /// The node's own addresses, and whether node ports are served there.
    own_addresses: BTreeMap<IpAddr, bool>,
    /// Why the tables are not what they should be: then all of them are made anew.
    failure: Option<String>,
    /// What is wrong with objects,
    problems: Problems,
    /// how many of these are only warnings,
    warnings: usize,
    /// and the index's version of them.
    problems_version: Option<u64>,
    /// What is wrong with the tables.
    table_problems: Problems,
    /// When to try again what has failed.
    pace: Pace,
}

impl Services {
    /// Nothing is known yet.
    pub fn new(node: &str, is_standalone: bool, spreads: bool) -> Self {
        let (pending, conditions, host_ports, own_addresses, failure) = Default::default();
        let (node_ports, node_ports_changed) = Default::default();
        let (problems, warnings, problems_version, table_problems, pace) = Default::default();
        Self {
            index: Index::new(View { node: node.to_owned(), standalone: is_standalone }),
            is_standalone,
            spreads,
            is_started: false,
            pending,
            conditions,
            node_ports,
            node_ports_changed,
            host_ports,
            own_addresses,
            failure,
            problems,
            warnings,
            problems_version,
            table_problems,
            pace,
        }
    }

    /// All objects.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Takes what is to be told with the next [`work`](Self::work).
    pub fn take_in(&mut self, event: Event) {
        self.pending.push(event);
    }

    /// The source says how a pod is.
    pub fn pod_is(&mut self, pod: &PodObject) {
        if !self.is_standalone {
            return;
        }
        let now = Condition { is_ready: pod.is_ready, is_terminating: pod.is_terminating };
        if now == (Condition { is_ready: true, is_terminating: false }) {
            self.conditions.remove(&pod.pod.name);
        } else {
            self.conditions.insert(pod.pod.name.clone(), now);
        }
    }

    /// A pod is this by now, or is gone.
    pub fn pod(&mut self, name: &PodName, pod: Option<&KnownPod>) {
        if !self.is_standalone {
            return;
        }
        self.pending.push(match pod {
            Some(pod) => {
                let condition = self.conditions.get(name);
                let (is_ready, is_terminating) =
                    condition.map_or((true, false), |condition| (condition.is_ready, condition.is_terminating));
                Event::Pod(Box::new(PodObject { pod: pod.clone(), is_ready, is_terminating }))
            }
            None => {
                self.conditions.remove(name);
                Event::Removed(ObjectName::new(Kind::Pod, &name.namespace, &name.name))
            }
        });
    }

    /// An endpoint has these host ports, whether it is in force already or is about to be.
    pub fn endpoint(&mut self, record: &EndpointRecord) {
        let owner = owner(record);
        if !record.port_mappings.is_empty() && self.host_ports.insert(owner.clone()) {
            self.pending.push(Event::HostPorts(owner, host_ports(record)));
        }
    }

    /// These endpoints are in force, and no others.
    pub fn endpoints<'a>(&mut self, records: impl Iterator<Item = &'a EndpointRecord> + Clone) {
        records.clone().for_each(|record| self.endpoint(record));
        let owners: BTreeSet<String> = records.map(owner).collect();
        for gone in self.host_ports.extract_if(.., |owner| !owners.contains(owner)) {
            self.pending.push(Event::HostPorts(gone, Vec::new()));
        }
    }

    /// The node has these addresses, and serves node ports at them as these nets say.
    pub fn own_addresses(&mut self, own: &[IpAddr], nets: &[IpNet]) {
        // At these its own processes are served.
        let loopbacks = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let all = own.iter().copied().chain(loopbacks);
        let addresses = all.map(|address| (address, serves_node_ports(nets, address))).collect();
        if self.own_addresses != addresses {
            self.pending.push(Event::OwnAddresses(addresses.clone()));
            self.own_addresses = addresses;
        }
    }

    /// What is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.all().iter().chain(self.table_problems.all())
    }

    /// How many of the problems are only warnings: objects that are served as they stand.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether the tables are what they should be, as far as there is room.
    pub fn are_in_force(&self) -> bool {
        self.is_started && self.failure.is_none()
    }

    /// When something is to be done though nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.pace.next()
    }

    /// Takes all that there is, at first, and makes the tables that, whatever they hold.
    pub fn start(&mut self, kernel: &mut impl Balancer) {
        let delta = self.index.apply_all(std::mem::take(&mut self.pending));
        self.note_node_ports(&delta.ports);
        self.is_started = true;
        self.failure = Some("nothing was written yet".into());
        self.write(kernel, Vec::new());
    }

    /// Makes what has been taken in so, and what is due. Whether health checks may have another answer.
    pub fn work(&mut self, kernel: &mut impl Balancer, now: Instant) -> bool {
        if !self.is_started {
            return false;
        }
        let is_retry = self.pace.is_retry_due(now);
        if self.pending.is_empty() && !is_retry {
            return false;
        }
        if is_retry {
            // Until it turns out well.
            self.pace.failed(now);
        }
        let delta = self.index.apply_all(std::mem::take(&mut self.pending));
        self.note_node_ports(&delta.ports);
        if is_retry || self.failure.is_none() {
            self.write(kernel, delta.ports);
        }
        self.review(kernel);
        delta.health
    }

    /// Notes which ports of the node changes are about.
    fn note_node_ports(&mut self, changes: &[(PortName, Option<Arc<ServicePort>>)]) {
        for (name, port) in changes {
            let frontends = port.iter().flat_map(|port| &port.frontends);
            let now: Vec<u16> =
                frontends.filter(|frontend| frontend.at == Place::Node).map(|frontend| frontend.port).collect();
            let before = if now.is_empty() {
                self.node_ports.remove(name)
            } else {
                self.node_ports.insert(name.clone(), now.clone())
            };
            self.node_ports_changed |= before.unwrap_or_default() != now;
        }
    }

    /// The ports of the node that services have, where these are others than at the last call.
    pub fn take_claimed(&mut self) -> Option<Claimed> {
        let of_port = |(name, ports): (&PortName, &Vec<u16>)| {
            let claim = Claim { whose: name.object().to_string(), is_host_port: name.namespace.is_empty() };
            ports.iter().map(|port| ((name.transport, *port), claim.clone())).collect::<Vec<_>>()
        };
        let is_changed = std::mem::take(&mut self.node_ports_changed);
        is_changed.then(|| self.node_ports.iter().flat_map(of_port).collect())
    }

    /// Writes changes; where an earlier one has failed, all tables anew. What fails is a problem then, and tried again.
    fn write(&mut self, kernel: &mut impl Balancer, changes: Vec<(PortName, Option<Arc<ServicePort>>)>) {
        let written = if self.failure.is_none() {
            kernel.apply_services(changes)
        } else {
            let mut ports = self.index.ports().map(|(name, port)| (name.clone(), port.clone()));
            kernel.take_over_services(self.spreads, &mut ports)
        };
        self.failure = written.err().map(|error| error.to_string());
        self.review(kernel);
    }

    /// Tells what is wrong, and sees to it that it is tried again.
    fn review(&mut self, kernel: &impl Balancer) {
        if self.problems_version != Some(self.index.problems_version()) {
            self.problems_version = Some(self.index.problems_version());
            let problems = self.index.problems();
            self.warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
            self.problems.set(problems.iter().map(ToString::to_string).collect());
        }
        let failure = self.failure.iter().map(|error| {
            format!("the kernel's tables are not what services say: {error}; they are made anew soon, as they are, they stay")
        });
        let refused = kernel.service_problems();
        let refused = refused.iter().map(|(name, what)| format!("{}, port {}: {what}", name.object(), name.number));
        self.table_problems.set(failure.chain(refused).collect());
        if self.failure.is_none() {
            self.pace.succeeded();
        } else if self.pace.next().is_none() {
            self.pace.failed(Instant::now());
        }
    }
}

/// By whom host ports are known: what ends with the endpoint, and people know.
fn owner(record: &EndpointRecord) -> String {
    let interface = &record.host_interface;
    match &record.pod {
        Some(pod) => format!("{}/{} ({interface})", pod.namespace, pod.name),
        None => interface.clone(),
    }
}

/// The host ports of an endpoint, for each of its addresses that they may lead to.
fn host_ports(record: &EndpointRecord) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for mapping in &record.port_mappings {
        let leads_to =
            |address: &&std::net::IpAddr| mapping.host_ip.is_none_or(|host_ip| host_ip.is_ipv4() == address.is_ipv4());
        ports.extend(record.addresses.iter().filter(leads_to).map(|address| HostPort {
            host_ip: mapping.host_ip.filter(|host_ip| !host_ip.is_unspecified()),
            port: mapping.host_port,
            transport: match mapping.protocol {
                PortProtocol::Tcp => Transport::Tcp,
                PortProtocol::Udp => Transport::Udp,
                PortProtocol::Sctp => Transport::Sctp,
            },
            backend: SocketAddr::new(*address, mapping.container_port),
        }));
    }
    ports
}
