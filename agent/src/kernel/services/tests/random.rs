//! Random services: few names, addresses and backends, so that they often meet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluice_service::{Backend, Choice, Family, Frontend, FrontendKind, Place, PortName, ServicePort, Transport};

use super::State;

/// What a port of a service is to be; it has those frontends that none before it has.
pub type Wishes = BTreeMap<PortName, ServicePort>;

/// Changes that come together; `None`: the port goes.
pub type Batch = Vec<(PortName, Option<ServicePort>)>;

fn address(family: Family, network: u8, host: usize) -> IpAddr {
    let text = match family {
        Family::V4 => format!("10.{network}.0.{host}"),
        Family::V6 => format!("fd00::{network}:{host}"),
    };
    text.parse().unwrap()
}

/// The node's own addresses.
pub fn own_addresses() -> std::collections::BTreeSet<IpAddr> {
    [Family::V4, Family::V6].map(|family| address(family, 0, 1)).into()
}

/// All addresses and ports that a port of this family may be reached at.
pub fn frontends(family: Family) -> Vec<Frontend> {
    let of = |network, host, port, kind| Frontend { at: Place::Address(address(family, network, host)), port, kind };
    let node = |port, kind| Frontend { at: Place::Node, port, kind };
    vec![
        of(96, 1, 80, FrontendKind::ClusterIp),
        of(96, 1, 81, FrontendKind::ClusterIp),
        of(96, 2, 80, FrontendKind::ClusterIp),
        of(97, 1, 80, FrontendKind::LoadBalancer),
        of(97, 2, 80, FrontendKind::LoadBalancer),
        of(98, 1, 80, FrontendKind::ExternalIp),
        // An external IP may be that of a cluster.
        of(96, 2, 80, FrontendKind::ExternalIp),
        node(30_080, FrontendKind::NodePort),
        node(30_081, FrontendKind::NodePort),
        node(8_080, FrontendKind::HostPort),
    ]
}

/// All names.
pub fn names() -> Vec<PortName> {
    let of = |name: &str, port: &str, transport, family| PortName {
        namespace: "default".into(),
        name: name.into(),
        port: port.into(),
        number: 80,
        transport,
        family,
    };
    vec![
        of("a", "", Transport::Tcp, Family::V4),
        of("a", "dns", Transport::Udp, Family::V4),
        of("b", "", Transport::Tcp, Family::V4),
        of("c", "", Transport::Tcp, Family::V4),
        of("c", "", Transport::Tcp, Family::V6),
        of("d", "", Transport::Tcp, Family::V6),
    ]
}

/// All backends: pods, and a process of the node.
fn backends(family: Family) -> Vec<Backend> {
    let of = |network, host, port| Backend { address: address(family, network, host), port, is_local: network == 0 };
    let mut all = vec![of(0, 1, 8_080), of(0, 1, 9_090)];
    all.extend((1..6).map(|host| of(1, host, 8_080)));
    all.push(of(1, 1, 9_090));
    all.sort();
    all
}

fn choice(backends: u32) -> BoxedStrategy<Choice> {
    let nobody = select(vec![Choice::Reject, Choice::Drop]);
    if backends == 0 {
        return nobody.boxed();
    }
    let all: Vec<u32> = (0..backends).collect();
    let among = subsequence(all.clone(), 1..=all.len()).prop_map(|among| Choice::Among(among.into()));
    prop_oneof![3 => Just(Choice::Among(all.into())), 3 => among, 1 => nobody].boxed()
}

fn port(family: Family) -> impl Strategy<Value = ServicePort> {
    let ranges: Vec<IpNet> = match family {
        Family::V4 => ["192.0.2.0/24", "192.0.2.7/24", "198.51.100.0/25"].map(|net| net.parse().unwrap()).into(),
        Family::V6 => ["2001:db8::/32", "2001:db8:1::/64"].map(|net| net.parse().unwrap()).into(),
    };
    let servers = subsequence(backends(family), 0..=5).prop_flat_map(|backends| {
        let choice = || choice(backends.len() as u32);
        let choices =
            prop_oneof![choice().prop_map(|one| [one.clone(), one.clone(), one]), [choice(), choice(), choice()]];
        (Just(backends), choices)
    });
    let affinity = select(vec![None, None, Some(60)]);
    (subsequence(frontends(family), 0..5), servers, affinity, subsequence(ranges, 0..=2)).prop_map(
        |(mut frontends, (backends, [inside, inside_external, outside]), affinity, source_ranges)| {
            frontends.sort();
            ServicePort { frontends, backends, inside, inside_external, outside, affinity, source_ranges }
        },
    )
}

/// Some changes, one after the other.
pub fn changes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Batch>> {
    let change = select(names()).prop_flat_map(|name| {
        let port = port(name.family);
        (Just(name), prop_oneof![4 => port.prop_map(Some), 1 => Just(None)])
    });
    proptest::collection::vec(proptest::collection::vec(change, 1..4), length)
}

/// What is there, where these are the wishes: of a place that several want, the first by name has it.
pub fn resolve(wishes: &Wishes) -> State {
    let mut taken = std::collections::BTreeSet::new();
    let won = |(name, port): (&PortName, &ServicePort)| {
        let mut port = port.clone();
        port.frontends.retain(|frontend| taken.insert((name.family, name.transport, frontend.at, frontend.port)));
        (name.clone(), Arc::new(port))
    };
    wishes.iter().map(won).collect()
}
