//! What matters of Nodes and pods.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use thiserror::Error;

/// A Node, without all that does not matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its UID; empty: unknown. Another node of the same name has another one.
    pub uid: String,
    /// Its addresses (`InternalIP`), at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its pods.
    pub pod_cidrs: Vec<IpNet>,
    /// When it was made, seconds since 1970; the older of two that claim the same addresses has them.
    pub created: i64,
    /// Whether it is being deleted, or about to be: load balancers are to send it nothing new.
    pub is_leaving: bool,
}

/// What the autoscaler of clusters marks a node with that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

impl NodeObject {
    /// Those addresses of a pod that are outside this node's pod CIDRs.
    pub fn strays(&self, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
        addresses.iter().copied().filter(|address| !self.pod_cidrs.iter().any(|net| net.contains(address)))
    }
}

/// Where a pod is that has addresses of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodPlace<'a> {
    /// The node that it runs on.
    pub node: &'a str,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

/// A Node makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {what}")]
pub struct ObjectError {
    /// Where in it, such as `spec.podCIDRs`.
    pub field: &'static str,
    /// What is wrong there.
    pub what: String,
}

impl TryFrom<&Node> for NodeObject {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let wrong = |field, what| ObjectError { field, what };
        let name = node.metadata.name.clone().ok_or_else(|| wrong("metadata.name", "it is required".into()))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        for address in listed.filter(|address| address.type_ == "InternalIP") {
            let parsed: IpAddr = address
                .address
                .parse()
                .map_err(|_| wrong("status.addresses", format!("{:?} is no address", address.address)))?;
            if !addresses.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
                addresses.push(parsed);
            }
        }
        let spec = node.spec.as_ref();
        let many = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let texts =
            if many.is_empty() { spec.and_then(|spec| spec.pod_cidr.clone()).into_iter().collect() } else { many };
        let pod_cidrs = texts
            .iter()
            .map(|text| {
                let net: IpNet = text.parse().map_err(|_| wrong("spec.podCIDRs", format!("{text:?} is no CIDR")))?;
                Ok(net.trunc())
            })
            .collect::<Result<_, _>>()?;
        let created = node.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        let mut taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let is_leaving = node.metadata.deletion_timestamp.is_some() || taints.any(|taint| taint.key == TO_BE_DELETED);
        let uid = node.metadata.uid.clone().unwrap_or_default();
        Ok(Self { name, uid, addresses, pod_cidrs, created, is_leaving })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{NodeSpec, Taint};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    use super::*;

    /// A Node with these taints.
    fn node(taints: &[&str]) -> Node {
        let taint = |key: &&str| Taint { key: (*key).into(), effect: "NoSchedule".into(), ..Taint::default() };
        Node {
            metadata: ObjectMeta { name: Some("a".into()), ..ObjectMeta::default() },
            spec: Some(NodeSpec { taints: Some(taints.iter().map(taint).collect()), ..NodeSpec::default() }),
            status: None,
        }
    }

    #[test]
    fn a_node_leaves_that_is_deleted_or_soon_will_be() {
        let is_leaving = |node: &Node| NodeObject::try_from(node).expect("a node").is_leaving;
        assert!(!is_leaving(&node(&[])) && !is_leaving(&node(&["node.kubernetes.io/unschedulable"])));
        assert!(is_leaving(&node(&["other", TO_BE_DELETED])));
        let mut deleted = node(&[]);
        deleted.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert!(is_leaving(&deleted));
    }
}
