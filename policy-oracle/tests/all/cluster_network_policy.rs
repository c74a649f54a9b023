//! ClusterNetworkPolicy, corner by corner.

use crate::common::{ClusterExt, cluster_policy, deciders, pod, policy, with_all};
use serde_json::{Value, json};
use sluice_policy_oracle::Cluster;

fn everyone() -> Value {
    json!([{ "namespaces": {} }])
}

/// The cluster with one policy for `x`, with these rules for what it sends.
fn egress(rules: Value) -> Cluster {
    with_all([cluster_policy("it", json!({ "egress": rules }))])
}

/// The cluster where only this is accepted of what `x` sends.
fn accepts(to: Value, protocols: Value) -> Cluster {
    let mut rule = json!({ "action": "Accept", "to": to });
    if !protocols.is_null() {
        rule["protocols"] = protocols;
    }
    egress(json!([rule, { "action": "Deny", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] }]))
}

#[test]
fn the_admin_tier_is_above_all_network_policies() {
    let closed = policy("closed", json!({ "podSelector": {} }));
    let open = policy("open", json!({ "podSelector": {}, "ingress": [{}] }));
    let rules = json!([
        { "action": "Accept", "from": [{ "namespaces": { "matchLabels": { "team": "blue" } } }] },
        { "action": "Deny", "from": [{ "namespaces": { "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] } }] },
    ]);
    let admin = cluster_policy("admin", json!({ "ingress": rules }));
    let cluster = with_all([closed, admin.clone()]);
    cluster.allows(["y/a > x/a 80/TCP"]);
    cluster.denies(["x/b > x/a 80/TCP", "z/a > x/a 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("y/a > x/a 80/TCP").ingress), ["admin[0]"]);
    assert_eq!(deciders(&cluster.ask("x/b > x/a 80/TCP").ingress), ["closed"]);
    assert_eq!(deciders(&cluster.ask("z/a > x/a 80/TCP").ingress), ["admin[1]"]);
    let cluster = with_all([open, admin]);
    cluster.denies(["z/a > x/a 80/TCP"]);
    cluster.allows(["x/b > x/a 80/TCP"]);
}

#[test]
fn the_baseline_tier_is_only_for_pods_that_no_network_policy_isolates() {
    let baseline = cluster_policy(
        "base",
        json!({
            "tier": "Baseline",
            "subject": { "namespaces": {} },
            "ingress": [{ "action": "Deny", "from": everyone() }],
            "egress": [{ "action": "Deny", "to": [{ "networks": ["203.0.113.0/24"] }] }],
        }),
    );
    let open = policy("open", json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{}] }));
    let cluster = with_all([baseline, open]);
    cluster.allows(["y/a > x/a 80/TCP"]);
    cluster.denies(["y/a > x/b 80/TCP", "x/a > y/a 80/TCP"]);
    // It isolates for ingress: what the pod sends is still the Baseline tier's.
    cluster.denies(["x/a > 203.0.113.7 80/TCP"]);
    cluster.allows(["203.0.113.7 > x/b 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("y/a > x/b 80/TCP").ingress), ["base[0]"]);
}

#[test]
fn rules_isolate_nobody() {
    let cluster =
        egress(json!([{ "action": "Accept", "to": [{ "namespaces": { "matchLabels": { "team": "blue" } } }] }]));
    cluster.allows(["x/a > y/a 80/TCP", "x/a > z/a 80/TCP", "x/a > 203.0.113.7 80/TCP"]);
    assert!(cluster.ask("x/a > z/a 80/TCP").egress.deciders.is_empty());
}

#[test]
fn lower_priorities_come_first() {
    let rules = |priority: u16, action: &str| json!({ "priority": priority, "egress": [{ "action": action, "to": everyone() }] });
    let cluster = with_all([cluster_policy("late", rules(7, "Deny")), cluster_policy("early", rules(6, "Accept"))]);
    cluster.allows(["x/a > y/a 80/TCP"]);
    let cluster = with_all([cluster_policy("late", rules(1000, "Accept")), cluster_policy("early", rules(0, "Deny"))]);
    cluster.denies(["x/a > y/a 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("x/a > y/a 80/TCP").egress), ["early[0]"]);
}

#[test]
fn of_rules_the_first_that_matches_counts() {
    let blue = json!([{ "namespaces": { "matchLabels": { "team": "blue" } } }]);
    let cluster = egress(
        json!([{ "action": "Deny", "to": blue }, { "action": "Accept", "to": everyone() }, { "action": "Deny", "to": everyone() }]),
    );
    cluster.denies(["x/a > y/a 80/TCP"]);
    cluster.allows(["x/a > z/a 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("x/a > z/a 80/TCP").egress), ["it[1]"]);
}

#[test]
fn pass_skips_the_rest_of_its_tier() {
    let deny = json!({ "action": "Deny", "to": everyone() });
    let pass = json!({ "action": "Pass", "to": [{ "namespaces": { "matchLabels": { "team": "blue" } } }] });
    let admin = [
        cluster_policy("pass", json!({ "priority": 1, "egress": [pass, deny] })),
        cluster_policy("deny", json!({ "priority": 2, "egress": [deny] })),
    ];
    let [first, second] = admin.clone();
    let cluster = with_all([first, second]);
    cluster.allows(["x/a > y/a 80/TCP"]);
    cluster.denies(["x/a > z/a 80/TCP"]);
    // To the NetworkPolicies, and where they say nothing to the Baseline tier.
    let [first, second] = admin.clone();
    let isolating = policy("np", json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
    assert_eq!(deciders(&with_all([first, second, isolating]).ask("x/a > y/a 80/TCP").egress), ["np"]);
    let [first, second] = admin;
    let baseline = |name: &str, priority: u16, rule: &Value| {
        cluster_policy(name, json!({ "tier": "Baseline", "priority": priority, "egress": [rule] }))
    };
    let cluster = with_all([first, second, baseline("base", 9, &deny)]);
    assert_eq!(deciders(&cluster.ask("x/a > y/a 80/TCP").egress), ["base[0]"]);
    // From the Baseline tier, to the default.
    with_all([baseline("base", 9, &deny), baseline("pass", 8, &pass)]).allows(["x/a > y/a 80/TCP"]);
}

#[test]
fn egress_that_is_accepted_is_still_judged_by_the_receivers_policies() {
    let accept = cluster_policy("accept", json!({ "egress": [{ "action": "Accept", "to": everyone() }] }));
    let deny = cluster_policy(
        "deny",
        json!({
            "subject": { "namespaces": { "matchLabels": { "team": "blue" } } },
            "ingress": [{ "action": "Deny", "from": everyone() }],
        }),
    );
    let cluster = with_all([accept, deny]);
    cluster.denies(["x/a > y/a 80/TCP"]);
    cluster.allows(["x/a > z/a 80/TCP"]);
}

#[test]
fn subjects_are_namespaces_or_pods_of_namespaces() {
    let deny = json!([{ "action": "Deny", "to": everyone() }]);
    let subject = |subject: Value| with_all([cluster_policy("it", json!({ "subject": subject, "egress": deny }))]);
    let red = json!({ "matchLabels": { "team": "red" } });
    let a = json!({ "matchLabels": { "app": "a" } });
    let cluster = subject(json!({ "namespaces": red }));
    cluster.denies(["x/a > z/a 80/TCP", "x/b > z/a 80/TCP"]);
    cluster.allows(["y/a > z/a 80/TCP"]);
    let cluster = subject(json!({ "pods": { "namespaceSelector": red, "podSelector": a } }));
    cluster.denies(["x/a > z/a 80/TCP"]);
    cluster.allows(["x/b > z/a 80/TCP", "y/a > z/a 80/TCP"]);
    let cluster = subject(json!({ "pods": { "namespaceSelector": {}, "podSelector": a } }));
    cluster.denies(["x/a > z/b 80/TCP", "y/a > z/b 80/TCP"]);
    cluster.allows(["y/b > z/b 80/TCP"]);
}

#[test]
fn peers_are_pods_by_namespaces_and_labels() {
    let blue = json!({ "matchLabels": { "team": "blue" } });
    let cluster = accepts(json!([{ "namespaces": blue }]), Value::Null);
    cluster.allows(["x/a > y/a 80/TCP", "x/a > y/b 9/UDP", "x/a@6 > y/b@6 ICMP"]);
    cluster.denies(["x/a > z/a 80/TCP", "x/a > 203.0.113.7 80/TCP"]);
    let pods = json!({ "namespaceSelector": blue, "podSelector": { "matchLabels": { "app": "b" } } });
    let cluster = accepts(json!([{ "pods": pods }]), Value::Null);
    cluster.allows(["x/a > y/b 80/TCP"]);
    cluster.denies(["x/a > y/a 80/TCP", "x/a > z/b 80/TCP"]);
    let cluster = accepts(json!([{ "pods": { "namespaceSelector": {}, "podSelector": {} } }]), Value::Null);
    cluster.allows(["x/a > z/b 80/TCP"]);
    cluster.denies(["x/a > 203.0.113.7 80/TCP", "x/a > 192.0.2.2 80/TCP"]);
}

#[test]
fn peers_are_nodes_by_all_their_addresses() {
    let cluster = accepts(json!([{ "nodes": { "matchLabels": { "role": "control" } } }]), Value::Null);
    cluster.allows(["x/b > 192.0.2.1 80/TCP", "x/b > 2001:db8::1 80/UDP", "x/b > 198.51.100.1 ICMP"]);
    cluster.denies(["x/a > 192.0.2.2 80/TCP", "x/b > y/a 80/TCP", "x/b > 192.0.2.9 80/TCP"]);
    let cluster = egress(json!([{ "action": "Deny", "to": [{ "nodes": {} }] }]));
    cluster.denies(["x/a > 192.0.2.2 22/TCP", "x/b > 192.0.2.1 22/TCP"]);
    cluster.allows(["x/a > 203.0.113.7 80/TCP", "x/a > y/b 80/TCP", "192.0.2.2 > x/a 80/TCP"]);
}

#[test]
fn a_rule_for_nodes_is_for_a_pods_own_node_too() {
    // That a pod cannot be cut off its node is said of NetworkPolicy; policies for traffic to nodes are what this kind
    // is for. No peer can be a node on ingress, so the node still reaches the pod.
    let cluster = egress(json!([{ "action": "Deny", "to": [{ "nodes": {} }] }]));
    cluster.denies(["x/a > 192.0.2.1 22/TCP"]);
    cluster.allows(["192.0.2.1 > x/a 22/TCP"]);
    let isolating = policy("np", json!({ "podSelector": {}, "policyTypes": ["Egress"] }));
    let deny = json!([{ "action": "Deny", "to": [{ "nodes": {} }] }]);
    let cluster = with_all([isolating, cluster_policy("base", json!({ "tier": "Baseline", "egress": deny }))]);
    cluster.allows(["x/a > 192.0.2.1 22/TCP"]);
    let unclear =
        json!({ "subject": { "namespaces": {} }, "ingress": [{ "action": "Deny", "from": [{ "later": {} }] }] });
    let cluster = with_all([cluster_policy("unclear", unclear)]);
    cluster.allows(["192.0.2.1 > x/a 22/TCP"]);
    cluster.denies(["192.0.2.2 > x/a 22/TCP"]);
}

#[test]
fn peers_are_networks_and_they_match_pods_and_nodes_too() {
    let cluster = accepts(json!([{ "networks": ["203.0.113.0/24", "10.1.0.4/32", "2001:db8::/64"] }]), Value::Null);
    cluster.allows(["x/a > 203.0.113.7 80/TCP", "x/a > y/b 80/TCP", "x/b > 2001:db8::1 80/TCP", "x/a > y/b ICMP"]);
    cluster.denies(["x/a > 203.0.112.7 80/TCP", "x/a > y/a 80/TCP", "x/a@6 > y/b@6 80/TCP", "x/b > 192.0.2.1 80/TCP"]);
}

#[test]
fn host_network_pods_are_neither_subject_nor_peer() {
    let deny = cluster_policy(
        "it",
        json!({
            "subject": { "namespaces": {} },
            "egress": [{ "action": "Deny", "to": everyone() }],
            "ingress": [{ "action": "Deny", "from": everyone() }],
        }),
    );
    let mut host = pod("x/h", 0);
    host["spec"]["hostNetwork"] = json!(true);
    host["spec"]["nodeName"] = json!("n1");
    host["status"]["podIPs"] = json!([{ "ip": "192.0.2.2" }]);
    let cluster = with_all([deny, host]);
    cluster.denies(["x/a > y/a 80/TCP"]);
    cluster.allows(["x/a > x/h 80/TCP", "x/h > x/a 80/TCP"]);
}

#[test]
fn a_pod_always_reaches_itself() {
    let cluster = egress(json!([{ "action": "Deny", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] }]));
    cluster.allows(["x/a > x/a 80/TCP", "x/a@6 > x/a@6 80/TCP"]);
    cluster.denies(["x/a > x/b 80/TCP"]);
}

#[test]
fn completed_pods_are_no_peers_and_terminating_ones_are() {
    let mut cluster = accepts(everyone(), Value::Null);
    cluster.edit_pod("y/a", "/status/phase", json!("Failed"));
    cluster.edit_pod("y/b", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    cluster.denies(["x/a > 10.1.0.3 80/TCP"]);
    cluster.allows(["x/a > y/b 80/TCP"]);
}

#[test]
fn protocols_have_a_number_or_a_range_of_ports() {
    let cluster = accepts(
        everyone(),
        json!([
            { "tcp": { "destinationPort": { "number": 80 } } },
            { "udp": { "destinationPort": { "range": { "start": 50, "end": 53 } } } },
            { "sctp": { "destinationPort": { "range": { "start": 1, "end": 65535 } } } },
        ]),
    );
    cluster.allows(["x/a > y/a 80/TCP", "x/a > y/a 50/UDP", "x/a > y/a 53/UDP", "x/a > y/a 65535/SCTP"]);
    cluster.denies(["x/a > y/a 81/TCP", "x/a > y/a 80/UDP", "x/a > y/a 54/UDP", "x/a > y/a 49/UDP", "x/a > y/a ICMP"]);
}

#[test]
fn a_rule_without_protocols_matches_whatever_is_sent() {
    let cluster = egress(json!([{ "action": "Deny", "to": everyone() }]));
    cluster.denies(["x/a > y/a 80/TCP", "x/a > y/a 9/SCTP", "x/a > y/a ICMP"]);
}

#[test]
fn a_named_port_is_the_receivers_and_says_the_protocol() {
    let cluster = accepts(everyone(), json!([{ "destinationNamedPort": "web" }, { "destinationNamedPort": "dns" }]));
    cluster.allows(["x/a > y/a 80/TCP", "x/a > y/b 8080/TCP", "x/a > y/a 53/UDP", "x/a > y/b 53/TCP"]);
    cluster.denies([
        "x/a > y/b 80/TCP",
        "x/a > y/a 8080/TCP",
        "x/a > y/a 53/TCP",
        "x/a > y/b 53/UDP",
        "x/a > y/b ICMP",
    ]);
    let rule = json!({ "action": "Deny", "from": everyone(), "protocols": [{ "destinationNamedPort": "web" }] });
    let cluster = with_all([cluster_policy("it", json!({ "ingress": [rule] }))]);
    cluster.denies(["y/a > x/a 80/TCP", "y/a > x/b 8080/TCP"]);
    cluster.allows(["y/a > x/a 8080/TCP", "y/a > x/b 80/TCP"]);
}

#[test]
fn domain_names_never_allow() {
    let cluster = accepts(json!([{ "domainNames": ["example.org"] }]), Value::Null);
    cluster.denies(["x/a > 203.0.113.7 80/TCP", "x/a > y/a 80/TCP"]);
}

#[test]
fn a_rule_to_accept_what_is_not_understood_matches_no_traffic() {
    let port = json!({ "tcp": { "destinationPort": { "number": 80 } } });
    let blue = json!({ "namespaces": { "matchLabels": { "team": "blue" } } });
    for (to, protocols) in [
        (json!([{}]), json!([port])),
        (json!([{ "services": {} }]), json!([port])),
        (json!([blue, { "services": {} }]), json!([port])),
        (json!([blue, { "domainNames": ["example.org"] }]), json!([port])),
        (json!([blue]), json!([port, { "icmp": {} }])),
        (json!([blue]), json!([port, {}])),
        (json!([blue]), json!([{ "tcp": {} }])),
        (json!([blue]), json!([{ "tcp": { "flags": ["syn"] } }])),
        (json!([blue]), json!([{ "tcp": { "destinationPort": {} } }])),
    ] {
        accepts(to, protocols).denies(["x/a > y/a 80/TCP", "x/a > y/a 80/UDP"]);
    }
}

#[test]
fn a_rule_to_deny_or_pass_what_is_not_understood_denies_all() {
    let port = json!({ "tcp": { "destinationPort": { "number": 80 } } });
    let blue = json!({ "namespaces": { "matchLabels": { "team": "blue" } } });
    for action in ["Deny", "Pass"] {
        for (to, protocols) in [
            (json!([{}]), json!([port])),
            (json!([{ "domainNames": ["example.org"] }]), json!([port])),
            (json!([blue, { "services": {} }]), json!([port])),
            (json!([blue]), json!([{ "icmp": {} }])),
        ] {
            let rule = json!({ "action": action, "to": to, "protocols": protocols });
            let cluster = egress(json!([{ "action": "Accept", "to": [blue] }, rule]));
            cluster.denies(["x/a > 203.0.113.7 53/UDP", "x/a > z/a ICMP"]);
            cluster.allows(["x/a > y/a 53/UDP", "y/a > x/a 53/UDP"]);
        }
    }
}
