//! The flow table: one entry for each direction of a flow.

use crate::config::TimeoutClass;
use crate::endpoint::{Mac, Slot, Stamp};
use crate::ip::{IpAddress, Port, Protocol};
use crate::service::BackendId;

/// Where a packet was seen: part of a flow's key, so that a forged source never meets another's flow.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Scope(pub u32);

impl Scope {
    /// Came in through an uplink.
    pub const NET: Self = Self(0xffff_0001);
    /// Came in through the overlay.
    pub const OVERLAY: Self = Self(0xffff_0002);
    /// Sent by this node's own stack.
    pub const HOST: Self = Self(0xffff_0003);

    /// Sent by the pod behind this host-side interface.
    #[inline(always)]
    pub const fn pod(interface: u32) -> Self {
        Self(interface)
    }
}

/// One direction of a flow, as its packets look before translation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey<A> {
    /// Where its packets come from.
    pub scope: Scope,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; of ICMP, the identifier of an echo request, else 0.
    pub source_port: Port,
    /// Destination port; of ICMP, the identifier of an echo reply, else 0.
    pub destination_port: Port,
    /// Protocol behind all extension headers.
    pub protocol: Protocol,
}

/// Where packets of a flow go.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deliver {
    /// To the pod behind `interface`.
    Pod = 0,
    /// Out of `interface` to the neighbour `next_hop`.
    Neighbour = 1,
    /// Through the overlay to `node`.
    Overlay = 2,
    /// To this node's own stack.
    Stack = 3,
    /// Wrapped up as they are to `node`, by `next_hop`: it serves their client itself.
    Direct = 4,
}

/// Which direction of its flow an entry is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The direction in which the flow was opened.
    Forward = 0,
    /// The answers.
    Reply = 1,
}

/// What policy said when the flow was last judged.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// May pass.
    Allow = 0,
    /// Would have been denied, but the node or namespace only audits.
    Audit = 1,
}

/// What is translated in packets of a flow: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rewrites(pub u8);

impl Rewrites {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Source address and port.
    pub const SOURCE: Self = Self(1);
    /// Destination address and port.
    pub const DESTINATION: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Whether all of `other` is in this set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What has been seen in one direction of a flow: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen(pub u8);

impl Seen {
    /// TCP FIN, or SCTP SHUTDOWN and the answers to it.
    pub const FIN: Self = Self(1);
    /// The last packet was a TCP RST, or an SCTP ABORT. Whoever sends on has sent none: it was forged.
    pub const RESET: Self = Self(2);
    /// Any packet at all.
    pub const PACKET: Self = Self(4);

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

    /// This set without the members of `other`.
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether a connection that has seen this in one direction and `other` in the opposite one is over.
    #[inline(always)]
    pub const fn ends(self, other: Self) -> bool {
        self.with(other).has(Self::RESET) || (self.has(Self::FIN) && other.has(Self::FIN))
    }
}

/// One direction of a flow.
///
/// The entry of the other direction has the key ([`peer_scope`](Flow::peer_scope), the translated tuple reversed).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow<A: IpAddress> {
    /// Packets that passed. Kept without atomic operations: a flow whose packets run on several CPUs may lose some.
    pub packets: u64,
    /// Bytes that passed, from the network header on, each segment of a large packet with its own headers not counted.
    pub bytes: u64,
    /// The revisions under which it was judged: all must still hold.
    pub stamps: [Stamp; 3],
    /// The source address behind translation; the key's own where nothing is translated.
    pub source: A,
    /// The destination address behind translation.
    pub destination: A,
    /// Of [`Deliver::Neighbour`] and `Direct`: the next hop.
    pub next_hop: A,
    /// The source port behind translation.
    pub source_port: Port,
    /// The destination port behind translation.
    pub destination_port: Port,
    /// Of [`Deliver::Pod`], the host side of its veth; of all others but `Stack`, the device to leave through.
    pub interface: u32,
    /// The scope of the other direction.
    pub peer_scope: Scope,
    /// Of [`Deliver::Overlay`] and `Direct`: the node to send to.
    pub node: Slot,
    /// The backend that its service's opener was given; [`BackendId::NONE`]: it is no service's.
    pub backend: BackendId,
    /// The policy that decided: of the forward direction, what the sender's policies say, of the other, what the
    /// receiver's do; as [`Rule::policy`](crate::Rule::policy). 0: none applies.
    pub policy: u32,
    /// Time of the last packet, in jiffies (low 32 bits).
    pub last_seen: u32,
    /// From a pod: the link-layer address its packets must carry; else all 0.
    pub source_mac: Mac,
    /// Largest packet, in bytes from the network header on, that goes this way unfragmented; 0: no limit.
    pub mtu: u16,
    /// Where its packets go.
    pub deliver: Deliver,
    /// Which direction of the flow this is.
    pub direction: Direction,
    /// What policy said.
    pub verdict: Verdict,
    /// What is translated.
    pub rewrites: Rewrites,
    /// What this direction has seen.
    pub seen: Seen,
    /// Which idle timeout applies.
    pub class: TimeoutClass,
    /// Fills the entry up to its alignment; always 0.
    pub tail: A::Tail,
}

/// Names the datagram that a fragment is part of (RFC 791 section 3.2, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FragmentKey<A> {
    /// Where it was seen.
    pub scope: Scope,
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Identification, network byte order; of IPv4 in the low 16 bits.
    pub id: u32,
    /// Protocol of an IPv4 datagram; of IPv6, where the identification is enough, 0.
    pub protocol: Protocol,
}

/// What the first fragment of a datagram carried.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Source port of the datagram.
    pub source_port: Port,
    /// Destination port of the datagram.
    pub destination_port: Port,
    /// Protocol of the datagram, behind all extension headers.
    pub protocol: Protocol,
}

const _: () = {
    use crate::ip::{Ipv4, Ipv6};
    assert!(size_of::<FlowKey<Ipv4>>() == 20 && size_of::<FlowKey<Ipv6>>() == 44);
    assert!(size_of::<Flow<Ipv4>>() == 96 && size_of::<Flow<Ipv6>>() == 136);
    assert!(size_of::<FragmentKey<Ipv4>>() == 20 && size_of::<FragmentKey<Ipv6>>() == 44);
    assert!(size_of::<Fragment>() == 8);
};
