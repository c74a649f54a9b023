//! NetworkPolicy, corner by corner.

use crate::common::{ClusterExt, cluster, deciders, pod, policy, with, with_all};
use serde_json::{Value, json};
use sluice_policy_oracle::Verdict;

/// A spec whose one ingress rule has these peers.
fn from(peers: Value) -> Value {
    json!({ "podSelector": {}, "ingress": [{ "from": peers }] })
}

/// A spec whose one ingress rule has these ports.
fn ports(ports: Value) -> Value {
    json!({ "podSelector": {}, "ingress": [{ "ports": ports }] })
}

/// A spec whose one egress rule is this.
fn egress(rule: Value) -> Value {
    json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] })
}

#[test]
fn without_policies_everything_is_allowed_and_nothing_decides() {
    let cluster = cluster();
    cluster.allows(["x/a > y/b 80/TCP", "x/a > 203.0.113.7 53/UDP", "203.0.113.7 > x/a 9/SCTP", "y/a@6 > x/b@6 ICMP"]);
    let judgement = cluster.ask("x/a > y/b 80/TCP");
    assert!(judgement.egress.deciders.is_empty() && judgement.ingress.deciders.is_empty());
}

#[test]
fn isolation_is_per_direction_by_any_policy_that_selects_the_pod() {
    let only_a = json!({ "matchLabels": { "app": "a" } });
    let cluster = with(json!({ "podSelector": only_a, "policyTypes": ["Ingress"] }));
    cluster.denies(["y/a > x/a 80/TCP", "203.0.113.7 > x/a 80/TCP", "x/b@6 > x/a@6 80/UDP"]);
    cluster.allows(["x/a > y/a 80/TCP", "y/a > x/b 80/TCP", "x/b > y/a 80/TCP"]);
    let cluster = with(json!({ "podSelector": only_a, "policyTypes": ["Egress"] }));
    cluster.denies(["x/a > y/a 80/TCP", "x/a > 203.0.113.7 80/TCP"]);
    cluster.allows(["y/a > x/a 80/TCP", "x/b > y/a 80/TCP"]);
    // A policy is for pods of its own namespace only.
    cluster.allows(["y/a > z/a 80/TCP"]);
}

