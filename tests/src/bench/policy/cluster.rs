//! Clusters to compile policies for, the same at every run: 15,000 pods with addresses of both families on 150 nodes, in 300
//! namespaces of ten apps each. Of the pods of [`NODE`], one in 150, every third namespace has one.

use std::iter;
use std::net::{Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_policy::Event;
use sluice_policy::cluster_policy::ClusterNetworkPolicy;

/// The node whose policies are compiled.
pub const NODE: &str = "node-0";

const NODES: usize = 150;
const NAMESPACES: usize = 300;
/// Pods of a namespace.
const PODS: usize = 50;
const APPS: usize = 10;
/// Pods of an app.
const REPLICAS: usize = PODS / APPS;
const TIERS: [&str; 3] = ["front", "back", "data"];
/// One policy of so many is a ClusterNetworkPolicy.
const CLUSTER_WIDE: usize = 500;
/// Policies that [`crowd`] divides its CIDRs among.
const CROWD: usize = 1000;

/// All objects but policies.
pub fn population() -> impl Iterator<Item = Event> {
    let namespaces = (0..NAMESPACES).map(|at| {
        let labels = json!({ "team": team(at), "stage": if at % 5 == 0 { "test" } else { "production" } });
        event::<Namespace>(json!({ "metadata": { "name": namespace(at), "labels": labels } }))
    });
    let nodes = (0..NODES).map(|at| {
        let address = Ipv4Addr::from_bits(0xc612_0000 + at as u32);
        let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
        event::<Node>(json!({ "metadata": { "name": format!("node-{at}") }, "status": status }))
    });
    namespaces.chain(nodes).chain((0..NAMESPACES * PODS).map(pod))
}

fn pod(number: usize) -> Event {
    let (at, place) = (number / PODS, number % PODS);
    let name = format!("{}-{}", app(at + place / REPLICAS), place % REPLICAS);
    let node = number % NODES;
    let host = ((node << 8) | (number / NODES)) as u32;
    let (v4, v6) = (Ipv4Addr::from_bits(0x0a00_0000 | host), Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(host)));
    let port = json!({ "name": "web", "containerPort": 8080 });
    event::<Pod>(json!({
        "metadata": { "namespace": namespace(at), "name": name, "labels": {
            "app": app(at + place / REPLICAS),
            "tier": TIERS[place / REPLICAS % TIERS.len()],
            "version": format!("v{}", place % 2),
        } },
        "spec": { "nodeName": format!("node-{node}"), "containers": [{ "name": "main", "ports": [port] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": v4 }, { "ip": v6 }] },
    }))
}

/// Policies as people write them: for one app after the other, for all of a namespace, few for the whole cluster.
pub fn policies(count: usize) -> impl Iterator<Item = Event> {
    (0..count).map(|number| match number % CLUSTER_WIDE {
        rest if rest == CLUSTER_WIDE - 1 => cluster_policy(number / CLUSTER_WIDE),
        _ => policy(number),
    })
}

/// The first of [`policies`], as it is there or changed: it concerns one pod of [`NODE`].
pub fn first_policy(is_changed: bool) -> Event {
    let ports: &[u16] = if is_changed { &[8080, 9090] } else { &[8080] };
    from_neighbours(0, 0, ports)
}

fn policy(number: usize) -> Event {
    let (at, turn) = (number % NAMESPACES, number / NAMESPACES);
    let subject = at + turn / 4;
    match (turn, turn % 4) {
        (1, _) => network_policy(at, number, json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })),
        (2, _) => {
            let ports = json!([{ "port": 53, "protocol": "UDP" }, { "port": 53 }]);
            let to = json!([{ "namespaceSelector": named(1), "podSelector": of_app(0) }]);
            network_policy(at, number, json!({ "podSelector": {}, "egress": [{ "to": to, "ports": ports }] }))
        }
        (_, 0) => from_neighbours(at, number, &[8080]),
        (_, 1) => {
            let block = json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"] });
            let rule = json!({ "to": [{ "ipBlock": block }], "ports": [{ "port": 443 }] });
            network_policy(at, number, json!({ "podSelector": of_app(subject), "egress": [rule] }))
        }
        (_, 2) => {
            let from = json!([{ "namespaceSelector": { "matchLabels": { "team": team(at) } } }]);
            let rule = json!({ "from": from, "ports": [{ "port": "web" }] });
            network_policy(at, number, json!({ "podSelector": of_app(subject), "ingress": [rule] }))
        }
        _ => {
            let partner = Ipv4Addr::from_bits(0xcb00_7100 + (number % 256) as u32);
            let from = json!([{ "ipBlock": { "cidr": format!("{partner}/32") } }]);
            let rule = json!({ "from": from, "ports": [{ "port": 8080, "endPort": 8090 }] });
            network_policy(at, number, json!({ "podSelector": of_app(subject), "ingress": [rule] }))
        }
    }
}

/// An app may be asked by the next one in its namespace.
fn from_neighbours(at: usize, number: usize, ports: &[u16]) -> Event {
    let subject = at + number / NAMESPACES / 4;
    let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": port })).collect();
    let rule = json!({ "from": [{ "podSelector": of_app(subject + 1) }], "ports": ports });
    network_policy(at, number, json!({ "podSelector": of_app(subject), "ingress": [rule] }))
}

fn cluster_policy(number: usize) -> Event {
    let (namespaces, team) =
        (json!({ "namespaces": {} }), json!({ "namespaces": { "matchLabels": { "team": team(number) } } }));
    let (tier, rules) = match number % 3 {
        0 => ("Admin", json!({ "egress": [{ "action": "Deny", "to": [{ "networks": ["169.254.169.254/32"] }] }] })),
        1 => ("Admin", json!({ "ingress": [{ "action": "Accept", "from": [team] }] })),
        _ => ("Baseline", json!({ "ingress": [{ "action": "Deny", "from": [namespaces] }] })),
    };
    let mut spec = json!({ "tier": tier, "priority": number, "subject": namespaces });
    for (key, value) in rules.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    event::<ClusterNetworkPolicy>(json!({ "metadata": { "name": format!("policy-{number}") }, "spec": spec }))
}

/// 1,000 policies that concern the pods of [`NODE`], ten each, with so many CIDRs in rules of their own: each has an identity.
pub fn crowd(cidrs: usize) -> impl Iterator<Item = Event> {
    let each = cidrs / CROWD;
    (0..CROWD).map(move |number| of_crowd(number, number * each..(number + 1) * each))
}

/// The first policy of a [`crowd`], as it is there or with another CIDR instead of its first.
pub fn first_of_crowd(cidrs: usize, is_changed: bool) -> Event {
    let first = if is_changed { cidrs } else { 0 };
    of_crowd(0, iter::once(first).chain(1..cidrs / CROWD))
}

fn of_crowd(number: usize, cidrs: impl Iterator<Item = usize>) -> Event {
    let rules: Vec<Value> = cidrs.map(|at| json!({ "to": [block(at)], "ports": [{ "port": 443 }] })).collect();
    // Every third namespace has a pod here.
    network_policy(3 * number % NAMESPACES, number, json!({ "podSelector": {}, "egress": rules }))
}

/// Two pods that are here beside all others, and what they are.
pub const CLIENT: (&str, &str) = ("ns-0", "client");
pub const SERVER: (&str, &str) = ("ns-0", "server");

/// A client and a server of these addresses, and the policies that let the one ask the other on port 80.
pub fn couple(addresses: [(Ipv4Addr, Ipv6Addr); 2]) -> impl Iterator<Item = Event> {
    let called = |name: &str| json!({ "matchLabels": { "app": name } });
    let ports = json!([{ "port": 80 }]);
    let (client, server) = (called(CLIENT.1), called(SERVER.1));
    let ask = json!({ "podSelector": client, "egress": [{ "to": [{ "podSelector": server }], "ports": ports }] });
    let answer = json!({ "podSelector": server, "ingress": [{ "from": [{ "podSelector": client }], "ports": ports }] });
    let pods = [CLIENT, SERVER].into_iter().zip(addresses).map(|((namespace, name), (v4, v6))| {
        event::<Pod>(json!({
            "metadata": { "namespace": namespace, "name": name, "labels": { "app": name } },
            "spec": { "nodeName": NODE, "containers": [] },
            "status": { "phase": "Running", "podIPs": [{ "ip": v4 }, { "ip": v6 }] },
        }))
    });
    pods.chain([network_policy(0, CROWD, ask), network_policy(0, CROWD + 1, answer)])
}

/// An address in the CIDR of a [`crowd`] with this number; those of the first policies are of [`CLIENT`].
pub fn in_crowd(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0001 + ((number as u32) << 9))
}

