//! What follows from the objects.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::index::host_ports;
use ipnet::IpNet;
use sluice_policy::{Family, Kind, ObjectName, Transport};

/// Names a Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

impl ServiceName {
    /// Names a Service.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The same among the names of all objects.
    pub fn object(&self) -> ObjectName {
        ObjectName::new(Kind::Service, &self.namespace, &self.name)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Names a port of a Service, for one family: where a Service has both, they are two.
///
/// A host port is named by whose it is, without a namespace, and by the host's address where it is at only one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortName {
    /// The Service's namespace; empty: a host port.
    pub namespace: Arc<str>,
    /// The Service's name.
    pub name: Arc<str>,
    /// The port's name; empty: it has none.
    pub port: Arc<str>,
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub transport: Transport,
    /// Its family.
    pub family: Family,
}

impl PortName {
    /// The Service that it is a port of.
    pub fn service(&self) -> ServiceName {
        ServiceName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Whose it is, among the names of all objects.
    pub fn object(&self) -> ObjectName {
        if self.namespace.is_empty() { host_ports::object(&self.name) } else { self.service().object() }
    }
}

/// A port of a Service, of one family: who is asked for it, and who answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Where it is asked for: what it has won of what it claims. Sorted.
    pub frontends: Vec<Frontend>,
    /// All endpoints that may serve somebody somewhere: those that are ready, or serve while they terminate. Sorted, each
    /// address and port once.
    pub backends: Vec<Backend>,
    /// For whoever asks the cluster IP; of a host port, for clients of this node.
    pub inside: Choice,
    /// For clients of this node, its pods and its own processes, that ask any other frontend: as if they had gone out to a
    /// load balancer and come back. Differs from `inside` only where `internalTrafficPolicy` is `Local`.
    pub inside_external: Choice,
    /// For everybody else who asks any other frontend.
    pub outside: Choice,
    /// For how many seconds a client keeps its backend; `None`: no longer than a connection lasts.
    pub affinity: Option<u32>,
    /// Who may ask load balancer frontends; empty: everybody. Nobody else's packets are answered.
    pub source_ranges: Vec<IpNet>,
}

/// Where a port is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frontend {
    /// At which address.
    pub at: Place,
    /// At which port there.
    pub port: u16,
    /// Why.
    pub kind: FrontendKind,
}

/// At which address a port is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// At this one. It counts more than [`Node`](Self::Node), where it is this node's.
    Address(IpAddr),
    /// At any address of this node, of the port's family.
    Node,
}

/// Why a port is asked for somewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FrontendKind {
    /// It is the Service's cluster IP.
    ClusterIp,
    /// A load balancer leaves the address as it is (`ipMode: VIP`).
    LoadBalancer,
    /// It is one of the Service's external IPs.
    ExternalIp,
    /// It is the Service's node port.
    NodePort,
    /// It is a pod's host port.
    HostPort,
}

/// An endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub is_local: bool,
}

/// What becomes of whoever asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// One of these backends answers, by their indices: sorted, never none.
    Among(Arc<[u32]>),
    /// They are told that nobody is there: there is no endpoint at all.
    Reject,
    /// They are not answered: only endpoints of this node may, and they are all elsewhere.
    Drop,
}

/// What a load balancer is told that asks a node whether to send it a Service's traffic (`healthCheckNodePort`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Which Service.
    pub service: ServiceName,
    /// On which port of the node it asks.
    pub port: u16,
    /// How many endpoints on this node are ready: of none, the node is to be passed over.
    pub local_endpoints: usize,
}
