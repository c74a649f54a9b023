//! Objects in, changes of the tables out: work is proportional to the change.
//!
//! An event is taken in, which says what follows from it must be looked at anew; then that is, once for all events of a
//! change. What follows from a port costs as much as it has endpoints. Other ports of a Service, and other Services, are
//! only looked at where they lose or win a frontend.

pub(crate) mod endpoints;
mod frontends;
pub(crate) mod host_ports;
mod pods;
mod problems;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service as ServiceApi};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sluice_policy::{Kind, Labels, ObjectError, ObjectName, PodName, Problem};

use crate::object::{NodeObject, PodObject, ServiceObject, SliceName, SliceObject};
use crate::tables::{Health, PortName, ServiceName, ServicePort};
use endpoints::{Claims, Endpoints, KnownZones, SliceId};
use frontends::Frontends;
pub use host_ports::HostPort;
use host_ports::HostPorts;
use pods::{Pods, selects};
use problems::Problems;

/// Seen from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The node that it is for.
    pub node: String,
    /// Nobody makes EndpointSlices here: a Service that none names has the pods that its selector selects.
    pub standalone: bool,
}

/// Something is no longer as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A Service is new, or has changed.
    Service(Box<ServiceObject>),
    /// An EndpointSlice is new, or has changed.
    Slice(SliceObject),
    /// A Node is new, or has changed.
    Node(NodeObject),
    /// A Pod is new, or has changed. They matter in a standalone [`View`] only.
    Pod(Box<PodObject>),
    /// Somebody, by any name, has these host ports now and no others; of none, it is gone.
    HostPorts(String, Vec<HostPort>),
    /// This node has these addresses, and serves node ports there or not; host ports, at all of them.
    OwnAddresses(BTreeMap<IpAddr, bool>),
    /// An object is new or has changed, but makes no sense: what was known of it still holds.
    Invalid(ObjectError),
    /// An object is gone.
    Removed(ObjectName),
}

macro_rules! events {
    ($($object:ty => $event:expr);* $(;)?) => {$(
        impl From<&$object> for Event {
            fn from(object: &$object) -> Self {
                object.try_into().map_or_else(Self::Invalid, $event)
            }
        }
    )*};
}

events! {
    ServiceApi => |service| Self::Service(Box::new(service));
    EndpointSlice => Self::Slice;
    Node => Self::Node;
    Pod => |pod| Self::Pod(Box::new(pod));
}

/// What is no longer as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// Those ports that have changed, and are now so; `None`: gone. Sorted by name. To be written as one change: a frontend
    /// may be taken from one and given to another.
    pub ports: Vec<(PortName, Option<Arc<ServicePort>>)>,
    /// Whether [health](Index::health) has changed.
    pub health: bool,
}

/// All objects, and what follows from them.
#[derive(Debug)]
pub struct Index {
    view: View,
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<SliceName, Slice>,
    last_slice: SliceId,
    zones: KnownZones,
    node: Option<NodeObject>,
    pods: Pods,
    host_ports: BTreeMap<Arc<str>, HostPorts>,
    arrivals: u64,
    frontends: Frontends,
    ports: BTreeMap<PortName, Arc<ServicePort>>,
    health: BTreeMap<ServiceName, Health>,
    problems: Problems,
    compiled: u64,
}

/// A Service, or slices that wait for theirs.
#[derive(Debug, Default)]
struct Service {
    object: Option<Box<ServiceObject>>,
    endpoints: Endpoints,
    /// How many slices name it.
    slices: usize,
}

/// A slice that names a Service.
#[derive(Debug)]
struct Slice {
    id: SliceId,
    service: ServiceName,
}

/// What must be looked at anew.
#[derive(Debug, Default)]
struct Work {
    /// Services whose objects are others: as they were.
    services: BTreeMap<ServiceName, Option<Box<ServiceObject>>>,
    /// The same of host ports.
    host_ports: BTreeMap<Arc<str>, Option<HostPorts>>,
    /// Services whose slices claim something else.
    claims: BTreeMap<ServiceName, Claims>,
    /// Services all of whose ports may have other endpoints.
    endpoints: BTreeSet<ServiceName>,
}

impl Index {
    /// Without any objects.
    pub fn new(view: View) -> Self {
        Self {
            view,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            last_slice: SliceId(0),
            zones: KnownZones::default(),
            node: None,
            pods: Pods::default(),
            host_ports: BTreeMap::new(),
            arrivals: 0,
            frontends: Frontends::default(),
            ports: BTreeMap::new(),
            health: BTreeMap::new(),
            problems: Problems::default(),
            compiled: 0,
        }
    }

    /// Applies an event.
    pub fn apply(&mut self, event: Event) -> Delta {
        self.apply_all([event])
    }

