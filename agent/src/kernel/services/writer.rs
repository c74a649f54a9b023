//! Who writes the tables of services: makes of what each port of a service is to be the writes that lead there from what was
//! written before, such that between any two of them readers find of every port the old or the new.
//!
//! Of a port, first comes what nobody finds yet: backends, members, ranges of clients. Then the words of its sets, and its
//! frontends. What is gone goes once all ports of a change are written, so that a frontend that moves from one service to
//! another is never without one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_abi::{
    BackendId, Frontend, FrontendBit, FrontendFlags, FrontendKey, Port, Protocol, ServiceId, SetId, maps,
};
use sluice_service::{Choice, Family, PortName, ServicePort};

use super::bits::Bits;
use super::cluster_ips::ClusterIps;
use super::gone::Gone;
use super::stock::{Lack, Resource, Stock};
use super::tables::{Array, Place, Room, Tables, read_backend};
use crate::kernel::error::KernelError;
use crate::kernel::meter::Fill;

/// What is written of a port. What can be read in the tables is not kept.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub service: ServiceId,
    pub family: Family,
    pub protocol: Protocol,
    /// The same where they choose alike.
    pub sets: [SetId; ROLES],
    /// In the order of the port's own.
    pub backends: Box<[BackendId]>,
    pub frontends: Box<[Reached]>,
    pub ranges: Box<[ipnet::IpNet]>,
    /// Whether the set of [`OUTSIDE`] has a Maglev table.
    pub is_spread: bool,
    /// Whether it is as a predecessor has left it, who may have died in the middle of it.
    pub is_left: bool,
    /// Whether some of its frontends lead to other sets than these, or to these as another's.
    pub is_mixed: bool,
}

/// Whose sets a port has: of whoever asks the cluster IP; of clients of this node that ask any other frontend; of everybody
/// else there.
pub(super) const INSIDE: usize = 0;
pub(super) const INSIDE_EXTERNAL: usize = 1;
pub(super) const OUTSIDE: usize = 2;
pub(super) const ROLES: usize = 3;

/// A place that is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reached {
    pub place: Place,
    pub is_cluster_ip: bool,
}

/// A port that did not fit, as it is to be.
#[derive(Clone, Debug)]
struct Refused {
    port: Arc<ServicePort>,
    lack: Lack,
}

/// The addresses whose flows must be judged again.
#[derive(Clone, Copy, Debug)]
pub enum Owed<'a> {
    /// All that there are: a predecessor died owing some.
    All,
    /// These. The unspecified one stands for all of this node's own.
    Of(&'a BTreeSet<IpAddr>),
}

/// The writer.
#[derive(Debug)]
pub struct Writer<T> {
    pub(super) tables: T,
    pub(super) room: Room,
    /// Whether services are spread by Maglev tables.
    pub(super) spreads: bool,
    /// This node's own addresses.
    pub(super) own: BTreeSet<IpAddr>,
    pub(super) ports: HashMap<PortName, Written>,
    /// Ports that a predecessor has written, and that none was found to be yet.
    pub(super) left: HashMap<(Family, ServiceId), Written>,
    refused: BTreeMap<PortName, Refused>,
    /// Ports that should have a Maglev table, and found no room for one.
    pub(super) unspread: BTreeSet<PortName>,
    pub(super) stock: Stock,
    pub(super) bits: Bits,
    pub(super) cluster_ips: ClusterIps,
    /// Frontends of each family, ranges, and Maglev tables that are in the tables.
    pub(super) frontends: [usize; 2],
    pub(super) ranges: usize,
    pub(super) lookups: usize,
    pub(super) gone: Gone,
    owed: BTreeSet<IpAddr>,
    owes_all: bool,
    /// Whether backends of UDP are gone that sockets may be connected to.
    pub(super) has_ended: bool,
}

