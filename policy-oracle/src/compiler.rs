//! What the compiler is told of a cluster and asked about it, and what its reasons mean, where both shall say the same.

use std::collections::BTreeSet;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_policy::{
    Answer, Event, Judgement as Found, Kind, ObjectName, Party, PodName, Protocol as Number, Reason,
    Verdict as FoundVerdict, Why,
};

use crate::cluster::Cluster;
use crate::probe::{Decider, End, Family, Judgement, PolicyName, Probe, Protocol, Side, Verdict};

/// What must be told where one cluster becomes another.
#[must_use]
pub fn events(before: &Cluster, after: &Cluster) -> Vec<Event> {
    let mut events = Vec::new();
    differ(Kind::Namespace, &before.namespaces, &after.namespaces, &mut events);
    differ(Kind::Node, &before.nodes, &after.nodes, &mut events);
    differ(Kind::Pod, &before.pods, &after.pods, &mut events);
    differ(Kind::NetworkPolicy, &before.network_policies, &after.network_policies, &mut events);
    differ(Kind::ClusterNetworkPolicy, &before.cluster_network_policies, &after.cluster_network_policies, &mut events);
    events
}

/// Tells what of one kind has become other objects of it.
fn differ<T>(kind: Kind, before: &[T], after: &[T], events: &mut Vec<Event>)
where
    T: Metadata<Ty = ObjectMeta> + PartialEq,
    for<'a> Event: From<&'a T>,
{
    let name = |object: &T| {
        let ObjectMeta { namespace, name, .. } = object.metadata();
        ObjectName::new(kind, namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    };
    let gone = before.iter().map(name).filter(|gone| !after.iter().any(|object| name(object) == *gone));
    events.extend(gone.map(Event::Removed));
    events.extend(after.iter().filter(|object| !before.contains(object)).map(Event::from));
}

/// A question, in the words of `sluice-policy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The ends as the probe names them.
    pub by_name: [Party; 2],
    /// The ends by their addresses: those of the sender and of the receiver.
    pub by_address: [Party; 2],
    /// The protocol's number in packets.
    pub protocol: Number,
    /// The port that it is sent to.
    pub port: u16,
    /// The family of both ends.
    pub family: sluice_policy::Family,
}

impl Question {
    /// What a probe asks.
    ///
    /// # Panics
    /// Where an end is a pod that is not there or has no address of that family.
    #[must_use]
    pub fn of(probe: &Probe, cluster: &Cluster) -> Self {
        let addresses = [&probe.from, &probe.to].map(|end| cluster.address_of(end));
        let family = Family::of(addresses[0]);
        Self {
            by_name: [party(&probe.from), party(&probe.to)],
            by_address: addresses.map(Party::Address),
            protocol: number(probe.protocol, family),
            port: probe.port,
            family: match family {
                Family::V4 => sluice_policy::Family::V4,
                Family::V6 => sluice_policy::Family::V6,
            },
        }
    }
}

/// What names a policy here and there.
#[must_use]
pub fn name(policy: &ObjectName) -> PolicyName {
    match policy.kind {
        Kind::ClusterNetworkPolicy => PolicyName::ClusterNetworkPolicy { name: policy.name.clone() },
        Kind::Namespace | Kind::Pod | Kind::Node | Kind::NetworkPolicy | Kind::Service | Kind::EndpointSlice => {
            PolicyName::NetworkPolicy { namespace: policy.namespace.clone(), name: policy.name.clone() }
        }
    }
}

/// Whether a reason of the compiler's is one that decides a side.
#[must_use]
pub fn decides(reason: &Reason, side: &Side) -> bool {
    match reason {
        Reason::Rule { policy, index, .. } => {
            side.deciders.contains(&Decider { policy: name(policy), rule: Some(*index as usize) })
        }
        Reason::Isolated { policies, .. } => {
            let isolating = policies.iter().map(|policy| Decider { policy: name(policy), rule: None });
            side.deciders == isolating.collect::<BTreeSet<_>>()
        }
    }
}

/// Whether an answer of the compiler's is the documentation's, with a reason that decides at each end.
#[must_use]
pub fn agrees(found: &Answer<'_>, expected: &Judgement) -> bool {
    verdict(found.verdict) == expected.verdict
        && side_agrees(&found.egress, &expected.egress)
        && side_agrees(&found.ingress, &expected.ingress)
}

fn side_agrees(found: &Found<'_>, side: &Side) -> bool {
    let named = match found.why {
        Why::Policy(reason) => decides(reason, side),
        Why::NotSubject | Why::Itself | Why::OwnNode | Why::NoPolicy => side.deciders.is_empty(),
        Why::Closed => false,
    };
    named && verdict(found.verdict) == side.verdict
}

fn verdict(found: FoundVerdict) -> Verdict {
    match found {
        FoundVerdict::Allow => Verdict::Allow,
        FoundVerdict::Deny => Verdict::Deny,
    }
}

/// An end, as the compiler is asked about it.
pub fn party(end: &End) -> Party {
    match end {
        End::Address(address) => Party::Address(*address),
        End::Pod(name, _) => {
            let (namespace, name) = name.split_once('/').unwrap_or_else(|| panic!("{name:?} has no namespace"));
            Party::Pod(PodName::new(namespace, name))
        }
    }
}

fn number(protocol: Protocol, family: Family) -> Number {
    match (protocol, family) {
        (Protocol::Tcp, _) => Number::TCP,
        (Protocol::Udp, _) => Number::UDP,
        (Protocol::Sctp, _) => Number::SCTP,
        (Protocol::Other, Family::V4) => Number::ICMP,
        (Protocol::Other, Family::V6) => Number::ICMPV6,
    }
}
