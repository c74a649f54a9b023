//! Pods, namespaces and nodes, and ways to find them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use super::View;
use super::atoms::ScopeId;
use crate::labels::fingerprint;
use crate::name::PodName;
use crate::object::{NamespaceObject, NodeObject, PodObject, Scope};
use crate::prefixes::Prefixes;
use crate::selector::Selector;

/// Stands for a pod's name, for as long as anything is known of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct PodId(u32);

/// Who lives where.
#[derive(Debug, Default)]
pub(super) struct Population {
    ids: HashMap<PodName, PodId>,
    last: u32,
    pods: BTreeMap<PodId, Box<PodObject>>,
    /// How many of them have addresses of their own.
    settled: usize,
    namespaces: BTreeMap<String, Inhabited>,
    nodes: BTreeMap<String, NodeObject>,
    /// By each single address.
    residents: Prefixes<Residents>,
    /// Selectable pods that have a port of a name.
    by_port: HashMap<Arc<str>, BTreeSet<PodId>>,
}

/// A namespace and its selectable pods. It is there for as long as it has been declared or has pods.
#[derive(Debug)]
pub(super) struct Inhabited {
    pub object: NamespaceObject,
    declared: bool,
    /// All pods.
    pub pods: BTreeSet<PodId>,
    /// Those of this node.
    pub local: BTreeSet<PodId>,
    by_label: HashMap<u64, BTreeSet<PodId>>,
    /// The scopes that this namespace is in.
    pub scopes: BTreeSet<ScopeId>,
}

impl Inhabited {
    fn new(object: NamespaceObject, declared: bool) -> Self {
        let (pods, local, by_label, scopes) = Default::default();
        Self { object, declared, pods, local, by_label, scopes }
    }

    pub fn is_in(&self, scope: &Scope) -> bool {
        match scope {
            Scope::Named(name) => **name == *self.object.name,
            Scope::Labelled(selector) => selector.matches(&self.object.labels),
        }
    }
}

/// Who has an address: hardly ever more than one.
#[derive(Debug, Default)]
struct Residents {
    pods: Vec<PodId>,
    nodes: Vec<String>,
}

fn remove_from<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<PodId>>, key: &K, id: PodId) {
    if let Some(set) = map.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}

impl Population {
    pub fn id(&self, name: &PodName) -> Option<PodId> {
        self.ids.get(name).copied()
    }

    pub fn pod(&self, id: PodId) -> Option<&PodObject> {
        self.pods.get(&id).map(|pod| &**pod)
    }

    pub fn pods(&self) -> impl Iterator<Item = &PodObject> {
        self.pods.values().map(|pod| &**pod)
    }

    /// How many pods have addresses of their own.
    pub fn settled(&self) -> usize {
        self.settled
    }

    pub fn node(&self, name: &str) -> Option<&NodeObject> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeObject> {
        self.nodes.values()
    }

    pub fn namespace(&self, name: &str) -> Option<&Inhabited> {
        self.namespaces.get(name)
    }

    pub fn namespaces(&self) -> impl Iterator<Item = &Inhabited> {
        self.namespaces.values()
    }

    pub fn namespaces_mut(&mut self) -> impl Iterator<Item = &mut Inhabited> {
        self.namespaces.values_mut()
    }

    /// Whether policies of a pod are this view's.
    pub fn is_local(pod: &PodObject, view: &View) -> bool {
        let is_here = match view {
            View::Node(name) => pod.node.as_ref() == Some(name),
            View::Everything => true,
            View::Nothing => false,
        };
        is_here && pod.is_selectable()
    }

    /// Puts a pod in, or in place of what was known of it.
    pub fn insert_pod(&mut self, mut pod: PodObject, view: &View) -> PodId {
        let id = match self.ids.get(&pod.name) {
            Some(id) => *id,
            None => {
                self.last += 1;
                self.ids.insert(pod.name.clone(), PodId(self.last));
                PodId(self.last)
            }
        };
        self.remove_pod(id);
        if let Some(twin) = self.twin(&pod) {
            pod.share_with(twin);
        }
        if pod.is_selectable() {
            let name = &pod.name.namespace;
            let unlabelled = || Inhabited::new(NamespaceObject::unlabelled(name), false);
            let namespace = self.namespaces.entry(name.clone()).or_insert_with(unlabelled);
            namespace.pods.insert(id);
            if Self::is_local(&pod, view) {
                namespace.local.insert(id);
            }
            for (key, value) in pod.labels.iter() {
                namespace.by_label.entry(fingerprint(key, value)).or_default().insert(id);
            }
            for port in pod.named_ports.iter() {
                self.by_port.entry(Arc::clone(&port.name)).or_default().insert(id);
            }
            for address in &pod.addresses {
                self.reside(IpNet::from(*address), |residents| residents.pods.push(id));
            }
        }
        self.settled += usize::from(pod.is_settled());
        self.pods.insert(id, Box::new(pod));
        id
    }

    /// A pod that is likely to have the same labels, as replicas have: one with that label that the fewest have.
    fn twin(&self, pod: &PodObject) -> Option<&PodObject> {
        let namespace = self.namespace(&pod.name.namespace)?;
        let with = |(key, value)| namespace.by_label.get(&fingerprint(key, value));
        let fewest = pod.labels.iter().filter_map(with).min_by_key(|pods| pods.len())?;
        self.pod(*fewest.first()?)
    }

