//! The pods that have endpoints on this node, as policies are to see them.
//!
//! What an endpoint's record says of a pod counts more than what the source says: which addresses it has, which the API
//! learns only later, and that it is here. A pod is its name and UID: another one of the same name, a predecessor or
//! successor, is not what an endpoint belongs to, and what the source says of it waits until the endpoint is gone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluice_api::EndpointRecord;
use sluice_policy::object::PodObject;
use sluice_policy::{Event, Kind, Labels, ObjectName, PodName};

/// The pods that have endpoints on this node.
#[derive(Debug)]
pub struct LocalPods {
    /// The name of this node.
    node: String,
    /// Whether a pod that the source does not know counts as one without labels; else as gone.
    assumes: bool,
    pods: BTreeMap<PodName, LocalPod>,
}

/// A pod that has endpoints, at least one.
#[derive(Debug, Default)]
struct LocalPod {
    /// In the order in which they came: that of the newest is the pod that is meant.
    endpoints: Vec<LocalEndpoint>,
    /// What the source says of the pod.
    own: Option<PodObject>,
    /// What it says of another one of the same name.
    other: Option<PodObject>,
}

#[derive(Debug)]
struct LocalEndpoint {
    host_interface: String,
    /// The pod's UID; empty: unknown.
    uid: String,
    addresses: Vec<IpAddr>,
}

impl LocalPod {
    fn uid(&self) -> &str {
        self.endpoints.last().map_or("", |endpoint| &endpoint.uid)
    }

    /// Finds again which of the known pods is the endpoints' own.
    fn sort(&mut self) {
        for pod in [self.own.take(), self.other.take()].into_iter().flatten() {
            let place = if pod.is(self.uid()) { &mut self.own } else { &mut self.other };
            *place = Some(pod);
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let own = self.endpoints.iter().filter(|endpoint| endpoint.uid == self.uid());
        own.flat_map(|endpoint| &endpoint.addresses).copied().collect()
    }
}

impl LocalPods {
    /// None yet. Whether pods that the source does not know are assumed to have no labels, or to be gone.
    pub fn new(node: &str, assumes: bool) -> Self {
        Self { node: node.into(), assumes, pods: BTreeMap::new() }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &PodName> {
        self.pods.keys()
    }

    /// Whether a pod is on this node, and has no endpoints.
    pub fn is_homeless(&self, pod: &PodObject) -> bool {
        pod.node.as_deref() == Some(&*self.node) && !self.pods.contains_key(&pod.name)
    }

    /// Those whose objects do not say the addresses that their endpoints have, and these.
    pub fn unsaid(&self) -> impl Iterator<Item = (&PodObject, Vec<IpAddr>)> {
        self.pods.values().filter_map(|local| {
            let (own, addresses) = (local.own.as_ref()?, local.addresses());
            let is_said = !own.addresses.is_empty() && own.addresses.iter().all(|said| addresses.contains(said));
            (own.is_selectable() && !is_said).then_some((own, addresses))
        })
    }

    /// What the source knows of the pod with a name and UID; `known` is the one that policies know by that name.
    pub fn find<'a>(&'a self, name: &PodName, uid: &str, known: Option<&'a PodObject>) -> Option<&'a PodObject> {
        let candidates = match self.pods.get(name) {
            Some(local) => [local.own.as_ref(), local.other.as_ref()],
            None => [known, None],
        };
        candidates.into_iter().flatten().find(|pod| pod.is(uid))
    }

    /// Whether another endpoint has one of an endpoint's addresses.
    pub fn contend(&self, record: &EndpointRecord) -> bool {
        let others = self.pods.values().flat_map(|pod| &pod.endpoints);
        let mut others = others.filter(|endpoint| endpoint.host_interface != record.host_interface);
        others.any(|endpoint| endpoint.addresses.iter().any(|address| record.addresses.contains(address)))
    }

    /// An endpoint has come, or come again. What policies are to be told; nothing, where it is no pod's. `known` is the pod
    /// that they know by that name.
    pub fn add(&mut self, record: &EndpointRecord, known: Option<&PodObject>) -> Option<Event> {
        let pod = record.pod.as_ref()?;
        let name = PodName::new(&pod.namespace, &pod.name);
        let local =
            self.pods.entry(name.clone()).or_insert_with(|| LocalPod { own: known.cloned(), ..LocalPod::default() });
        local.endpoints.retain(|endpoint| endpoint.host_interface != record.host_interface);
        local.endpoints.push(LocalEndpoint {
            host_interface: record.host_interface.clone(),
            uid: pod.uid.clone().unwrap_or_default(),
            addresses: record.addresses.clone(),
        });
        local.sort();
        Some(self.event(&name))
    }

    /// Only these endpoints are still there, by the names of their host sides. What policies are to be told.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) -> Vec<Event> {
        let mut changed = Vec::new();
        for (name, local) in &mut self.pods {
            let before = local.endpoints.len();
            local.endpoints.retain(|endpoint| is_there(&endpoint.host_interface));
            if local.endpoints.len() < before {
                changed.push(name.clone());
            }
        }
        changed.iter().map(|name| self.less(name)).collect()
    }