    /// Applies several events as one change: an endpoint that one slice loses to another is never gone.
    pub fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) -> Delta {
        let mut work = Work::default();
        for event in events {
            self.take_in(event, &mut work);
        }
        self.settle(work)
    }

    /// All ports, sorted by name.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = (&PortName, &Arc<ServicePort>)> {
        self.ports.iter()
    }

    /// A port.
    pub fn port(&self, name: &PortName) -> Option<&Arc<ServicePort>> {
        self.ports.get(name)
    }

    /// What load balancers are told that ask, sorted by Service.
    pub fn health(&self) -> impl ExactSizeIterator<Item = &Health> {
        self.health.values()
    }

    /// All that is wrong with objects.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = self.problems.iter().cloned().chain(self.frontends.problems()).collect();
        problems.sort();
        // A port of two families may lose both its places to one.
        problems.dedup();
        problems
    }

    /// Another number whenever there may be other [problems](Self::problems): to ask for them after each change would cost
    /// more than most changes.
    pub fn problems_version(&self) -> u64 {
        self.problems.version()
    }

    /// How often a port was looked at anew: what all changes so far have cost.
    pub fn compiled(&self) -> u64 {
        self.compiled
    }

    fn take_in(&mut self, event: Event, work: &mut Work) {
        match event {
            Event::Service(service) => self.set_service(service.name.clone(), Some(service), work),
            Event::Slice(slice) => self.set_slice(slice.name.clone(), Some(slice), work),
            Event::Node(node) if node.name == self.view.node => self.set_node(Some(node), work),
            // Others matter only as names.
            Event::Node(_) => {}
            Event::Pod(pod) => self.set_pod(pod.pod.name.clone(), Some(*pod), work),
            Event::HostPorts(who, ports) => self.set_host_ports(who.into(), ports, work),
            Event::OwnAddresses(addresses) => {
                if self.frontends.own(addresses) {
                    self.problems.change();
                }
            }
            Event::Invalid(error) => self.problems.refuse(error),
            Event::Removed(ObjectName { kind, namespace, name }) => match kind {
                Kind::Service => self.set_service(ServiceName::new(&namespace, &name), None, work),
                Kind::EndpointSlice => {
                    let name = SliceName { namespace: namespace.into(), name: name.into() };
                    self.set_slice(name, None, work);
                }
                Kind::Node if name == self.view.node => self.set_node(None, work),
                Kind::Pod => self.set_pod(PodName { namespace, name }, None, work),
                Kind::Node | Kind::Namespace | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {}
            },
        }
    }

    fn set_service(&mut self, name: ServiceName, mut object: Option<Box<ServiceObject>>, work: &mut Work) {
        let notes = object.as_mut().map(|object| std::mem::take(&mut object.notes)).unwrap_or_default();
        self.problems.note(name.object(), notes);
        if object.is_none() && !self.services.contains_key(&name) {
            return;
        }
        if let Some(object) = object.as_mut().filter(|_| !self.view.standalone) {
            object.selector = Labels::default();
        }
        let service = self.services.entry(name.clone()).or_default();
        if service.object != object {
            let before = std::mem::replace(&mut service.object, object);
            work.services.entry(name).or_insert(before);
        }
    }

    fn set_slice(&mut self, name: SliceName, mut object: Option<SliceObject>, work: &mut Work) {
        let notes = object.as_mut().map(|object| std::mem::take(&mut object.notes)).unwrap_or_default();
        self.problems.note(name.object(), notes);
        let named = object.and_then(|object| Some((object.service.clone()?, object)));
        let before = self.slices.remove(&name);
        let is_same = |slice: &Slice| named.as_ref().is_some_and(|(service, _)| *service == slice.service);
        let kept = match before {
            Some(slice) if is_same(&slice) => Some(slice),
            Some(Slice { id, service }) => {
                work.claims.entry(service.clone()).or_default().insert(id, Vec::new());
                self.count_slices(&service, |count| count - 1, work);
                None
            }
            None => None,
        };
        let Some((service, object)) = named else { return };
        let slice = kept.unwrap_or_else(|| {
            self.last_slice.0 += 1;
            self.count_slices(&service, |count| count + 1, work);
            Slice { id: self.last_slice, service: service.clone() }
        });
        let claims = endpoints::claims(object, slice.id, &self.view.node, &mut self.zones);
        work.claims.entry(service).or_default().insert(slice.id, claims);
        self.slices.insert(name, slice);
    }

    /// One more slice names a Service, or one less.
    fn count_slices(&mut self, name: &ServiceName, count: impl Fn(usize) -> usize, work: &mut Work) {
        let service = self.services.entry(name.clone()).or_default();
        let before = service.slices;
        service.slices = count(before);
        if (before == 0) != (service.slices == 0) {
            work.endpoints.insert(name.clone());
        }
    }

    fn set_node(&mut self, node: Option<NodeObject>, work: &mut Work) {
        if self.node != node {
            self.node = node;
            work.endpoints.extend(self.services.keys().cloned());
        }
    }

    fn set_pod(&mut self, name: PodName, pod: Option<PodObject>, work: &mut Work) {
        if !self.view.standalone {
            return;
        }
        let before = self.pods.set(name.clone(), pod.clone());
        if before == pod {
            return;
        }
        let namespace = ServiceName::new(&name.namespace, "");
        let services =
            self.services.range(namespace..).take_while(|(service, _)| *service.namespace == *name.namespace);
        let selects_either = |service: &ServiceObject| {
            let mut pods = before.iter().chain(&pod);
            pods.any(|pod| selects(&service.selector, &pod.pod.labels))
        };
        let concerned = services.filter(|(_, service)| service.object.as_deref().is_some_and(selects_either));
        work.endpoints.extend(concerned.map(|(name, _)| name.clone()));
    }

    fn set_host_ports(&mut self, who: Arc<str>, ports: Vec<HostPort>, work: &mut Work) {
        let before = self.host_ports.remove(&who);
        let arrival = before.as_ref().map_or(self.arrivals + 1, |before| before.arrival);
        self.arrivals = self.arrivals.max(arrival);
        let (now, notes) = HostPorts::of(&who, arrival, ports);
        self.problems.note(host_ports::object(&who), notes);
        if before.as_ref() != Some(&now) {
            work.host_ports.entry(who.clone()).or_insert(before);
        }
        if !now.ports.is_empty() {
            self.host_ports.insert(who, now);
        }
    }
}
