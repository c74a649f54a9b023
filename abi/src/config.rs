//! What the agent tells the programs about their node.

use crate::ip::{Ipv4, Ipv6};

/// Idle timeouts, by what a flow has shown of itself.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutClass {
    /// TCP or SCTP before the handshake is complete, or once it has ended.
    Transient = 0,
    /// TCP or SCTP with a complete handshake.
    Connected = 1,
    /// UDP and everything else without connections, unanswered.
    DatagramOpening = 2,
    /// The same, answered.
    Datagram = 3,
    /// ICMP echo.
    Echo = 4,
}

/// Idle timeouts in jiffies, one for each [`TimeoutClass`].
///
/// As many places as three bits can tell apart: a masked index needs no check that the verifier would have to follow.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeouts([u32; 8]);

impl Timeouts {
    /// In the order of [`TimeoutClass`]; jiffies.
    pub const fn new([transient, connected, opening, datagram, echo]: [u32; 5]) -> Self {
        Self([transient, connected, opening, datagram, echo, 0, 0, 0])
    }

    /// The timeout of a class, jiffies.
    #[inline(always)]
    pub fn of(&self, class: TimeoutClass) -> u32 {
        // The compiler knows that there are five classes and would leave the mask out; the verifier does not know it.
        self.0[core::hint::black_box(class as usize) & 7]
    }
}

/// What is switched on: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(pub u32);

impl Features {
    /// Pod traffic that leaves the cluster over IPv4 takes the node's address.
    pub const MASQUERADE4: Self = Self(1);
    /// The same for IPv6.
    pub const MASQUERADE6: Self = Self(2);
    /// Packets for backends on other nodes are sent there as they are, wrapped up, and answered from there.
    pub const DIRECT_RETURN: Self = Self(4);
    /// Node ports are served at loopback addresses of IPv4, to the node itself.
    pub const LOOPBACK4: Self = Self(8);
    /// The same for IPv6.
    pub const LOOPBACK6: Self = Self(16);

    /// Whether all of `other` is in this set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The node's own settings.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// The node's own IPv4 address; 0.0.0.0: none.
    pub ipv4: Ipv4,
    /// The node's own IPv6 address; ::: none.
    pub ipv6: Ipv6,
    /// What is switched on.
    pub features: Features,
    /// Interface index of the VXLAN device; 0: none.
    pub overlay: u32,
    /// Largest inner packet, in bytes, that the overlay carries.
    pub overlay_mtu: u32,
    /// VXLAN network identifier.
    pub vni: u32,
    /// First source port for masqueraded flows, host order.
    pub port_first: u16,
    /// Last source port for masqueraded flows, host order.
    pub port_last: u16,
    /// Idle timeouts, jiffies.
    pub timeouts: Timeouts,
    /// Cookie of the node's own network namespace; 0: it is the machine's first.
    pub namespace: u64,
}

/// An interface to the outside.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uplink {
    /// The address that masqueraded IPv4 packets take here; 0.0.0.0: none.
    pub ipv4: Ipv4,
    /// The address that masqueraded IPv6 packets take here; ::: none.
    pub ipv6: Ipv6,
    /// MTU of the interface, bytes.
    pub mtu: u16,
    /// Not 0: it is there for those who come in by it, and pods leave by it with their own addresses.
    pub is_side: u16,
}

const _: () = assert!(size_of::<Config>() == 80 && size_of::<Uplink>() == 24);
