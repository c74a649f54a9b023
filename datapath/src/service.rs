//! Services: which frontend something is for, and which of its backends it is given.

use sluice_abi::{
    AddressEntry, AddressKind, Affinity, AffinityKey, Backend, BackendId, Frontend, FrontendBit, FrontendFlags,
    FrontendKey, IpAddress, MAGLEV_SIZE, Membership, Port, Position, Protocol, ServiceId, SetId, Side, SocketKey,
    SocketPeer,
};

/// The tables of services that both families share.
pub trait BalancerTables {
    /// Whether there may be a frontend. An array read.
    fn may_be_frontend(&self, bit: FrontendBit) -> bool;
    /// Where the members of a set are. An array read.
    fn position(&self, set: SetId) -> Position;
    /// A word of the members of sets. An array read.
    fn member(&self, position: Position) -> u32;
    /// An entry of a set's Maglev table; `None` where it has none. One lookup.
    fn maglev(&self, set: SetId, index: u32) -> Option<BackendId>;
    /// With whom a client stays. One lookup.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Has a client stay. One write.
    fn stay(&self, key: &AffinityKey, with: &Affinity);
    /// Seconds since the node started.
    fn seconds(&self) -> u32;
    /// A random number.
    fn random(&self) -> u32;
}

/// The tables of services of one family.
pub trait ServiceTables<A: IpAddress>: BalancerTables {
    /// What is known of an address; [`AddressEntry::UNKNOWN`] where that is nothing. One lookup.
    fn address(&self, address: A) -> AddressEntry;
    /// What is behind a frontend. One lookup.
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend>;
    /// A backend. An array read.
    fn backend(&self, id: BackendId) -> Option<Backend<A>>;
    /// Whether a service's source ranges name an address. One lookup.
    fn is_in_source_ranges(&self, service: ServiceId, address: A) -> bool;
    /// Whom a socket talks to, by the other name. One lookup.
    fn peer(&self, key: &SocketKey<A>) -> Option<SocketPeer<A>>;
    /// Remembers whom a socket talks to, by the other name. One write.
    fn remember_peer(&self, key: &SocketKey<A>, peer: &SocketPeer<A>);
}

/// A backend that a client was given, and where it listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Target<A> {
    /// Its address.
    pub address: A,
    /// Its port.
    pub port: Port,
    /// The backend; [`BackendId::NONE`] where no service is in between.
    pub backend: BackendId,
}

impl<A: IpAddress> Target<A> {
    /// Of what goes where its sender says.
    #[inline(always)]
    pub const fn plain(address: A, port: Port) -> Self {
        Self { address, port, backend: BackendId::NONE }
    }

    /// Whether it is a service's.
    #[inline(always)]
    pub fn is_backend(&self) -> bool {
        self.backend != BackendId::NONE
    }
}

/// What becomes of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice<A> {
    /// It is served, and whether every node would choose the same.
    Backend(Target<A>, bool),
    /// It is told that nobody serves.
    Reject,
    /// It hears nothing.
    Drop,
}

/// Whose an address is, to frontends that are at all addresses of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// Not the node's.
    Elsewhere,
    /// The node's, where node ports are not served.
    Node,
    /// The node's, where they are.
    NodePorts,
}

impl Locality {
    /// Of an address of which this is known.
    #[inline(always)]
    pub fn of(entry: AddressEntry) -> Self {
        match entry.kind {
            AddressKind::Host if entry.serves_node_ports() => Self::NodePorts,
            AddressKind::Host => Self::Node,
            _ => Self::Elsewhere,
        }
    }
}

/// Whether an address or port may be a frontend's: two reads that spare most packets the lookups of [`find`].
#[inline(always)]
pub fn may_be_frontend<A: IpAddress, T: BalancerTables>(
    address: A,
    port: Port,
    protocol: Protocol,
    tables: &T,
) -> bool {
    tables.may_be_frontend(FrontendBit::of_address(address))
        || tables.may_be_frontend(FrontendBit::of_port(port, protocol))
}

/// The frontend at an address and port. `locality` says whose the address is; it is asked only where that matters.
#[inline(always)]
pub fn find<A: IpAddress, T: ServiceTables<A>>(
    address: A,
    port: Port,
    protocol: Protocol,
    locality: impl FnOnce() -> Locality,
    tables: &T,
) -> Option<Frontend> {
    if tables.may_be_frontend(FrontendBit::of_address(address)) {
        let own = tables.frontend(&FrontendKey { address, protocol, port, pad: 0 });
        let found =
            if own.is_some() { own } else { tables.frontend(&FrontendKey { address, ..FrontendKey::default() }) };
        if found.is_some() {
            return found;
        }
    }
    if !tables.may_be_frontend(FrontendBit::of_port(port, protocol)) {
        return None;
    }
    let locality = locality();
    if locality == Locality::Elsewhere {
        return None;
    }
    let found = tables.frontend(&FrontendKey { address: A::default(), protocol, port, pad: 0 })?;
    let is_here = locality == Locality::NodePorts || found.flags.has(FrontendFlags::HOST_PORT);
    is_here.then_some(found)
}