#[test]
fn policies_add_up() {
    let cluster = with_all([
        policy("nothing", json!({ "podSelector": {} })),
        policy("blue", from(json!([{ "namespaceSelector": { "matchLabels": { "team": "blue" } } }]))),
        policy("own", from(json!([{ "podSelector": {} }]))),
    ]);
    cluster.allows(["y/a > x/a 80/TCP", "x/b > x/a 80/TCP"]);
    cluster.denies(["z/a > x/a 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("y/a > x/a 80/TCP").ingress), ["blue[0]"]);
    assert_eq!(deciders(&cluster.ask("z/a > x/a 80/TCP").ingress), ["blue", "nothing", "own"]);
}

#[test]
fn both_ends_must_allow() {
    let to_x = json!({ "to": [{ "namespaceSelector": { "matchLabels": { "team": "red" } } }] });
    let mut sender = policy("sender", egress(to_x));
    sender["metadata"]["namespace"] = json!("y");
    let receiver = policy("receiver", from(json!([{ "podSelector": {} }])));
    let cluster = with_all([sender.clone(), receiver]);
    let judgement = cluster.ask("y/a > x/a 80/TCP");
    assert_eq!((judgement.egress.verdict, judgement.ingress.verdict), (Verdict::Allow, Verdict::Deny));
    assert_eq!(judgement.verdict, Verdict::Deny);
    let judgement = cluster.ask("y/a > z/a 80/TCP");
    assert_eq!((judgement.egress.verdict, judgement.ingress.verdict), (Verdict::Deny, Verdict::Allow));
    assert_eq!(judgement.verdict, Verdict::Deny);
    with_all([sender]).allows(["y/a > x/a 80/TCP"]);
}

#[test]
fn a_pod_selector_alone_means_pods_of_the_policys_namespace() {
    let cluster = with(from(json!([{ "podSelector": { "matchLabels": { "app": "a" } } }])));
    cluster.allows(["x/a > x/b 80/TCP"]);
    cluster.denies(["y/a > x/b 80/TCP", "x/b > x/a 80/TCP"]);
}

#[test]
fn a_namespace_selector_alone_means_all_pods_there() {
    let cluster = with(from(json!([{ "namespaceSelector": { "matchLabels": { "team": "blue" } } }])));
    cluster.allows(["y/a > x/b 80/TCP", "y/b > x/b 80/TCP"]);
    cluster.denies(["x/a > x/b 80/TCP", "z/a > x/b 80/TCP", "203.0.113.7 > x/b 80/TCP"]);
}

#[test]
fn both_selectors_in_one_peer_are_one_condition_and_in_two_peers_are_two() {
    let (blue, a) = (json!({ "matchLabels": { "team": "blue" } }), json!({ "matchLabels": { "app": "a" } }));
    let cluster = with(from(json!([{ "namespaceSelector": blue, "podSelector": a }])));
    cluster.allows(["y/a > x/b 80/TCP"]);
    cluster.denies(["y/b > x/b 80/TCP", "x/a > x/b 80/TCP", "z/a > x/b 80/TCP"]);
    let cluster = with(from(json!([{ "namespaceSelector": blue }, { "podSelector": a }])));
    cluster.allows(["y/a > x/b 80/TCP", "y/b > x/b 80/TCP", "x/a > x/b 80/TCP"]);
    cluster.denies(["z/a > x/b 80/TCP", "x/b > x/a 80/TCP"]);
}

#[test]
fn an_empty_selector_selects_all_and_a_missing_one_is_no_condition() {
    let cluster = with(from(json!([{ "namespaceSelector": {} }])));
    cluster.allows(["x/b > x/a 80/TCP", "z/b > x/a 80/TCP"]);
    cluster.denies(["203.0.113.7 > x/a 80/TCP"]);
    let cluster = with(from(json!([{ "podSelector": {} }])));
    cluster.allows(["x/b > x/a 80/TCP"]);
    cluster.denies(["z/b > x/a 80/TCP"]);
    let cluster = with(from(json!([{ "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": "b" } } }])));
    cluster.allows(["x/b > x/a 80/TCP", "z/b > x/a 80/TCP"]);
    cluster.denies(["z/a > x/a 80/TCP"]);
    // The policy's own selector.
    with(json!({})).denies(["z/a > x/a 80/TCP", "z/a > x/b 80/TCP"]);
}

#[test]
fn expressions_are_in_not_in_exists_does_not_exist_and_not_in_matches_where_the_key_is_absent() {
    // `app` is `a` or `b`; `tier` is `front` at `a` and absent at `b`.
    for (key, operator, values, has_a, has_b) in [
        ("app", "In", json!(["a", "c"]), true, false),
        ("app", "In", json!(["c"]), false, false),
        ("app", "NotIn", json!(["a", "c"]), false, true),
        ("tier", "In", json!(["front"]), true, false),
        ("tier", "NotIn", json!(["front"]), false, true),
        ("tier", "NotIn", json!(["back"]), true, true),
        ("tier", "Exists", json!([]), true, false),
        ("tier", "DoesNotExist", json!([]), false, true),
    ] {
        let expression = json!({ "key": key, "operator": operator, "values": values });
        let cluster = with(from(json!([{ "podSelector": { "matchExpressions": [expression] } }])));
        let arrives = |probe: &str| cluster.ask(probe).verdict == Verdict::Allow;
        assert_eq!((arrives("x/a > x/b 80/TCP"), arrives("x/b > x/a 80/TCP")), (has_a, has_b), "{expression}");
    }
}

#[test]
fn labels_and_expressions_of_a_selector_must_all_match() {
    let without = |value: &str| json!({ "key": "tier", "operator": "NotIn", "values": [value] });
    let selector = |expressions: Value| json!({ "matchLabels": { "app": "a" }, "matchExpressions": expressions });
    let peers = |expressions: Value| from(json!([{ "podSelector": selector(expressions) }]));
    with(peers(json!([without("back")]))).allows(["x/a > x/b 80/TCP"]);
    with(peers(json!([without("back"), without("front")]))).denies(["x/a > x/b 80/TCP"]);
}

