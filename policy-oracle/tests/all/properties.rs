//! What holds for any cluster.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use sluice_policy_oracle::generate::{ProbeDraft, cluster, network_policy, probe};
use sluice_policy_oracle::{Cluster, Decider, End, PolicyName, Probe, Side, Verdict};

use crate::common::{ClusterExt, cluster_policy};

fn probes() -> impl Strategy<Value = Vec<ProbeDraft>> {
    vec(probe(), 1..=48)
}

/// By addresses, which stay when pods go.
fn by_address(cluster: &Cluster, probe: &ProbeDraft) -> Probe {
    let probe = probe.of(cluster);
    let address = |end: &End| End::Address(cluster.address_of(end));
    Probe { from: address(&probe.from), to: address(&probe.to), ..probe }
}

/// Adds the rules of one policy to another, in the directions that this one is for already.
fn extend(policy: &mut NetworkPolicy, donor: &NetworkPolicy) {
    let (Some(spec), Some(donor)) = (&mut policy.spec, &donor.spec) else { return };
    let listed = |name: &str| spec.policy_types.iter().flatten().any(|listed| listed == name);
    let has_types = spec.policy_types.as_ref().is_some_and(|types| !types.is_empty());
    let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let (is_ingress, is_egress) = if has_types { (listed("Ingress"), listed("Egress")) } else { (true, has_egress) };
    if is_ingress {
        spec.ingress.get_or_insert_default().extend(donor.ingress.clone().unwrap_or_default());
    }
    if is_egress {
        spec.egress.get_or_insert_default().extend(donor.egress.clone().unwrap_or_default());
    }
}

proptest! {
    #[test]
    fn another_rule_of_a_network_policy_never_denies(
        before in cluster(), donor in network_policy(), which in any::<Index>(), probes in probes(),
    ) {
        let mut after = before.clone();
        prop_assume!(!after.network_policies.is_empty());
        extend(which.get_mut(&mut after.network_policies), &donor);
        for probe in probes {
            let probe = probe.of(&before);
            let allowed_before = before.judge(&probe).verdict == Verdict::Allow;
            prop_assert!(!allowed_before || after.judge(&probe).verdict == Verdict::Allow, "{probe:?}");
        }
    }

    #[test]
    fn the_order_of_objects_decides_nothing(before in cluster(), probes in probes()) {
        let mut after = before.clone();
        after.pods.reverse();
        after.namespaces.reverse();
        after.nodes.reverse();
        after.network_policies.reverse();
        after.cluster_network_policies.reverse();
        for probe in probes {
            let probe = by_address(&before, &probe);
            prop_assert_eq!(before.judge(&probe), after.judge(&probe), "{:?}", probe);
        }
    }

    #[test]
    fn without_policies_everything_is_allowed(mut cluster in cluster(), probes in probes()) {
        cluster.network_policies.clear();
        cluster.cluster_network_policies.clear();
        for probe in probes {
            let judgement = cluster.judge(&probe.of(&cluster));
            prop_assert!([judgement.egress, judgement.ingress].iter().all(|side| side.deciders.is_empty()));
            prop_assert_eq!(judgement.verdict, Verdict::Allow);
        }
    }

    #[test]
    fn a_pod_reaches_itself_whatever_the_policies(cluster in cluster(), drafts in probes()) {
        for draft in drafts {
            let probe = draft.of(&cluster);
            let probe = Probe { to: probe.from.clone(), ..probe };
            prop_assert_eq!(cluster.judge(&probe).verdict, Verdict::Allow, "{:?}", probe);
        }
    }

    #[test]
    fn who_denies_is_named_and_only_rules_allow(cluster in cluster(), probes in probes()) {
        for probe in probes {
            let judgement = cluster.judge(&probe.of(&cluster));
            let sides = [&judgement.egress, &judgement.ingress];
            let is_allowed = sides.iter().all(|side| side.verdict == Verdict::Allow);
            prop_assert_eq!(judgement.verdict == Verdict::Allow, is_allowed);
            for Side { verdict, deciders } in sides {
                match verdict {
                    Verdict::Allow => prop_assert!(deciders.iter().all(|decider| decider.rule.is_some())),
                    Verdict::Deny => prop_assert!(!deciders.is_empty()),
                }
            }
        }
    }

    #[test]
    fn a_pods_name_and_its_address_are_the_same(cluster in cluster(), probes in probes()) {
        for probe in probes {
            let (name, address) = (probe.of(&cluster), by_address(&cluster, &probe));
            prop_assert_eq!(cluster.judge(&name), cluster.judge(&address), "{:?}", name);
        }
    }

    #[test]
    fn completed_pods_might_as_well_be_gone(before in cluster(), probes in probes()) {
        let mut after = before.clone();
        let has_completed = |phase: Option<&str>| matches!(phase, Some("Succeeded" | "Failed"));
        after.pods.retain(|pod| !has_completed(pod.status.as_ref().and_then(|status| status.phase.as_deref())));
        for probe in probes {
            let probe = by_address(&before, &probe);
            prop_assert_eq!(before.judge(&probe), after.judge(&probe), "{:?}", probe);
        }
    }

    #[test]
    fn a_pass_behind_all_others_changes_nothing(before in cluster(), probes in probes()) {
        let mut after = before.clone();
        for tier in ["Admin", "Baseline"] {
            let all = json!([{ "action": "Pass", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] }]);
            let spec = json!({ "tier": tier, "priority": 1000, "subject": { "namespaces": {} }, "egress": all });
            after.add(cluster_policy(&format!("last-{tier}"), spec));
        }
        for probe in probes {
            let probe = probe.of(&before);
            prop_assert_eq!(before.judge(&probe), after.judge(&probe), "{:?}", probe);
        }
    }

    #[test]
    fn an_admin_policy_before_all_others_has_the_last_word(
        mut cluster in cluster(), accepts in any::<bool>(), probes in probes(),
    ) {
        for policy in &mut cluster.cluster_network_policies {
            policy.spec.priority = policy.spec.priority.map(|priority| priority + 1);
        }
        let (action, verdict) = if accepts { ("Accept", Verdict::Allow) } else { ("Deny", Verdict::Deny) };
        let all: Value = json!([{ "action": action, "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] }]);
        let spec = json!({ "priority": 0, "subject": { "namespaces": {} }, "egress": all });
        cluster.add(cluster_policy("first", spec));
        let name = PolicyName::ClusterNetworkPolicy { name: "first".into() };
        let decider = Decider { policy: name, rule: Some(0) };
        for probe in probes {
            // A side without a decider is none that policies are asked about.
            let Side { verdict: found, deciders } = cluster.judge(&probe.of(&cluster)).egress;
            if !deciders.is_empty() {
                prop_assert_eq!((found, deciders), (verdict, BTreeSet::from([decider.clone()])));
            }
        }
    }
}
