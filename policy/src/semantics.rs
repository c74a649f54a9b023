//! What policies mean, corner by corner, through the tables.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use sluice_abi::{Identity, Protocol};
use sluice_datapath::Family;

use crate::cluster_policy::ClusterNetworkPolicy;
use crate::object::PolicyMode;
use crate::{
    Answer, Evaluator, Event, Index, LastNumbers, Limits, Party, PodName, ProbeError, Severity, Verdict, View, Why,
};

/// An object as an event.
pub(crate) fn event(object: Value) -> Event {
    let read = |object| serde_json::from_value(object);
    match object["kind"].as_str() {
        Some("Namespace") => Event::from(&read(object).map(|object: Namespace| object).unwrap()),
        Some("Node") => Event::from(&serde_json::from_value::<Node>(object).unwrap()),
        Some("Pod") => Event::from(&serde_json::from_value::<Pod>(object).unwrap()),
        Some("NetworkPolicy") => Event::from(&serde_json::from_value::<NetworkPolicy>(object).unwrap()),
        Some("ClusterNetworkPolicy") => Event::from(&serde_json::from_value::<ClusterNetworkPolicy>(object).unwrap()),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn namespace(name: &str, labels: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// A pod `namespace/name` on node `n1`, with these addresses.
pub(crate) fn pod(name: &str, labels: Value, addresses: &[&str]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c" }] },
        "status": { "podIPs": ips, "phase": "Running" },
    })
}

pub(crate) fn policy(name: &str, spec: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec,
    })
}

pub(crate) fn cluster_policy(name: &str, tier: &str, priority: i32, spec: Value) -> Value {
    let mut whole = json!({ "tier": tier, "priority": priority, "subject": { "namespaces": {} } });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": { "name": name }, "spec": whole,
    })
}

pub(crate) struct Cluster(pub Index);

impl Cluster {
    fn new(objects: impl IntoIterator<Item = Value>) -> Self {
        let mut cluster = Self(Index::new(View::Everything, Limits::NONE));
        cluster.add(objects);
        assert_eq!(cluster.0.problems().iter().filter(|problem| problem.severity == Severity::Error).count(), 0);
        cluster
    }

    fn add(&mut self, objects: impl IntoIterator<Item = Value>) {
        self.0.apply_all(objects.into_iter().map(event));
    }

    fn party(text: &str) -> Party {
        match text.split_once('/') {
            Some((namespace, name)) => Party::Pod(PodName::new(namespace, name)),
            None => Party::Address(text.parse().unwrap()),
        }
    }

    /// Whether a packet passes. `port` is such as `80/TCP`, `53/UDP`, `ICMP`.
    fn passes(&self, from: &str, to: &str, port: &str) -> bool {
        self.ask(from, to, port, |answer| answer.verdict == Verdict::Allow)
    }

