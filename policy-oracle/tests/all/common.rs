//! A cluster to write policies for, and short questions about it.
//!
//! The namespaces `x`, `y` and `z` have labels `team` (`red`, `blue`, none). Each has the pods `a` and `b`, with labels
//! `app=a` and `app=b`, a `tier=front` on all `a`, and both families: `x/a` is 10.1.0.1 and fd00:1::1, `x/b` ends in 2,
//! and so on to 6. All `a` run on node `n0` (192.0.2.1), all `b` on `n1` (192.0.2.2). Where `a` has the port `web` as
//! 80/TCP, `b` has it as 8080/TCP; where `a` has `dns` as 53/UDP, `b` has it as 53/TCP.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_policy_oracle::{Cluster, End, Family, Judgement, PolicyName, Probe, Protocol, Side, Verdict};

/// The cluster, without policies.
pub fn cluster() -> Cluster {
    let namespace = |name: &str, labels: Value| read(json!({ "metadata": { "name": name, "labels": labels } }));
    let node = |name: &str, last: u8, labels: Value| {
        let address = |kind: &str, address: String| json!({ "type": kind, "address": address });
        read(json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "addresses": [
                address("Hostname", name.to_owned()),
                address("InternalIP", format!("192.0.2.{last}")),
                address("InternalIP", format!("2001:db8::{last}")),
                address("ExternalIP", format!("198.51.100.{last}")),
            ] },
        }))
    };
    let mut cluster = Cluster {
        namespaces: vec![
            namespace("x", json!({ "team": "red" })),
            namespace("y", json!({ "team": "blue" })),
            namespace("z", json!({})),
        ],
        nodes: vec![node("n0", 1, json!({ "role": "control" })), node("n1", 2, json!({}))],
        ..Cluster::default()
    };
    for (number, name) in ["x/a", "x/b", "y/a", "y/b", "z/a", "z/b"].into_iter().enumerate() {
        cluster.add(pod(name, number as u8 + 1));
    }
    cluster
}

/// A pod as described above, with addresses that end in this number.
pub fn pod(name: &str, last: u8) -> Value {
    let (namespace, name) = name.split_once('/').expect("a namespace and a name");
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "containerPort": number, "protocol": protocol });
    let (labels, node, ports) = match name {
        "b" => (json!({ "app": "b" }), "n1", json!([port("web", 8080, "TCP"), port("dns", 53, "TCP")])),
        _ => (json!({ "app": name, "tier": "front" }), "n0", json!([port("web", 80, "TCP"), port("dns", 53, "UDP")])),
    };
    json!({
        "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": labels },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "ports": ports }] },
        "status": {
            "phase": "Running",
            "podIP": format!("10.1.0.{last}"),
            "podIPs": [{ "ip": format!("10.1.0.{last}") }, { "ip": format!("fd00:1::{last}") }],
        },
    })
}

/// A NetworkPolicy `x/name`.
pub fn policy(name: &str, spec: Value) -> Value {
    json!({ "kind": "NetworkPolicy", "metadata": { "namespace": "x", "name": name }, "spec": spec })
}

/// A ClusterNetworkPolicy for all pods of `x`, of the Admin tier and with priority 5, where the spec says nothing else.
pub fn cluster_policy(name: &str, spec: Value) -> Value {
    let of_x = json!({ "matchLabels": { "kubernetes.io/metadata.name": "x" } });
    let mut whole = json!({ "tier": "Admin", "priority": 5, "subject": { "namespaces": of_x } });
    for (key, value) in spec.as_object().expect("a spec") {
        whole[key] = value.clone();
    }
    json!({ "kind": "ClusterNetworkPolicy", "metadata": { "name": name }, "spec": whole })
}

/// The cluster with this NetworkPolicy for `x`.
pub fn with(spec: Value) -> Cluster {
    with_all([policy("it", spec)])
}

