//! Where objects come from.

mod directory;
mod files;
mod kubernetes;
mod watch;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use serde::Deserialize;
use serde::de::Error;
use sluice_topology::{NamespaceObject, NodeObject, ObjectError, PodName, PodObject};

pub use directory::Directory;
pub use kubernetes::Kubernetes;

/// All that a source knows at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The nodes, by name.
    pub nodes: BTreeMap<String, NodeObject>,
    /// The pods that have addresses of their own.
    pub pods: BTreeMap<PodName, PodObject>,
    /// The namespaces, by name.
    pub namespaces: BTreeMap<String, NamespaceObject>,
    /// What could not be used: where it is, what is wrong, what to do.
    pub problems: Vec<String>,
}

/// A change of what a source knows: an object as it is now, or `None` where it is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Of a node.
    Node(String, Option<NodeObject>),
    /// Of a pod.
    Pod(PodName, Option<PodObject>),
    /// Of a namespace.
    Namespace(String, Option<NamespaceObject>),
    /// Of all that cannot be used.
    Problems(Vec<String>),
}

impl TryFrom<&Node> for Change {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        NodeObject::try_from(node).map(|object| Self::Node(object.name.clone(), Some(object)))
    }
}

impl TryFrom<&Pod> for Change {
    type Error = ObjectError;

    fn try_from(pod: &Pod) -> Result<Self, ObjectError> {
        Ok(Self::Pod(PodName::of(pod)?, PodObject::of(pod)?))
    }
}

impl TryFrom<&Namespace> for Change {
    type Error = ObjectError;

    fn try_from(namespace: &Namespace) -> Result<Self, ObjectError> {
        let name = namespace.metadata.name.clone();
        let name = name.ok_or_else(|| ObjectError("a Namespace without metadata.name".into()))?;
        Ok(Self::Namespace(name, Some(NamespaceObject::from(namespace))))
    }
}

impl sluice_manifest_reader::Object for Change {
    fn read<'de, D: serde::Deserializer<'de>>(kind: &str, from: D) -> Result<Option<Self>, D::Error> {
        let change = match kind {
            "Node" => Self::try_from(&Node::deserialize(from)?),
            "Pod" => Self::try_from(&Pod::deserialize(from)?),
            "Namespace" => Self::try_from(&Namespace::deserialize(from)?),
            _ => return Ok(None),
        };
        change.map(Some).map_err(D::Error::custom)
    }
}

/// A source of objects.
pub trait Source: Send {
    /// Tells of all objects, once they have all been listed, and then of every change; until `tell` says that nobody
    /// listens any more.
    ///
    /// # Errors
    /// Where it cannot go on.
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> anyhow::Result<()>;
}

/// Puts a value in its place, or removes it; gives what was there, if that is another.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Result<(), Option<V>> {
    if map.get(&key) == value.as_ref() {
        return Ok(());
    }
    Err(match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    })
}

impl Objects {
    /// Makes a change; `true` where it may matter to the ways between nodes.
    pub fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Node(name, node) => put(&mut self.nodes, name, node).is_err(),
            Change::Problems(problems) => std::mem::replace(&mut self.problems, problems) != self.problems,
            Change::Namespace(name, namespace) => {
                let _ = put(&mut self.namespaces, name, namespace);
                false
            }
            Change::Pod(name, pod) => {
                let now = pod.as_ref().is_some_and(|pod| self.is_stray(pod));
                match put(&mut self.pods, name, pod) {
                    Ok(()) => false,
                    Err(before) => now || before.is_some_and(|pod| self.is_stray(&pod)),
                }
            }
        }
    }

    /// Whether a pod's node alone does not say where its addresses are.
    fn is_stray(&self, pod: &PodObject) -> bool {
        self.nodes.get(&pod.node).is_none_or(|node| node.strays(pod).next().is_some())
    }

    /// The changes that make these objects of others.
    pub fn changes_from(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        differ(&before.nodes, &self.nodes, |name, node| changes.push(Change::Node(name, node)));
        differ(&before.namespaces, &self.namespaces, |name, space| changes.push(Change::Namespace(name, space)));
        differ(&before.pods, &self.pods, |name, pod| changes.push(Change::Pod(name, pod)));
        if before.problems != self.problems {
            changes.push(Change::Problems(self.problems.clone()));
        }
        changes
    }
}

fn differ<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    mut tell: impl FnMut(K, Option<V>),
) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        tell(key.clone(), None);
    }
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
        tell(key.clone(), Some(value.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(cidr: &str) -> NodeObject {
        let pod_cidrs = vec![cidr.parse().expect("a CIDR")];
        NodeObject { name: "a".into(), addresses: Vec::new(), pod_cidrs, created: 0 }
    }

    fn pod(address: &str) -> PodObject {
        let addresses = vec![address.parse().expect("an address")];
        PodObject { node: "a".into(), addresses, labels: BTreeMap::new() }
    }

    #[test]
    fn changes_lead_from_one_state_to_the_other_and_say_what_matters() {
        let name = |name: &str| PodName { namespace: "default".into(), name: name.into() };
        let before = Objects { nodes: [("a".into(), node("10.1.0.0/24"))].into(), ..Objects::default() };
        let mut after = before.clone();
        after.pods.insert(name("inside"), pod("10.1.0.5"));
        after.pods.insert(name("outside"), pod("10.9.0.5"));
        after.namespaces.insert("default".into(), NamespaceObject::default());
        let mut objects = before.clone();
        let mattered: Vec<bool> = after.changes_from(&before).into_iter().map(|change| objects.apply(change)).collect();
        assert_eq!(objects, after);
        assert_eq!(mattered, [false, false, true]);
        assert!(!objects.apply(Change::Node("a".into(), Some(node("10.1.0.0/24")))), "it is the same");
        assert!(objects.apply(Change::Pod(name("outside"), None)), "its address is nobody's now");
        assert!(objects.apply(Change::Node("a".into(), None)));
    }
}
