//! The compiler, its tables and the datapath's code for them say the same as the documentation, whatever happens.
//!
//! Objects come and change one by one, and everything is asked again in between.

use std::collections::BTreeSet;

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Place;
use sluice_abi::Protocol as Number;
use sluice_policy::{
    Evaluator, Event, Index, Judgement, Kind, Limits, Match, ObjectName, Party, PodName, PolicyDirection, ProbeError,
    Reason, Reasoning, Transport, Verdict as Found, View, Why,
};
use sluice_policy_oracle::generate::{ProbeDraft, change, cluster, probe};
use sluice_policy_oracle::{Cluster, Decider, End, Family, PolicyName, Probe, Protocol, Side, Verdict};

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

/// What an index must be told.
fn events(before: &Cluster, after: &Cluster) -> Vec<Event> {
    let mut events = Vec::new();
    differ(Kind::Namespace, &before.namespaces, &after.namespaces, &mut events);
    differ(Kind::Node, &before.nodes, &after.nodes, &mut events);
    differ(Kind::Pod, &before.pods, &after.pods, &mut events);
    differ(Kind::NetworkPolicy, &before.network_policies, &after.network_policies, &mut events);
    differ(Kind::ClusterNetworkPolicy, &before.cluster_network_policies, &after.cluster_network_policies, &mut events);
    events
}

fn party(end: &End) -> Party {
    match end {
        End::Address(address) => Party::Address(*address),
        End::Pod(name, _) => {
            let (namespace, name) = name.split_once('/').expect("a namespace and a name");
            Party::Pod(PodName::new(namespace, name))
        }
    }
}

fn family_of(cluster: &Cluster, end: &End) -> Family {
    Family::of(cluster.address_of(end))
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

/// What names a policy here and there.
fn name(policy: &ObjectName) -> PolicyName {
    match policy.kind {
        Kind::ClusterNetworkPolicy => PolicyName::ClusterNetworkPolicy { name: policy.name.clone() },
        _ => PolicyName::NetworkPolicy { namespace: policy.namespace.clone(), name: policy.name.clone() },
    }
}

/// Whether a side is judged as it should be, for a reason that it should be.
fn agrees(found: &Judgement<'_>, side: &Side) -> bool {
    let named = match found.why {
        Why::Policy(Reason::Rule { policy, index, .. }) => {
            side.deciders.contains(&Decider { policy: name(policy), rule: Some(*index as usize) })
        }
        Why::Policy(Reason::Isolated { policies, .. }) => {
            let isolating = policies.iter().map(|policy| Decider { policy: name(policy), rule: None });
            side.deciders == isolating.collect::<BTreeSet<_>>()
        }
        Why::NotSubject | Why::Itself | Why::OwnNode | Why::NoPolicy => side.deciders.is_empty(),
        Why::Closed => false,
    };
    named && verdict(found.verdict) == side.verdict
}

fn verdict(found: Found) -> Verdict {
    match found {
        Found::Allow => Verdict::Allow,
        Found::Deny => Verdict::Deny,
    }
}

/// Whether an explanation has all that decides a side.
fn explains(steps: &[Reasoning], side: &Side) -> bool {
    side.deciders.iter().all(|decider| {
        steps.iter().any(|step| match step {
            Reasoning::Policy { policy, isolates } => {
                *isolates && decider.rule.is_none() && name(policy) == decider.policy
            }
            Reasoning::Rule { policy, index, matches, .. } => {
                *matches == Match::Yes && decider.rule == Some(*index) && name(policy) == decider.policy
            }
        })
    })
}

/// Asks both about a probe.
fn ask(cluster: &Cluster, index: &Index, evaluator: &Evaluator<'_>, probe: &Probe) -> Result<(), TestCaseError> {
    let expected = cluster.judge(probe);
    let family = family_of(cluster, &probe.from);
    let protocol = number(probe.protocol, family);
    let of_datapath = match family {
        Family::V4 => sluice_datapath::Family::V4,
        Family::V6 => sluice_datapath::Family::V6,
    };
    let ask = |from: &Party, to: &Party| evaluator.probe(from, to, protocol, probe.port, of_datapath);
    let [from, to] = [&probe.from, &probe.to].map(|end| Party::Address(cluster.address_of(end)));
    let by_address = ask(&from, &to);
    // A pod that has ended has no address that it could be asked about; whoever has it now has.
    let by_name = match ask(&party(&probe.from), &party(&probe.to)) {
        Err(ProbeError::Ended(_)) => by_address.clone(),
        other => other,
    };
    for answer in [by_name, by_address] {
        let answer = answer.map_err(|error| TestCaseError::fail(format!("{probe:?}: {error}")))?;
        let agreed = verdict(answer.verdict) == expected.verdict
            && agrees(&answer.egress, &expected.egress)
            && agrees(&answer.ingress, &expected.ingress);
        prop_assert!(agreed, "{probe:?}\nfound    {answer:?}\nexpected {expected:?}\n{cluster:?}");
    }
    let transport = Transport::ALL.into_iter().find(|transport| Some(transport.name()) == probe.protocol.name());
    let [from, to] = [&probe.from, &probe.to].map(|end| cluster.address_of(end));
    let sides = [
        (&expected.egress, PolicyDirection::Egress, from, to),
        (&expected.ingress, PolicyDirection::Ingress, to, from),
    ];
    for (side, direction, subject, peer) in sides {
        let pod = index.pod_at(subject).map(|pod| &pod.name);
        let steps = pod.map(|pod| index.explain(pod, direction, peer, transport, probe.port)).unwrap_or_default();
        prop_assert!(explains(&steps, side), "{probe:?}\nfound    {steps:?}\nexpected {side:?}\n{cluster:?}");
    }
    Ok(())
}

/// `SLUICE_CASES=100000` asks some ten million times.
fn cases() -> ProptestConfig {
    let cases = std::env::var("SLUICE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(768);
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_tables_say_what_the_documentation_says(
        mut cluster in cluster(),
        first in any::<Place>(),
        changes in vec(change(), 0..8),
        probes in vec(probe(), 1..=48),
    ) {
        let probes: Vec<ProbeDraft> = probes;
        let mut index = Index::new(View::Everything, Limits::NONE);
        let mut all = events(&Cluster::default(), &cluster);
        if !all.is_empty() {
            // In any order, all the same.
            let middle = first.index(all.len());
            all.rotate_left(middle);
        }
        for event in all {
            index.apply(event);
        }
        for probe in &probes {
            ask(&cluster, &index, &Evaluator::new(&index), &probe.of(&cluster))?;
        }
        for change in changes {
            let before = cluster.clone();
            change.apply(&mut cluster);
            for event in events(&before, &cluster) {
                prop_assert!(!matches!(event, Event::Invalid(_)), "{event:?}");
                index.apply(event);
            }
            let evaluator = Evaluator::new(&index);
            for probe in &probes {
                ask(&cluster, &index, &evaluator, &probe.of(&cluster))?;
            }
            // What matters of it to a single probe says the same.
            let probe = probes[0].of(&cluster);
            let excerpt = index.excerpt([&party(&probe.from), &party(&probe.to)]);
            ask(&cluster, &excerpt, &Evaluator::new(&excerpt), &probe)?;
        }
    }
}
