//! Addresses of pods that only their nodes' agents announce, and where these count.

use std::collections::BTreeMap;

use ipnet::IpNet;
use sluice_policy::{Kind, ObjectName, PodName};
use sluice_service::object::PodObject;

use crate::source::{Change, Object};

/// Where announced addresses count: within the pod CIDRs of the pod's own node, in whatever order is told of both. Whoever has
/// the token of one node's agent would else lead to that node what all others send to anybody outside.
#[derive(Debug, Default)]
pub struct Announced {
    /// Whether they count wherever they are: another plugin gives them.
    anywhere: bool,
    /// The pod CIDRs of each node.
    nodes: BTreeMap<String, Vec<IpNet>>,
    /// The pods of which no kubelet has said addresses yet, as they were told of: few at a time.
    pods: BTreeMap<PodName, PodObject>,
}

impl Announced {
    /// Nothing is known yet.
    pub fn new(anywhere: bool) -> Self {
        Self { anywhere, ..Self::default() }
    }

    /// What there is to tell instead of these changes.
    pub fn settle(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut told = Vec::with_capacity(changes.len());
        for change in changes {
            self.pass(change, &mut told);
        }
        told
    }

    fn pass(&mut self, change: Change, told: &mut Vec<Change>) {
        match change {
            Change::Is(Object::Pod(pod)) if pod.pod.is_announced => {
                told.push(self.judged(&pod));
                self.pods.insert(pod.pod.name.clone(), pod);
            }
            Change::Is(Object::Pod(pod)) => {
                self.pods.remove(&pod.pod.name);
                told.push(Change::Is(Object::Pod(pod)));
            }
            Change::Is(Object::Node(object, ways)) => {
                let name = ways.name.clone();
                let is_other = self.nodes.get(&name) != Some(&ways.pod_cidrs);
                if is_other {
                    self.nodes.insert(name.clone(), ways.pod_cidrs.clone());
                }
                told.push(Change::Is(Object::Node(object, ways)));
                if is_other {
                    self.judge(&name, told);
                }
            }
            Change::Gone(object, uid) => {
                match object.kind {
                    Kind::Pod => self.forget(&object, &uid),
                    Kind::Node => {
                        self.nodes.remove(&object.name);
                        self.judge(&object.name, told);
                    }
                    Kind::Namespace
                    | Kind::NetworkPolicy
                    | Kind::ClusterNetworkPolicy
                    | Kind::Service
                    | Kind::EndpointSlice => {}
                }
                told.push(Change::Gone(object, uid));
            }
            other => told.push(other),
        }
    }

    fn forget(&mut self, ObjectName { namespace, name, .. }: &ObjectName, uid: &str) {
        let name = PodName::new(namespace, name);
        if self.pods.get(&name).is_some_and(|pod| pod.pod.is(uid)) {
            self.pods.remove(&name);
        }
    }

    /// Tells anew of a node's pods.
    fn judge(&self, node: &str, told: &mut Vec<Change>) {
        let pods = self.pods.values().filter(|pod| pod.pod.node.as_deref() == Some(node));
        told.extend(pods.map(|pod| self.judged(pod)));
    }

    /// A pod, with those of its addresses that count.
    fn judged(&self, pod: &PodObject) -> Change {
        let mut told = pod.clone();
        // The kubelet that says the same later changes nothing.
        told.pod.is_announced = false;
        let nets = pod.pod.node.as_ref().and_then(|node| self.nodes.get(node)).map_or(&[][..], Vec::as_slice);
        told.pod.addresses.retain(|address| {
            let counts = self.anywhere || nets.iter().any(|net| net.contains(address));
            if !counts {
                let (pod, node) = (&pod.pod.name, &pod.pod.node);
                tracing::debug!(%pod, %address, ?node, "announced, but in no pod CIDR of the pod's node: it does not count");
            }
            counts
        });
        Change::Is(Object::Pod(told))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, nets: &[&str]) -> Change {
        let node = json!({ "metadata": { "name": name }, "spec": { "podCIDRs": nets } });
        let node: Node = serde_json::from_value(node).expect("a node");
        Change::Is(Object::try_from(&node).expect("makes sense"))
    }

