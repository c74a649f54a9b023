//! What matters of an index to some questions.

use std::collections::{BTreeMap, BTreeSet};

use super::policies::VersionId;
use super::{Event, Index, Limits, View};
use crate::evaluator::Party;
use crate::name::PodName;
use crate::object::PodObject;

impl Index {
    /// An index for everything about some parties: of pods only they are in it, of policies those that select one of them.
    /// Questions about them have the same answers there, whatever the view of this one, for a small part of the work.
    pub fn excerpt<'a>(&self, ends: impl IntoIterator<Item = &'a Party>) -> Self {
        let named = ends.into_iter().filter_map(|end| match end {
            Party::Pod(name) => self.pod(name),
            Party::Address(address) => self.pod_at(*address),
        });
        let mut pods: BTreeMap<&PodName, &PodObject> = named.map(|pod| (&pod.name, pod)).collect();
        // The addresses of one that has ended may be another's by now.
        let at_theirs = pods.values().flat_map(|pod| &pod.addresses).filter_map(|address| self.pod_at(*address));
        pods.extend(at_theirs.map(|pod| (&pod.name, pod)).collect::<Vec<_>>());
        let homes: BTreeSet<&String> = pods.keys().map(|name| &name.namespace).collect();
        let namespaces = homes.into_iter().filter_map(|name| self.population.namespace(name));
        let policies: BTreeSet<VersionId> = pods.values().flat_map(|pod| self.selecting(pod)).collect();
        let policies = policies.into_iter().filter_map(|version| self.policies.object(version));
        // Host-network pods say which addresses their nodes have.
        let on_nodes = self.pods().filter(|pod| pod.host_network);
        let events = namespaces
            .map(|namespace| Event::Namespace(namespace.object.clone()))
            .chain(self.nodes().cloned().map(Event::Node))
            .chain(pods.values().copied().chain(on_nodes).cloned().map(Event::Pod))
            .chain(policies.cloned().map(Event::Policy));
        let mut excerpt = Self::new(View::Everything, Limits::NONE);
        excerpt.apply_all(events.collect::<Vec<_>>());
        excerpt
    }

    /// The policies that select a pod.
    fn selecting(&self, pod: &PodObject) -> Box<[VersionId]> {
        match self.population.namespace(&pod.name.namespace).filter(|_| pod.is_selectable()) {
            Some(namespace) => self.policies.selecting(namespace, &pod.labels),
            None => Box::default(),
        }
    }
}
