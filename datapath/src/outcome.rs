//! What is to be done with a packet.

use sluice_abi::{IpAddress, Reason, Slot, Stage};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    #[inline(always)]
    pub const fn of<A: IpAddress>() -> Self {
        if A::BITS == 32 { Self::V4 } else { Self::V6 }
    }
}

/// What is to be done with a packet. Its bytes are already as they should leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Drop it, for this reason.
    Drop(Reason),
    /// Let it go on its way: up the stack on ingress, out of the device on egress.
    Pass,
    /// Look closer: run this part of the slow path for this family.
    Slow(Stage, Family),
    /// Back where it came from: it has become the answer to itself.
    Back,
    /// Into the pod behind this host-side interface.
    Pod {
        /// Interface index of the host side.
        interface: u32,
    },
    /// Out of an interface, to a neighbour.
    Neighbour {
        /// Interface index of the device.
        interface: u32,
        /// Family of the next hop.
        family: Family,
        /// The next hop, as [`words`](sluice_abi::IpAddress::words).
        next_hop: [u32; 4],
    },
    /// Wrapped up as it is to a node, by a neighbour.
    Direct {
        /// Interface index of the device.
        interface: u32,
        /// Family of the packet and of what it is wrapped up in.
        family: Family,
        /// The next hop, as [`words`](sluice_abi::IpAddress::words).
        next_hop: [u32; 4],
        /// The node.
        node: Slot,
    },
    /// Through the overlay.
    Overlay {
        /// Interface index of the VXLAN device.
        interface: u32,
        /// The node at the other end.
        node: Slot,
    },
}