    fn ask<R>(&self, from: &str, to: &str, port: &str, use_it: impl FnOnce(Answer<'_>) -> R) -> R {
        use_it(self.probe(from, to, port, |evaluator, from, to, protocol, port| {
            let is_ipv6 = [from, to].iter().any(|party| matches!(party, Party::Address(address) if address.is_ipv6()));
            let family = if is_ipv6 { Family::V6 } else { Family::V4 };
            evaluator.probe(from, to, protocol, port, family).unwrap()
        }))
    }

    fn probe<'a, R>(
        &'a self,
        from: &str,
        to: &str,
        port: &str,
        ask: impl FnOnce(&Evaluator<'a>, &Party, &Party, Protocol, u16) -> R,
    ) -> R {
        let (number, protocol) = port.split_once('/').unwrap_or(("0", port));
        let protocol = match protocol {
            "TCP" => Protocol::TCP,
            "UDP" => Protocol::UDP,
            "SCTP" => Protocol::SCTP,
            "ICMP" => Protocol::ICMP,
            other => panic!("{other}"),
        };
        let evaluator = Evaluator::new(&self.0);
        ask(&evaluator, &Self::party(from), &Self::party(to), protocol, number.parse().unwrap())
    }
}

/// Pods a and b in namespace x, c in y, and an outsider's address.
pub(crate) fn small(policies: impl IntoIterator<Item = Value>) -> Cluster {
    let people = [
        namespace("x", json!({ "team": "red" })),
        namespace("y", json!({ "team": "blue" })),
        pod("x/a", json!({ "app": "a" }), &["10.0.0.1", "fd00::1"]),
        pod("x/b", json!({ "app": "b", "tier": "back" }), &["10.0.0.2", "fd00::2"]),
        pod("y/c", json!({ "app": "c" }), &["10.0.1.3", "fd00::1:3"]),
    ];
    Cluster::new(people.into_iter().chain(policies))
}

const OUTSIDE: &str = "192.0.2.7";

#[test]
fn the_well_known_example() {
    let example = json!({
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
    });
    let cluster = Cluster::new([
        namespace("default", json!({})),
        namespace("mine", json!({ "project": "myproject" })),
        namespace("other", json!({ "project": "other" })),
        pod("default/db", json!({ "role": "db" }), &["10.9.0.1"]),
        pod("default/front", json!({ "role": "frontend" }), &["10.9.0.2"]),
        pod("default/else", json!({ "role": "else" }), &["10.9.0.3"]),
        pod("mine/any", json!({}), &["10.9.1.1"]),
        pod("other/front", json!({ "role": "frontend" }), &["10.9.2.1"]),
        policy("default/test-network-policy", example),
    ]);
    for from in ["172.17.0.1", "172.17.2.1", "default/front", "mine/any"] {
        assert!(cluster.passes(from, "default/db", "6379/TCP"), "{from}");
        assert!(!cluster.passes(from, "default/db", "6380/TCP"), "{from}");
        assert!(!cluster.passes(from, "default/db", "6379/UDP"), "{from}");
        assert!(!cluster.passes(from, "default/db", "ICMP"), "{from}");
    }
    for from in ["172.17.1.1", "172.18.0.1", "default/else", "other/front"] {
        assert!(!cluster.passes(from, "default/db", "6379/TCP"), "{from}");
    }
    assert!(cluster.passes("default/db", "10.0.0.7", "5978/TCP"));
    assert!(!cluster.passes("default/db", "10.0.0.7", "5979/TCP"));
    assert!(!cluster.passes("default/db", "10.0.1.7", "5978/TCP"));
    assert!(!cluster.passes("default/db", "default/front", "5978/TCP"));
    assert!(cluster.passes("default/else", "default/front", "1/TCP"), "not selected");
}

#[test]
fn any_policy_isolates_per_direction_and_policies_add_up() {
    let all = json!({});
    let cluster = small([policy("x/none", json!({ "podSelector": { "matchLabels": { "app": "a" } } }))]);
    assert!(!cluster.passes("x/b", "x/a", "80/TCP") && cluster.passes("x/a", "x/b", "80/TCP"));
    assert!(!cluster.passes(OUTSIDE, "x/a", "ICMP"));
    let cluster = small([
        policy("x/none", json!({ "podSelector": all, "policyTypes": ["Ingress", "Egress"] })),
        policy(
            "x/in",
            json!({ "podSelector": all, "ingress": [{ "from": [{ "podSelector": {} }], "ports": [{ "port": 80 }] }] }),
        ),
        policy(
            "x/out",
            json!({ "podSelector": all, "policyTypes": ["Egress"], "egress": [{ "to": [{ "podSelector": {} }] }] }),
        ),
    ]);
    assert!(cluster.passes("x/a", "x/b", "80/TCP"), "both ends allow it");
    assert!(!cluster.passes("x/a", "x/b", "81/TCP"), "the receiver does not");
    assert!(!cluster.passes("x/a", "y/c", "80/TCP"), "the sender does not");
    assert!(!cluster.passes("y/c", "x/a", "80/TCP"));
}

#[test]
fn one_peer_combines_selectors_and_two_do_not() {
    let with = |from: Value| {
        small([policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "from": from }] }),
        )])
    };
    let blue = json!({ "matchLabels": { "team": "blue" } });
    let c = json!({ "matchLabels": { "app": "c" } });
    let b = json!({ "matchLabels": { "app": "b" } });
    let both = with(json!([{ "namespaceSelector": blue, "podSelector": b }]));
    assert!(!both.passes("x/b", "x/a", "80/TCP") && !both.passes("y/c", "x/a", "80/TCP"));
    let either = with(json!([{ "namespaceSelector": blue }, { "podSelector": b }]));
    assert!(either.passes("x/b", "x/a", "80/TCP") && either.passes("y/c", "x/a", "80/TCP"));
    let elsewhere = with(json!([{ "podSelector": c }]));
    assert!(!elsewhere.passes("y/c", "x/a", "80/TCP"), "a podSelector alone is about its own namespace");
    let by_name = with(json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "y" } } }]));
    assert!(by_name.passes("y/c", "x/a", "80/TCP") && !by_name.passes("x/b", "x/a", "80/TCP"));
    let everybody = with(json!([{ "namespaceSelector": {} }]));
    assert!(everybody.passes("y/c", "x/a", "80/TCP") && !everybody.passes(OUTSIDE, "x/a", "80/TCP"), "pods only");
    let not_blue = with(
        json!([{ "namespaceSelector": { "matchExpressions": [{ "key": "team", "operator": "NotIn", "values": ["blue"] }] } }]),
    );
    assert!(not_blue.passes("x/b", "x/a", "80/TCP") && !not_blue.passes("y/c", "x/a", "80/TCP"));
}