    /// Takes a pod out; its id still stands for its name.
    pub fn remove_pod(&mut self, id: PodId) -> Option<PodObject> {
        let pod = *self.pods.remove(&id)?;
        self.settled -= usize::from(pod.is_settled());
        if pod.is_selectable() {
            if let Some(namespace) = self.namespaces.get_mut(&pod.name.namespace) {
                namespace.pods.remove(&id);
                namespace.local.remove(&id);
                for (key, value) in pod.labels.iter() {
                    remove_from(&mut namespace.by_label, &fingerprint(key, value), id);
                }
            }
            for port in pod.named_ports.iter() {
                remove_from(&mut self.by_port, &port.name, id);
            }
            for address in &pod.addresses {
                self.leave(&IpNet::from(*address), |residents| residents.pods.retain(|pod| *pod != id));
            }
        }
        Some(pod)
    }

    /// Forgets a pod's id, once nothing refers to it.
    pub fn forget(&mut self, id: PodId, name: &PodName) {
        if !self.pods.contains_key(&id) {
            self.ids.remove(name);
        }
    }

    /// Puts a namespace in, or in place of what was known of it. `false`: it is as it was.
    pub fn insert_namespace(&mut self, object: NamespaceObject) -> bool {
        match self.namespaces.get_mut(&object.name) {
            Some(namespace) => {
                namespace.declared = true;
                let changed = namespace.object != object;
                namespace.object = object;
                changed
            }
            None => {
                self.namespaces.insert(object.name.clone(), Inhabited::new(object, true));
                true
            }
        }
    }

    /// Takes a namespace out; where it still has pods, they live in one that nothing is known of. `false`: it was not
    /// known.
    pub fn remove_namespace(&mut self, name: &str) -> bool {
        let Some(namespace) = self.namespaces.get_mut(name) else { return false };
        namespace.declared = false;
        namespace.object = NamespaceObject::unlabelled(name);
        true
    }

    /// Drops a namespace that is neither declared nor has pods.
    pub fn drop_empty(&mut self, name: &str) {
        if self.namespaces.get(name).is_some_and(|namespace| !namespace.declared && namespace.pods.is_empty()) {
            self.namespaces.remove(name);
        }
    }

    /// Says which scopes a namespace is in. `false`: it has been in the same.
    pub fn set_scopes(&mut self, name: &str, scopes: BTreeSet<ScopeId>) -> bool {
        let Some(namespace) = self.namespaces.get_mut(name) else { return false };
        let changed = namespace.scopes != scopes;
        namespace.scopes = scopes;
        changed
    }

    pub fn insert_node(&mut self, node: NodeObject) -> Option<NodeObject> {
        let before = self.remove_node(&node.name);
        for address in &node.addresses {
            self.reside(IpNet::from(*address), |residents| residents.nodes.push(node.name.clone()));
        }
        self.nodes.insert(node.name.clone(), node);
        before
    }

    pub fn remove_node(&mut self, name: &str) -> Option<NodeObject> {
        let node = self.nodes.remove(name)?;
        for address in &node.addresses {
            self.leave(&IpNet::from(*address), |residents| residents.nodes.retain(|node| node != name));
        }
        Some(node)
    }

    fn reside(&mut self, net: IpNet, enter: impl FnOnce(&mut Residents)) {
        match self.residents.get_mut(&net) {
            Some(residents) => enter(residents),
            None => {
                let mut residents = Residents::default();
                enter(&mut residents);
                self.residents.insert(net, residents);
            }
        }
    }

    fn leave(&mut self, net: &IpNet, leave: impl FnOnce(&mut Residents)) {
        if let Some(residents) = self.residents.get_mut(net) {
            leave(residents);
            if residents.pods.is_empty() && residents.nodes.is_empty() {
                self.residents.remove(net);
            }
        }
    }

    /// The addresses inside a CIDR that pods and nodes have.
    pub fn addresses_inside(&self, net: &IpNet) -> impl Iterator<Item = IpNet> {
        self.residents.inside(net).map(|(net, _)| *net)
    }

    /// The pod that an address counts as. Where several claim it, all but the newest are leaving.
    pub fn owner(&self, address: &IpNet) -> Option<PodId> {
        let pods = self.residents.get(address)?.pods.iter().copied();
        pods.max_by_key(|id| self.pods.get(id).map(|pod| (pod.created, &pod.name)))
    }

    /// The nodes that have an address.
    pub fn nodes_at(&self, address: &IpNet) -> impl Iterator<Item = &str> {
        self.residents.get(address).into_iter().flat_map(|residents| residents.nodes.iter().map(String::as_str))
    }

    /// Selectable pods that have a port of a name.
    pub fn with_port(&self, name: &str) -> impl Iterator<Item = PodId> {
        self.by_port.get(name).into_iter().flatten().copied()
    }

    /// Selectable pods of a namespace that a selector matches; one may come twice.
    pub fn selected<'a>(&'a self, namespace: &'a Inhabited, selector: &'a Selector) -> impl Iterator<Item = PodId> {
        let sets: Vec<&BTreeSet<PodId>> = match selector.anchors() {
            Some(anchors) => anchors.iter().filter_map(|anchor| namespace.by_label.get(anchor)).collect(),
            None => vec![&namespace.pods],
        };
        let ids = sets.into_iter().flatten().copied();
        ids.filter(|id| self.pods.get(id).is_some_and(|pod| selector.matches(&pod.labels)))
    }
}