impl<T: Tables> Writer<T> {
    /// Learns what the tables hold. `own` are this node's addresses.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(tables: T, room: Room, own: BTreeSet<IpAddr>, spreads: bool) -> Result<Self, KernelError> {
        let mut this = Self {
            room,
            spreads,
            own,
            ports: HashMap::new(),
            left: HashMap::new(),
            refused: BTreeMap::new(),
            unspread: BTreeSet::new(),
            stock: Stock::of(&room),
            bits: Bits::default(),
            cluster_ips: ClusterIps::default(),
            frontends: [0; 2],
            ranges: 0,
            lookups: 0,
            gone: Gone::default(),
            owed: BTreeSet::new(),
            // A predecessor may have died before he said so.
            has_ended: true,
            owes_all: tables.word(MARK.0, MARK.1) != 0,
            tables,
        };
        this.read_back()?;
        Ok(this)
    }

    /// Makes these ports of services what they are to be, each named once; `None`: gone. Flows of [`owed`](Self::owed) are to be judged again
    /// afterwards.
    ///
    /// # Errors
    /// Where the kernel refuses: what the tables hold is then no longer known, and another writer must take them over.
    pub fn apply(
        &mut self,
        changes: impl IntoIterator<Item = (PortName, Option<Arc<ServicePort>>)>,
    ) -> Result<(), KernelError> {
        let mut waiting = Vec::new();
        for (name, port) in changes {
            self.refused.remove(&name);
            match port {
                Some(port) if !port.frontends.is_empty() => {
                    if self.write(&name, &port)?.is_err() {
                        waiting.push((name, port));
                    }
                }
                // One that nobody can ask needs nothing.
                Some(_) | None => self.forget(&name),
            }
        }
        self.clear()?;
        self.take_in(waiting)?;
        if self.stock.rests_much() {
            self.settle();
        }
        Ok(())
    }

    /// Makes all ports of services these, whatever the tables hold. To be called once, and first.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn take_over(
        &mut self,
        ports: impl IntoIterator<Item = (PortName, Arc<ServicePort>)>,
    ) -> Result<(), KernelError> {
        // What cannot be reached any more, packets may still be reading that have begun before.
        self.tables.settle();
        let mut waiting = Vec::new();
        for (name, port) in ports.into_iter().filter(|(_, port)| !port.frontends.is_empty()) {
            if self.write(&name, &port)?.is_err() {
                waiting.push((name, port));
            }
        }
        for (_, left) in std::mem::take(&mut self.left) {
            self.gone.all_of(left);
        }
        self.sweep_cluster_ips()?;
        self.clear()?;
        self.sweep()?;
        self.take_in(waiting)
    }

    /// Writes those that found no room at first, and those that were refused and may find it now.
    fn take_in(&mut self, mut waiting: Vec<(PortName, Arc<ServicePort>)>) -> Result<(), KernelError> {
        let has_room = |refused: &Refused| self.stock.may_have(refused.lack);
        let again: Vec<PortName> =
            self.refused.iter().filter(|(_, refused)| has_room(refused)).map(|(name, _)| name.clone()).collect();
        waiting.extend(again.into_iter().filter_map(|name| {
            let refused = self.refused.remove(&name)?;
            Some((name, refused.port))
        }));
        for (name, port) in waiting {
            if self.write(&name, &port)?.is_ok() {
                continue;
            }
            self.make_do(&name, &port)?;
            self.clear()?;
            // What it has given back may be what it lacks.
            if let Err(lack) = self.write(&name, &port)? {
                self.refused.insert(name, Refused { port, lack });
            }
        }
        self.clear()
    }

    /// Has a port that does not fit served by those of its backends that are there already, or else its clients told that
    /// nobody serves. Where there is no room even for that, it stays as it is.
    fn make_do(&mut self, name: &PortName, port: &ServicePort) -> Result<(), KernelError> {
        let known: HashSet<(IpAddr, Port)> = self
            .ports
            .get(name)
            .map(|written| {
                let backends = written.backends.iter().map(|id| read_backend(&self.tables, written.family, *id));
                backends.map(|backend| (backend.address, backend.port)).collect()
            })
            .unwrap_or_default();
        let is_known = |at: &u32| {
            let backend = &port.backends[*at as usize];
            known.contains(&(backend.address, Port::new(backend.port)))
        };
        let kept: Vec<u32> = (0..port.backends.len() as u32).filter(is_known).collect();
        let of_kept = |choice: &Choice| match choice {
            Choice::Among(all) => {
                let members: Vec<u32> =
                    all.iter().filter_map(|at| kept.binary_search(at).ok().map(|at| at as u32)).collect();
                if members.is_empty() { Choice::Reject } else { Choice::Among(members.into()) }
            }
            Choice::Reject => Choice::Reject,
            Choice::Drop => Choice::Drop,
        };
        let reduced = ServicePort {
            frontends: port.frontends.clone(),
            backends: kept.iter().map(|at| port.backends[*at as usize]).collect(),
            inside: of_kept(&port.inside),
            inside_external: of_kept(&port.inside_external),
            outside: of_kept(&port.outside),
            affinity: port.affinity,
            source_ranges: port.source_ranges.clone(),
        };
        let rejecting = ServicePort {
            backends: Vec::new(),
            inside: Choice::Reject,
            inside_external: Choice::Reject,
            outside: Choice::Reject,
            ..reduced.clone()
        };
        for less in [reduced, rejecting] {
            if self.write(name, &less)?.is_ok() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes a port, where there is room.
    fn write(&mut self, name: &PortName, port: &ServicePort) -> Result<Result<(), Lack>, KernelError> {
        let before = self.claim(name, port)?;
        let mut plan = self.plan(name, port, &before);
        if plan.is_err() && self.stock.rests() {
            self.settle();
            plan = self.plan(name, port, &before);
        }
        match plan {
            Ok(plan) => {
                let now = self.carry_out(name, port, &before, &plan)?;
                self.ports.insert(name.clone(), now);
                Ok(Ok(()))
            }
            Err(lack) => {
                if before.service != ServiceId::NONE {
                    self.ports.insert(name.clone(), before);
                }
                Ok(Err(lack))
            }
        }
    }

    /// What is written of a port: by this writer, or by a predecessor, who knew it by its frontends.
    fn claim(&mut self, name: &PortName, port: &ServicePort) -> Result<Written, KernelError> {
        if let Some(written) = self.ports.remove(name) {
            return Ok(written);
        }
        if !self.left.is_empty() {
            for frontend in &port.frontends {
                let place = place(name, frontend);
                let Some(Frontend { service, .. }) = self.tables.frontend(&place)? else { continue };
                if let Some(written) = self.left.remove(&(name.family, service)) {
                    return Ok(written);
                }
            }
        }
        Ok(Written::nothing(name))
    }

    fn forget(&mut self, name: &PortName) {
        self.unspread.remove(name);
        if let Some(written) = self.ports.remove(name) {
            self.gone.all_of(written);
        }
    }

    /// Makes what rests free.
    pub(super) fn settle(&mut self) {
        self.tables.settle();
        self.stock.rested();
    }

    /// Whether so many more frontends and ranges fit, beside those that are still to be removed.
    pub(super) fn has_room(&self, family: Family, frontends: usize, ranges: usize) -> Result<(), Lack> {
        if self.frontends[family as usize] + frontends > self.room.frontends {
            return Err(Lack { of: Resource::Frontends(family), needed: frontends });
        }
        if self.ranges + ranges > self.room.frontends {
            return Err(Lack { of: Resource::Ranges, needed: ranges });
        }
        Ok(())
    }

    /// Whether one more Maglev table fits.
    pub(super) fn has_room_to_spread(&self) -> bool {
        self.lookups < self.room.maglev
    }

    /// This node's own addresses.
    pub fn own(&self) -> &BTreeSet<IpAddr> {
        &self.own
    }

    /// Makes these this node's own addresses. A process that is a backend may send answers that must be translated.
    pub fn set_own(&mut self, own: BTreeSet<IpAddr>) {
        let mut changes = Vec::new();
        for written in self.ports.values() {
            for id in &written.backends {
                let backend = read_backend(&self.tables, written.family, *id);
                let (was, is) = (self.own.contains(&backend.address), own.contains(&backend.address));
                if was != is {
                    changes.push((FrontendBit::of_host_backend(backend.port, written.protocol), is));
                }
            }
        }
        self.own = own;
        // Those that come first: a bit that one has for another stays set.
        changes.sort_by_key(|(_, is)| !is);
        for (bit, is) in changes {
            if is { self.set_bit(bit) } else { self.clear_bit(bit) }
        }
    }

    pub(super) fn set_bit(&mut self, bit: FrontendBit) {
        let (at, mask) = bit.place();
        let bits = self.tables.bits(at);
        if self.bits.add(bit) && bits & mask == 0 {
            self.tables.store_bits(at, bits | mask);
        }
    }

    pub(super) fn clear_bit(&mut self, bit: FrontendBit) {
        let (at, mask) = bit.place();
        let bits = self.tables.bits(at);
        if self.bits.remove(bit) && bits & mask != 0 {
            self.tables.store_bits(at, bits & !mask);
        }
    }

    /// Has the flows of an address judged again once this change is written. To be said before it is, so that a successor
    /// knows.
    pub(super) fn owe(&mut self, address: IpAddr) {
        if self.tables.word(MARK.0, MARK.1) == 0 {
            self.tables.store(MARK.0, MARK.1, 1);
        }
        self.owed.insert(address);
    }

    /// Whose flows are to be judged again by now.
    pub fn owed(&self) -> Owed<'_> {
        if self.owes_all { Owed::All } else { Owed::Of(&self.owed) }
    }

    /// They will be, and the change is over.
    pub fn paid(&mut self) {
        (self.owed, self.owes_all) = (BTreeSet::new(), false);
        if self.tables.word(MARK.0, MARK.1) != 0 {
            self.tables.store(MARK.0, MARK.1, 0);
        }
        self.tables.release();
    }

    /// Whether backends of UDP may be gone since the last call.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }

    /// What found no room.
    pub fn problems(&self) -> impl Iterator<Item = (&PortName, String)> {
        let refused = self.refused.iter().map(|(name, refused)| (name, refused.lack.to_string()));
        let text = "one more Maglev table does not fit: its clients are spread at random; have fewer services reached from outside";
        refused.chain(self.unspread.iter().map(move |name| (name, text.to_owned())))
    }

    /// How many ports found no room.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    /// How full the tables are.
    pub fn fills(&self) -> [Fill; 7] {
        let fill = |table, (entries, capacity)| Fill { table, entries, capacity };
        let frontends = |family| (self.frontends[family as usize], self.room.frontends);
        [
            fill(maps::FRONTENDS4, frontends(Family::V4)),
            fill(maps::FRONTENDS6, frontends(Family::V6)),
            fill(maps::BACKENDS4, self.stock.backends_fill(Family::V4)),
            fill(maps::BACKENDS6, self.stock.backends_fill(Family::V6)),
            fill(maps::SETS, self.stock.sets_fill()),
            fill(maps::MEMBERS, self.stock.members_fill()),
            fill(maps::MAGLEV, (self.lookups, self.room.maglev)),
        ]
    }
}

