//! What is read of objects. Of a pod that the API server sends, a tenth matters here: the rest is passed over as it comes in,
//! and never takes memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Node, NodeAddress, NodeSpec, NodeStatus, Pod, PodCondition, PodIP, PodSpec,
    PodStatus, Service, ServiceSpec, ServiceStatus, Taint,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use sluice_policy::cluster_policy::ClusterNetworkPolicy;

/// A kind of objects of which not all is read.
pub trait Kind: Sized {
    /// What is.
    type Read: DeserializeOwned + Into<Self>;
}

/// An object, without what was not read.
#[derive(Clone, Debug)]
pub struct Lean<K>(pub K);

impl<K> Lean<K> {
    /// The same event of the object.
    pub fn event(event: Event<Self>) -> Event<K> {
        match event {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(object.0),
            Event::InitDone => Event::InitDone,
            Event::Apply(object) => Event::Apply(object.0),
            Event::Delete(object) => Event::Delete(object.0),
        }
    }
}

impl<'de, K: Kind> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Read::deserialize(deserializer).map(|read| Self(read.into()))
    }
}

impl<K: Resource> Resource for Lean<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// Of all objects: not who manages which of their fields.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            labels: read.labels,
            annotations: read.annotations,
            ..Self::default()
        }
    }
}

/// An object of the usual form.
#[derive(Deserialize)]
pub struct Parts<Spec, Status> {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

/// Of a pod: where it is, what it listens at, and how it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpecOfPod {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<PartOfPod>>,
    init_containers: Option<Vec<PartOfPod>>,
}

/// A container.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartOfPod {
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusOfPod {
    phase: Option<String>,
    conditions: Option<Vec<PodCondition>>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
}

impl From<SpecOfPod> for PodSpec {
    fn from(read: SpecOfPod) -> Self {
        let containers = |read: Vec<PartOfPod>| {
            let container =
                |PartOfPod { ports, restart_policy }| Container { ports, restart_policy, ..Container::default() };
            read.into_iter().map(container).collect::<Vec<_>>()
        };
        Self {
            node_name: read.node_name,
            host_network: read.host_network,
            containers: read.containers.map(containers).unwrap_or_default(),
            init_containers: read.init_containers.map(containers),
            ..Self::default()
        }
    }
}

impl From<StatusOfPod> for PodStatus {
    fn from(StatusOfPod { phase, conditions, pod_ip, pod_ips }: StatusOfPod) -> Self {
        Self { phase, conditions, pod_ip, pod_ips, ..Self::default() }
    }
}

/// Of a node: not its images, which are most of it.
#[derive(Deserialize)]
pub struct SpecOfNode {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize)]
pub struct StatusOfNode {
    addresses: Option<Vec<NodeAddress>>,
}

impl From<SpecOfNode> for NodeSpec {
    fn from(SpecOfNode { pod_cidr, pod_cidrs, taints }: SpecOfNode) -> Self {
        Self { pod_cidr, pod_cidrs, taints, ..Self::default() }
    }
}

impl From<StatusOfNode> for NodeStatus {
    fn from(StatusOfNode { addresses }: StatusOfNode) -> Self {
        Self { addresses, ..Self::default() }
    }
}

/// Of an EndpointSlice: not which pods its endpoints are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartsOfSlice {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<PartOfSlice>>,
    ports: Option<Vec<EndpointPort>>,
}

/// An endpoint.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartOfSlice {
    addresses: Option<Vec<String>>,
    conditions: Option<EndpointConditions>,
    hints: Option<EndpointHints>,
    node_name: Option<String>,
}

impl From<PartOfSlice> for Endpoint {
    fn from(PartOfSlice { addresses, conditions, hints, node_name }: PartOfSlice) -> Self {
        Self { addresses: addresses.unwrap_or_default(), conditions, hints, node_name, ..Self::default() }
    }
}

impl From<PartsOfSlice> for EndpointSlice {
    fn from(PartsOfSlice { metadata, address_type, endpoints, ports }: PartsOfSlice) -> Self {
        let endpoints = endpoints.into_iter().flatten().map(Into::into).collect();
        Self { metadata: metadata.into(), address_type, endpoints, ports }
    }
}

macro_rules! of_parts {
    ($($kind:ident: $spec:ty, $status:ty;)*) => {$(
        impl Kind for $kind {
            type Read = Parts<$spec, $status>;
        }

        impl From<Parts<$spec, $status>> for $kind {
            fn from(Parts { metadata, spec, status }: Parts<$spec, $status>) -> Self {
                Self { metadata: metadata.into(), spec: spec.map(Into::into), status: status.map(Into::into) }
            }
        }
    )*};
}

of_parts! {
    Pod: SpecOfPod, StatusOfPod;
    Node: SpecOfNode, StatusOfNode;
    Service: ServiceSpec, ServiceStatus;
}

impl Kind for Namespace {
    type Read = Parts<IgnoredAny, IgnoredAny>;
}

impl From<Parts<IgnoredAny, IgnoredAny>> for Namespace {
    fn from(Parts { metadata, .. }: Parts<IgnoredAny, IgnoredAny>) -> Self {
        Self { metadata: metadata.into(), ..Self::default() }
    }
}

