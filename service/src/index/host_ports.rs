//! Host ports of pods of this node.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sluice_policy::object::Note;
use sluice_policy::{Kind, ObjectName, Severity, Transport};

use crate::object::family_of;
use crate::tables::{Backend, Choice, Frontend, FrontendKind, Place, PortName, ServicePort};

/// A host port of a pod of this node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// At which address of the host; `None`, or unspecified: at all that are of the backend's family.
    pub host_ip: Option<IpAddr>,
    /// At which port there.
    pub port: u16,
    /// Its protocol.
    pub transport: Transport,
    /// Where the pod listens.
    pub backend: SocketAddr,
}

/// Somebody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPorts {
    /// When it came, among others.
    pub arrival: u64,
    /// What it has.
    pub ports: BTreeMap<PortName, HostPort>,
}

impl HostPorts {
    /// Takes what somebody wants; with what is left out of it.
    pub fn of(who: &Arc<str>, arrival: u64, wanted: Vec<HostPort>) -> (Self, Vec<Note>) {
        let mut notes = Vec::new();
        let mut leave_out = |port: &HostPort, what: &str| {
            let field = format!("hostPort {}/{}", port.port, port.transport.name());
            notes.push(Note { severity: Severity::Error, field, what: format!("{what}; it is left out") });
        };
        let mut ports = BTreeMap::new();
        for port in wanted {
            let host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
            let family = family_of(port.backend.ip());
            if host_ip.is_some_and(|ip| family_of(ip) != family) {
                leave_out(&port, "its hostIP is of another family than the pod's address");
                continue;
            }
            let name = PortName {
                namespace: Arc::default(),
                name: who.clone(),
                port: host_ip.map(|ip| ip.to_string()).unwrap_or_default().into(),
                number: port.port,
                transport: port.transport,
                family,
            };
            match ports.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(HostPort { host_ip, ..port });
                }
                Entry::Occupied(_) => leave_out(&port, "the pod has it already"),
            }
        }
        (Self { arrival, ports }, notes)
    }
}

impl HostPort {
    /// Where it is asked for.
    pub fn frontend(&self) -> Frontend {
        let at = self.host_ip.map_or(Place::Node, Place::Address);
        Frontend { at, port: self.port, kind: FrontendKind::HostPort }
    }

    /// What becomes of it where it has won these frontends.
    pub fn service_port(&self, frontends: Vec<Frontend>) -> ServicePort {
        let everybody = Choice::Among([0].into());
        ServicePort {
            frontends,
            backends: vec![Backend { address: self.backend.ip(), port: self.backend.port(), is_local: true }],
            inside: everybody.clone(),
            inside_external: everybody.clone(),
            outside: everybody,
            affinity: None,
            source_ranges: Vec::new(),
        }
    }
}

/// Somebody who has host ports, among the names of all objects: a pod, as far as that is known.
pub fn object(who: &str) -> ObjectName {
    let (namespace, name) = who.split_once('/').unwrap_or(("", who));
    ObjectName::new(Kind::Pod, namespace, name)
}