/// A word that is not 0 while flows are still to be judged again: of the backend that is nobody's, so that no packet reads it.
pub(super) const MARK: (Array, u32) = (Array::Backends(Family::V4), 0);

impl Written {
    /// Of a port of which nothing is written.
    fn nothing(name: &PortName) -> Self {
        Self {
            service: ServiceId::NONE,
            family: name.family,
            protocol: protocol(name),
            sets: [SetId::NONE; ROLES],
            backends: [].into(),
            frontends: [].into(),
            ranges: [].into(),
            is_spread: false,
            is_left: false,
            is_mixed: false,
        }
    }
}

/// A port's protocol.
pub(super) fn protocol(name: &PortName) -> Protocol {
    use sluice_service::Transport;
    match name.transport {
        Transport::Tcp => Protocol::TCP,
        Transport::Udp => Protocol::UDP,
        Transport::Sctp => Protocol::SCTP,
    }
}

/// Where a frontend is in the table.
pub(super) fn place(name: &PortName, frontend: &sluice_service::Frontend) -> Place {
    let address = match frontend.at {
        sluice_service::Place::Address(address) => address,
        sluice_service::Place::Node => unspecified(name.family),
    };
    FrontendKey { address, protocol: protocol(name), port: Port::new(frontend.port), pad: 0 }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Where all that is sent to a cluster IP is found, other than to its services' ports.
pub(super) fn rest_of(address: IpAddr) -> Place {
    FrontendKey { address, protocol: Protocol(0), port: Port(0), pad: 0 }
}

/// What is behind that: nobody.
pub(super) const NOBODY: Frontend = Frontend {
    service: ServiceId::NONE,
    inside: SetId::NONE,
    outside: SetId::NONE,
    affinity: 0,
    flags: FrontendFlags::CLUSTER_IP,
};

/// The bit that says that there may be a frontend.
pub(super) fn bit_of(place: &Place) -> FrontendBit {
    match place.address {
        address if address.is_unspecified() => FrontendBit::of_port(place.port, place.protocol),
        IpAddr::V4(address) => FrontendBit::of_address(sluice_abi::Ipv4::from(address)),
        IpAddr::V6(address) => FrontendBit::of_address(sluice_abi::Ipv6::from(address)),
    }
}

/// All bits that a frontend sets: its own, and that of its port, for its address may be the node's, where packets are told
/// apart by their ports first.
pub(super) fn bits_of(reached: &Reached) -> impl Iterator<Item = FrontendBit> + use<> {
    let Reached { place, is_cluster_ip } = reached;
    let own = bit_of(place);
    let of_port = FrontendBit::of_port(place.port, place.protocol);
    std::iter::once(own).chain(Some(of_port).filter(|of_port| !is_cluster_ip && *of_port != own))
}

/// The family of an address.
pub(super) fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}