#[test]
fn an_except_trims_only_its_own_block_and_blocks_match_pods_in_both_families() {
    let to = json!([
        { "ipBlock": { "cidr": "10.0.0.0/16", "except": ["10.0.0.0/24"] } },
        { "ipBlock": { "cidr": "10.0.0.0/30" } },
        { "ipBlock": { "cidr": "fd00::/64", "except": ["fd00::1:0/112"] } },
    ]);
    let cluster = small([policy(
        "x/p",
        json!({
            "podSelector": { "matchLabels": { "app": "a" } }, "policyTypes": ["Egress"], "egress": [{ "to": to }],
        }),
    )]);
    assert!(cluster.passes("x/a", "10.0.0.2", "80/TCP"), "inside an except, but in another block");
    assert!(cluster.passes("x/a", "x/b", "80/TCP"), "a pod's address");
    assert!(!cluster.passes("x/a", "10.0.0.9", "80/TCP"));
    assert!(cluster.passes("x/a", "10.0.1.3", "80/TCP") && !cluster.passes("x/a", OUTSIDE, "80/TCP"));
    assert!(cluster.passes("fd00::1", "fd00::2", "80/TCP") && !cluster.passes("fd00::1", "fd00::1:3", "80/TCP"));
    assert!(!cluster.passes("x/a", "fd01::1", "80/TCP"));
}

#[test]
fn every_address_is_in_zero_length_blocks_of_its_family_only() {
    let cluster = small([policy(
        "x/p",
        json!({
            "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "to": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }],
        }),
    )]);
    assert!(cluster.passes("x/a", OUTSIDE, "80/TCP") && cluster.passes("x/a", "y/c", "ICMP"));
    assert!(!cluster.passes("x/a", "fd01::1", "80/TCP") && !cluster.passes("fd00::1", "fd00::2", "80/TCP"));
}

#[test]
fn ports_and_ranges() {
    let ports = json!([{ "port": 80, "endPort": 90 }, { "port": 53, "protocol": "UDP" }, { "protocol": "SCTP" }, {"port": 1, "endPort": 65535, "protocol": "UDP"}]);
    let cluster = small([policy("x/p", json!({ "podSelector": {}, "ingress": [{ "ports": ports }] }))]);
    for (port, passes) in [
        ("79/TCP", false),
        ("80/TCP", true),
        ("85/TCP", true),
        ("90/TCP", true),
        ("91/TCP", false),
        ("53/UDP", true),
        ("9999/SCTP", true),
        ("0/SCTP", true),
        ("65535/UDP", true),
        ("0/UDP", false),
        ("ICMP", false),
    ] {
        assert_eq!(cluster.passes(OUTSIDE, "x/a", port), passes, "{port}");
    }
    let open = small([policy("x/p", json!({ "podSelector": {}, "ingress": [{}] }))]);
    assert!(open.passes(OUTSIDE, "x/a", "ICMP") && open.passes(OUTSIDE, "x/a", "0/TCP"), "no ports: any protocol");
}

pub(crate) fn with_ports(mut pod: Value, ports: Value) -> Value {
    pod["spec"]["containers"][0]["ports"] = ports;
    pod
}

