//! What a writer needs of the tables of services: the kernel's, or memory of a test.

use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{Backend, BackendId, Frontend, FrontendKey, MAGLEV_SIZE, Membership, Port, ServiceId, SetId};
use sluice_service::Family;

use crate::kernel::error::KernelError;

/// Where clients reach a service, of either family.
pub type Place = FrontendKey<IpAddr>;

/// An array of words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Array {
    /// [`sets`](sluice_abi::maps::SETS).
    Sets,
    /// [`members`](sluice_abi::maps::MEMBERS).
    Members,
    /// [`backends4`](sluice_abi::maps::BACKENDS4) or [`backends6`](sluice_abi::maps::BACKENDS6).
    Backends(Family),
}

/// How much there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Backends of each family; the first is nobody's.
    pub backends: u32,
    /// Sets; the first is nobody's.
    pub sets: u32,
    /// Words for members.
    pub members: u32,
    /// Frontends of each family, and ranges of their clients.
    pub frontends: usize,
    /// Maglev tables.
    pub maglev: usize,
}

/// Entries of a Maglev table.
pub type Lookup = [BackendId; MAGLEV_SIZE];

/// The tables. Every call that writes changes what readers see at once, or not at all.
pub trait Tables {
    /// Reads a word of an array.
    fn word(&self, array: Array, at: u32) -> u32;
    /// Writes a word of an array.
    fn store(&mut self, array: Array, at: u32, word: u32);
    /// Reads a word of the frontends' bits.
    fn bits(&self, at: u32) -> u64;
    /// Writes a word of the frontends' bits.
    fn store_bits(&mut self, at: u32, bits: u64);

    /// All frontends.
    ///
    /// # Errors
    /// As all below: where the kernel refuses.
    fn frontends(&self) -> Result<Vec<(Place, Frontend)>, KernelError>;
    /// What is behind one.
    fn frontend(&self, place: &Place) -> Result<Option<Frontend>, KernelError>;
    /// Makes one, or changes it.
    fn insert_frontend(&mut self, place: &Place, frontend: &Frontend) -> Result<(), KernelError>;
    /// Removes one.
    fn remove_frontend(&mut self, place: &Place) -> Result<(), KernelError>;

    /// All ranges of clients.
    fn ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, KernelError>;
    /// Lets a range of clients in, or no longer.
    fn set_range(&mut self, service: ServiceId, range: IpNet, is_there: bool) -> Result<(), KernelError>;

    /// All sets that have a Maglev table.
    fn maglev_sets(&self) -> Result<Vec<SetId>, KernelError>;
    /// A set's Maglev table.
    fn maglev(&self, set: SetId) -> Result<Option<Box<Lookup>>, KernelError>;
    /// Makes one, or puts another in its place.
    fn insert_maglev(&mut self, set: SetId, lookup: &Lookup) -> Result<(), KernelError>;
    /// Removes one.
    fn remove_maglev(&mut self, set: SetId) -> Result<(), KernelError>;

    /// Waits until nobody reads any more what is out of reach by now.
    fn settle(&mut self);

    /// Gives back the memory by which the tables are reached, until they are again.
    fn release(&mut self);
}

/// Words of an address.
fn address_words(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// Words of a [`Backend`] in its array: its address, its port and membership, its service.
pub fn backend_words(family: Family) -> u32 {
    address_words(family) + 2
}

/// The first word of one.
fn start(family: Family, BackendId(id): BackendId) -> u32 {
    id * backend_words(family)
}

/// Where a backend's service is written.
pub fn service_at(family: Family, id: BackendId) -> u32 {
    start(family, id) + address_words(family) + 1
}

/// Where its port and membership are.
fn port_at(family: Family, id: BackendId) -> u32 {
    start(family, id) + address_words(family)
}

/// Port and membership stand in one word.
fn port_word(port: Port, membership: Membership) -> u32 {
    let ([a, b], [c, d]) = (port.0.to_ne_bytes(), membership.0.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Reads a backend.
pub fn read_backend(tables: &impl Tables, family: Family, id: BackendId) -> Backend<IpAddr> {
    let word = |at| tables.word(Array::Backends(family), start(family, id) + at);
    let address = match family {
        Family::V4 => IpAddr::V4(sluice_abi::Ipv4(word(0)).into()),
        Family::V6 => IpAddr::V6(sluice_abi::Ipv6([word(0), word(1), word(2), word(3)]).into()),
    };
    let [a, b, c, d] = tables.word(Array::Backends(family), port_at(family, id)).to_ne_bytes();
    let service = ServiceId(tables.word(Array::Backends(family), service_at(family, id)));
    let (port, membership) = (Port(u16::from_ne_bytes([a, b])), Membership(u16::from_ne_bytes([c, d])));
    Backend { address, port, membership, service }
}

/// Writes a backend that is nobody's yet: it is its service's with the last word.
pub fn write_backend(tables: &mut impl Tables, family: Family, id: BackendId, backend: &Backend<IpAddr>) {
    let words = match backend.address {
        IpAddr::V4(address) => vec![sluice_abi::Ipv4::from(address).0],
        IpAddr::V6(address) => sluice_abi::Ipv6::from(address).0.to_vec(),
    };
    let others = words.into_iter().chain([port_word(backend.port, backend.membership)]);
    for (at, word) in (start(family, id)..).zip(others.chain([backend.service.0])) {
        tables.store(Array::Backends(family), at, word);
    }
}

/// Says which sets a backend is in.
pub fn write_membership(tables: &mut impl Tables, family: Family, id: BackendId, port: Port, membership: Membership) {
    tables.store(Array::Backends(family), port_at(family, id), port_word(port, membership));
}