/// Whether a backend still serves a service's port, at the address and port where it did.
#[inline(always)]
pub fn serves<A: IpAddress, T: ServiceTables<A>>(target: &Target<A>, service: ServiceId, tables: &T) -> bool {
    tables.backend(target.backend).is_some_and(|backend| {
        backend.service == service && backend.address == target.address && backend.port == target.port
    })
}

/// A backend for a client on one side of a frontend. `hash` is of what tells its connection from others, the same on every
/// node.
#[inline(always)]
pub fn choose<A: IpAddress, T: ServiceTables<A>>(
    frontend: &Frontend,
    side: Side,
    client: [u32; 4],
    hash: u32,
    tables: &T,
) -> Choice<A> {
    let set = match side {
        Side::Inside => frontend.inside,
        Side::Outside => frontend.outside,
    };
    let position = tables.position(set);
    if position == Position::REJECT {
        return Choice::Reject;
    }
    if position == Position::DROP {
        return Choice::Drop;
    }
    let membership = match side {
        _ if frontend.flags.has(FrontendFlags::CLUSTER_IP) => Membership::CLUSTER_IP,
        Side::Inside => Membership::INSIDE,
        Side::Outside => Membership::OUTSIDE,
    };
    let key = AffinityKey { client, service: frontend.service, side };
    if frontend.affinity != 0
        && let Some(Affinity { backend, last_seen }) = tables.affinity(&key)
        && tables.seconds().wrapping_sub(last_seen) <= frontend.affinity
        && let Some(target) =
            member(backend, |backend| backend.service == frontend.service && backend.membership.has(membership), tables)
    {
        tables.stay(&key, &Affinity { backend, last_seen: tables.seconds() });
        return Choice::Backend(target, false);
    }
    let maglev = if side == Side::Outside && frontend.flags.has(FrontendFlags::MAGLEV) {
        tables.maglev(set, within(hash, MAGLEV_SIZE as u32))
    } else {
        None
    };
    let id = match maglev {
        Some(id) => id,
        None => {
            let count = tables.member(position);
            BackendId(tables.member(Position(position.0 + 1 + within(tables.random(), count))))
        }
    };
    // What has just ceased to serve does so for those who had read of it.
    let Some(target) = member(id, |_| true, tables) else { return Choice::Reject };
    if frontend.affinity != 0 {
        tables.stay(&key, &Affinity { backend: id, last_seen: tables.seconds() });
    }
    Choice::Backend(target, maglev.is_some())
}

/// One of the numbers below a limit, for a number that may be any: a multiplication, whose bounds the verifier knows, unlike
/// those of a remainder.
#[inline(always)]
fn within(number: u32, limit: u32) -> u32 {
    ((u64::from(number) * u64::from(limit)) >> 32) as u32
}

/// Where a backend listens, if it is as it should be.
#[inline(always)]
fn member<A: IpAddress, T: ServiceTables<A>>(
    id: BackendId,
    is_good: impl FnOnce(&Backend<A>) -> bool,
    tables: &T,
) -> Option<Target<A>> {
    if id == BackendId::NONE {
        return None;
    }
    let backend = tables.backend(id)?;
    if is_good(&backend) { Some(Target { address: backend.address, port: backend.port, backend: id }) } else { None }
}

/// A number for a connection, the same on every node.
#[inline(always)]
pub fn hash<A: IpAddress>(
    source: A,
    source_port: Port,
    destination: A,
    destination_port: Port,
    protocol: Protocol,
) -> u32 {
    let mut hash = u32::from(source_port.0) << 16 | u32::from(destination_port.0);
    hash = stir(hash, protocol.0);
    let (source, destination) = (source.words(), destination.words());
    let mut word = 0;
    while word < A::BITS as usize / 32 {
        hash = stir(stir(hash, source[word]), destination[word]);
        word += 1;
    }
    // So that the lowest bits depend on all others (the finalizer of MurmurHash3).
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[inline(always)]
fn stir(hash: u32, word: u32) -> u32 {
    (hash ^ word.wrapping_mul(0xcc9e_2d51)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}