#[test]
fn named_ports_are_the_receiving_pods() {
    let port = |number: u16, protocol: &str| json!([{ "name": "web", "containerPort": number, "protocol": protocol }]);
    let people = || {
        [
            with_ports(pod("x/a", json!({ "role": "server" }), &["10.0.0.1"]), port(8080, "TCP")),
            with_ports(pod("x/b", json!({ "role": "server" }), &["10.0.0.2"]), port(9090, "TCP")),
            with_ports(pod("x/u", json!({ "role": "server" }), &["10.0.0.3"]), port(8080, "UDP")),
            pod("x/none", json!({ "role": "server" }), &["10.0.0.4"]),
            pod("x/client", json!({}), &["10.0.0.9"]),
        ]
    };
    let servers = json!({ "matchLabels": { "role": "server" } });
    let ingress = policy("x/in", json!({ "podSelector": servers, "ingress": [{ "ports": [{ "port": "web" }] }] }));
    let egress = |to: Value| {
        policy(
            "x/out",
            json!({
                "podSelector": { "matchExpressions": [{ "key": "role", "operator": "DoesNotExist" }] },
                "policyTypes": ["Egress"], "egress": [{ "to": to, "ports": [{ "port": "web", "protocol": "TCP" }] }],
            }),
        )
    };
    let ways = [
        ingress,
        egress(json!([{ "podSelector": servers }])),
        egress(json!([])),
        egress(json!([{ "ipBlock": { "cidr": "10.0.0.0/24" } }])),
    ];
    for way in ways {
        let cluster = Cluster::new(people().into_iter().chain([way.clone()]));
        for (to, port, passes) in [
            ("x/a", "8080/TCP", true),
            ("x/a", "9090/TCP", false),
            ("x/a", "8080/UDP", false),
            ("x/b", "9090/TCP", true),
            ("x/b", "8080/TCP", false),
            ("x/u", "8080/UDP", false),
            ("x/u", "8080/TCP", false),
            ("x/none", "8080/TCP", false),
            ("x/none", "0/TCP", false),
        ] {
            assert_eq!(cluster.passes("x/client", to, port), passes, "{to} {port} by {way}");
        }
    }
}

#[test]
fn changed_named_ports_are_followed() {
    let port = |number: u16| json!([{ "name": "web", "containerPort": number }]);
    let server = |number| with_ports(pod("x/a", json!({ "app": "a" }), &["10.0.0.1"]), port(number));
    let mut cluster = small([
        server(80),
        policy(
            "x/out",
            json!({ "podSelector": { "matchLabels": { "app": "b" } }, "policyTypes": ["Egress"], "egress": [{ "ports": [{ "port": "web" }] }] }),
        ),
        policy(
            "x/in",
            json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "ports": [{ "port": "web" }] }] }),
        ),
    ]);
    assert!(cluster.passes("x/b", "x/a", "80/TCP") && !cluster.passes("x/b", "x/a", "81/TCP"));
    cluster.add([server(81)]);
    assert!(!cluster.passes("x/b", "x/a", "80/TCP") && cluster.passes("x/b", "x/a", "81/TCP"));
}

fn node(name: &str, address: &str) -> Value {
    json!({
        "kind": "Node", "metadata": { "name": name },
        "status": { "addresses": [{ "type": "InternalIP", "address": address }, { "type": "Hostname", "address": name }] },
    })
}

#[test]
fn a_pod_reaches_itself_and_its_own_node() {
    let mut host = pod("x/host", json!({ "app": "b" }), &["192.0.2.1"]);
    host["spec"]["hostNetwork"] = json!(true);
    let mut elsewhere = host.clone();
    elsewhere["metadata"]["name"] = json!("elsewhere");
    elsewhere["spec"]["nodeName"] = json!("n2");
    elsewhere["status"]["podIPs"] = json!([{ "ip": "192.0.2.2" }]);
    let cluster = small([
        node("n1", "192.0.2.1"),
        node("n2", "192.0.2.2"),
        host,
        elsewhere,
        policy(
            "x/none",
            json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{ "from": [{ "podSelector": {} }] }] }),
        ),
    ]);
    assert!(cluster.passes("x/a", "x/a", "80/TCP") && cluster.passes("10.0.0.1", "x/a", "80/TCP"));
    assert!(cluster.passes("192.0.2.1", "x/a", "80/TCP") && cluster.passes("x/a", "192.0.2.1", "80/TCP"));
    assert!(cluster.passes("x/host", "x/a", "80/TCP") && cluster.passes("x/a", "x/host", "80/TCP"));
    assert!(!cluster.passes("192.0.2.2", "x/a", "80/TCP"), "another node");
    assert!(!cluster.passes("x/elsewhere", "x/a", "80/TCP"), "no peer by its labels");
    assert!(cluster.passes("x/elsewhere", "192.0.2.9", "80/TCP"), "no subject either");
    assert!(cluster.ask("x/a", "x/a", "1/TCP", |answer| answer.egress.why == Why::Itself));
}

