//! Services: where clients reach them, and who serves them.
//!
//! A *frontend* (address, port and protocol) points at two *sets* of backends, one for clients of this node and one for
//! everybody else. A set is a word in `sets`: the *position* in `members` where its members stand, their number first, then as many
//! backends. Members are never changed where they can be seen: a change writes new ones elsewhere and then the word. So
//! whoever reads finds all of the old set or all of the new.

use crate::ip::{IpAddress, Port, Protocol};

/// A port of a service, of one family: what affinities and backends belong to.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ServiceId(pub u32);

impl ServiceId {
    /// None: of backends that serve no longer.
    pub const NONE: Self = Self(0);
}

/// Index into `sets`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SetId(pub u32);

impl SetId {
    /// Has no members and never will: rejects.
    pub const NONE: Self = Self(0);
}

/// Index into `members`: of a set's first word.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u32);

impl Position {
    /// Of a set whose clients are told that nobody serves.
    pub const REJECT: Self = Self(0);
    /// Of a set whose clients hear nothing: others serve, but not here.
    pub const DROP: Self = Self(1);
    /// The first at which members may stand.
    pub const FIRST: Self = Self(2);
}

/// Index into `backends4` or `backends6`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct BackendId(pub u32);

impl BackendId {
    /// None: of flows that are no service's.
    pub const NONE: Self = Self(0);
}

/// Where clients reach a service.
///
/// With the unspecified address: any address of this node at which node ports are served. With port and protocol 0: whatever
/// else is sent to a cluster IP, which nobody answers.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FrontendKey<A> {
    /// The address that they know.
    pub address: A,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that they know.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
}

/// What is special about a frontend: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FrontendFlags(pub u32);

impl FrontendFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Only who is in `source_ranges4` or `source_ranges6` may use it.
    pub const SOURCE_RANGES: Self = Self(1);
    /// Clients that are not of this node are spread by `maglev`, as on every other node.
    pub const MAGLEV: Self = Self(2);
    /// It is a cluster IP, or a port of one.
    pub const CLUSTER_IP: Self = Self(4);
    /// It is a host port: at all addresses of the node, also where node ports are at some of them only.
    pub const HOST_PORT: Self = Self(8);

    /// Whether all of `other` is in this set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[inline(always)]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is behind a frontend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Frontend {
    /// The service's port that it leads to.
    pub service: ServiceId,
    /// Who serves clients of this node: its pods and its own processes.
    pub inside: SetId,
    /// Who serves everybody else.
    pub outside: SetId,
    /// For how many seconds without a new connection a client stays with its backend; 0: not at all.
    pub affinity: u32,
    /// What is special about it.
    pub flags: FrontendFlags,
}

/// Which of its service's sets a backend is in: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Membership(pub u16);

impl Membership {
    /// In neither. It may serve who is connected already.
    pub const NONE: Self = Self(0);
    /// In that of the cluster IP.
    pub const CLUSTER_IP: Self = Self(1);
    /// In that for clients of this node that ask any other frontend.
    pub const INSIDE: Self = Self(2);
    /// In that for everybody else there.
    pub const OUTSIDE: Self = Self(4);

    /// Whether all of `other` is in this set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[inline(always)]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Who serves a port of a service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Backend<A> {
    /// Its address.
    pub address: A,
    /// Its port.
    pub port: Port,
    /// Which sets it is in.
    pub membership: Membership,
    /// What it serves; [`ServiceId::NONE`]: nothing any longer. Written last where it is new.
    pub service: ServiceId,
}

/// Which side of a service's clients somebody is on.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// A pod of this node, or a process of its own.
    Inside = 0,
    /// Everybody else.
    Outside = 1,
}

/// Who stays with a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AffinityKey {
    /// The client's address as [`words`](IpAddress::words); of a socket, whose address is not known yet, its network
    /// namespace's cookie in the first two.
    pub client: [u32; 4],
    /// The port of the service.
    pub service: ServiceId,
    /// As which of the two the client came.
    pub side: Side,
}

/// With whom a client stays.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Affinity {
    /// The backend.
    pub backend: BackendId,
    /// When it last opened a connection, seconds since the node started.
    pub last_seen: u32,
}

/// Path in the tries of source ranges: all bits of the service, then the leading ones of the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RangePath<A> {
    /// The port of a service.
    pub service: ServiceId,
    /// The client's address.
    pub address: A,
}

