//! What matters of an index to a single question.

use super::{Event, Index, Limits, View};
use crate::evaluator::Party;
use crate::object::{PodObject, PolicyObject};

impl Index {
    /// An index for everything about two parties: of pods only they are in it, of policies those that select one of them.
    /// Questions about them have the same answers there, also about pods of other nodes, for a small part of the work.
    pub fn excerpt(&self, ends: [&Party; 2]) -> Self {
        let named = ends.into_iter().filter_map(|end| match end {
            Party::Pod(name) => self.pod(name),
            Party::Address(address) => self.pod_at(*address),
        });
        let mut pods: Vec<&PodObject> = named.collect();
        // The addresses of one that has ended may be another's by now.
        let at_theirs = pods.iter().flat_map(|pod| &pod.addresses).filter_map(|address| self.pod_at(*address));
        pods.extend(at_theirs.collect::<Vec<_>>());
        let is_there = |policy: &&PolicyObject| pods.iter().any(|pod| self.selects(policy, pod));
        let namespaces = pods.iter().filter_map(|pod| self.population.namespace(&pod.name.namespace));
        // Host-network pods say which addresses their nodes have.
        let on_nodes = self.pods().filter(|pod| pod.host_network);
        let events = namespaces
            .map(|namespace| Event::Namespace(namespace.object.clone()))
            .chain(self.nodes().cloned().map(Event::Node))
            .chain(pods.iter().copied().chain(on_nodes).cloned().map(Event::Pod))
            .chain(self.policies().filter(is_there).cloned().map(Event::Policy));
        let mut excerpt = Self::new(View::Everything, Limits::NONE);
        excerpt.apply_all(events.collect::<Vec<_>>());
        excerpt
    }

    fn selects(&self, policy: &PolicyObject, pod: &PodObject) -> bool {
        pod.is_selectable() && self.is_in(&pod.name.namespace, &policy.scope) && policy.pods.matches(&pod.labels)
    }
}
