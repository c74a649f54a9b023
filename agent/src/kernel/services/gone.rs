//! What is to be removed once a change is written.

use ipnet::IpNet;
use sluice_abi::{BackendId, FrontendBit, Protocol, ServiceId, SetId};
use sluice_service::Family;

use super::members;
use super::tables::{Array, Place, Tables, read_backend, service_at};
use super::writer::{NOBODY, OUTSIDE, ROLES, Reached, Writer, Written, bits_of, family_of, rest_of};
use crate::kernel::error::KernelError;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Frontends, and whose they are to be no longer; `None`: they stay, but are counted once less.
    pub frontends: Vec<(Reached, Option<ServiceId>)>,
    pub ranges: Vec<(ServiceId, IpNet)>,
    pub lookups: Vec<SetId>,
    pub sets: Vec<SetId>,
    pub backends: Vec<(Family, BackendId, Protocol)>,
    pub services: Vec<ServiceId>,
}

impl Gone {
    /// A port, with all that it has.
    pub fn all_of(&mut self, written: Written) {
        let Written { service, family, protocol, sets, .. } = written;
        self.frontends.extend(written.frontends.iter().map(|reached| (*reached, Some(service))));
        self.ranges.extend(written.ranges.iter().map(|range| (service, *range)));
        self.lookups.extend(written.is_spread.then_some(sets[OUTSIDE]));
        self.sets.extend(distinct(sets));
        self.backends.extend(written.backends.iter().map(|id| (family, *id, protocol)));
        self.services.push(service);
    }
}

/// Each of these sets once.
pub(super) fn distinct(sets: [SetId; ROLES]) -> impl Iterator<Item = SetId> {
    let is_first = move |at: usize| sets[at] != SetId::NONE && !sets[..at].contains(&sets[at]);
    (0..ROLES).filter(move |at| is_first(*at)).map(move |at| sets[at])
}

impl<T: Tables> Writer<T> {
    /// Removes it.
    pub(super) fn clear(&mut self) -> Result<(), KernelError> {
        let gone = std::mem::take(&mut self.gone);
        for (reached, _) in gone.frontends.iter().filter(|(reached, _)| reached.is_cluster_ip) {
            self.cluster_ips.remove(reached.place.address);
        }
        // Nobody answers at the other ports of a cluster IP as long as somebody does at one: not before, and not after.
        for (address, is_there) in self.cluster_ips.take_changes() {
            let rest = rest_of(address);
            if is_there { self.put_frontend(&rest, &NOBODY)? } else { self.remove_frontend(&rest)? }
        }
        for (reached, service) in gone.frontends {
            self.leave(&reached, service)?;
        }
        for (service, range) in gone.ranges {
            self.tables.set_range(service, range, false)?;
            self.ranges -= 1;
        }
        for set in gone.lookups {
            self.tables.remove_maglev(set)?;
            self.lookups -= 1;
        }
        for set in gone.sets {
            if let Some(span) = members::span(&self.tables, set) {
                self.stock.rest_members(span);
            }
            self.stock.rest_set(set);
        }
        for (family, id, protocol) in gone.backends {
            let backend = read_backend(&self.tables, family, id);
            self.owe(backend.address);
            self.has_ended |= protocol == Protocol::UDP;
            self.tables.store(Array::Backends(family), service_at(family, id), ServiceId::NONE.0);
            if self.own.contains(&backend.address) {
                self.clear_bit(FrontendBit::of_host_backend(backend.port, protocol));
            }
            self.stock.rest_backend(family, id);
        }
        for service in gone.services {
            self.stock.rest_service(service);
        }
        Ok(())
    }

    /// Removes a frontend where it is still this service's: who has taken it over keeps it.
    fn leave(&mut self, reached: &Reached, service: Option<ServiceId>) -> Result<(), KernelError> {
        let place = &reached.place;
        if service.is_some() && self.tables.frontend(place)?.map(|frontend| frontend.service) == service {
            self.owe(place.address);
            self.remove_frontend(place)?;
        }
        bits_of(reached).for_each(|bit| self.clear_bit(bit));
        Ok(())
    }

    pub(super) fn remove_frontend(&mut self, place: &Place) -> Result<(), KernelError> {
        if self.tables.frontend(place)?.is_some() {
            self.tables.remove_frontend(place)?;
            self.frontends[family_of(place.address) as usize] -= 1;
        }
        Ok(())
    }
}
