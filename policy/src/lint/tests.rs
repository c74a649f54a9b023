//! What lint finds.

use serde_json::{Value, json};

use super::ignored_sections;
use crate::semantics::{cluster_policy, pod, policy, small, with_ports};

/// What lint says of policies between the pods x/a, x/b and y/c, a line each: the object's name, the field and what is wrong.
fn findings(objects: impl IntoIterator<Item = Value>) -> Vec<String> {
    let found = small(objects).0.lint();
    found.iter().map(|it| format!("{} {}: {}", it.object.name, it.field, it.what)).collect()
}

fn ingress(peers: Value) -> Value {
    policy("x/p", json!({ "podSelector": {}, "ingress": [{ "from": peers }] }))
}

fn app(name: &str) -> Value {
    json!({ "podSelector": { "matchLabels": { "app": name } } })
}

#[test]
fn sections_that_policy_types_do_not_list_are_ignored() {
    let ignored = |spec: Value| -> Vec<String> {
        let policy = serde_json::from_value(policy("x/p", spec)).unwrap();
        ignored_sections(&policy).iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        ignored(json!({ "policyTypes": ["Ingress"], "ingress": [{}], "egress": [{}] })),
        ["NetworkPolicy x/p: spec.egress: is ignored: spec.policyTypes does not list Egress"]
    );
    assert_eq!(
        ignored(json!({ "policyTypes": ["Egress"], "ingress": [] })),
        ["NetworkPolicy x/p: spec.ingress: is ignored: spec.policyTypes does not list Ingress"]
    );
    for fine in [json!({ "ingress": [{}], "egress": [{}] }), json!({ "policyTypes": ["Egress"], "egress": [{}] })] {
        assert_eq!(ignored(fine), [""; 0]);
    }
}

#[test]
fn a_block_may_be_excepted_altogether() {
    let block = |excepts: Value| ingress(json!([{ "ipBlock": { "cidr": "20.0.0.0/8", "except": excepts } }]));
    let whole = json!(["20.0.0.0/9", "20.128.0.0/10", "20.192.0.0/10", "20.0.0.0/16"]);
    assert_eq!(
        findings([block(whole)]),
        ["p spec.ingress[0]: its peer matches nobody, since all of it is excepted: 20.0.0.0/8"]
    );
    assert_eq!(findings([block(json!(["20.0.0.0/9", "20.128.0.0/10"]))]), [""; 0]);
}

#[test]
fn a_dead_peer_is_named_beside_live_ones() {
    let unknown = json!({ "namespaceSelector": { "matchLabels": { "team": "green" } } });
    assert_eq!(
        findings([ingress(json!([app("a"), app("typo"), unknown]))]),
        [
            "p spec.ingress[0]: its peer matches nobody: pods with any labels in namespaces with team=green",
            "p spec.ingress[0]: its peer matches nobody: pods with app=typo in namespace x",
        ]
    );
    assert_eq!(findings([ingress(json!([app("a"), app("b")]))]), [""; 0]);
    let nobody = "p spec.ingress[0]: matches nobody: there are no such pods, nodes or addresses";
    assert_eq!(findings([ingress(json!([app("typo")]))]), [nobody]);
}

#[test]
fn a_pod_without_an_address_will_be_a_peer() {
    let pending =
        with_ports(pod("x/late", json!({ "app": "late" }), &[]), json!([{ "name": "web", "containerPort": 80 }]));
    let waits = "its peer matches nobody yet, since none has an address: pods with app=late in namespace x";
    assert_eq!(findings([pending.clone(), ingress(json!([app("late")]))]), [format!("p spec.ingress[0]: {waits}")]);
    let rule = json!({ "to": [app("late")], "ports": [{ "port": "web" }] });
    let egress = policy("x/p", json!({ "policyTypes": ["Egress"], "podSelector": {}, "egress": [rule] }));
    assert_eq!(findings([pending, egress]), [format!("p spec.egress[0]: {waits}")], "it has such a port");
}

#[test]
fn rules_that_pass_on_what_others_have_decided_have_no_effect() {
    let to = |action: &str, network: &str| json!({ "action": action, "to": [{ "networks": [network] }] });
    let egress = |name: &str, tier: &str, priority, rules: &[Value]| {
        cluster_policy(name, tier, priority, json!({ "egress": rules }))
    };
    let shadow = |rule: &str| {
        format!("{rule}: has no effect: rules that are asked before it decide all that it matches, or pass it on")
    };
    let (all, half) = ("203.0.113.0/24", "203.0.113.0/25");
    for before in ["Deny", "Accept", "Pass"] {
        let first = egress("first", "Admin", 1, &[to(before, all)]);
        let second = egress("second", "Admin", 2, &[to("Pass", half), to("Pass", all)]);
        let shadowed = [shadow("second spec.egress[0]"), shadow("second spec.egress[1]")];
        assert_eq!(findings([first, second]), shadowed, "{before}");
    }
    let first = egress("first", "Admin", 1, &[to("Deny", half)]);
    let second = egress("second", "Admin", 2, &[to("Pass", half), to("Pass", all)]);
    assert_eq!(findings([first, second]), [shadow("second spec.egress[0]")], "the other half is passed on");

    let passed = |last: &str| {
        let first = egress("first", "Admin", 1, &[to("Pass", all)]);
        [first, egress("last", "Baseline", 1, &[to("Pass", half), to(last, all)])]
    };
    assert_eq!(findings(passed("Deny")), [""; 0], "what one tier passes on, the next may too");
}

#[test]
fn an_address_is_only_one_pods() {
    let mut twin = pod("x/twin", json!({}), &["10.0.0.1"]);
    twin["metadata"]["creationTimestamp"] = json!("2024-01-01T00:00:00Z");
    assert_eq!(
        findings([twin.clone()]),
        ["a status.podIPs: 10.0.0.1 is pod x/twin's too, and counts as that one's, which is the newer"]
    );
    twin["status"]["phase"] = json!("Succeeded");
    assert_eq!(findings([twin]), [""; 0], "who has ended claims nothing");
}