#[test]
fn a_namespace_has_its_name_as_a_label() {
    let cluster =
        with(from(json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "z" } } }])));
    cluster.allows(["z/a > x/a 80/TCP"]);
    cluster.denies(["y/a > x/a 80/TCP"]);
}

#[test]
fn an_except_trims_only_its_own_rule() {
    let block = json!({ "cidr": "203.0.113.0/24", "except": ["203.0.113.0/28", "203.0.113.128/25", "203.0.113.4/30"] });
    let cluster = with(from(json!([{ "ipBlock": block }])));
    cluster.allows(["203.0.113.16 > x/a 80/TCP", "203.0.113.127 > x/a 80/TCP"]);
    cluster.denies(["203.0.113.5 > x/a 80/TCP", "203.0.113.200 > x/a 80/TCP", "203.0.112.255 > x/a 80/TCP"]);
    let cluster = with_all([
        policy("trimmed", from(json!([{ "ipBlock": block }, { "ipBlock": { "cidr": "203.0.113.5/32" } }]))),
        policy("other", from(json!([{ "ipBlock": { "cidr": "203.0.113.200/29" } }]))),
    ]);
    cluster.allows(["203.0.113.5 > x/a 80/TCP", "203.0.113.200 > x/a 80/TCP"]);
    cluster.denies(["203.0.113.4 > x/a 80/TCP", "203.0.113.208 > x/a 80/TCP"]);
}

#[test]
fn ip_blocks_are_of_either_family() {
    let cluster =
        with(from(json!([{ "ipBlock": { "cidr": "2001:db8:ffff::/48", "except": ["2001:db8:ffff:1::/64"] } }])));
    cluster.allows(["2001:db8:ffff::9 > x/a 80/TCP"]);
    cluster.denies(["2001:db8:ffff:1::9 > x/a 80/TCP", "203.0.113.7 > x/a 80/TCP"]);
    let cluster = with(egress(json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] })));
    cluster.allows(["x/a > 203.0.113.7 80/TCP"]);
    cluster.denies(["x/a > 2001:db8:ffff::9 80/TCP"]);
}

#[test]
fn ip_blocks_also_match_pod_addresses() {
    let cluster = with(from(json!([{ "ipBlock": { "cidr": "10.1.0.0/29", "except": ["10.1.0.4/30"] } }])));
    cluster.allows(["y/a > x/a 80/TCP", "x/b > x/a 80/TCP"]);
    cluster.denies(["y/b > x/a 80/TCP", "y/a@6 > x/a@6 80/TCP"]);
    let cluster = with(egress(json!({ "to": [{ "ipBlock": { "cidr": "fd00:1::4/128" } }] })));
    cluster.allows(["x/a@6 > y/b@6 80/TCP"]);
    cluster.denies(["x/a > y/b 80/TCP"]);
}

#[test]
fn an_address_of_a_pod_means_that_pod() {
    let cluster = with(from(json!([{ "podSelector": {} }])));
    cluster.allows(["10.1.0.2 > 10.1.0.1 80/TCP", "fd00:1::2 > x/a 80/TCP"]);
    cluster.denies(["10.1.0.3 > 10.1.0.1 80/TCP"]);
    cluster.allows(["10.1.0.2 > 203.0.113.7 80/TCP"]);
}

#[test]
fn policy_types_default_to_ingress_and_to_egress_where_there_are_rules_for_it() {
    let rule = json!([{ "to": [{ "ipBlock": { "cidr": "203.0.113.0/24" } }] }]);
    for (spec, is_isolated) in [
        (json!({ "podSelector": {} }), [true, false]),
        (json!({ "podSelector": {}, "policyTypes": [] }), [true, false]),
        (json!({ "podSelector": {}, "egress": [] }), [true, false]),
        (json!({ "podSelector": {}, "egress": rule }), [true, true]),
        (json!({ "podSelector": {}, "policyTypes": ["Egress"] }), [false, true]),
        (json!({ "podSelector": {}, "policyTypes": ["Ingress"] }), [true, false]),
        (json!({ "podSelector": {}, "policyTypes": ["Egress", "Ingress"] }), [true, true]),
    ] {
        let cluster = with(spec.clone());
        let is_denied =
            ["y/a > x/a 80/TCP", "x/a > y/a 80/TCP"].map(|probe| cluster.ask(probe).verdict == Verdict::Deny);
        assert_eq!(is_denied, is_isolated, "{spec}");
    }
}

