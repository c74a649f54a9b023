//! The endpoints of a Service, as its slices have them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_policy::{Family, Transport};

use crate::object::{Condition, Names, SliceObject};

/// A slice, for as long as it is there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SliceId(pub u32);

/// By what endpoints find the ports of their Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    pub name: Arc<str>,
    pub transport: Transport,
    pub family: Family,
}

/// An endpoint and one of its ports, as one slice has it. Of several that have the same, the first in this order counts: of
/// this node, if any says so, and as ready as any says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Claim {
    pub address: IpAddr,
    pub port: u16,
    pub is_elsewhere: bool,
    pub condition: Condition,
    pub nodes: NodeHints,
    /// The zones whose clients it is meant for; `None`: it does not say.
    pub zones: Option<Zones>,
    pub slice: SliceId,
}

/// For the clients of which nodes an endpoint is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeHints {
    /// It does not say.
    None,
    /// For those of this node, perhaps among others.
    Here,
    /// For those of others.
    Elsewhere,
}

/// Some zones; a pointer of one word, for there are many to them.
pub type Zones = Arc<Names>;

/// Keeps equal zones once.
#[derive(Debug, Default)]
pub struct KnownZones {
    known: HashSet<Zones>,
    /// Once there are so many, those are forgotten that nobody has any more.
    enough: usize,
}

impl KnownZones {
    fn share(&mut self, zones: Names) -> Option<Zones> {
        if zones.is_empty() {
            return None;
        }
        if let Some(known) = self.known.get(&zones) {
            return Some(known.clone());
        }
        if self.known.len() >= self.enough {
            self.known.retain(|zones| Arc::strong_count(zones) > 1);
            self.enough = 2 * self.known.len() + 16;
        }
        let zones = Arc::new(zones);
        self.known.insert(zones.clone());
        Some(zones)
    }
}

/// What slices claim, by slice.
pub type Claims = BTreeMap<SliceId, Vec<(Key, Vec<Claim>)>>;

/// What a slice claims, seen from a node.
pub fn claims(slice: SliceObject, id: SliceId, here: &str, zones: &mut KnownZones) -> Vec<(Key, Vec<Claim>)> {
    let SliceObject { family, ports, endpoints, .. } = slice;
    let one = endpoints.into_iter().map(|endpoint| Claim {
        address: endpoint.address,
        port: 0,
        is_elsewhere: endpoint.node.as_deref() != Some(here),
        condition: endpoint.condition,
        nodes: match &*endpoint.for_nodes {
            [] => NodeHints::None,
            nodes if nodes.iter().any(|node| **node == *here) => NodeHints::Here,
            _ => NodeHints::Elsewhere,
        },
        zones: zones.share(endpoint.for_zones),
        slice: id,
    });
    let one: Vec<Claim> = one.collect();
    let each = ports.into_iter().map(|port| {
        let key = Key { name: port.name, transport: port.transport, family };
        (key, one.iter().map(|claim| Claim { port: port.number, ..claim.clone() }).collect())
    });
    each.collect()
}

/// The endpoints of a Service, for each of its ports sorted.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<Key, Vec<Claim>>);

impl Endpoints {
    /// Those of a port.
    pub fn get(&self, key: &Key) -> &[Claim] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// From now on, some slices claim this. Where that is another than before.
    ///
    /// The other slices of the Service cost no more than that their claims are passed over: what follows from a port is as
    /// large as all of them.
    pub fn replace(&mut self, slices: Claims) -> Vec<Key> {
        let replaced: BTreeSet<SliceId> = slices.keys().copied().collect();
        let mut new: BTreeMap<Key, Vec<Claim>> = BTreeMap::new();
        for (key, claims) in slices.into_values().flatten() {
            new.entry(key).or_default().extend(claims);
        }
        let keys: BTreeSet<Key> = self.0.keys().chain(new.keys()).cloned().collect();
        let mut changed = Vec::new();
        for key in keys {
            let mut new = new.remove(&key).unwrap_or_default();
            new.sort_unstable();
            let claims = self.0.entry(key.clone()).or_default();
            let old: Vec<Claim> = claims.extract_if(.., |claim| replaced.contains(&claim.slice)).collect();
            if old.is_empty() && new.is_empty() {
                continue;
            }
            let is_same = old == new;
            claims.reserve_exact(new.len());
            claims.extend(new);
            // Two sorted runs: they are only merged.
            claims.sort();
            if claims.is_empty() {
                self.0.remove(&key);
            }
            if !is_same {
                changed.push(key);
            }
        }
        changed
    }
}