/// By which of its two names somebody is meant that a socket talks to: one may be the other's, of another service.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerName(pub u16);

impl PeerName {
    /// The backend's own.
    pub const BACKEND: Self = Self(0);
    /// The service's, which the process knows.
    pub const SERVICE: Self = Self(1);
}

/// Somebody that a socket talks to: as the process knows it, or as it is.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketKey<A: IpAddress> {
    /// The socket's cookie.
    pub socket: u64,
    /// The address.
    pub address: A,
    /// The port.
    pub port: Port,
    /// Which of both names this is.
    pub name: PeerName,
    /// Fills the key up to its alignment; always 0.
    pub tail: A::Tail,
}

/// The same, by the other name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketPeer<A> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
    /// The backend that this is, or that is behind it.
    pub backend: BackendId,
}

/// Entries of a Maglev table: a prime, such that a table with the kernel's header of it fits into 16 KiB.
pub const MAGLEV_SIZE: usize = 4073;

/// Bits that say quickly which addresses and ports are no frontend's.
pub const FRONTEND_BITS: u32 = 1 << 20;

/// Index of a bit in `frontend_bits`. Several frontends may share one: a bit that is not set says that there is none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrontendBit(pub u32);

impl FrontendBit {
    /// Of all frontends at an address.
    #[inline(always)]
    pub fn of_address<A: IpAddress>(address: A) -> Self {
        let [a, b, c, d] = address.words();
        Self::of(a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24))
    }

    /// Of node ports and host ports.
    #[inline(always)]
    pub const fn of_port(port: Port, protocol: Protocol) -> Self {
        Self::of((port.0 as u32) << 16 | protocol.0)
    }

    /// Of the ports of backends that are this node's own processes: what such a process sends may be an answer to be
    /// translated.
    #[inline(always)]
    pub const fn of_host_backend(port: Port, protocol: Protocol) -> Self {
        Self::of((port.0 as u32) << 16 | 1 << 15 | protocol.0)
    }

    /// Fibonacci hashing: the highest bits depend on all others.
    #[inline(always)]
    const fn of(mixed: u32) -> Self {
        Self(mixed.wrapping_mul(0x9e37_79b1) >> (u32::BITS - FRONTEND_BITS.ilog2()))
    }

    /// The word that it is in, and its mask there.
    #[inline(always)]
    pub const fn place(self) -> (u32, u64) {
        (self.0 / u64::BITS, 1 << (self.0 % u64::BITS))
    }
}

const _: () = {
    use crate::ip::{Ipv4, Ipv6};
    assert!(size_of::<FrontendKey<Ipv4>>() == 12 && size_of::<FrontendKey<Ipv6>>() == 24);
    assert!(size_of::<Frontend>() == 20);
    assert!(size_of::<Backend<Ipv4>>() == 12 && size_of::<Backend<Ipv6>>() == 24);
    assert!(size_of::<AffinityKey>() == 24 && size_of::<Affinity>() == 8);
    assert!(size_of::<RangePath<Ipv4>>() == 8 && size_of::<RangePath<Ipv6>>() == 20);
    assert!(size_of::<SocketKey<Ipv4>>() == 16 && size_of::<SocketKey<Ipv6>>() == 32);
    assert!(size_of::<SocketPeer<Ipv4>>() == 12 && size_of::<SocketPeer<Ipv6>>() == 24);
};

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{FRONTEND_BITS, FrontendBit};
    use crate::ip::{Ipv4, Port, Protocol};

    #[test]
    fn bits_spread_and_lie_within_the_table() {
        let mut taken = std::collections::BTreeSet::new();
        for host in 0..30_000 {
            let bit = FrontendBit::of_address(Ipv4((0x0a60_0000_u32 + host).to_be()));
            assert!(bit.0 < FRONTEND_BITS && bit.place().0 < FRONTEND_BITS / 64);
            taken.insert(bit);
        }
        for port in 30_000..32_768 {
            taken.insert(FrontendBit::of_port(Port::new(port), Protocol::TCP));
        }
        // As few share one as by chance, or fewer.
        assert!(taken.len() > 31_000, "{} bits", taken.len());
    }

    #[test]
    fn a_port_has_a_bit_for_each_protocol() {
        let port = Port::new(30_080);
        assert_ne!(FrontendBit::of_port(port, Protocol::TCP), FrontendBit::of_port(port, Protocol::UDP));
    }
}
