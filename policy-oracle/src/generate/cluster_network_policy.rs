//! ClusterNetworkPolicies.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use sluice_policy::cluster_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressPeer, ClusterNetworkPolicyIngressRule, ClusterNetworkPolicyPort,
    ClusterNetworkPolicyPortRange, ClusterNetworkPolicyProtocol, ClusterNetworkPolicySelector,
    ClusterNetworkPolicySpec, ClusterNetworkPolicySubject, ClusterNetworkPolicyTransport, NamespacedPod, Unknown,
};

use super::alphabet::{EDGES, PORT_NAMES, PORTS, namespace_selector, selector};
use super::block::network;

/// The numbers that policies are told apart by.
const NUMBERS: i64 = 6;

/// A ClusterNetworkPolicy with every form of subject, peer and protocol, rarely with ones that are not supported.
pub fn cluster_network_policy() -> impl Strategy<Value = ClusterNetworkPolicy> {
    let place = (select(vec!["Admin", "Baseline"]), 0..NUMBERS, 0..100_i64);
    (place, subject(), vec(ingress_rule(), 0..=3), vec(egress_rule(), 0..=3)).prop_map(
        |((tier, number, rank), subject, ingress, egress)| ClusterNetworkPolicy {
            metadata: ObjectMeta { name: Some(format!("cluster-policy-{number}")), ..ObjectMeta::default() },
            spec: ClusterNetworkPolicySpec {
                tier: tier.into(),
                // No other policy has the same.
                priority: Some(rank * NUMBERS + number),
                subject,
                ingress,
                egress,
                unknown: Unknown::new(),
            },
            ..ClusterNetworkPolicy::default()
        },
    )
}

fn namespaced_pod() -> impl Strategy<Value = NamespacedPod> {
    (namespace_selector(), selector()).prop_map(|(namespace_selector, pod_selector)| NamespacedPod {
        namespace_selector: Some(namespace_selector.into()),
        pod_selector: Some(pod_selector.into()),
        unknown: Unknown::new(),
    })
}

fn subject() -> impl Strategy<Value = ClusterNetworkPolicySubject> {
    let empty = ClusterNetworkPolicySubject::default;
    prop_oneof![
        namespace_selector().prop_map(move |it| ClusterNetworkPolicySubject { namespaces: Some(it.into()), ..empty() }),
        namespaced_pod().prop_map(move |it| ClusterNetworkPolicySubject { pods: Some(it), ..empty() }),
    ]
}

fn action() -> impl Strategy<Value = String> {
    select(vec!["Accept", "Deny", "Pass"]).prop_map(str::to_owned)
}

fn ingress_rule() -> impl Strategy<Value = ClusterNetworkPolicyIngressRule> {
    (action(), vec(ingress_peer(), 1..=2), protocols()).prop_map(|(action, from, protocols)| {
        ClusterNetworkPolicyIngressRule { action, from, protocols, ..ClusterNetworkPolicyIngressRule::default() }
    })
}

fn egress_rule() -> impl Strategy<Value = ClusterNetworkPolicyEgressRule> {
    (action(), vec(egress_peer(), 1..=2), protocols()).prop_map(|(action, to, mut protocols)| {
        // "networks/nodes/domainNames peer cannot be set with namedPorts": the API server refuses it.
        let has_no_pods = |peer: &ClusterNetworkPolicyEgressPeer| {
            peer.networks.is_some() || peer.nodes.is_some() || peer.domain_names.is_some()
        };
        if to.iter().any(has_no_pods) {
            for protocol in protocols.iter_mut().flatten() {
                if protocol.destination_named_port.take().is_some() {
                    protocol.udp = Some(transport(Some(53), None));
                }
            }
        }
        ClusterNetworkPolicyEgressRule { action, to, protocols, ..ClusterNetworkPolicyEgressRule::default() }
    })
}

/// A field of a version to come.
fn unknown() -> Unknown {
    Unknown::from([("fromTheFuture".to_owned(), Value::Bool(true))])
}

fn selector_of_the_future(labels: LabelSelector) -> ClusterNetworkPolicySelector {
    ClusterNetworkPolicySelector { labels, unknown: unknown() }
}

