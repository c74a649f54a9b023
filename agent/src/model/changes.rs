//! What the source says, and whom it concerns.

use std::time::Instant;

use sluice_policy::object::NodeObject as PolicyNode;
use sluice_policy::{Event, Kind, ObjectName, PodName};
use sluice_service::Event as ServiceEvent;
use sluice_service::object::{NodeObject as ServiceNode, ZONE};
use sluice_topology::NodeObject;
use sluice_topology::PodPlace;

use super::Model;
use super::policies::place;
use crate::source::{Change, Object};

impl Model {
    /// Takes what the source says, which came in some time ago: at first all there is, part by part, then changes.
    pub(super) fn change(&mut self, changes: Vec<Change>, since: Instant) {
        let is_complete = changes.contains(&Change::Listed);
        // Before, the source may say at most why not all is listed yet.
        let is_waited_for = |change: &Change| matches!(change, Change::Listed | Change::Problems(_));
        let mut moves = !self.is_listed && changes.iter().any(is_waited_for);
        let mut events = Vec::new();
        for change in changes {
            let (event, moved) = self.take_in(change);
            moves |= self.is_listed && (moved || event.as_ref().is_some_and(|event| self.moves_strays(event)));
            events.extend(event);
        }
        if self.is_listed {
            if let Some(written) = self.policies.change(&mut self.kernel, events) {
                self.changes.took(written - since);
            }
        } else if is_complete {
            self.is_listed = true;
            self.policies.start(&mut self.kernel, events);
            self.tell_services();
            self.services.start(&mut self.kernel);
        } else {
            self.policies.learn(events);
        }
        if moves {
            self.apply();
        }
        if self.is_listed {
            let own = self.nodes.get(&self.config.node_name);
            self.health.set_eligible(own.is_some_and(|node| !node.is_leaving));
        }
    }

    /// What policies are to be told of a change, and whether it concerns the ways between nodes.
    fn take_in(&mut self, change: Change) -> (Option<Event>, bool) {
        match change {
            Change::Is(Object::Node(node, ways)) => {
                let moved = self.nodes.get(&ways.name) != Some(&ways);
                self.services.take_in(ServiceEvent::Node(node_of_services(&node, &ways)));
                self.nodes.insert(ways.name.clone(), ways);
                (Some(Event::Node(node)), moved)
            }
            Change::Is(Object::Pod(pod)) => {
                self.services.pod_is(&pod);
                (self.policies.pod_is(pod.pod), false)
            }
            Change::Is(Object::Namespace(namespace)) => (Some(Event::Namespace(namespace)), false),
            Change::Is(Object::Policy(policy)) => (Some(Event::Policy(policy)), false),
            Change::Is(Object::Service(service)) => self.serve_event(ServiceEvent::Service(service)),
            Change::Is(Object::Slice(slice)) => self.serve_event(ServiceEvent::Slice(slice)),
            Change::Gone(object, uid) => match object.kind {
                Kind::Pod => {
                    let name = PodName::new(&object.namespace, &object.name);
                    (self.policies.pod_is_gone(&name, &uid), false)
                }
                Kind::Node => {
                    self.services.take_in(ServiceEvent::Removed(object.clone()));
                    let moved = self.nodes.remove(&object.name).is_some();
                    (Some(Event::Removed(object)), moved)
                }
                Kind::Namespace | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                    (Some(Event::Removed(object)), false)
                }
                Kind::Service | Kind::EndpointSlice => self.serve_event(ServiceEvent::Removed(object)),
            },
            Change::Wrong(error) => match error.object.kind {
                Kind::Service | Kind::EndpointSlice => self.serve_event(ServiceEvent::Invalid(error)),
                Kind::Namespace | Kind::Pod | Kind::Node | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
                    (Some(Event::Invalid(error)), false)
                }
            },
            Change::Problems(problems) => {
                self.source_problems.set(problems);
                (None, false)
            }
            Change::Notes(notes) => {
                self.notes = notes;
                (None, false)
            }
            Change::Listed => (None, false),
        }
    }

    /// Has services told of an event, which is none to policies.
    fn serve_event(&mut self, event: ServiceEvent) -> (Option<Event>, bool) {
        self.services.take_in(event);
        (None, false)
    }

    /// Whether an event changes where addresses are that are outside their nodes' pod CIDRs. Those of this node have their
    /// endpoints.
    fn moves_strays(&self, event: &Event) -> bool {
        let (name, after) = match event {
            Event::Pod(pod) => (pod.name.clone(), place(pod)),
            Event::Removed(ObjectName { kind: Kind::Pod, namespace, name }) => (PodName::new(namespace, name), None),
            Event::Removed(_) | Event::Namespace(_) | Event::Node(_) | Event::Policy(_) | Event::Invalid(_) => {
                return false;
            }
        };
        let before = self.policies.index().pod(&name).and_then(place);
        let strays = |place: PodPlace<'_>| {
            let node = self.nodes.get(place.node);
            place.node != self.config.node_name && node.is_none_or(|node| node.strays(place.addresses).next().is_some())
        };
        before != after && [before, after].into_iter().flatten().any(strays)
    }
}

/// What of a node matters to services.
fn node_of_services(node: &PolicyNode, ways: &NodeObject) -> ServiceNode {
    let zone = node.labels.get(ZONE).filter(|zone| !zone.is_empty());
    ServiceNode { name: ways.name.clone(), zone: zone.map(str::to_owned), addresses: ways.addresses.clone() }
}