#[test]
fn only_cluster_policies_keep_a_pod_from_its_own_node_and_nothing_the_node_from_it() {
    let isolating = policy("x/none", json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    let nodes = json!([{ "action": "Deny", "to": [{ "nodes": {} }] }]);
    let all = json!([{ "action": "Deny", "from": [{ "namespaces": {} }] }]);
    let [admin, baseline] = ["Admin", "Baseline"]
        .map(|tier| cluster_policy("p", tier, 0, json!({ "egress": nodes.clone(), "ingress": all.clone() })));
    for (policies, reaches) in
        [(vec![isolating.clone(), admin.clone()], false), (vec![isolating, baseline], true), (vec![admin], false)]
    {
        let cluster = small([node("n1", "192.0.2.1")].into_iter().chain(policies));
        assert_eq!(cluster.passes("x/a", "192.0.2.1", "22/TCP"), reaches);
        assert!(cluster.passes("192.0.2.1", "x/a", "22/TCP"));
        assert!(cluster.ask("192.0.2.1", "x/a", "22/TCP", |answer| answer.ingress.why == Why::OwnNode));
    }
}

#[test]
fn completed_pods_are_nobody_and_terminating_ones_stay() {
    let mut done = pod("x/b", json!({ "app": "b" }), &["10.0.0.2"]);
    done["status"]["phase"] = json!("Succeeded");
    let mut terminating = pod("y/c", json!({ "app": "c" }), &["10.0.1.3"]);
    terminating["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    let mut cluster = small([policy(
        "x/p",
        json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "from": [{ "namespaceSelector": {} }] }] }),
    )]);
    assert!(cluster.passes("10.0.0.2", "x/a", "80/TCP"));
    cluster.add([done, terminating]);
    assert!(!cluster.passes("10.0.0.2", "x/a", "80/TCP"));
    assert!(cluster.passes("y/c", "x/a", "80/TCP"));
    let error = cluster.probe("x/b", "x/a", "80/TCP", |evaluator, from, to, protocol, port| {
        evaluator.probe(from, to, protocol, port, Family::V4).map(|_| ()).unwrap_err()
    });
    assert_eq!(error, ProbeError::Ended(PodName::new("x", "b")));
}

#[test]
fn an_address_is_never_judged_as_its_predecessors() {
    let at = |name: &str, app: &str, time: &str| {
        let mut pod = pod(name, json!({ "app": app }), &["10.0.0.50"]);
        pod["metadata"]["creationTimestamp"] = json!(time);
        pod
    };
    let old = at("x/old", "trusted", "2024-01-01T00:00:00Z");
    let new = at("x/new", "other", "2024-01-01T00:00:09Z");
    let mut cluster = small([
        old.clone(),
        policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "trusted" } } }] }] }),
        ),
    ]);
    assert!(cluster.passes("10.0.0.50", "x/a", "80/TCP"));
    cluster.add([new]);
    assert!(!cluster.passes("10.0.0.50", "x/a", "80/TCP"));
    cluster.add([old]);
    assert!(!cluster.passes("10.0.0.50", "x/a", "80/TCP"), "news of the old one change nothing");
}

#[test]
fn changed_lists_of_blocks_are_followed() {
    let net = |third: u8| json!({ "ipBlock": { "cidr": format!("192.0.{third}.0/24") } });
    let trimmed = json!({ "ipBlock": { "cidr": "192.0.2.0/24", "except": ["192.0.2.4/30"] } });
    let allow =
        |blocks: &[Value]| policy("x/p", json!({ "podSelector": {}, "ingress": [{ "from": blocks, "ports": [{}] }] }));
    let mut cluster = small([]);
    let mut follow = |blocks: &[Value]| {
        cluster.add([allow(blocks)]);
        let mut passing = [1, 2, 3].map(|third| cluster.passes(&format!("192.0.{third}.9"), "x/a", "80/TCP")).to_vec();
        passing.push(cluster.passes(OUTSIDE, "x/a", "80/TCP"));
        passing
    };
    assert_eq!(follow(&[net(1), trimmed.clone()]), [true, true, false, false]);
    assert_eq!(follow(&[net(3), net(1), trimmed.clone()]), [true, true, true, false]);
    assert_eq!(follow(&[net(1), net(1), net(2)]), [true, true, false, true]);
    assert_eq!(follow(&[trimmed, net(1)]), [true, true, false, false]);
    assert_eq!(follow(&[net(3)]), [false, false, true, false]);
}

