//! Who is asked at which place: of several that claim one, the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sluice_policy::{Family, Problem, Severity, Transport};

use crate::tables::{Frontend, FrontendKind, Place, PortName};

/// What only one can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Spot {
    at: Place,
    port: u16,
    transport: Transport,
    family: Family,
}

impl Spot {
    /// Where a frontend of a port is.
    pub fn of(port: &PortName, frontend: &Frontend) -> Self {
        Self { at: frontend.at, port: frontend.port, transport: port.transport, family: port.family }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, port, transport, family: _ } = self;
        match at {
            Place::Address(address) => write!(f, "{}/{}", std::net::SocketAddr::new(*address, *port), transport.name()),
            Place::Node => write!(f, "the node's port {port}/{}", transport.name()),
        }
    }
}

/// Who comes before whom: Services, which have their places on all nodes, before host ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Seniority {
    /// When a Service was made, seconds since 1970.
    Service(i64),
    /// The how manieth host ports are somebody's.
    HostPort(u64),
}

/// Somebody who claims a place. Those of one age come in the order of their names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claimant {
    pub seniority: Seniority,
    pub port: PortName,
    pub kind: FrontendKind,
}

/// Who claims which places.
#[derive(Debug, Default)]
pub struct Frontends {
    /// By place, the first of them first.
    claimants: BTreeMap<Spot, Vec<Claimant>>,
    /// Places that more than one claims.
    contested: BTreeSet<Spot>,
    /// Of places where somebody came or went, who had it before.
    before: BTreeMap<Spot, Option<PortName>>,
}

impl Frontends {
    /// Who has a place.
    pub fn owner(&self, spot: &Spot) -> Option<&PortName> {
        self.claimants.get(spot)?.first().map(|first| &first.port)
    }

    /// Somebody claims a place. Whether others do too.
    pub fn claim(&mut self, spot: Spot, claimant: Claimant) -> bool {
        self.remember(spot);
        let claimants = self.claimants.entry(spot).or_default();
        if let Err(at) = claimants.binary_search(&claimant) {
            claimants.reserve_exact(1);
            claimants.insert(at, claimant);
        }
        let is_contested = claimants.len() > 1;
        if is_contested {
            self.contested.insert(spot);
        }
        is_contested
    }

    /// Somebody claims it no more. Whether others do.
    pub fn leave(&mut self, spot: Spot, claimant: &Claimant) -> bool {
        self.remember(spot);
        let Some(claimants) = self.claimants.get_mut(&spot) else { return false };
        claimants.retain(|other| other != claimant);
        if claimants.len() <= 1 {
            self.contested.remove(&spot);
        }
        let is_claimed = !claimants.is_empty();
        if !is_claimed {
            self.claimants.remove(&spot);
        }
        is_claimed
    }

    fn remember(&mut self, spot: Spot) {
        let owner = self.claimants.get(&spot).and_then(|claimants| claimants.first());
        self.before.entry(spot).or_insert_with(|| owner.map(|owner| owner.port.clone()));
    }

    /// Who has lost or won any place since this was last asked.
    pub fn moved(&mut self) -> BTreeSet<PortName> {
        let mut moved = BTreeSet::new();
        for (spot, before) in std::mem::take(&mut self.before) {
            let now = self.owner(&spot);
            if now != before.as_ref() {
                moved.extend(now.cloned());
                moved.extend(before);
            }
        }
        moved
    }

    /// All who do not have what they claim.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.contested.iter().flat_map(|spot| {
            let claimants = self.claimants.get(spot).map(Vec::as_slice).unwrap_or_default();
            let (owner, others) = claimants.split_first().expect("a contested place has claimants");
            others.iter().map(move |other| Problem {
                severity: Severity::Error,
                object: other.port.object(),
                field: field(other.kind).to_owned(),
                what: format!(
                    "{spot} is already {}'s; until that gives it up, this one is not asked there",
                    owner.port.object()
                ),
            })
        })
    }
}

/// Where an object claims a place.
fn field(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp => "spec.clusterIPs",
        FrontendKind::LoadBalancer => "status.loadBalancer.ingress",
        FrontendKind::ExternalIp => "spec.externalIPs",
        FrontendKind::NodePort => "spec.ports.nodePort",
        FrontendKind::HostPort => "hostPort",
    }
}
