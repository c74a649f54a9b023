//! A cluster, and who is who in it.

use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_policy::cluster_policy::ClusterNetworkPolicy;

use crate::probe::{End, Family};
use crate::selector::Labels;

/// All objects that policies are about.
#[derive(Clone, Default, PartialEq)]
pub struct Cluster {
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The pods.
    pub pods: Vec<Pod>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The NetworkPolicies.
    pub network_policies: Vec<NetworkPolicy>,
    /// The ClusterNetworkPolicies.
    pub cluster_network_policies: Vec<ClusterNetworkPolicy>,
}

/// Who is at an address.
#[derive(Clone, Copy)]
pub(crate) struct Party<'a> {
    /// The address.
    pub address: IpAddr,
    /// The pod whose own it is.
    pub pod: Option<&'a Pod>,
    /// The node whose it is.
    pub node: Option<&'a Node>,
}

impl Cluster {
    /// The address of an end.
    ///
    /// # Panics
    /// Where there is no such pod, or it has no address of this family.
    #[must_use]
    pub fn address_of(&self, end: &End) -> IpAddr {
        match end {
            End::Address(address) => *address,
            End::Pod(name, family) => {
                let pod = self.pods.iter().find(|pod| full_name(pod) == *name);
                let pod = pod.unwrap_or_else(|| panic!("there is no pod {name}"));
                let found = addresses(pod).into_iter().find(|address| Family::of(*address) == *family);
                found.unwrap_or_else(|| panic!("the pod {name} has no address of family {family:?}"))
            }
        }
    }

    /// Who is at an end. All goes by the address: that of a pod means this pod, that of a host-network pod is its
    /// node's, and that of a completed pod may be another's by now.
    pub(crate) fn party(&self, end: &End) -> Party<'_> {
        let address = self.address_of(end);
        let pod = self.pods.iter().find(|pod| is_on_pod_network(pod) && addresses(pod).contains(&address));
        let node = self.nodes.iter().find(|node| node_addresses(node).contains(&address));
        Party { address, pod, node }
    }

    /// The labels of a namespace. "The Kubernetes control plane sets an immutable label `kubernetes.io/metadata.name` on
    /// all namespaces, the value of the label is the namespace name."
    pub(crate) fn namespace_labels(&self, name: &str) -> Labels {
        let namespace = self.namespaces.iter().find(|namespace| namespace.metadata.name.as_deref() == Some(name));
        let mut labels = namespace.map(|namespace| labels(&namespace.metadata)).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }
}

/// Shows the objects as manifests, one in a line, for people who look at a test that failed.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn show<T: serde::Serialize>(f: &mut fmt::Formatter<'_>, objects: &[T]) -> fmt::Result {
            for object in objects {
                writeln!(f, "{}", serde_json::to_string(object).map_err(|_| fmt::Error)?)?;
            }
            Ok(())
        }
        writeln!(f)?;
        show(f, &self.namespaces)?;
        show(f, &self.nodes)?;
        show(f, &self.pods)?;
        show(f, &self.network_policies)?;
        show(f, &self.cluster_network_policies)
    }
}

/// The labels of an object.
pub(crate) fn labels(metadata: &ObjectMeta) -> Labels {
    metadata.labels.clone().unwrap_or_default()
}

/// The namespace of an object that is in one.
pub(crate) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

/// The name of an object.
pub(crate) fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// The name of a pod, as a [`Probe`](crate::Probe) has it.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata))
}

/// The addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many: Vec<&String> = status.pod_ips.iter().flatten().map(|entry| &entry.ip).collect();
    let texts = if many.is_empty() { status.pod_ip.iter().collect() } else { many };
    texts.into_iter().map(|text| text.parse().unwrap_or_else(|_| panic!("{text:?} is no address"))).collect()
}

/// The addresses of a node: "the IPs present in the node.Status.Addresses field". Names stand there too.
pub(crate) fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    listed.filter_map(|entry| entry.address.parse().ok()).collect()
}

/// Whether a pod is subject and peer of policies. One that uses its node's network is not: "Traffic to/from `hostNetwork`
/// pods is treated the same as all other traffic to/from the node IP." One that has completed has no address any more.
/// One that is terminating still runs.
pub(crate) fn is_on_pod_network(pod: &Pod) -> bool {
    let uses_nodes = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let has_completed = matches!(phase, Some("Succeeded" | "Failed"));
    !uses_nodes && !has_completed
}

/// Whether a party is the node that a pod runs on.
pub(crate) fn is_node_of(party: &Party<'_>, pod: &Pod) -> bool {
    let own = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    party.node.is_some_and(|node| own == node.metadata.name.as_deref())
}

/// The ports that a pod names: those of its containers, and of the init containers that run beside them.
pub(crate) fn container_ports(pod: &Pod) -> Vec<&ContainerPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten()).collect()
}

/// Whether a packet for this port of a party is for a port that it names so. Only pods name ports, each for itself.
pub(crate) fn names_port(party: &Party<'_>, name: &str, protocol: &str, port: u16) -> bool {
    let Some(pod) = party.pod else { return false };
    container_ports(pod).into_iter().any(|declared| {
        declared.name.as_deref() == Some(name)
            && declared.protocol.as_deref().unwrap_or("TCP") == protocol
            && declared.container_port == i32::from(port)
    })
}
