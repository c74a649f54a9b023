//! Clusters.

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::alphabet::{NAMESPACES, labels};
use super::cluster_network_policy::cluster_network_policy;
use super::network_policy::network_policy;
use super::object::{PodDraft, Stage, namespace, node, pod};
use crate::cluster::Cluster;
use crate::selector::Labels;

/// A cluster of three namespaces, one or two nodes, up to eight pods and a few policies of both kinds.
pub fn cluster() -> impl Strategy<Value = Cluster> {
    let namespaces = [labels(), labels(), labels()];
    let pods = vec((pod(), any::<Index>()), 1..=8);
    let policies = (vec(network_policy(), 0..=8), vec(cluster_network_policy(), 0..=5));
    (namespaces, vec(labels(), 1..=2), pods, policies).prop_map(|(namespaces, nodes, pods, policies)| {
        let mut cluster = Cluster {
            namespaces: NAMESPACES.iter().zip(namespaces).map(|(name, labels)| namespace(name, labels)).collect(),
            pods: place(&pods, nodes.len()),
            nodes: nodes
                .into_iter()
                .enumerate()
                .map(|(index, labels): (_, Labels)| node(index as u8, labels))
                .collect(),
            ..Cluster::default()
        };
        policies.0.into_iter().for_each(|policy| put(&mut cluster.network_policies, policy));
        policies.1.into_iter().for_each(|policy| put(&mut cluster.cluster_network_policies, policy));
        cluster
    })
}

/// Places pods, each at an address of its own but for the completed ones: theirs may be another's by now.
fn place(drafts: &[(PodDraft, Index)], nodes: usize) -> Vec<Pod> {
    let placed = drafts.iter().enumerate().map(|(number, (draft, other))| {
        let slot = if matches!(draft.stage, Stage::Completed(_)) { other.index(drafts.len()) } else { number };
        draft.place(number, nodes, slot as u8 + 1)
    });
    placed.collect()
}

/// Puts an object in, instead of one of that name.
pub(super) fn put<T: Metadata<Ty = ObjectMeta>>(objects: &mut Vec<T>, object: T) {
    let key = |object: &T| (object.metadata().namespace.clone(), object.metadata().name.clone());
    match objects.iter_mut().find(|other| key(other) == key(&object)) {
        Some(old) => *old = object,
        None => objects.push(object),
    }
}