    /// What policies are to be told of a pod that has fewer endpoints than before.
    fn less(&mut self, name: &PodName) -> Event {
        if let Some(local) = self.pods.get_mut(name).filter(|local| !local.endpoints.is_empty()) {
            local.sort();
            return self.event(name);
        }
        let local = self.pods.remove(name).unwrap_or_default();
        // What was said of the other is the later word.
        local.other.or(local.own).map_or_else(|| removed(name), Event::Pod)
    }

    /// The source says that a pod is new, or has changed. What policies are to be told; nothing, where it does not concern
    /// whom they know.
    pub fn is(&mut self, pod: PodObject) -> Option<Event> {
        let Some(local) = self.pods.get_mut(&pod.name) else { return Some(Event::Pod(pod)) };
        let name = pod.name.clone();
        if pod.is(local.uid()) {
            local.own = Some(pod);
            local.other = None;
            return Some(self.event(&name));
        }
        local.other = Some(pod);
        None
    }

    /// The source says that a pod is gone, by its name and UID (empty: whichever it is). What policies are to be told;
    /// nothing, where it does not concern whom they know (`known`).
    pub fn gone(&mut self, name: &PodName, uid: &str, known: Option<&PodObject>) -> Option<Event> {
        let Some(local) = self.pods.get_mut(name) else {
            return known.is_none_or(|pod| pod.is(uid)).then(|| removed(name));
        };
        local.other = local.other.take().filter(|other| !other.is(uid));
        if local.own.as_ref().is_some_and(|own| !own.is(uid)) {
            return None;
        }
        local.own = None;
        Some(self.event(name))
    }

    /// What policies are to be told of all of them.
    pub fn events(&self) -> Vec<Event> {
        self.pods.keys().map(|name| self.event(name)).collect()
    }

