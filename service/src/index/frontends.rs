//! Who is asked at which place: of several that claim one, the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

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
    /// The node's own addresses, and whether node ports are served there: a place of one of these may be claimed as the
    /// node's, too.
    own: BTreeMap<IpAddr, bool>,
    /// Places that more than one claims.
    contested: BTreeSet<Spot>,
    /// Of places where somebody came or went, who had it before.
    before: BTreeMap<Spot, Option<PortName>>,
}

impl Frontends {
    /// Who has a place.
    pub fn owner(&self, spot: &Spot) -> Option<&PortName> {
        let first = self.first(spot)?;
        let is_rivals = self.rival(spot).is_some_and(|rival| rival < first);
        if is_rivals { None } else { Some(&first.port) }
    }

    fn first(&self, spot: &Spot) -> Option<&Claimant> {
        self.claimants.get(spot)?.first()
    }

    /// Who else is asked at a place of one address, by its claim on the port at all addresses of the node.
    fn rival(&self, spot: &Spot) -> Option<&Claimant> {
        let first = self.first(spot)?;
        let Place::Address(address) = spot.at else { return None };
        let serves_node_ports = self.own.get(&address)?;
        let of_node = self.first(&Spot { at: Place::Node, ..*spot })?;
        let is_here = *serves_node_ports || of_node.kind == FrontendKind::HostPort;
        (is_here && of_node.port != first.port).then_some(of_node)
    }

    /// Somebody claims a place. Whether others do too.
    pub fn claim(&mut self, spot: Spot, claimant: Claimant) -> bool {
        self.change(&self.along_with(spot), |this| {
            let claimants = this.claimants.entry(spot).or_default();
            if let Err(at) = claimants.binary_search(&claimant) {
                claimants.reserve_exact(1);
                claimants.insert(at, claimant);
            }
        })
    }

    /// Somebody claims it no more. Whether others do, or did.
    pub fn leave(&mut self, spot: Spot, claimant: &Claimant) -> bool {
        self.change(&self.along_with(spot), |this| {
            let Some(claimants) = this.claimants.get_mut(&spot) else { return };
            claimants.retain(|other| other != claimant);
            if claimants.is_empty() {
                this.claimants.remove(&spot);
            }
        })
    }

    /// The node has these addresses, and serves node ports there or not. Whether that concerns a place that several claim.
    pub fn own(&mut self, addresses: BTreeMap<IpAddr, bool>) -> bool {
        let is_other = |spot: &&Spot| match spot.at {
            Place::Address(address) => self.own.get(&address) != addresses.get(&address),
            Place::Node => false,
        };
        let others: Vec<Spot> = self.claimants.keys().filter(is_other).copied().collect();
        self.change(&others, |this| this.own = addresses)
    }

    /// A place, and those that a claim on it concerns too.
    fn along_with(&self, spot: Spot) -> Vec<Spot> {
        let own = self.own.keys().filter(|_| spot.at == Place::Node);
        let there = own.map(|address| Spot { at: Place::Address(*address), ..spot });
        std::iter::once(spot).chain(there.filter(|there| self.claimants.contains_key(there))).collect()
    }

    /// Changes something about these places. Whether they are contested now, or were.
    fn change(&mut self, spots: &[Spot], change: impl FnOnce(&mut Self)) -> bool {
        for spot in spots {
            if !self.before.contains_key(spot) {
                self.before.insert(*spot, self.owner(spot).cloned());
            }
        }
        change(self);
        let mut concerns_others = false;
        for spot in spots {
            let is_shared = self.claimants.get(spot).is_some_and(|claimants| claimants.len() > 1);
            let is_contested = is_shared || self.rival(spot).is_some();
            let was_contested = if is_contested { !self.contested.insert(*spot) } else { self.contested.remove(spot) };
            concerns_others |= is_contested || was_contested;
        }
        concerns_others
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
            let claimants = self.claimants.get(spot).into_iter().flatten().chain(self.rival(spot));
            let owner = claimants.clone().min().expect("a contested place has claimants");
            claimants.filter(move |claimant| *claimant != owner).map(move |other| Problem {
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
