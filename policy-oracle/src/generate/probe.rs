//! What to ask about a cluster.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::alphabet::{PORTS, outside};
use crate::cluster::{Cluster, addresses, full_name, node_addresses};
use crate::probe::{End, Family, Probe, Protocol};

/// Ports that policies name, and those beside the edges of their ranges.
const ASKED: [u16; 11] = [80, 79, 81, 82, 52, 53, 54, 8080, 8081, 1, 65535];

/// A probe that has not met its cluster yet.
#[derive(Clone, Debug)]
pub struct ProbeDraft {
    from: EndDraft,
    to: EndDraft,
    family: Family,
    protocol: Protocol,
    port: u16,
}

/// An end, of pods only or of all.
#[derive(Clone, Debug)]
struct EndDraft {
    is_pod: bool,
    index: Index,
}

/// Any probe; most are about pods.
pub fn probe() -> impl Strategy<Value = ProbeDraft> {
    let end = || (prop::bool::weighted(0.7), any::<Index>()).prop_map(|(is_pod, index)| EndDraft { is_pod, index });
    let ports = prop_oneof![3 => select(PORTS.to_vec()), 2 => select(ASKED.to_vec())];
    let protocols = prop_oneof![4 => Just(Protocol::Tcp), 4 => select(Protocol::ALL.to_vec())];
    ((end(), end()), select(Family::BOTH.to_vec()), protocols, ports)
        .prop_map(|((from, to), family, protocol, port)| ProbeDraft { from, to, family, protocol, port })
}

impl ProbeDraft {
    /// What it asks about this cluster.
    #[must_use]
    pub fn of(&self, cluster: &Cluster) -> Probe {
        let ends = ends(cluster, self.family);
        Probe { from: self.from.of(&ends), to: self.to.of(&ends), protocol: self.protocol, port: self.port }
    }
}

impl EndDraft {
    fn of(&self, ends: &[End]) -> End {
        let pods: Vec<&End> = ends.iter().filter(|end| matches!(end, End::Pod(..))).collect();
        if self.is_pod && !pods.is_empty() { (*self.index.get(&pods)).clone() } else { self.index.get(ends).clone() }
    }
}

/// All ends of a family: the pods by their names, whatever network they use and whether they have completed or not, and
/// the addresses of nodes and of some others.
#[must_use]
pub fn ends(cluster: &Cluster, family: Family) -> Vec<End> {
    let is_of_family = |address: &IpAddr| Family::of(*address) == family;
    let pods = cluster.pods.iter().filter(|pod| addresses(pod).iter().any(is_of_family));
    let others = cluster.nodes.iter().flat_map(node_addresses).filter(is_of_family).chain(outside(family));
    pods.map(|pod| End::Pod(full_name(pod), family)).chain(others.map(End::Address)).collect()
}

/// All there is to ask about a cluster: every pair of [`ends`], every port beside which something may change, every
/// protocol.
#[must_use]
pub fn every_probe(cluster: &Cluster) -> Vec<Probe> {
    let with_ports = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .flat_map(|protocol| ASKED.map(|port| (protocol, port)));
    let traffic: Vec<_> = with_ports.chain([(Protocol::Other, 0)]).collect();
    let mut probes = Vec::new();
    for family in Family::BOTH {
        let ends = ends(cluster, family);
        for from in &ends {
            for to in &ends {
                let probe = |&(protocol, port)| Probe { from: from.clone(), to: to.clone(), protocol, port };
                probes.extend(traffic.iter().map(probe));
            }
        }
    }
    probes
}