    /// A pod on `n1`, with addresses that its agent announces, and that its kubelet says.
    fn pod(uid: &str, announced: &str, said: &[&str]) -> Change {
        let condition = json!({ "type": sluice_policy::object::ADDRESSES, "status": "True", "message": announced });
        let said: Vec<Value> = said.iter().map(|ip| json!({ "ip": ip })).collect();
        let pod = json!({
            "metadata": { "name": "p", "namespace": "x", "uid": uid },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": { "conditions": [condition], "podIPs": said },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        Change::Is(Object::try_from(&pod).expect("makes sense"))
    }

    fn gone(kind: Kind, namespace: &str, name: &str, uid: &str) -> Change {
        Change::Gone(ObjectName::new(kind, namespace, name), uid.into())
    }

    /// Which addresses a pod is told to have; nothing of others.
    fn told(announced: &mut Announced, change: Change) -> Vec<String> {
        let addresses = |change| match change {
            Change::Is(Object::Pod(pod)) => Some(pod.pod.addresses.iter().map(|it| it.to_string() + " ").collect()),
            _ => None,
        };
        announced.settle(vec![change]).into_iter().filter_map(addresses).collect()
    }

    #[test]
    fn announced_addresses_count_in_the_nodes_own_pod_cidrs_only() {
        let mut announced = Announced::default();
        told(&mut announced, node("n1", &["10.1.0.0/24", "fd00:1::/64"]));
        told(&mut announced, node("n2", &["10.2.0.0/24"]));
        assert_eq!(told(&mut announced, pod("u1", "10.1.0.7,fd00:1::7", &[])), ["10.1.0.7 fd00:1::7 "]);
        assert_eq!(told(&mut announced, pod("u1", "192.0.2.1", &[])), [""], "it is outside the cluster");
        assert_eq!(told(&mut announced, pod("u1", "10.2.0.7", &[])), [""], "it is another node's");
        assert_eq!(told(&mut announced, pod("u1", "192.0.2.1,fd00:1::7", &[])), ["fd00:1::7 "]);
        assert_eq!(told(&mut announced, pod("u1", "10.1.0.7", &["192.0.2.1"])), ["192.0.2.1 "], "its kubelet says it");
        let mut anywhere = Announced::new(true);
        assert_eq!(told(&mut anywhere, pod("u1", "192.0.2.1", &[])), ["192.0.2.1 "]);
    }

    #[test]
    fn which_of_a_pod_and_its_nodes_pod_cidrs_is_told_of_first_does_not_matter() {
        let mut announced = Announced::default();
        assert_eq!(told(&mut announced, pod("u1", "10.1.0.7", &[])), [""]);
        assert_eq!(told(&mut announced, node("n2", &["10.1.0.0/24"])), [""; 0], "it is not on that node");
        assert_eq!(told(&mut announced, node("n1", &[])), [""]);
        assert_eq!(told(&mut announced, node("n1", &["10.1.0.0/24"])), ["10.1.0.7 "]);
        assert_eq!(told(&mut announced, node("n1", &["10.1.0.0/24"])), [""; 0], "nothing has changed");
        assert_eq!(told(&mut announced, gone(Kind::Node, "", "n1", "")), [""]);
        assert_eq!(told(&mut announced, node("n1", &["10.1.0.0/24"])), ["10.1.0.7 "]);
    }

    #[test]
    fn pods_whose_kubelet_has_said_addresses_or_that_are_gone_are_not_told_of_again() {
        let mut announced = Announced::default();
        told(&mut announced, pod("u1", "10.1.0.7", &[]));
        told(&mut announced, pod("u1", "10.1.0.7", &["10.1.0.7"]));
        assert_eq!(told(&mut announced, node("n1", &["10.1.0.0/24"])), [""; 0]);
        told(&mut announced, pod("u2", "10.1.0.8", &[]));
        told(&mut announced, gone(Kind::Pod, "x", "p", "u1"));
        assert_eq!(told(&mut announced, node("n1", &["10.0.0.0/8"])), ["10.1.0.8 "], "its predecessor is gone");
        told(&mut announced, gone(Kind::Pod, "x", "p", "u2"));
        assert_eq!(told(&mut announced, node("n1", &["10.1.0.0/24"])), [""; 0]);
    }

    #[test]
    fn a_kubelet_that_says_what_was_announced_changes_nothing() {
        let mut announced = Announced::default();
        announced.settle(vec![node("n1", &["10.1.0.0/24"])]);
        let before = announced.settle(vec![pod("u1", "10.1.0.7", &[])]);
        assert_eq!(before, announced.settle(vec![pod("u1", "10.1.0.7", &["10.1.0.7"])]));
    }
}
