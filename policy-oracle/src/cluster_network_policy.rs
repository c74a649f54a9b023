//! What ClusterNetworkPolicies say.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use sluice_policy::cluster_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressPeer, ClusterNetworkPolicyIngressRule, ClusterNetworkPolicyPort,
    ClusterNetworkPolicyProtocol, ClusterNetworkPolicySelector, ClusterNetworkPolicySubject,
    ClusterNetworkPolicyTransport, NamespacedPod,
};

use crate::cidr;
use crate::cluster::{Cluster, Party, labels, name, names_port, namespace, node_addresses};
use crate::judge::{Direction, Packet};
use crate::probe::{Decider, PolicyName, Protocol, Side, Verdict};
use crate::selector;

/// Where ClusterNetworkPolicies stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Above all NetworkPolicies.
    Admin,
    /// Below them.
    Baseline,
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}

/// What a tier says of a packet; `None` where it leaves it to the next.
pub(crate) fn decide(cluster: &Cluster, tier: Tier, subject: &Pod, packet: &Packet<'_>) -> Option<Side> {
    for policy in in_order(cluster, tier) {
        if !selects(cluster, &policy.spec.subject, subject) {
            continue;
        }
        // "a rule that appears at the top of the ingress rules would take the highest precedence."
        for (index, rule) in rules(policy, packet.direction).iter().enumerate() {
            let Some(action) = rule.applies(cluster, packet) else { continue };
            let policy = PolicyName::ClusterNetworkPolicy { name: name(&policy.metadata).to_owned() };
            let deciders = BTreeSet::from([Decider { policy, rule: Some(index) }]);
            return match action {
                Action::Accept => Some(Side { verdict: Verdict::Allow, deciders }),
                Action::Deny => Some(Side { verdict: Verdict::Deny, deciders }),
                // "Skips all further ClusterNetworkPolicy rules in the current tier for the selected traffic, and passes
                // evaluation to the next tier."
                Action::Pass => None,
            };
        }
    }
    None
}

/// "Policies with lower priority values have higher precedence, and are checked before policies with higher priority
/// values in the same tier." Of two with the same priority "the implementation can apply any"; here by their names.
fn in_order(cluster: &Cluster, tier: Tier) -> Vec<&ClusterNetworkPolicy> {
    let all = cluster.cluster_network_policies.iter();
    let mut policies: Vec<_> = all.filter(|policy| policy.spec.tier == tier.name()).collect();
    policies.sort_by_key(|policy| (policy.spec.priority, name(&policy.metadata)));
    policies
}

fn selects(cluster: &Cluster, subject: &ClusterNetworkPolicySubject, pod: &Pod) -> bool {
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), _) => is_in(cluster, namespaces, pod),
        (None, Some(pods)) => is_among(cluster, pods, pod),
        (None, None) => false,
    }
}

fn is_in(cluster: &Cluster, namespaces: &ClusterNetworkPolicySelector, pod: &Pod) -> bool {
    selector::matches(&namespaces.labels, &cluster.namespace_labels(namespace(&pod.metadata)))
}

fn is_among(cluster: &Cluster, pods: &NamespacedPod, pod: &Pod) -> bool {
    let in_namespaces = pods.namespace_selector.as_ref().is_some_and(|namespaces| is_in(cluster, namespaces, pod));
    let selects = |pods: &ClusterNetworkPolicySelector| selector::matches(&pods.labels, &labels(&pod.metadata));
    in_namespaces && pods.pod_selector.as_ref().is_some_and(selects)
}

#[derive(Clone, Copy)]
enum Action {
    Accept,
    Deny,
    Pass,
}

impl Action {
    fn of(text: &str) -> Self {
        match text {
            "Accept" => Self::Accept,
            "Deny" => Self::Deny,
            "Pass" => Self::Pass,
            other => panic!("{other:?} is no action"),
        }
    }
}