fn ingress_peer() -> impl Strategy<Value = ClusterNetworkPolicyIngressPeer> {
    let empty = ClusterNetworkPolicyIngressPeer::default;
    prop_oneof![
        10 => namespace_selector().prop_map(move |it| ClusterNetworkPolicyIngressPeer { namespaces: Some(it.into()), ..empty() }),
        10 => namespaced_pod().prop_map(move |it| ClusterNetworkPolicyIngressPeer { pods: Some(it), ..empty() }),
        1 => prop_oneof![
            Just(ClusterNetworkPolicyIngressPeer { unknown: unknown(), ..empty() }),
            namespace_selector().prop_map(move |it| ClusterNetworkPolicyIngressPeer { namespaces: Some(selector_of_the_future(it)), ..empty() }),
        ],
    ]
}

fn egress_peer() -> impl Strategy<Value = ClusterNetworkPolicyEgressPeer> {
    let empty = ClusterNetworkPolicyEgressPeer::default;
    // Of networks none may be listed twice.
    let networks = vec(network(), 1..=3).prop_map(|it| it.into_iter().collect::<BTreeSet<_>>().into_iter().collect());
    prop_oneof![
        6 => namespace_selector().prop_map(move |it| ClusterNetworkPolicyEgressPeer { namespaces: Some(it.into()), ..empty() }),
        6 => namespaced_pod().prop_map(move |it| ClusterNetworkPolicyEgressPeer { pods: Some(it), ..empty() }),
        4 => selector().prop_map(move |it| ClusterNetworkPolicyEgressPeer { nodes: Some(it.into()), ..empty() }),
        6 => networks.prop_map(move |it| ClusterNetworkPolicyEgressPeer { networks: Some(it), ..empty() }),
        1 => Just(ClusterNetworkPolicyEgressPeer { domain_names: Some(vec!["*.example.org".into()]), ..empty() }),
        1 => prop_oneof![
            Just(ClusterNetworkPolicyEgressPeer { unknown: unknown(), ..empty() }),
            selector().prop_map(move |it| ClusterNetworkPolicyEgressPeer { nodes: Some(selector_of_the_future(it)), ..empty() }),
        ],
    ]
}

fn protocols() -> impl Strategy<Value = Option<Vec<ClusterNetworkPolicyProtocol>>> {
    option::of(vec(protocol(), 1..=3))
}

fn protocol() -> impl Strategy<Value = ClusterNetworkPolicyProtocol> {
    let empty = ClusterNetworkPolicyProtocol::default;
    let number = select(PORTS.to_vec()).prop_map(|port| transport(Some(port), None));
    let ends = (select(EDGES.to_vec()), select(EDGES.to_vec()));
    // Of a range, the end must be greater than the start.
    let range = ends.prop_map(|(one, other)| match one.cmp(&other) {
        std::cmp::Ordering::Less => transport(None, Some((one, other))),
        std::cmp::Ordering::Equal => transport(Some(one), None),
        std::cmp::Ordering::Greater => transport(None, Some((other, one))),
    });
    let with_ports = (0..3, prop_oneof![number, range]).prop_map(move |(which, ports)| match which {
        0 => ClusterNetworkPolicyProtocol { tcp: Some(ports), ..empty() },
        1 => ClusterNetworkPolicyProtocol { udp: Some(ports), ..empty() },
        _ => ClusterNetworkPolicyProtocol { sctp: Some(ports), ..empty() },
    });
    prop_oneof![
        12 => with_ports,
        6 => select(PORT_NAMES.to_vec()).prop_map(move |name| ClusterNetworkPolicyProtocol {
            destination_named_port: Some(name.into()),
            ..empty()
        }),
        1 => Just(ClusterNetworkPolicyProtocol { unknown: unknown(), ..empty() }),
    ]
}

fn transport(number: Option<u16>, range: Option<(u16, u16)>) -> ClusterNetworkPolicyTransport {
    let range = range.map(|(start, end)| ClusterNetworkPolicyPortRange {
        start: start.into(),
        end: end.into(),
        unknown: Unknown::new(),
    });
    let port = ClusterNetworkPolicyPort { number: number.map(i64::from), range, unknown: Unknown::new() };
    ClusterNetworkPolicyTransport { destination_port: Some(port), unknown: Unknown::new() }
}
