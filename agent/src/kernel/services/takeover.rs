//! What a predecessor has left: read, and what of it is nobody's removed.
//!
//! He may have died between any two writes. What he had written by then of a port is found by its service's id, which
//! frontends and backends name: it is as if this writer had written a port that is to be another.
//!
//! His tables may have been larger. Where a frontend leads beyond these, or a set does, readers find nobody; so it is as if he
//! had written none there.

use std::collections::{HashMap, HashSet};

use sluice_abi::{
    BackendId, FRONTEND_BITS, Frontend, FrontendBit, FrontendFlags, Position, Protocol, ServiceId, SetId,
};
use sluice_service::Family;

use super::gone::distinct;
use super::members;
use super::tables::{Array, Place, Tables, read_backend, service_at};
use super::writer::{INSIDE, INSIDE_EXTERNAL, OUTSIDE, ROLES, Reached, Writer, Written, bits_of, family_of};
use crate::kernel::error::KernelError;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What is found of a service, piece by piece.
#[derive(Debug, Default)]
struct Found {
    protocol: Protocol,
    frontends: Vec<(Place, Frontend)>,
    backends: Vec<BackendId>,
    ranges: Vec<ipnet::IpNet>,
}

impl<T: Tables> Writer<T> {
    /// Learns what is there.
    pub(super) fn read_back(&mut self) -> Result<(), KernelError> {
        let mut services: HashMap<(Family, ServiceId), Found> = HashMap::new();
        for (place, frontend) in self.tables.frontends()? {
            let family = family_of(place.address);
            self.frontends[family as usize] += 1;
            if frontend.service != ServiceId::NONE {
                let found = services.entry((family, frontend.service)).or_default();
                found.protocol = place.protocol;
                found.frontends.push((place, frontend));
            }
        }
        for family in FAMILIES {
            for id in (1..self.room.backends).map(BackendId) {
                let service = ServiceId(self.tables.word(Array::Backends(family), service_at(family, id)));
                if service != ServiceId::NONE {
                    self.stock.claim_backend(family, id);
                    services.entry((family, service)).or_default().backends.push(id);
                }
            }
        }
        for (service, range) in self.tables.ranges()? {
            self.ranges += 1;
            let family = family_of(range.addr());
            services.entry((family, service)).or_default().ranges.push(range);
        }
        let lookups: HashSet<SetId> = self.tables.maglev_sets()?.into_iter().collect();
        self.lookups = lookups.len();
        for ((family, service), found) in services {
            self.stock.claim_service(service);
            let left = self.left_of(family, service, found, &lookups);
            self.left.insert((family, service), left);
        }
        Ok(())
    }

    fn left_of(&mut self, family: Family, service: ServiceId, found: Found, lookups: &HashSet<SetId>) -> Written {
        let Found { protocol, frontends, backends, ranges } = found;
        let mut sets = [SetId::NONE; ROLES];
        let (mut others, mut is_mixed) = (Vec::new(), false);
        for (place, frontend) in &frontends {
            self.count(place, frontend);
            let roles = if is_cluster_ip(frontend) { [INSIDE; 2] } else { [INSIDE_EXTERNAL, OUTSIDE] };
            let sets_of_roles = roles.into_iter().zip([frontend.inside, frontend.outside]);
            for (role, set) in sets_of_roles.filter(|(_, set)| set.0 < self.room.sets) {
                if sets[role] == SetId::NONE {
                    sets[role] = set;
                } else if sets[role] != set {
                    is_mixed = true;
                    others.push(set);
                }
            }
        }
        let any = sets.into_iter().find(|set| *set != SetId::NONE).unwrap_or(SetId::NONE);
        for set in &mut sets {
            if *set == SetId::NONE {
                *set = any;
            }
        }
        // He was about to put one in the other's place.
        others.retain(|set| !sets.contains(set));
        others.sort();
        others.dedup();
        for set in distinct(sets).chain(others.iter().copied()) {
            self.claim_set(set);
        }
        for set in others {
            self.gone.sets.push(set);
        }
        for id in &backends {
            let backend = read_backend(&self.tables, family, *id);
            if self.own.contains(&backend.address) {
                self.bits.add(FrontendBit::of_host_backend(backend.port, protocol));
            }
        }
        let reached =
            frontends.iter().map(|(place, entry)| Reached { place: *place, is_cluster_ip: is_cluster_ip(entry) });
        Written {
            service,
            family,
            protocol,
            sets,
            backends: backends.into(),
            frontends: reached.collect(),
            ranges: ranges.into(),
            is_spread: lookups.contains(&sets[OUTSIDE]),
            is_left: true,
            is_mixed,
        }
    }

    /// Counts a frontend that is there, and its bits with it.
    fn count(&mut self, place: &Place, frontend: &Frontend) {
        let reached = Reached { place: *place, is_cluster_ip: is_cluster_ip(frontend) };
        for bit in bits_of(&reached) {
            self.bits.add(bit);
        }
        if reached.is_cluster_ip {
            self.cluster_ips.add(place.address);
        }
    }

    /// Takes a set that is there, with its members.
    fn claim_set(&mut self, set: SetId) {
        if self.is_cut_off(set) {
            members::lead(&mut self.tables, set, Position::REJECT);
        }
        let is_sound = self.stock.claim_set(set)
            && members::span(&self.tables, set).is_none_or(|span| self.stock.claim_members(span));
        if !is_sound {
            // Of no writer: better nobody serves than anybody.
            tracing::warn!(set = set.0, "a set of backends is not what it should be, and is made anew");
            members::lead(&mut self.tables, set, Position::REJECT);
        }
    }

    /// Whether the table is too small for a set's members.
    fn is_cut_off(&self, set: SetId) -> bool {
        let end = self.room.members;
        let is_beyond =
            |Position(start)| start >= end || members::span(&self.tables, set).is_some_and(|span| span.end > end);
        members::position(&self.tables, set).is_some_and(is_beyond)
    }

    /// Has addresses be no cluster IPs any more that are neither of what was left nor of the ports. They go before the frontends
    /// there, whose clients would be told for a moment that nobody serves.
    pub(super) fn sweep_cluster_ips(&mut self) -> Result<(), KernelError> {
        for (place, frontend) in self.tables.frontends()? {
            if frontend.service == ServiceId::NONE && !self.cluster_ips.has(place.address) {
                self.owe(place.address);
                self.remove_frontend(&place)?;
            }
        }
        Ok(())
    }

    /// Removes what else belongs to none of the ports.
    pub(super) fn sweep(&mut self) -> Result<(), KernelError> {
        let spread: HashSet<SetId> =
            self.ports.values().filter(|written| written.is_spread).map(|written| written.sets[OUTSIDE]).collect();
        for set in self.tables.maglev_sets()?.into_iter().filter(|set| !spread.contains(set)) {
            self.tables.remove_maglev(set)?;
            self.lookups -= 1;
        }
        let words = self.bits.words();
        for at in 0..FRONTEND_BITS / u64::BITS {
            let wanted = words.get(&at).copied().unwrap_or(0);
            if self.tables.bits(at) != wanted {
                self.tables.store_bits(at, wanted);
            }
        }
        Ok(())
    }
}

fn is_cluster_ip(frontend: &Frontend) -> bool {
    frontend.flags.has(FrontendFlags::CLUSTER_IP)
}