/// One policy of 5,000 rules, about pods of all namespaces and about CIDRs; the last rule may be about another port.
pub fn many_rules(is_changed: bool) -> Event {
    const RULES: usize = 5000;
    let rule = |at: usize| {
        let port = if is_changed && at == RULES - 1 { 9 } else { 1000 + at };
        let pods = json!({ "namespaceSelector": named(at), "podSelector": of_app(at / NAMESPACES) });
        json!({ "from": [if at.is_multiple_of(2) { pods } else { block(at) }], "ports": [{ "port": port }] })
    };
    network_policy(0, 0, json!({ "podSelector": of_app(0), "ingress": (0..RULES).map(rule).collect::<Vec<_>>() }))
}

/// 5,000 rules for one pod, each about all but another CIDR, and about another port: each of these CIDRs is an identity that
/// all rules but one have something to say of, which makes 25 million rules.
pub fn many_excepts(is_changed: bool) -> Event {
    let rule = |at: usize| {
        let block = json!({ "ipBlock": { "cidr": "0.0.0.0/0", "except": [cidr(at)] } });
        json!({ "to": [block], "ports": [{ "port": if is_changed && at == 0 { 9 } else { 1000 + at } }] })
    };
    network_policy(0, 0, json!({ "podSelector": of_app(0), "egress": (0..5000).map(rule).collect::<Vec<_>>() }))
}