/// The cluster with these objects.
pub fn with_all<const N: usize>(objects: [Value; N]) -> Cluster {
    let mut cluster = cluster();
    objects.into_iter().for_each(|object| cluster.add(object));
    cluster
}

fn read<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

/// What tests do with clusters.
pub trait ClusterExt {
    /// Adds an object, by its kind.
    fn add(&mut self, object: Value);
    /// Changes a pod as its JSON pointer says.
    fn edit_pod(&mut self, name: &str, pointer: &str, value: Value);
    /// Asks, by `FROM > TO PORT/PROTOCOL` or `FROM > TO ICMP`. Ends are names of pods or addresses. Pods stand for their
    /// IPv4 addresses, unless the other end is an IPv6 address or an end has `@6` behind it.
    fn ask(&self, probe: &str) -> Judgement;
    /// Fails unless all of these arrive.
    fn allows<const N: usize>(&self, probes: [&str; N]);
    /// Fails unless all of these are dropped.
    fn denies<const N: usize>(&self, probes: [&str; N]);
}

impl ClusterExt for Cluster {
    fn add(&mut self, object: Value) {
        match object["kind"].as_str() {
            Some("Pod") => self.pods.push(read(object)),
            Some("NetworkPolicy") => self.network_policies.push(read(object)),
            Some("ClusterNetworkPolicy") => self.cluster_network_policies.push(read(object)),
            other => panic!("no test adds a {other:?}"),
        }
    }

    fn edit_pod(&mut self, name: &str, pointer: &str, value: Value) {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        let is_it = |pod: &&mut k8s_openapi::api::core::v1::Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        let pod = self.pods.iter_mut().find(is_it).expect("a pod");
        let mut object = serde_json::to_value(&*pod).expect("JSON");
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        object.pointer_mut(parent).expect("a parent")[key] = value;
        *pod = read(object);
    }

    fn ask(&self, probe: &str) -> Judgement {
        let words: Vec<&str> = probe.split(' ').collect();
        let [from, ">", to, traffic] = words[..] else { panic!("{probe:?} is no probe") };
        let is_ipv6 = [from, to].iter().any(|end| end.contains(':') || end.contains('@'));
        let family = if is_ipv6 { Family::V6 } else { Family::V4 };
        let end = |text: &str| match text.parse() {
            Ok(address) => End::Address(address),
            Err(_) => End::Pod(text.trim_end_matches("@6").to_owned(), family),
        };
        let (port, protocol) = match traffic.split_once('/') {
            None => (0, Protocol::Other),
            Some((port, "TCP")) => (port.parse().expect("a port"), Protocol::Tcp),
            Some((port, "UDP")) => (port.parse().expect("a port"), Protocol::Udp),
            Some((port, _)) => (port.parse().expect("a port"), Protocol::Sctp),
        };
        self.judge(&Probe { from: end(from), to: end(to), protocol, port })
    }

    #[track_caller]
    fn allows<const N: usize>(&self, probes: [&str; N]) {
        for probe in probes {
            let judgement = self.ask(probe);
            assert_eq!(judgement.verdict, Verdict::Allow, "{probe}: {judgement:?}");
        }
    }

    #[track_caller]
    fn denies<const N: usize>(&self, probes: [&str; N]) {
        for probe in probes {
            let judgement = self.ask(probe);
            assert_eq!(judgement.verdict, Verdict::Deny, "{probe}: {judgement:?}");
        }
    }
}

/// What decides a side: `NAME[RULE]`, or `NAME` where no rule does.
pub fn deciders(side: &Side) -> Vec<String> {
    let show = |decider: &sluice_policy_oracle::Decider| {
        let name = match &decider.policy {
            PolicyName::NetworkPolicy { name, .. } | PolicyName::ClusterNetworkPolicy { name } => name,
        };
        decider.rule.map_or_else(|| name.clone(), |rule| format!("{name}[{rule}]"))
    };
    side.deciders.iter().map(show).collect()
}