#[test]
fn a_section_that_is_not_listed_is_ignored() {
    let cluster = with(json!({ "podSelector": {}, "policyTypes": ["Ingress"], "egress": [] }));
    cluster.allows(["x/a > y/a 80/TCP"]);
    let to_y = json!([{ "to": [{ "namespaceSelector": { "matchLabels": { "team": "blue" } } }] }]);
    let cluster = with_all([
        policy("isolates", json!({ "podSelector": {}, "policyTypes": ["Egress"] })),
        policy("ignored", json!({ "podSelector": {}, "policyTypes": ["Ingress"], "egress": to_y })),
    ]);
    cluster.denies(["x/a > y/a 80/TCP"]);
    let cluster = with(json!({ "podSelector": {}, "policyTypes": ["Egress"], "ingress": [], "egress": [{}] }));
    cluster.allows(["y/a > x/a 80/TCP", "x/a > y/a 80/TCP"]);
}

#[test]
fn empty_and_missing_from_to_and_ports_match_everything() {
    for rule in [json!({}), json!({ "from": [] }), json!({ "ports": [] }), json!({ "from": [], "ports": [] })] {
        let cluster = with(json!({ "podSelector": {}, "ingress": [rule] }));
        cluster.allows(["z/a > x/a 9/SCTP", "2001:db8:ffff::9 > x/a 80/UDP", "203.0.113.7 > x/a ICMP"]);
    }
    for rule in [json!({}), json!({ "to": [] }), json!({ "ports": [] })] {
        with(egress(rule)).allows(["x/a > z/a 9/SCTP", "x/a > 203.0.113.7 80/UDP", "x/a > 192.0.2.2 ICMP"]);
    }
    // A section without rules is another matter.
    with(json!({ "podSelector": {}, "ingress": [] })).denies(["z/a > x/a 80/TCP"]);
}

#[test]
fn a_rule_needs_a_peer_and_a_port() {
    let rule = json!({ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] });
    let cluster = with(json!({ "podSelector": {}, "ingress": [rule, { "ports": [{ "port": 90 }] }] }));
    cluster.allows(["x/b > x/a 80/TCP", "y/a > x/a 90/TCP"]);
    cluster.denies(["x/b > x/a 81/TCP", "y/a > x/a 80/TCP"]);
}

#[test]
fn a_missing_protocol_is_tcp() {
    let cluster = with(ports(json!([{ "port": 80 }])));
    cluster.allows(["y/a > x/a 80/TCP"]);
    cluster.denies(["y/a > x/a 80/UDP", "y/a > x/a 80/SCTP", "y/a > x/a 81/TCP", "y/a > x/a ICMP"]);
    let cluster = with(ports(json!([{}])));
    cluster.allows(["y/a > x/a 80/TCP", "y/a > x/a 65535/TCP"]);
    cluster.denies(["y/a > x/a 80/UDP"]);
}

#[test]
fn protocols_are_tcp_udp_and_sctp() {
    let cluster = with(ports(json!([{ "protocol": "UDP", "port": 53 }, { "protocol": "SCTP" }])));
    cluster.allows(["y/a > x/a 53/UDP", "y/a > x/a 53/SCTP", "y/a > x/a 9/SCTP"]);
    cluster.denies(["y/a > x/a 53/TCP", "y/a > x/a 54/UDP"]);
}

#[test]
fn what_has_no_ports_is_only_matched_by_rules_without_ports() {
    with(ports(json!([{}, { "protocol": "UDP" }, { "protocol": "SCTP" }]))).denies(["y/a > x/a ICMP"]);
    with(from(json!([{ "namespaceSelector": { "matchLabels": { "team": "blue" } } }]))).allows(["y/a > x/a ICMP"]);
}