/// A rule of either direction.
struct Rule<'a> {
    action: Action,
    peers: Vec<Peer<'a>>,
    protocols: Option<&'a [ClusterNetworkPolicyProtocol]>,
    has_unknown_fields: bool,
}

/// A peer of either direction.
enum Peer<'a> {
    Namespaces(&'a ClusterNetworkPolicySelector),
    Pods(&'a NamespacedPod),
    Nodes(&'a ClusterNetworkPolicySelector),
    Networks(&'a [String]),
    /// One that has no field that is supported, or another one too.
    NotUnderstood,
}

impl<'a> From<&'a ClusterNetworkPolicyIngressRule> for Rule<'a> {
    fn from(rule: &'a ClusterNetworkPolicyIngressRule) -> Self {
        Self {
            action: Action::of(&rule.action),
            peers: rule.from.iter().map(Peer::from).collect(),
            protocols: rule.protocols.as_deref(),
            has_unknown_fields: !rule.unknown.is_empty(),
        }
    }
}

impl<'a> From<&'a ClusterNetworkPolicyEgressRule> for Rule<'a> {
    fn from(rule: &'a ClusterNetworkPolicyEgressRule) -> Self {
        Self {
            action: Action::of(&rule.action),
            peers: rule.to.iter().map(Peer::from).collect(),
            protocols: rule.protocols.as_deref(),
            has_unknown_fields: !rule.unknown.is_empty(),
        }
    }
}

impl<'a> From<&'a ClusterNetworkPolicyIngressPeer> for Peer<'a> {
    fn from(peer: &'a ClusterNetworkPolicyIngressPeer) -> Self {
        match (&peer.namespaces, &peer.pods) {
            _ if !peer.unknown.is_empty() => Self::NotUnderstood,
            (Some(namespaces), None) if namespaces.unknown.is_empty() => Self::Namespaces(namespaces),
            (None, Some(pods)) if is_known(pods) => Self::Pods(pods),
            _ => Self::NotUnderstood,
        }
    }
}

impl<'a> From<&'a ClusterNetworkPolicyEgressPeer> for Peer<'a> {
    fn from(peer: &'a ClusterNetworkPolicyEgressPeer) -> Self {
        match (&peer.namespaces, &peer.pods, &peer.nodes, &peer.networks) {
            _ if !peer.unknown.is_empty() => Self::NotUnderstood,
            (Some(namespaces), None, None, None) if namespaces.unknown.is_empty() => Self::Namespaces(namespaces),
            (None, Some(pods), None, None) if is_known(pods) => Self::Pods(pods),
            (None, None, Some(nodes), None) if nodes.unknown.is_empty() => Self::Nodes(nodes),
            (None, None, None, Some(networks)) => Self::Networks(networks),
            // Domain names are not supported, so theirs is as good as an unknown field.
            _ => Self::NotUnderstood,
        }
    }
}

/// Whether all fields of a peer are known.
fn is_known(pods: &NamespacedPod) -> bool {
    let mut selectors = pods.namespace_selector.iter().chain(&pods.pod_selector);
    pods.unknown.is_empty() && selectors.all(|selector| selector.unknown.is_empty())
}

fn rules(policy: &ClusterNetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    match direction {
        Direction::Ingress => policy.spec.ingress.iter().map(Rule::from).collect(),
        Direction::Egress => policy.spec.egress.iter().map(Rule::from).collect(),
    }
}

