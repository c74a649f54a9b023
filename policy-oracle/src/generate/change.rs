//! What happens to a cluster.

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;
use sluice_policy::cluster_policy::ClusterNetworkPolicy;

use super::alphabet::{SLOTS, labels, pod_address};
use super::cluster::put;
use super::cluster_network_policy::cluster_network_policy;
use super::network_policy::network_policy;
use super::object::{PodDraft, pod, set_addresses};
use crate::cluster::{Cluster, addresses, is_on_pod_network};
use crate::probe::Family;
use crate::selector::Labels;

/// The numbers in pods' names: one that comes may take the name of another in its namespace, and with it its place.
const PODS: usize = 8;

/// Something that happens to a cluster. It finds out what it happens to when it does; where there is nothing, nothing
/// happens.
#[derive(Clone, Debug)]
pub struct Change(Kind);

#[derive(Clone, Debug)]
enum Kind {
    LabelPod(Index, Labels),
    LabelNamespace(Index, Labels),
    LabelNode(Index, Labels),
    AddPod(Box<PodDraft>, usize, u8),
    RemovePod(Index),
    MovePod(Index, u8),
    CompletePod(Index),
    TerminatePod(Index),
    PutNetworkPolicy(Box<NetworkPolicy>),
    RemoveNetworkPolicy(Index),
    PutClusterNetworkPolicy(Box<ClusterNetworkPolicy>),
    RemoveClusterNetworkPolicy(Index),
}

/// Any change. A sequence of them keeps a cluster one that may be.
pub fn change() -> impl Strategy<Value = Change> {
    let any = any::<Index>;
    prop_oneof![
        3 => (any(), labels()).prop_map(|(pod, labels)| Kind::LabelPod(pod, labels)),
        2 => (any(), labels()).prop_map(|(namespace, labels)| Kind::LabelNamespace(namespace, labels)),
        1 => (any(), labels()).prop_map(|(node, labels)| Kind::LabelNode(node, labels)),
        3 => (pod(), 0..PODS, 0..SLOTS).prop_map(|(pod, number, slot)| Kind::AddPod(Box::new(pod), number, slot)),
        2 => any().prop_map(Kind::RemovePod),
        2 => (any(), 0..SLOTS).prop_map(|(pod, slot)| Kind::MovePod(pod, slot)),
        1 => any().prop_map(Kind::CompletePod),
        1 => any().prop_map(Kind::TerminatePod),
        3 => network_policy().prop_map(|policy| Kind::PutNetworkPolicy(Box::new(policy))),
        1 => any().prop_map(Kind::RemoveNetworkPolicy),
        3 => cluster_network_policy().prop_map(|policy| Kind::PutClusterNetworkPolicy(Box::new(policy))),
        1 => any().prop_map(Kind::RemoveClusterNetworkPolicy),
    ]
    .prop_map(Change)
}

impl Change {
    /// Does it.
    pub fn apply(&self, cluster: &mut Cluster) {
        match &self.0 {
            Kind::LabelPod(index, labels) => label(&mut cluster.pods, index, labels),
            Kind::LabelNamespace(index, labels) => label(&mut cluster.namespaces, index, labels),
            Kind::LabelNode(index, labels) => label(&mut cluster.nodes, index, labels),
            Kind::AddPod(draft, number, wanted) => {
                let nodes = cluster.nodes.len();
                if let Some(slot) = free_slot(cluster, *wanted) {
                    put(&mut cluster.pods, draft.place(*number, nodes, slot));
                }
            }
            Kind::RemovePod(index) => remove(&mut cluster.pods, index),
            Kind::MovePod(index, wanted) => {
                let slot = free_slot(cluster, *wanted);
                if let (Some(pod), Some(slot)) = (pick(&mut cluster.pods, index), slot) {
                    move_pod(pod, slot);
                }
            }
            Kind::CompletePod(index) => {
                if let Some(pod) = pick(&mut cluster.pods, index) {
                    pod.status.get_or_insert_default().phase = Some("Succeeded".into());
                }
            }
            Kind::TerminatePod(index) => {
                if let Some(pod) = pick(&mut cluster.pods, index) {
                    pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                }
            }
            Kind::PutNetworkPolicy(policy) => put(&mut cluster.network_policies, (**policy).clone()),
            Kind::RemoveNetworkPolicy(index) => remove(&mut cluster.network_policies, index),
            Kind::PutClusterNetworkPolicy(policy) => put(&mut cluster.cluster_network_policies, (**policy).clone()),
            Kind::RemoveClusterNetworkPolicy(index) => remove(&mut cluster.cluster_network_policies, index),
        }
    }
}

fn pick<'a, T>(objects: &'a mut [T], index: &Index) -> Option<&'a mut T> {
    if objects.is_empty() { None } else { Some(index.get_mut(objects)) }
}

fn label<T: Metadata<Ty = ObjectMeta>>(objects: &mut [T], index: &Index, labels: &Labels) {
    if let Some(object) = pick(objects, index) {
        object.metadata_mut().labels = Some(labels.clone());
    }
}

fn remove<T>(objects: &mut Vec<T>, index: &Index) {
    if !objects.is_empty() {
        objects.remove(index.index(objects.len()));
    }
}

/// Moves a pod to other addresses of the same families; one that has none of its own stays.
fn move_pod(pod: &mut Pod, slot: u8) {
    if is_on_pod_network(pod) {
        let moved: Vec<_> = addresses(pod).into_iter().map(|old| pod_address(slot, Family::of(old))).collect();
        set_addresses(pod, &moved);
    }
}

/// The first place from a wanted one on where no pod is: one that completed leaves its place to others.
fn free_slot(cluster: &Cluster, wanted: u8) -> Option<u8> {
    let taken: Vec<_> = cluster.pods.iter().filter(|pod| is_on_pod_network(pod)).flat_map(addresses).collect();
    let is_free = |slot: &u8| !Family::BOTH.iter().any(|family| taken.contains(&pod_address(*slot, *family)));
    (0..SLOTS).map(|step| (wanted + step) % SLOTS + 1).find(is_free)
}