#[test]
fn an_end_port_makes_an_inclusive_range() {
    let cluster = with(ports(json!([{ "port": 80, "endPort": 90 }, { "port": 99, "endPort": 99 }])));
    cluster.allows(["y/a > x/a 80/TCP", "y/a > x/a 85/TCP", "y/a > x/a 90/TCP", "y/a > x/a 99/TCP"]);
    cluster.denies(["y/a > x/a 79/TCP", "y/a > x/a 91/TCP", "y/a > x/a 85/UDP", "y/a > x/a 98/TCP"]);
    with(ports(json!([{ "port": 1, "endPort": 65535 }]))).allows(["y/a > x/a 1/TCP", "y/a > x/a 65535/TCP"]);
}

#[test]
fn named_ports_are_resolved_per_destination_pod() {
    let cluster = with(ports(json!([{ "port": "web" }])));
    cluster.allows(["y/a > x/a 80/TCP", "y/a > x/b 8080/TCP"]);
    cluster.denies(["y/a > x/a 8080/TCP", "y/a > x/b 80/TCP", "y/a > x/a 80/UDP"]);
}

#[test]
fn named_ports_are_resolved_on_egress_where_pods_of_one_selection_name_different_numbers() {
    let cluster = with(egress(json!({ "to": [{ "namespaceSelector": {} }], "ports": [{ "port": "web" }] })));
    cluster.allows(["x/a > y/a 80/TCP", "x/a > y/b 8080/TCP"]);
    cluster.denies(["x/a > y/a 8080/TCP", "x/a > y/b 80/TCP"]);
    // Whoever is no pod names no ports; a pod that a CIDR matches does.
    let cluster = with(egress(json!({ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }], "ports": [{ "port": "web" }] })));
    cluster.allows(["x/a > y/b 8080/TCP"]);
    cluster.denies(["x/a > 203.0.113.7 80/TCP", "x/a > 192.0.2.2 80/TCP", "x/a > y/b 80/TCP"]);
    let cluster = with(egress(json!({ "ports": [{ "port": "web" }] })));
    cluster.allows(["x/a > y/b 8080/TCP"]);
    cluster.denies(["x/a > 203.0.113.7 8080/TCP"]);
}

#[test]
fn a_named_port_has_the_protocol_that_the_rule_and_the_pod_say() {
    let cluster = with(ports(json!([{ "port": "dns", "protocol": "UDP" }])));
    cluster.allows(["y/a > x/a 53/UDP"]);
    cluster.denies(["y/a > x/a 53/TCP", "y/a > x/b 53/UDP", "y/a > x/b 53/TCP"]);
    let cluster = with(ports(json!([{ "port": "dns" }])));
    cluster.allows(["y/a > x/b 53/TCP"]);
    cluster.denies(["y/a > x/a 53/UDP", "y/a > x/a 53/TCP"]);
}

#[test]
fn all_ports_of_a_pod_that_have_the_name_count() {
    let port = |number: u16| json!({ "name": "web", "containerPort": number });
    let mut cluster = with(ports(json!([{ "port": "web" }])));
    cluster.edit_pod(
        "x/a",
        "/spec/containers",
        json!([{ "name": "c", "ports": [port(81)] }, { "name": "d", "ports": [port(82)] }]),
    );
    cluster.edit_pod(
        "x/a",
        "/spec/initContainers",
        json!([
            { "name": "sidecar", "restartPolicy": "Always", "ports": [port(83)] },
            { "name": "before", "ports": [port(84)] },
        ]),
    );
    cluster.allows(["y/a > x/a 81/TCP", "y/a > x/a 82/TCP", "y/a > x/a 83/TCP"]);
    cluster.denies(["y/a > x/a 80/TCP", "y/a > x/a 84/TCP"]);
}

#[test]
fn a_policy_whose_ports_nobody_has_still_isolates() {
    with(ports(json!([{ "port": "nobodys" }]))).denies(["y/a > x/a 80/TCP", "y/a > x/a ICMP"]);
    with(egress(json!({ "ports": [{ "port": "nobodys" }] }))).denies(["x/a > y/a 80/TCP"]);
}