#[test]
fn changed_labels_are_followed() {
    let mut cluster = small([policy(
        "x/p",
        json!({
            "podSelector": { "matchLabels": { "app": "a" } },
            "ingress": [{ "from": [{ "namespaceSelector": { "matchLabels": { "team": "blue" } }, "podSelector": { "matchLabels": { "app": "c" } } }] }],
        }),
    )]);
    assert!(cluster.passes("y/c", "x/a", "80/TCP"));
    cluster.add([namespace("y", json!({ "team": "red" }))]);
    assert!(!cluster.passes("y/c", "x/a", "80/TCP"));
    cluster.add([namespace("y", json!({ "team": "blue" })), pod("y/c", json!({ "app": "d" }), &["10.0.1.3"])]);
    assert!(!cluster.passes("y/c", "x/a", "80/TCP"));
    cluster.add([pod("y/c", json!({ "app": "c" }), &["10.0.1.3"])]);
    assert!(cluster.passes("y/c", "x/a", "80/TCP"));
    cluster.add([pod("x/a", json!({ "app": "z" }), &["10.0.0.1"])]);
    assert!(cluster.passes("x/b", "x/a", "80/TCP"), "no longer selected");
}

#[test]
fn tiers_of_cluster_policies() {
    let pods =
        |app: &str| json!([{ "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": app } } } }]);
    let subject = json!({ "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "app": "a" } } } });
    let rule = |action: &str, from: Value| json!({ "action": action, "from": from });
    let cnp = |name: &str, tier: &str, priority, rules: Value| {
        cluster_policy(name, tier, priority, json!({ "subject": subject, "ingress": rules }))
    };
    let isolating = || {
        policy(
            "x/p",
            json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "b" } } }] }] }),
        )
    };

    let admin = small([
        isolating(),
        cnp("deny", "Admin", 1, json!([rule("Deny", pods("b"))])),
        cnp("accept", "Admin", 2, json!([rule("Accept", pods("b")), rule("Accept", pods("c"))])),
    ]);
    assert!(!admin.passes("x/b", "x/a", "80/TCP"), "the lower priority comes first");
    assert!(admin.passes("y/c", "x/a", "80/TCP"), "above NetworkPolicies");
    assert!(!admin.passes(OUTSIDE, "x/a", "80/TCP"), "the NetworkPolicy isolates");

    let pass = small([
        isolating(),
        cnp("pass", "Admin", 1, json!([rule("Pass", pods("b")), rule("Deny", json!([{ "namespaces": {} }]))])),
    ]);
    assert!(pass.passes("x/b", "x/a", "80/TCP") && !pass.passes("y/c", "x/a", "80/TCP"));

    let deny_pods = || cnp("deny", "Baseline", 1, json!([rule("Deny", json!([{ "namespaces": {} }]))]));
    let baseline = small([deny_pods()]);
    assert!(!baseline.passes("x/b", "x/a", "80/TCP") && baseline.passes(OUTSIDE, "x/a", "80/TCP"), "no isolation");
    assert!(baseline.passes("x/a", "x/b", "80/TCP"));
    let overridden = small([deny_pods(), isolating()]);
    assert!(overridden.passes("x/b", "x/a", "80/TCP"), "NetworkPolicies are above");
    let past = small([deny_pods(), cnp("pass", "Admin", 1, json!([rule("Pass", pods("b"))]))]);
    assert!(!past.passes("x/b", "x/a", "80/TCP"), "passed on to the baseline");
    let out = small([cnp("pass", "Baseline", 0, json!([rule("Pass", pods("b"))])), deny_pods()]);
    assert!(out.passes("x/b", "x/a", "80/TCP"), "passed on to nobody");
}

