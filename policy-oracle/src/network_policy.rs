//! What NetworkPolicies say.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cidr;
use crate::cluster::{Cluster, Party, is_node_of, labels, name, names_port, namespace};
use crate::judge::{Direction, Packet};
use crate::probe::{Decider, PolicyName, Side, Verdict};
use crate::selector;

/// What the NetworkPolicies that apply to a pod say of a packet; `None` where none does.
pub(crate) fn decide(cluster: &Cluster, subject: &Pod, packet: &Packet<'_>) -> Option<Side> {
    let mut allowing = BTreeSet::new();
    let mut isolating = BTreeSet::new();
    for policy in &cluster.network_policies {
        if !applies_for(policy, packet.direction) || !selects(policy, subject) {
            continue;
        }
        isolating.insert(Decider { policy: policy_name(policy), rule: None });
        for (index, (peers, ports)) in rules(policy, packet.direction).into_iter().enumerate() {
            if matches_peers(cluster, policy, peers, &packet.peer()) && matches_ports(ports, packet) {
                allowing.insert(Decider { policy: policy_name(policy), rule: Some(index) });
            }
        }
    }
    if isolating.is_empty() {
        None
    } else if is_node_of(&packet.peer(), subject) {
        // "traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of the
        // Pod or the node". No policy allows it: it is not theirs to judge.
        Some(Side::undecided())
    } else if allowing.is_empty() {
        Some(Side { verdict: Verdict::Deny, deciders: isolating })
    } else {
        Some(Side { verdict: Verdict::Allow, deciders: allowing })
    }
}

fn policy_name(policy: &NetworkPolicy) -> PolicyName {
    let (namespace, name) = (namespace(&policy.metadata).to_owned(), name(&policy.metadata).to_owned());
    PolicyName::NetworkPolicy { namespace, name }
}

/// "If no `policyTypes` are specified on a NetworkPolicy then by default `Ingress` will always be set and `Egress` will be
/// set if the NetworkPolicy has any egress rules."
fn applies_for(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return direction == Direction::Ingress };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|listed| listed == "Ingress"),
        Direction::Egress if types.is_empty() => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        Direction::Egress => types.iter().any(|listed| listed == "Egress"),
    }
}

/// "An empty podSelector matches all pods in this namespace."
fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
    namespace(&policy.metadata) == namespace(&pod.metadata) && selector::matches(&selector, &labels(&pod.metadata))
}

/// A rule: its peers and its ports. Whether they are empty or missing is all the same to their documentation.
type Rule<'a> = (&'a [NetworkPolicyPeer], &'a [NetworkPolicyPort]);

fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    let ingress = spec.ingress.iter().flatten().map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
    let egress = spec.egress.iter().flatten().map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
    let rules: Vec<_> = match direction {
        Direction::Ingress => ingress.collect(),
        Direction::Egress => egress.collect(),
    };
    rules.into_iter().map(|(peers, ports)| (peers.unwrap_or_default(), ports.unwrap_or_default())).collect()
}

/// "Items in this list are combined using a logical OR operation. If this field is empty or missing, this rule matches
/// all sources" (destinations).
fn matches_peers(cluster: &Cluster, policy: &NetworkPolicy, peers: &[NetworkPolicyPeer], party: &Party<'_>) -> bool {
    peers.is_empty() || peers.iter().any(|peer| matches_peer(cluster, policy, peer, party))
}

fn matches_peer(cluster: &Cluster, policy: &NetworkPolicy, peer: &NetworkPolicyPeer, party: &Party<'_>) -> bool {
    if let Some(block) = &peer.ip_block {
        return matches_block(block, party);
    }
    let Some(pod) = party.pod else { return false };
    let home = namespace(&pod.metadata);
    let in_namespaces = match (&peer.namespace_selector, &peer.pod_selector) {
        // "if present but empty, it selects all namespaces."
        (Some(namespaces), _) => selector::matches(namespaces, &cluster.namespace_labels(home)),
        // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
        (None, Some(_)) => home == namespace(&policy.metadata),
        (None, None) => false,
    };
    // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
    let among_pods = peer.pod_selector.as_ref().is_none_or(|pods| selector::matches(pods, &labels(&pod.metadata)));
    in_namespaces && among_pods
}

/// "The except entry describes CIDRs that should not be included within this rule." An address is an address, be it a
/// pod's, a node's or anyone's.
fn matches_block(block: &IPBlock, party: &Party<'_>) -> bool {
    let is_excepted = block.except.iter().flatten().any(|except| cidr::contains(except, party.address));
    cidr::contains(&block.cidr, party.address) && !is_excepted
}

/// "Each item in this list is combined using a logical OR. If this field is empty or missing, this rule matches all ports
/// (traffic not restricted by port)." And only then it matches what has no ports.
fn matches_ports(ports: &[NetworkPolicyPort], packet: &Packet<'_>) -> bool {
    ports.is_empty() || ports.iter().any(|port| matches_port(port, packet))
}

fn matches_port(port: &NetworkPolicyPort, packet: &Packet<'_>) -> bool {
    // "If not specified, this field defaults to TCP."
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    if packet.protocol.name() != Some(protocol) {
        return false;
    }
    match &port.port {
        // "If this field is not provided, this matches all port names and numbers."
        None => true,
        // "the range of ports from port to endPort if set, inclusive".
        Some(IntOrString::Int(first)) => (*first..=port.end_port.unwrap_or(*first)).contains(&i32::from(packet.port)),
        // "This can either be a numerical or named port on a pod."
        Some(IntOrString::String(name)) => names_port(&packet.to, name, protocol, packet.port),
    }
}