#[test]
fn a_pods_own_node_always_reaches_it_and_is_reached_by_it() {
    let cluster = with(json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    cluster.allows([
        "192.0.2.1 > x/a 80/TCP",
        "x/a > 192.0.2.1 80/UDP",
        "2001:db8::1 > x/a ICMP",
        "198.51.100.1 > x/a 80/TCP",
    ]);
    cluster.denies(["192.0.2.2 > x/a 80/TCP", "x/a > 192.0.2.2 80/TCP", "x/a > 198.51.100.2 80/TCP"]);
    assert!(cluster.ask("192.0.2.1 > x/a 80/TCP").ingress.deciders.is_empty());
}

#[test]
fn host_network_pods_are_neither_subject_nor_peer() {
    let everyone = json!([{ "namespaceSelector": {} }]);
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": everyone }], "egress": [{ "to": everyone }] });
    let mut cluster = with(spec);
    let mut host = pod("x/h", 0);
    host["spec"]["hostNetwork"] = json!(true);
    host["spec"]["nodeName"] = json!("n1");
    host["status"]["podIPs"] = json!([{ "ip": "192.0.2.2" }, { "ip": "2001:db8::2" }]);
    cluster.add(host);
    cluster.allows(["x/h > y/a 80/TCP", "x/h > 203.0.113.7 80/TCP", "203.0.113.7 > x/h 80/TCP"]);
    cluster.denies(["x/h > x/a 80/TCP", "x/a > x/h 80/TCP", "x/h@6 > x/a@6 80/TCP"]);
    // "their connections will be treated as node connections": on its own node, and by its node's address.
    cluster.allows(["x/h > x/b 80/TCP", "x/b > x/h 80/TCP"]);
    cluster.add(policy("node", from(json!([{ "ipBlock": { "cidr": "192.0.2.2/32" } }]))));
    cluster.allows(["x/h > x/a 80/TCP", "192.0.2.2 > x/a 80/TCP"]);
}

#[test]
fn a_host_network_pod_names_no_ports_for_others() {
    let mut cluster = with(egress(json!({ "ports": [{ "port": "web" }] })));
    cluster.edit_pod("y/b", "/spec/hostNetwork", json!(true));
    cluster.edit_pod("y/b", "/status/podIPs", json!([{ "ip": "192.0.2.2" }]));
    cluster.denies(["x/a > y/b 8080/TCP"]);
}

#[test]
fn a_pod_always_reaches_itself() {
    let cluster = with(json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    cluster.allows(["x/a > x/a 80/TCP", "x/a@6 > x/a@6 ICMP", "10.1.0.1 > x/a 80/UDP"]);
    cluster.denies(["x/a > x/b 80/TCP"]);
}

#[test]
fn completed_pods_leave_the_peer_sets() {
    for phase in ["Succeeded", "Failed"] {
        let mut cluster = with(from(json!([{ "podSelector": {} }])));
        cluster.allows(["10.1.0.2 > x/a 80/TCP"]);
        cluster.edit_pod("x/b", "/status/phase", json!(phase));
        cluster.denies(["10.1.0.2 > x/a 80/TCP", "x/b > x/a 80/TCP"]);
        // Whoever has its address now is judged as who he is.
        cluster.add(pod("y/new", 2));
        cluster.denies(["y/new > x/a 80/TCP", "x/b > x/a 80/TCP"]);
        cluster.allows(["y/a > y/new 80/TCP"]);
    }
}

#[test]
fn completed_pods_are_no_subjects() {
    let mut cluster = with(json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    cluster.edit_pod("x/b", "/status/phase", json!("Succeeded"));
    cluster.allows(["y/a > x/b 80/TCP"]);
}

#[test]
fn terminating_pods_stay_enforced_and_in_the_peer_sets() {
    let mut cluster = with(from(json!([{ "podSelector": {} }])));
    cluster.edit_pod("x/b", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    cluster.allows(["x/b > x/a 80/TCP"]);
    cluster.denies(["y/a > x/b 80/TCP"]);
}

#[test]
fn pods_with_two_addresses_are_one_pod() {
    let cluster = with(from(json!([{ "podSelector": { "matchLabels": { "app": "b" } } }])));
    cluster.allows(["x/b > x/a 80/TCP", "x/b@6 > x/a@6 80/TCP"]);
    cluster.denies(["y/b > x/a 80/TCP", "y/b@6 > x/a@6 80/TCP"]);
}

#[test]
fn label_changes_of_pods_and_namespaces_count() {
    let front = json!({ "matchLabels": { "tier": "front" } });
    let blue = json!({ "matchLabels": { "team": "blue" } });
    let mut cluster = with(from(json!([{ "podSelector": front }, { "namespaceSelector": blue }])));
    cluster.denies(["x/b > x/a 80/TCP", "z/b > x/a 80/TCP"]);
    cluster.edit_pod("x/b", "/metadata/labels", json!({ "tier": "front" }));
    cluster.namespaces[2].metadata.labels = serde_json::from_value(json!({ "team": "blue" })).unwrap();
    cluster.allows(["x/b > x/a 80/TCP", "z/b > x/a 80/TCP"]);
}

#[test]
fn the_well_known_example() {
    let mut cluster = cluster();
    let namespace = |name: &str, labels: Value| {
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    };
    cluster.namespaces.push(namespace("default", json!({})));
    cluster.namespaces.push(namespace("mine", json!({ "project": "myproject" })));
    for (name, last, role) in [
        ("default/db", 11, "db"),
        ("default/web", 12, "frontend"),
        ("default/other", 13, "other"),
        ("mine/any", 14, "any"),
    ] {
        let mut pod = pod(name, last);
        pod["metadata"]["labels"] = json!({ "role": role });
        pod["spec"]["nodeName"] = json!("n1");
        cluster.add(pod);
    }
    cluster.edit_pod("z/a", "/metadata/labels", json!({ "role": "frontend" }));
    cluster.add(json!({
        "kind": "NetworkPolicy",
        "metadata": { "name": "test-network-policy", "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "role": "db" } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{
                "from": [
                    { "ipBlock": { "cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"] } },
                    { "namespaceSelector": { "matchLabels": { "project": "myproject" } } },
                    { "podSelector": { "matchLabels": { "role": "frontend" } } },
                ],
                "ports": [{ "protocol": "TCP", "port": 6379 }],
            }],
            "egress": [{
                "to": [{ "ipBlock": { "cidr": "10.0.0.0/24" } }],
                "ports": [{ "protocol": "TCP", "port": 5978 }],
            }],
        },
    }));
    cluster.allows([
        "172.17.0.0 > default/db 6379/TCP",
        "172.17.0.255 > default/db 6379/TCP",
        "172.17.2.0 > default/db 6379/TCP",
        "172.17.255.255 > default/db 6379/TCP",
        "mine/any > default/db 6379/TCP",
        "mine/any@6 > default/db@6 6379/TCP",
        "default/web > default/db 6379/TCP",
        "default/db > 10.0.0.1 5978/TCP",
        "192.0.2.2 > default/db 22/TCP",
    ]);
    cluster.denies([
        "172.17.1.0 > default/db 6379/TCP",
        "172.17.1.255 > default/db 6379/TCP",
        "172.16.255.255 > default/db 6379/TCP",
        "172.18.0.0 > default/db 6379/TCP",
        "172.17.0.1 > default/db 6380/TCP",
        "172.17.0.1 > default/db 6379/UDP",
        "z/a > default/db 6379/TCP",
        "default/other > default/db 6379/TCP",
        "default/web > default/db 80/TCP",
        "default/web > default/db ICMP",
        "default/db > 10.0.1.0 5978/TCP",
        "default/db > 10.0.0.1 5979/TCP",
        "default/db > default/web 5978/TCP",
        "default/db > 2001:db8:ffff::9 5978/TCP",
    ]);
    cluster.allows(["z/a > default/web 6379/TCP", "default/web > 203.0.113.7 80/TCP"]);
    assert_eq!(deciders(&cluster.ask("mine/any > default/db 6379/TCP").ingress), ["test-network-policy[0]"]);
    assert_eq!(deciders(&cluster.ask("default/db > 10.0.1.0 5978/TCP").egress), ["test-network-policy"]);
}