#[test]
fn cluster_policies_for_networks_and_nodes() {
    let node = json!({
        "kind": "Node", "metadata": { "name": "n2", "labels": { "role": "edge" } },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.2" }, { "type": "ExternalIP", "address": "fd01::2" }] },
    });
    let deny = |to: Value| cluster_policy("deny", "Admin", 1, json!({ "egress": [{ "action": "Deny", "to": [to] }] }));
    let nodes = small([node, deny(json!({ "nodes": { "matchLabels": { "role": "edge" } } }))]);
    assert!(!nodes.passes("x/a", "192.0.2.2", "80/TCP") && !nodes.passes("fd00::1", "fd01::2", "ICMP"));
    assert!(nodes.passes("x/a", "192.0.2.3", "80/TCP"));
    let networks = small([deny(json!({ "networks": ["10.0.1.0/24", "192.0.2.0/24"] }))]);
    assert!(!networks.passes("x/a", "y/c", "80/TCP") && !networks.passes("x/a", OUTSIDE, "ICMP"));
    assert!(networks.passes("x/a", "x/b", "80/TCP"));
}

#[test]
fn cluster_policies_and_ports() {
    let port = json!([{ "name": "dns", "containerPort": 53, "protocol": "UDP" }, { "name": "dns", "containerPort": 54, "protocol": "TCP" }]);
    let named = json!([{ "destinationNamedPort": "dns" }, { "tcp": { "destinationPort": { "range": { "start": 80, "end": 82 } } } }]);
    let deny = |direction: &str, peers: &str| {
        cluster_policy(
            "deny",
            "Admin",
            1,
            json!({
                direction: [{ "action": "Deny", peers: [{ "namespaces": {} }], "protocols": named }],
            }),
        )
    };
    for way in [deny("ingress", "from"), deny("egress", "to")] {
        let cluster = small([with_ports(pod("y/c", json!({}), &["10.0.1.3"]), port.clone()), way]);
        for (at, passes) in [
            ("53/UDP", false),
            ("54/TCP", false),
            ("53/TCP", true),
            ("80/TCP", false),
            ("82/TCP", false),
            ("83/TCP", true),
            ("ICMP", true),
        ] {
            assert_eq!(cluster.passes("x/a", "y/c", at), passes, "{at}");
        }
        assert!(cluster.passes("x/a", "x/b", "53/UDP"), "a pod without such a port");
    }
}

#[test]
fn what_is_not_supported_never_allows_and_is_reported() {
    let rule = |action: &str| json!({ "egress": [{ "action": action, "to": [{ "domainNames": ["a.example"] }] }] });
    let mut cluster = small([cluster_policy(
        "z",
        "Baseline",
        9,
        json!({ "egress": [{ "action": "Deny", "to": [{ "networks": ["0.0.0.0/0"] }] }] }),
    )]);
    cluster.add([cluster_policy("accept", "Admin", 1, rule("Accept"))]);
    assert!(!cluster.passes("x/a", OUTSIDE, "443/TCP"));
    let problems = cluster.0.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].to_string().starts_with("ClusterNetworkPolicy accept: spec.egress[0].to[0].domainNames: "),
        "{}",
        problems[0]
    );
    cluster.add([cluster_policy("accept", "Admin", 1, rule("Deny"))]);
    assert!(!cluster.passes("x/a", "x/b", "443/TCP") && !cluster.passes("fd00::1", "fd00::2", "443/TCP"));
}

#[test]
fn a_namespace_or_a_node_may_ask_for_an_audit() {
    let mode = |kind: &str, name: &str, mode: &str| {
        let annotations = json!({ "sluice.dev/policy-mode": mode });
        json!({ "kind": kind, "metadata": { "name": name, "annotations": annotations } })
    };
    let mut cluster = Cluster(Index::new(View::Node("n1".into()), Limits::NONE));
    cluster.add([pod("x/a", json!({}), &[]), namespace("x", json!({})), mode("Node", "n1", "enforce")]);
    let (known, unknown) = (PodName::new("x", "a"), PodName::new("x", "unknown"));
    let modes = |cluster: &Cluster| [&known, &unknown].map(|pod| cluster.0.mode(pod));
    assert_eq!(modes(&cluster), [PolicyMode::Enforce; 2]);
    cluster.add([mode("Namespace", "x", "audit")]);
    assert_eq!(modes(&cluster), [PolicyMode::Audit; 2]);
    cluster.add([mode("Namespace", "x", "Audit"), mode("Node", "n1", "audit")]);
    assert_eq!(modes(&cluster), [PolicyMode::Audit; 2]);
    cluster.add([mode("Node", "n1", "off")]);
    assert_eq!(modes(&cluster), [PolicyMode::Enforce; 2], "what is not understood is enforced");
    let problems: Vec<String> = cluster.0.problems().iter().map(ToString::to_string).collect();
    let what = "is neither \"audit\" nor \"enforce\"; policies are enforced";
    let told =
        |object: &str, mode: &str| format!("{object}: metadata.annotations[sluice.dev/policy-mode]: {mode:?} {what}");
    assert_eq!(problems, [told("Namespace x", "Audit"), told("Node n1", "off")]);
}

