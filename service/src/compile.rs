//! What follows from a Service's port and its endpoints. The rules are kube-proxy's.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_policy::Family;

use crate::index::endpoints::{Claim, NodeHints};
use crate::object::{Condition, NodeObject, PortObject, ServiceObject, family_of};
use crate::tables::{Backend, Choice, Frontend, FrontendKind, Place, ServicePort};

/// Where a port is to be asked for, in a family, if nobody else is there: each place once, sorted.
pub fn frontends(service: &ServiceObject, port: &PortObject, family: Family) -> Vec<Frontend> {
    let at = |kind| move |ip: IpAddr| Frontend { at: Place::Address(ip), port: port.number, kind };
    let of_family =
        |ips: &[IpAddr]| -> Vec<IpAddr> { ips.iter().copied().filter(|ip| family_of(*ip) == family).collect() };
    let cluster = service.cluster_ip(family).into_iter().map(at(FrontendKind::ClusterIp));
    let load_balancers = of_family(&service.load_balancer_ips).into_iter().map(at(FrontendKind::LoadBalancer));
    let external = of_family(&service.external_ips).into_iter().map(at(FrontendKind::ExternalIp));
    let node = port.node_port.map(|number| Frontend { at: Place::Node, port: number, kind: FrontendKind::NodePort });
    let mut frontends: Vec<Frontend> = cluster.chain(load_balancers).chain(external).chain(node).collect();
    frontends.sort_unstable();
    // Of what is both, the stricter kind is left.
    frontends.dedup_by_key(|frontend| (frontend.at, frontend.port));
    frontends
}

/// What becomes of a port that has won these frontends.
pub fn service_port(
    service: &ServiceObject,
    family: Family,
    frontends: Vec<Frontend>,
    claims: &[Claim],
    node: Option<&NodeObject>,
) -> ServicePort {
    let endpoints = one_each(claims);
    let zone = node.and_then(|node| node.zone.as_deref());
    let backend = |claim: &&Claim| Backend { address: claim.address, port: claim.port, is_local: !claim.is_elsewhere };
    let cluster = cluster(&endpoints, zone);
    let local =
        if service.is_internal_local || service.is_external_local { local(&endpoints) } else { cluster.clone() };
    ServicePort {
        source_ranges: source_ranges(service, family, &frontends, node),
        frontends,
        backends: endpoints.iter().map(backend).collect(),
        inside: if service.is_internal_local { local.clone() } else { cluster.clone() },
        outside: if service.is_external_local { local } else { cluster.clone() },
        inside_external: cluster,
        affinity: service.affinity,
    }
}

/// Each endpoint once.
fn one_each(claims: &[Claim]) -> Vec<&Claim> {
    let same = claims.chunk_by(|one, other| (one.address, one.port) == (other.address, other.port));
    same.filter_map(|same| same.first()).collect()
}

/// Whom clients are sent to, wherever it is.
fn cluster(endpoints: &[&Claim], zone: Option<&str>) -> Choice {
    let hints = Hints::followed(endpoints, zone);
    let ready = indices(endpoints, |claim| claim.condition == Condition::Ready && hints.allow(claim, zone));
    // Hints are followed only where they leave somebody: if nobody is, then because nobody is ready.
    let chosen = if ready.is_empty() { indices(endpoints, |_| true) } else { ready };
    if chosen.is_empty() { Choice::Reject } else { Choice::Among(chosen) }
}

/// Whom clients are sent to where only endpoints of this node may answer.
fn local(endpoints: &[&Claim]) -> Choice {
    let here = |condition| indices(endpoints, |claim| !claim.is_elsewhere && claim.condition == condition);
    let ready = here(Condition::Ready);
    let chosen = if ready.is_empty() { here(Condition::Draining) } else { ready };
    match (chosen.is_empty(), endpoints.is_empty()) {
        (false, _) => Choice::Among(chosen),
        (true, true) => Choice::Reject,
        (true, false) => Choice::Drop,
    }
}

fn indices(endpoints: &[&Claim], may: impl Fn(&Claim) -> bool) -> Arc<[u32]> {
    let chosen = endpoints.iter().zip(0..).filter(|(claim, _)| may(claim));
    chosen.map(|(_, index)| index).collect()
}

/// Which hints of endpoints are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hints {
    None,
    Nodes,
    Zones,
}

impl Hints {
    /// Those that all ready endpoints have and that lead some of this node's clients somewhere; of nodes before those of
    /// zones.
    fn followed(endpoints: &[&Claim], zone: Option<&str>) -> Self {
        let ready = || endpoints.iter().filter(|claim| claim.condition == Condition::Ready);
        for hints in [Self::Nodes, Self::Zones] {
            if ready().all(|claim| hints.are_given(claim)) && ready().any(|claim| hints.allow(claim, zone)) {
                return hints;
            }
        }
        Self::None
    }

    fn are_given(self, claim: &Claim) -> bool {
        match self {
            Self::None => true,
            Self::Nodes => claim.nodes != NodeHints::None,
            Self::Zones => claim.zones.is_some(),
        }
    }

    fn allow(self, claim: &Claim, zone: Option<&str>) -> bool {
        match self {
            Self::None => true,
            Self::Nodes => claim.nodes == NodeHints::Here,
            Self::Zones => claim.zones.iter().flat_map(|zones| zones.iter()).any(|hint| Some(&**hint) == zone),
        }
    }
}

/// Who may ask load balancers. One that lets its node in lets in itself too: where its address is the node's as well, that is
/// where the node's own packets to it come from.
fn source_ranges(
    service: &ServiceObject,
    family: Family,
    frontends: &[Frontend],
    node: Option<&NodeObject>,
) -> Vec<ipnet::IpNet> {
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: Vec<_> = ranges.filter(|range| family_of(range.addr()) == family).collect();
    let addresses = node.into_iter().flat_map(|node| &node.addresses);
    let address = addresses.copied().find(|address| family_of(*address) == family);
    if address.is_some_and(|address| ranges.iter().any(|range| range.contains(&address))) {
        ranges.extend(frontends.iter().filter_map(|frontend| match frontend {
            Frontend { at: Place::Address(ip), kind: FrontendKind::LoadBalancer, .. } => Some(ipnet::IpNet::from(*ip)),
            _ => None,
        }));
        ranges.sort_unstable();
        ranges.dedup();
    }
    ranges
}