impl Rule<'_> {
    /// What this rule does with a packet; `None` where it does not match.
    fn applies(&self, cluster: &Cluster, packet: &Packet<'_>) -> Option<Action> {
        if !self.is_understood() {
            // "For \"Accept\" rules, \"fail closed\" means: \"treat the rule as matching no traffic\". For \"Deny\" and
            // \"Pass\" rules, \"fail closed\" means: \"treat the rule as a 'Deny all' rule\"."
            return match self.action {
                Action::Accept => None,
                Action::Deny | Action::Pass => Some(Action::Deny),
            };
        }
        let from_peer = self.peers.iter().any(|peer| peer.matches(cluster, &packet.peer()));
        // "If unspecified, protocol-specific attributes will not be used to match traffic."
        let by_protocol = self.protocols.is_none_or(|listed| listed.iter().any(|it| matches_protocol(it, packet)));
        (from_peer && by_protocol).then_some(self.action)
    }

    fn is_understood(&self) -> bool {
        !self.has_unknown_fields
            && !self.peers.iter().any(|peer| matches!(peer, Peer::NotUnderstood))
            && self.protocols.iter().copied().flatten().all(is_understood)
    }
}

impl Peer<'_> {
    fn matches(&self, cluster: &Cluster, party: &Party<'_>) -> bool {
        match self {
            Self::Namespaces(namespaces) => party.pod.is_some_and(|pod| is_in(cluster, namespaces, pod)),
            Self::Pods(pods) => party.pod.is_some_and(|pod| is_among(cluster, pods, pod)),
            // "It selects the nodeIPs as the peer type by matching on the IPs present in the node.Status.Addresses field
            // of the node."
            Self::Nodes(selector) => {
                let mut selected =
                    cluster.nodes.iter().filter(|node| selector::matches(&selector.labels, &labels(&node.metadata)));
                selected.any(|node| node_addresses(node).contains(&party.address))
            }
            // "note that cluster-internal traffic will be checked against the rule as well."
            Self::Networks(networks) => networks.iter().any(|network| cidr::contains(network, party.address)),
            Self::NotUnderstood => false,
        }
    }
}

/// The transports of a protocol, exactly one of which is set where it is not a named port.
fn transports(
    protocol: &ClusterNetworkPolicyProtocol,
) -> impl Iterator<Item = (Protocol, &ClusterNetworkPolicyTransport)> {
    [(Protocol::Tcp, &protocol.tcp), (Protocol::Udp, &protocol.udp), (Protocol::Sctp, &protocol.sctp)]
        .into_iter()
        .filter_map(|(protocol, transport)| Some((protocol, transport.as_ref()?)))
}

/// Whether a protocol has exactly one field, one that is supported, and so has all that is in it.
fn is_understood(protocol: &ClusterNetworkPolicyProtocol) -> bool {
    let is_port_understood = |port: &ClusterNetworkPolicyPort| {
        port.unknown.is_empty()
            && port.number.is_some() != port.range.is_some()
            && port.range.as_ref().is_none_or(|range| range.unknown.is_empty())
    };
    let is_transport_understood = |transport: &ClusterNetworkPolicyTransport| {
        transport.unknown.is_empty() && transport.destination_port.as_ref().is_some_and(is_port_understood)
    };
    let named = usize::from(protocol.destination_named_port.is_some());
    protocol.unknown.is_empty()
        && transports(protocol).count() + named == 1
        && transports(protocol).all(|(_, transport)| is_transport_understood(transport))
}

fn matches_protocol(protocol: &ClusterNetworkPolicyProtocol, packet: &Packet<'_>) -> bool {
    // "DestinationNamedPort selects a destination port on a pod based on the ContainerPort name." The container port says
    // the protocol.
    if let Some(name) = &protocol.destination_named_port {
        let of_packet = packet.protocol.name();
        return of_packet.is_some_and(|of_packet| names_port(&packet.to, name, of_packet, packet.port));
    }
    transports(protocol).any(|(protocol, transport)| {
        let port = transport.destination_port.as_ref();
        protocol == packet.protocol && port.is_some_and(|port| matches_port(port, packet.port))
    })
}

/// "Range defines a contiguous range of ports", an inclusive one.
fn matches_port(port: &ClusterNetworkPolicyPort, number: u16) -> bool {
    let number = i64::from(number);
    let in_range = port.range.as_ref().is_some_and(|range| (range.start..=range.end).contains(&number));
    port.number == Some(number) || in_range
}