#[test]
fn numbers_go_on_after_those_of_an_earlier_agent() {
    let left = LastNumbers { rule_set: 7, identity: Identity(8), reason: 9 };
    let mut index = Index::new(View::Everything, Limits::NONE).numbered_after(left);
    let isolating = policy("x/p", json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] }));
    index.apply_all([pod("x/a", json!({}), &["10.0.0.1"]), isolating].map(event));
    let tables = index.tables();
    assert_eq!(tables.pods().map(|(_, rule_set)| rule_set.number()).collect::<Vec<_>>(), [8]);
    assert_eq!(tables.identities().map(|(_, identity)| identity.0).collect::<Vec<_>>(), [9]);
    assert!(tables.rules().all(|(_, rule)| rule.policy > 9) && (1..=9).all(|old| index.reason(old).is_none()));
}

#[test]
fn verdicts_name_the_policy_or_the_lack_of_one() {
    let allow = |ports: Value| json!({ "podSelector": { "matchLabels": { "app": "a" } }, "ingress": [{ "ports": [{ "port": 1 }] }, { "ports": ports }] });
    let cluster = small([
        policy("x/second", allow(json!([{ "port": 80 }, { "port": 81 }]))),
        policy("x/first", allow(json!([{ "port": 80 }]))),
    ]);
    let why = |from: &str, to: &str, port: &str| {
        cluster.ask(from, to, port, |answer| match answer.ingress.why {
            Why::Policy(reason) => reason.to_string(),
            other => format!("{other:?}"),
        })
    };
    assert_eq!(why(OUTSIDE, "x/a", "80/TCP"), "NetworkPolicy x/first ingress[1]");
    assert_eq!(why(OUTSIDE, "x/a", "81/TCP"), "NetworkPolicy x/second ingress[1]");
    assert_eq!(why(OUTSIDE, "x/a", "82/TCP"), "no ingress rule of NetworkPolicy x/first, NetworkPolicy x/second");
    assert_eq!(why(OUTSIDE, "x/b", "80/TCP"), "NoPolicy");
    assert_eq!(why("x/a", OUTSIDE, "80/TCP"), "NotSubject");
}

#[test]
fn the_last_good_state_of_an_object_stays_in_force() {
    let good = policy("x/p", json!({ "podSelector": { "matchLabels": { "app": "a" } } }));
    let mut cluster = small([good.clone()]);
    let mut bad = good.clone();
    bad["spec"]["ingress"] = json!([{ "from": [{ "ipBlock": { "cidr": "10.0.0.0" } }] }]);
    cluster.add([bad.clone()]);
    assert!(!cluster.passes("x/b", "x/a", "80/TCP"));
    assert_eq!(
        cluster.0.problems()[0].to_string(),
        "NetworkPolicy x/p: spec.ingress[0].from[0].ipBlock.cidr: \"10.0.0.0\" is no CIDR, such as 10.0.0.0/8 or fd00::/8"
    );
    cluster.add([good]);
    assert_eq!(cluster.0.problems(), []);
}

#[test]
fn equal_priorities_are_told_of() {
    let deny = |name: &str, action: &str| {
        cluster_policy(name, "Admin", 4, json!({ "ingress": [{ "action": action, "from": [{ "namespaces": {} }] }] }))
    };
    let cluster = small([deny("b", "Accept"), deny("a", "Deny")]);
    assert!(!cluster.passes("x/a", "x/b", "80/TCP"), "by name");
    let problems = cluster.0.problems();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].severity, Severity::Warning);
}
