//! NetworkPolicies.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::alphabet::{EDGES, PORT_NAMES, PORTS, PROTOCOLS, namespace_name, namespace_selector, selector};
use super::block::ip_block;

/// The numbers that policies are told apart by, in each namespace.
const NUMBERS: usize = 5;

/// A NetworkPolicy with every form of peer and port.
pub fn network_policy() -> impl Strategy<Value = NetworkPolicy> {
    let name = (namespace_name(), 0..NUMBERS);
    let types =
        select(vec![None, Some(vec![]), Some(vec!["Ingress"]), Some(vec!["Egress"]), Some(vec!["Ingress", "Egress"])]);
    let ingress = (list(peer()), list(port())).prop_map(|(from, ports)| NetworkPolicyIngressRule { from, ports });
    let egress = (list(peer()), list(port())).prop_map(|(to, ports)| NetworkPolicyEgressRule { to, ports });
    (name, selector(), types, option::weighted(0.8, vec(ingress, 0..=3)), option::weighted(0.8, vec(egress, 0..=3)))
        .prop_map(|((namespace, number), pods, types, ingress, egress)| NetworkPolicy {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(format!("policy-{number}")),
                ..ObjectMeta::default()
            },
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(pods),
                policy_types: types.map(|types: Vec<&str>| types.into_iter().map(str::to_owned).collect()),
                ingress,
                egress,
            }),
        })
}

/// A list that may be missing or empty, which means everything and not nothing.
fn list<T: std::fmt::Debug + Clone>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Vec<T>>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Vec::new())), 5 => vec(item, 1..=3).prop_map(Some)]
}

fn peer() -> impl Strategy<Value = NetworkPolicyPeer> {
    let empty = NetworkPolicyPeer::default;
    prop_oneof![
        1 => selector().prop_map(move |pods| NetworkPolicyPeer { pod_selector: Some(pods), ..empty() }),
        1 => namespace_selector().prop_map(move |in_| NetworkPolicyPeer { namespace_selector: Some(in_), ..empty() }),
        1 => (namespace_selector(), selector()).prop_map(move |(in_, pods)| NetworkPolicyPeer {
            namespace_selector: Some(in_),
            pod_selector: Some(pods),
            ..empty()
        }),
        2 => ip_block().prop_map(move |block| NetworkPolicyPeer { ip_block: Some(block), ..empty() }),
    ]
}

fn port() -> impl Strategy<Value = NetworkPolicyPort> {
    let number = select(PORTS.to_vec()).prop_map(|port| (Some(IntOrString::Int(port.into())), None));
    let range = (select(EDGES.to_vec()), select(EDGES.to_vec()))
        .prop_map(|(one, other)| (Some(IntOrString::Int(one.min(other).into())), Some(i32::from(one.max(other)))));
    let name = select(PORT_NAMES.to_vec()).prop_map(|name| (Some(IntOrString::String(name.into())), None));
    let ports = prop_oneof![3 => number, 2 => range, 3 => name, 1 => Just((None, None))];
    (select(PROTOCOLS.to_vec()), ports).prop_map(|(protocol, (port, end_port))| NetworkPolicyPort {
        protocol: protocol.map(str::to_owned),
        port,
        end_port,
    })
}