    fn event(&self, name: &PodName) -> Event {
        let Some(local) = self.pods.get(name) else { return removed(name) };
        let own = match &local.own {
            Some(own) => own.clone(),
            None if self.assumes => unlabelled(name),
            None => return removed(name),
        };
        let (node, addresses) = (Some(self.node.clone()), local.addresses());
        // Who announces them elsewhere, and to whom, changes nothing here.
        Event::Pod(PodObject { node, addresses, is_announced: false, is_spoken_for: false, ..own })
    }
}

fn removed(name: &PodName) -> Event {
    Event::Removed(ObjectName::new(Kind::Pod, &name.namespace, &name.name))
}

/// A pod of which nothing is known but that it is there.
fn unlabelled(name: &PodName) -> PodObject {
    PodObject {
        name: name.clone(),
        uid: String::new(),
        config_hash: String::new(),
        labels: Labels::default(),
        addresses: Vec::new(),
        is_announced: false,
        is_spoken_for: false,
        node: None,
        host_network: false,
        ended: false,
        named_ports: [].into(),
        ports: [].into(),
        // Of those that claim its addresses, it has them: it was seen with them.
        created: i64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::endpoint_of;

    fn name() -> PodName {
        PodName::new("x", "db-0")
    }

    fn endpoint(interface: &str, uid: &str, address: &str) -> EndpointRecord {
        endpoint_of(&name(), uid, interface, address)
    }

    /// A pod, as the API tells of it: its address may be an old one.
    fn pod(uid: &str, address: &str) -> PodObject {
        let addresses = vec![address.parse().expect("an address")];
        PodObject { uid: uid.into(), addresses, node: Some("n1".into()), created: 7, ..unlabelled(&name()) }
    }

    /// The pod that policies know by what they were told last, and what they were told.
    #[derive(Default)]
    struct Known(Option<PodObject>);

    impl Known {
        fn hear(&mut self, event: Option<Event>) -> String {
            match event {
                None => return "nothing".into(),
                Some(Event::Pod(pod)) => self.0 = Some(pod),
                Some(Event::Removed(_)) => self.0 = None,
                Some(event) => panic!("{event:?}"),
            }
            self.0.as_ref().map_or("gone".into(), |pod| {
                let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
                format!("{} has {}", pod.uid, addresses.join(","))
            })
        }
    }

    #[test]
    fn an_endpoints_addresses_count_until_it_is_gone() {
        let (mut local, mut known) = (LocalPods::new("n1", false), Known::default());
        assert_eq!(known.hear(local.is(pod("u1", "10.9.9.9"))), "u1 has 10.9.9.9");
        assert_eq!(known.hear(local.add(&endpoint("sl1", "u1", "10.1.0.1"), known.0.as_ref())), "u1 has 10.1.0.1");
        assert_eq!(
            known.hear(local.add(&endpoint("sl2", "u1", "fd00::1"), known.0.as_ref())),
            "u1 has 10.1.0.1,fd00::1"
        );
        assert_eq!(known.hear(local.is(pod("u1", "10.8.8.8"))), "u1 has 10.1.0.1,fd00::1");
        let less = local.retain(|interface| interface == "sl2");
        assert_eq!(known.hear(less.into_iter().next()), "u1 has fd00::1");
        let none = local.retain(|_| false);
        assert_eq!(known.hear(none.into_iter().next()), "u1 has 10.8.8.8", "what the source said last");
    }

    #[test]
    fn what_is_said_of_a_predecessor_does_not_concern_the_pod() {
        let (mut local, mut known) = (LocalPods::new("n1", false), Known::default());
        known.hear(local.is(pod("u1", "10.1.0.1")));
        // Asked for, ahead of the watch, which has not told of the old one's end yet.
        known.hear(local.is(pod("u2", "10.9.9.9")));
        assert_eq!(
            known.hear(local.gone(&name(), "u1", known.0.as_ref())),
            "nothing",
            "even before the endpoint is there"
        );
        assert_eq!(known.hear(local.add(&endpoint("sl2", "u2", "10.1.0.2"), known.0.as_ref())), "u2 has 10.1.0.2");
        assert_eq!(known.hear(local.is(pod("u1", "10.1.0.1"))), "nothing");
        assert_eq!(known.hear(local.gone(&name(), "u1", known.0.as_ref())), "nothing");
        assert_eq!(known.hear(local.gone(&name(), "u2", known.0.as_ref())), "gone", "though its endpoint is there");
    }

    #[test]
    fn a_successor_waits_for_its_own_endpoint() {
        let (mut local, mut known) = (LocalPods::new("n1", false), Known::default());
        known.hear(local.is(pod("u1", "10.9.9.9")));
        known.hear(local.add(&endpoint("sl1", "u1", "10.1.0.1"), known.0.as_ref()));
        assert_eq!(known.hear(local.gone(&name(), "u1", known.0.as_ref())), "gone");
        assert_eq!(known.hear(local.is(pod("u2", "10.9.9.9"))), "nothing");
        assert_eq!(local.find(&name(), "u2", known.0.as_ref()).map(|pod| &*pod.uid), Some("u2"));
        assert_eq!(local.find(&name(), "u1", known.0.as_ref()), None);
        assert_eq!(known.hear(local.add(&endpoint("sl2", "u2", "10.1.0.2"), known.0.as_ref())), "u2 has 10.1.0.2");
        let without_old = local.retain(|interface| interface == "sl2");
        assert_eq!(known.hear(without_old.into_iter().next()), "u2 has 10.1.0.2");
    }

    #[test]
    fn when_an_endpoint_goes_the_successor_is_who_counts() {
        let (mut local, mut known) = (LocalPods::new("n1", false), Known::default());
        known.hear(local.is(pod("u1", "10.9.9.9")));
        known.hear(local.add(&endpoint("sl1", "u1", "10.1.0.1"), known.0.as_ref()));
        known.hear(local.is(pod("u2", "10.1.0.2")));
        assert_eq!(known.hear(local.retain(|_| false).into_iter().next()), "u2 has 10.1.0.2");
        assert_eq!(known.hear(local.gone(&name(), "u1", known.0.as_ref())), "nothing");
    }

    #[test]
    fn where_manifests_need_not_be_a_pod_without_one_has_no_labels() {
        let (mut local, mut known) = (LocalPods::new("n1", true), Known::default());
        assert_eq!(known.hear(local.add(&endpoint("sl1", "u1", "10.1.0.1"), None)), " has 10.1.0.1");
        let manifest = PodObject { uid: String::new(), node: None, ..pod("", "10.9.9.9") };
        assert_eq!(known.hear(local.is(manifest)), " has 10.1.0.1");
        let at = known.0.as_ref().map(|pod| (pod.created, pod.node.as_deref()));
        assert_eq!(at, Some((7, Some("n1"))), "it is the manifest's, and here");
        known.hear(local.gone(&name(), "", known.0.as_ref()));
        assert_eq!(known.0.as_ref().map(|pod| pod.created), Some(i64::MAX), "it is assumed again");
        assert_eq!(known.hear(local.retain(|_| false).into_iter().next()), "gone");
    }

    #[test]
    fn endpoints_without_a_pod_are_none_and_addresses_are_contended_for() {
        let mut local = LocalPods::new("n1", true);
        let stranger = EndpointRecord { pod: None, ..endpoint("sl9", "", "10.1.0.9") };
        assert_eq!(local.add(&stranger, None), None);
        local.add(&endpoint("sl1", "u1", "10.1.0.1"), None);
        assert!(!local.contend(&endpoint("sl1", "u1", "10.1.0.1")), "with itself");
        assert!(local.contend(&endpoint("sl2", "u2", "10.1.0.1")) && !local.contend(&stranger));
        assert_eq!(local.events().len(), 1);
    }
}
