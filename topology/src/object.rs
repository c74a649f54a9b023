//! What matters of Nodes, Pods and Namespaces.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};

/// A Node, without all that does not matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its addresses (`InternalIP`), at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its pods.
    pub pod_cidrs: Vec<IpNet>,
    /// When it was made, seconds since 1970; the older of two that claim the same addresses has them.
    pub created: i64,
}

impl NodeObject {
    /// Those addresses of a pod that are outside this node's pod CIDRs.
    pub fn strays(&self, pod: &PodObject) -> impl Iterator<Item = IpAddr> {
        pod.addresses.iter().copied().filter(|address| !self.pod_cidrs.iter().any(|net| net.contains(address)))
    }
}

/// Names a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// A Pod that has addresses of its own, without all that does not matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodObject {
    /// The node that it runs on.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A Namespace, without all that does not matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceObject {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An object makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError(pub String);

impl std::fmt::Display for ObjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ObjectError {}

impl TryFrom<&Node> for NodeObject {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let name = node.metadata.name.clone().ok_or_else(|| ObjectError("a Node without metadata.name".into()))?;
        let wrong = |what: String| ObjectError(format!("Node {name}: {what}"));
        let mut addresses: Vec<IpAddr> = Vec::new();
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        for address in listed.filter(|address| address.type_ == "InternalIP") {
            let parsed: IpAddr = address
                .address
                .parse()
                .map_err(|_| wrong(format!("status.addresses has {:?}, which is no address", address.address)))?;
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
                let net: IpNet =
                    text.parse().map_err(|_| wrong(format!("spec.podCIDRs has {text:?}, which is no CIDR")))?;
                Ok(net.trunc())
            })
            .collect::<Result<_, _>>()?;
        let created = node.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Ok(Self { name, addresses, pod_cidrs, created })
    }
}

impl PodName {
    /// The name of a Pod; without a namespace it is in `default`, as everywhere in Kubernetes.
    ///
    /// # Errors
    /// Where it has none.
    pub fn of(pod: &Pod) -> Result<Self, ObjectError> {
        let name = pod.metadata.name.clone().ok_or_else(|| ObjectError("a Pod without metadata.name".into()))?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_else(|| "default".into());
        Ok(Self { namespace, name })
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl PodObject {
    /// What matters of a Pod. `None`: it has no addresses of its own, because it uses its node's, has not got them yet, or
    /// has ended (then they may be another's by now).
    ///
    /// # Errors
    /// Where it makes no sense.
    pub fn of(pod: &Pod) -> Result<Option<Self>, ObjectError> {
        let name = PodName::of(pod)?;
        let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Ok(None) };
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let Some(node) = spec.node_name.clone().filter(|_| !ended && spec.host_network != Some(true)) else {
            return Ok(None);
        };
        let many: Vec<&String> = status.pod_ips.iter().flatten().map(|ip| &ip.ip).collect();
        let texts = if many.is_empty() { status.pod_ip.iter().collect() } else { many };
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| ObjectError(format!("Pod {name}: status.podIPs has {text:?}, which is no address")))
        };
        let addresses: Vec<IpAddr> = texts.into_iter().map(parse).collect::<Result<_, _>>()?;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        Ok((!addresses.is_empty()).then_some(Self { node, addresses, labels }))
    }
}

impl From<&Namespace> for NamespaceObject {
    fn from(namespace: &Namespace) -> Self {
        Self { labels: namespace.metadata.labels.clone().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodIP, PodSpec, PodStatus};

    fn pod(change: impl FnOnce(&mut PodSpec, &mut PodStatus)) -> Pod {
        let mut spec = PodSpec { node_name: Some("n1".into()), ..PodSpec::default() };
        let mut status = PodStatus { pod_ips: Some(vec![PodIP { ip: "10.1.0.5".into() }]), ..PodStatus::default() };
        change(&mut spec, &mut status);
        let mut pod = Pod { spec: Some(spec), status: Some(status), ..Pod::default() };
        pod.metadata.name = Some("a".into());
        pod
    }

    #[test]
    fn only_pods_with_addresses_of_their_own_count() {
        let object = PodObject::of(&pod(|_, _| {})).expect("makes sense").expect("counts");
        assert_eq!((object.node.as_str(), object.addresses.len()), ("n1", 1));
        for no in [
            pod(|spec, _| spec.host_network = Some(true)),
            pod(|spec, _| spec.node_name = None),
            pod(|_, status| status.pod_ips = None),
            pod(|_, status| status.phase = Some("Succeeded".into())),
        ] {
            assert_eq!(PodObject::of(&no), Ok(None));
        }
        let wrong = pod(|_, status| status.pod_ips = Some(vec![PodIP { ip: "10.1".into() }]));
        assert!(PodObject::of(&wrong).expect_err("makes no sense").0.contains("Pod default/a"));
    }
}
