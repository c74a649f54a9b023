//! Random clusters are ones that may be, and nasty ones.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sluice_policy_oracle::generate::{change, cluster, every_probe, probe};
use sluice_policy_oracle::{Cluster, PolicyName, Side, Verdict};

/// The addresses of pods that have their own, with repetitions.
fn addresses(cluster: &Cluster) -> Vec<String> {
    let mut addresses = Vec::new();
    for pod in &cluster.pods {
        let (spec, status) = (pod.spec.as_ref().expect("a spec"), pod.status.as_ref().expect("a status"));
        if spec.host_network != Some(true) && !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            addresses.extend(status.pod_ips.iter().flatten().map(|entry| entry.ip.clone()));
        }
    }
    addresses
}

fn has_repetitions<T: Ord>(items: impl IntoIterator<Item = T>) -> bool {
    let items: Vec<T> = items.into_iter().collect();
    let count = items.len();
    items.into_iter().collect::<BTreeSet<T>>().len() < count
}

fn may_be(cluster: &Cluster) -> bool {
    let names = cluster.pods.iter().map(|pod| (&pod.metadata.namespace, &pod.metadata.name));
    let policies = cluster.network_policies.iter().map(|policy| (&policy.metadata.namespace, &policy.metadata.name));
    let cluster_policies = cluster.cluster_network_policies.iter();
    let places = cluster_policies.clone().map(|policy| (&policy.spec.tier, policy.spec.priority));
    !has_repetitions(addresses(cluster))
        && !has_repetitions(names)
        && !has_repetitions(policies)
        && !has_repetitions(cluster_policies.map(|policy| &policy.metadata.name))
        && !has_repetitions(places)
}

proptest! {
    #[test]
    fn clusters_may_be_and_stay_so(mut cluster in cluster(), changes in vec(change(), 0..12), probe in probe()) {
        prop_assert!(may_be(&cluster));
        for change in changes {
            change.apply(&mut cluster);
            prop_assert!(may_be(&cluster), "after {change:?}: {cluster:?}");
            let Side { verdict, deciders } = cluster.judge(&probe.of(&cluster)).ingress;
            prop_assert!(verdict == Verdict::Allow || !deciders.is_empty());
        }
    }
}

/// What decides a side, without saying who.
fn reason(side: &Side) -> &'static str {
    match (side.verdict, side.deciders.first().map(|decider| &decider.policy)) {
        (Verdict::Allow, None) => "no policy",
        (Verdict::Allow, Some(PolicyName::NetworkPolicy { .. })) => "allowed by a NetworkPolicy",
        (Verdict::Deny, Some(PolicyName::NetworkPolicy { .. })) => "denied by a NetworkPolicy",
        (Verdict::Allow, Some(PolicyName::ClusterNetworkPolicy { .. })) => "accepted by a ClusterNetworkPolicy",
        (Verdict::Deny, Some(PolicyName::ClusterNetworkPolicy { .. })) => "denied by a ClusterNetworkPolicy",
        (Verdict::Deny, None) => "denied by nobody",
    }
}

#[test]
fn every_reason_is_given_often() {
    let mut runner = TestRunner::deterministic();
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..300 {
        let cluster = cluster().new_tree(&mut runner).unwrap().current();
        for _ in 0..30 {
            let probe = probe().new_tree(&mut runner).unwrap().current().of(&cluster);
            let judgement = cluster.judge(&probe);
            *count.entry(reason(&judgement.egress)).or_default() += 1;
            *count.entry(reason(&judgement.ingress)).or_default() += 1;
        }
    }
    assert_eq!(count.len(), 5, "{count:?}");
    assert!(count.values().all(|count| *count > 300), "{count:?}");
}

#[test]
fn every_probe_has_an_answer() {
    let mut runner = TestRunner::deterministic();
    let cluster = cluster().new_tree(&mut runner).unwrap().current();
    let probes = every_probe(&cluster);
    let denied = probes.iter().filter(|probe| cluster.judge(probe).verdict == Verdict::Deny).count();
    assert!(probes.len() > 1000 && denied < probes.len(), "{denied} of {}", probes.len());
}