/// 500 policies for one pod, each about another namespace and another CIDR.
pub fn many_policies() -> impl Iterator<Item = Event> {
    (0..500).map(|number| one_of_many(number, 1000 + number))
}

/// One of [`many_policies`], about a port.
pub fn one_of_many(number: usize, port: usize) -> Event {
    let from = json!([{ "namespaceSelector": named(number) }, block(number)]);
    let rule = json!({ "from": from, "ports": [{ "port": port }] });
    network_policy(0, number, json!({ "podSelector": of_app(0), "ingress": [rule] }))
}

/// 100 rules with ranges of almost all ports, which take the most prefixes; the first may be about fewer ports.
pub fn wide_ranges(is_changed: bool) -> Event {
    let rule = |at: usize| {
        let first = if is_changed && at == 0 { 3 } else { 1 + 2 * at };
        json!({ "from": [{ "namespaceSelector": named(at) }], "ports": [{ "port": first, "endPort": 65534 - 2 * at }] })
    };
    network_policy(0, 0, json!({ "podSelector": of_app(0), "ingress": (0..100).map(rule).collect::<Vec<_>>() }))
}

/// One rule with 100,000 CIDRs, the first of which may be another.
///
/// As JSON it would take so much memory for a moment that what is measured afterwards would mean nothing.
pub fn many_cidrs(is_changed: bool) -> Event {
    const CIDRS: usize = 100_000;
    let first = if is_changed { CIDRS } else { 0 };
    let peer = |at| NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr(at), except: None }),
        ..NetworkPolicyPeer::default()
    };
    let peers = iter::once(first).chain(1..CIDRS).map(peer).collect();
    let rule = NetworkPolicyEgressRule { to: Some(peers), ports: None };
    let pod_selector =
        LabelSelector { match_labels: Some([("app".to_owned(), app(0))].into()), ..LabelSelector::default() };
    checked(&NetworkPolicy {
        metadata: ObjectMeta {
            namespace: Some(namespace(0)),
            name: Some("policy-0".to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pod_selector),
            egress: Some(vec![rule]),
            ..NetworkPolicySpec::default()
        }),
    })
}

/// A peer outside the cluster.
fn block(number: usize) -> Value {
    json!({ "ipBlock": { "cidr": cidr(number) } })
}

/// A CIDR outside the cluster. No two of them touch each other.
fn cidr(number: usize) -> String {
    format!("{}/24", Ipv4Addr::from_bits(0x0b00_0000 + ((number as u32) << 9)))
}

fn network_policy(at: usize, number: usize, spec: Value) -> Event {
    let metadata = json!({ "namespace": namespace(at), "name": format!("policy-{number}") });
    event::<NetworkPolicy>(json!({ "metadata": metadata, "spec": spec }))
}

fn namespace(number: usize) -> String {
    format!("ns-{number}")
}

fn app(number: usize) -> String {
    format!("app-{}", number % APPS)
}

fn team(number: usize) -> String {
    format!("team-{}", number % 20)
}

fn of_app(number: usize) -> Value {
    json!({ "matchLabels": { "app": app(number) } })
}

/// Selects a namespace by its name.
fn named(number: usize) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace(number % NAMESPACES) } })
}

/// # Panics
/// Where a manifest above makes no sense.
fn event<T: DeserializeOwned>(manifest: Value) -> Event
where
    for<'a> Event: From<&'a T>,
{
    let object: T = serde_json::from_value(manifest).expect("a manifest of this kind");
    checked(&object)
}

/// # Panics
/// Where an object makes no sense.
fn checked<'a, T>(object: &'a T) -> Event
where
    Event: From<&'a T>,
{
    match Event::from(object) {
        Event::Invalid(error) => panic!("{error}"),
        event => event,
    }
}

#[cfg(test)]
mod tests {
    use sluice_policy::{Index, Limits, View};

    use super::*;

    #[test]
    fn the_node_has_a_hundred_pods_and_policies_concern_them() {
        let mut index = Index::new(View::Node(NODE.into()), Limits::NONE);
        index.apply_all(population().chain(policies(1000)));
        let local: Vec<_> = index.pods().filter(|pod| pod.node.as_deref() == Some(NODE)).collect();
        assert_eq!((index.pods().count(), local.len()), (15_000, 100));
        assert!(local.iter().filter(|pod| index.policies_of(&pod.name).count() > 0).count() > 90);
        assert!(!index.apply(first_policy(true)).steps.is_empty());
        assert!(!index.apply(first_policy(false)).steps.is_empty());
    }

    #[test]
    fn every_cidr_of_a_crowd_has_an_identity() {
        let mut index = Index::new(View::Node(NODE.into()), Limits::NONE);
        index.apply_all(population().chain(crowd(2000)));
        let counts = index.counts();
        assert_eq!((counts.policies, counts.identities), (1000, 2000));
        assert!(!index.apply(first_of_crowd(2000, true)).steps.is_empty());
    }
}