impl Kind for NetworkPolicy {
    type Read = Parts<NetworkPolicySpec, IgnoredAny>;
}

impl From<Parts<NetworkPolicySpec, IgnoredAny>> for NetworkPolicy {
    fn from(Parts { metadata, spec, .. }: Parts<NetworkPolicySpec, IgnoredAny>) -> Self {
        Self { metadata: metadata.into(), spec }
    }
}

impl Kind for EndpointSlice {
    type Read = PartsOfSlice;
}

/// Read with what is not understood in it. There are few.
impl Kind for ClusterNetworkPolicy {
    type Read = Self;
}

/// Only those of blocks are asked for, which say no more than what matters.
impl Kind for Lease {
    type Read = Self;
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde_json::{Value, json};
    use sluice_policy::object::ADDRESSES;

    use super::super::Watched;
    use super::super::known::Tiding;
    use super::*;
    use crate::source::Change;

    /// An object is the same, whether all of it is read or what matters.
    #[track_caller]
    fn is_the_same<K: Watched + DeserializeOwned + Debug>(mut object: Value) {
        object["metadata"]["managedFields"] =
            json!([{ "manager": "x", "fieldsV1": { "f:spec": { "k:{\"a\":1}": {} } } }]);
        let Lean(lean): Lean<K> = serde_json::from_value(object.clone()).expect("what matters is read");
        let whole: K = serde_json::from_value(object).expect("all of it is read");
        assert_eq!(lean.is(), whole.is());
        assert_eq!(lean.meta().resource_version, whole.meta().resource_version);
        assert!(matches!(lean.is(), Some(Tiding::Object(Change::Is(_)))) && lean.meta().managed_fields.is_none());
    }

    fn metadata() -> Value {
        json!({
            "name": "a", "namespace": "x", "uid": "u1", "resourceVersion": "7", "creationTimestamp": "2025-03-01T08:00:00Z",
            "deletionTimestamp": "2025-03-01T09:00:00Z", "labels": { "kubernetes.io/service-name": "web", "b": "c" },
            "annotations": { "kubernetes.io/config.hash": "h1", "sluice.dev/policy-mode": "audit" },
        })
    }

    #[test]
    fn of_each_kind_all_that_matters_is_read() {
        is_the_same::<Pod>(json!({
            "metadata": metadata(),
            "spec": {
                "nodeName": "n1",
                "containers": [{ "name": "c", "image": "i", "ports": [{ "name": "web", "containerPort": 80 }] }, { "name": "d" }],
                "initContainers": [
                    { "name": "side", "restartPolicy": "Always", "ports": [{ "containerPort": 53, "protocol": "UDP" }] },
                    { "name": "once", "ports": [{ "containerPort": 1 }] },
                ],
            },
            "status": {
                "phase": "Running", "podIP": "10.1.0.7", "podIPs": [{ "ip": "10.1.0.7" }, { "ip": "fd00::7" }],
                "conditions": [{ "type": "Ready", "status": "False" }],
                "containerStatuses": [{ "name": "c", "ready": true, "restartCount": 1, "image": "i", "imageID": "" }],
            },
        }));
        is_the_same::<Pod>(json!({
            "metadata": { "name": "a" }, "spec": { "nodeName": "n1" }, "status": { "conditions": [
                { "type": ADDRESSES, "status": "True", "message": "10.1.0.7,fd00::7" },
            ] },
        }));
        is_the_same::<Pod>(json!({
            "metadata": { "name": "a" }, "spec": { "hostNetwork": true, "containers": null }, "status": { "podIP": "10.1.0.7" },
        }));
        is_the_same::<Node>(json!({
            "metadata": metadata(),
            "spec": { "podCIDRs": ["10.1.0.0/24"], "taints": [{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }] },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }], "images": [{ "names": ["i"] }] },
        }));
        is_the_same::<Node>(json!({ "metadata": { "name": "a" }, "spec": { "podCIDR": "10.1.0.0/24" } }));
        is_the_same::<Namespace>(json!({ "metadata": metadata(), "spec": { "finalizers": ["kubernetes"] } }));
        is_the_same::<Service>(json!({
            "metadata": metadata(),
            "spec": { "clusterIP": "10.96.0.10", "type": "LoadBalancer", "selector": { "a": "b" }, "ports": [{ "port": 80 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.80" }] } },
        }));
        is_the_same::<NetworkPolicy>(json!({
            "metadata": metadata(), "spec": { "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] },
        }));
        is_the_same::<EndpointSlice>(json!({
            "metadata": metadata(),
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.1.0.7"], "conditions": { "ready": false, "serving": true, "terminating": true },
                "nodeName": "n1", "zone": "z1", "hints": { "forZones": [{ "name": "z1" }] }, "targetRef": { "kind": "Pod" },
            }],
            "ports": [{ "name": "web", "port": 80, "protocol": "TCP" }],
        }));
        is_the_same::<EndpointSlice>(
            json!({ "metadata": metadata(), "addressType": "IPv6", "endpoints": null, "ports": null }),
        );
    }
}
