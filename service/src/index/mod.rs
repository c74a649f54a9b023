//! Objects in, changes of the tables out: work is proportional to the change.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sluice_policy::{Problem, Transport};

use crate::tables::{Health, PortName, ServicePort};

/// Seen from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The node that it is for.
    pub node: String,
    /// Nobody makes EndpointSlices here: a Service that none names has the pods that its selector selects.
    pub standalone: bool,
}

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

/// Something is no longer as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Somebody, by any name, has these host ports now and no others; of none, it is gone.
    HostPorts(String, Vec<HostPort>),
}

/// What is no longer as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// Those ports that have changed, and are now so; `None`: gone.
    pub ports: Vec<(PortName, Option<Arc<ServicePort>>)>,
    /// Whether [health](Index::health) has changed.
    pub health: bool,
}

/// All objects, and what follows from them.
#[derive(Debug)]
pub struct Index {
    view: View,
}

impl Index {
    /// Without any objects.
    pub fn new(view: View) -> Self {
        Self { view }
    }

    /// Applies several events as one change.
    pub fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) -> Delta {
        let _ = (&self.view, events.into_iter());
        Delta::default()
    }

    /// All ports, sorted by name.
    pub fn ports(&self) -> impl Iterator<Item = (&PortName, &Arc<ServicePort>)> {
        std::iter::empty()
    }

    /// What load balancers are told that ask, sorted by Service.
    pub fn health(&self) -> impl Iterator<Item = Health> {
        std::iter::empty()
    }

    /// All that is wrong with objects.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Another number whenever there may be other [problems](Self::problems).
    pub fn problems_version(&self) -> u64 {
        0
    }
}
