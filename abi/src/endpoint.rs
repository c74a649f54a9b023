//! Endpoints (the pods of this node) and the revisions that flows are judged under.

use crate::MAX_ENDPOINTS;
use crate::ip::{Ipv4, Ipv6};

/// Index into `endpoints` or `nodes`; 0 is nobody.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Slot(pub u32);

impl Slot {
    /// Nobody.
    pub const NONE: Self = Self(0);
}

/// A link-layer address.
///
/// Two integers rather than six bytes: the compiler makes two comparisons of it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mac {
    /// Octets 0 to 3, network byte order.
    pub high: u32,
    /// Octets 4 and 5, network byte order.
    pub low: u16,
    /// Always 0.
    pub pad: u16,
}

impl Mac {
    /// The address of the host side of every veth pair.
    ///
    /// One for all, so that a frame that a pod sends to its gateway looks right to any other pod, and nobody has to
    /// rewrite it.
    pub const GATEWAY: [u8; 6] = [0x02, 0x53, 0x4c, 0x55, 0x43, 0x45];

    /// From octets in transmission order.
    #[inline(always)]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self {
            high: u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]),
            low: u16::from_ne_bytes([octets[4], octets[5]]),
            pad: 0,
        }
    }

    /// Octets in transmission order.
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c, d] = self.high.to_ne_bytes();
        let [e, f] = self.low.to_ne_bytes();
        [a, b, c, d, e, f]
    }
}

/// A pod on this node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// Interface index of the host side of its veth pair; 0: the slot is free.
    pub interface: u32,
    /// Its own IPv4 address; 0.0.0.0: none.
    pub ipv4: Ipv4,
    /// Its own IPv6 address; ::: none.
    pub ipv6: Ipv6,
    /// The link-layer address of its side of the pair.
    pub mac: Mac,
}

/// Index into `revisions`, the array of counters that end the validity of judgements.
///
/// | slots | whose |
/// |---|---|
/// | 0 | nobody: always 0 |
/// | 1 | routes and nodes: changes where packets leave the node |
/// | 8 + n | endpoint in slot n: its policy, or its end |
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RevisionSlot(pub u32);

impl RevisionSlot {
    /// Never revised.
    pub const NONE: Self = Self(0);
    /// Routes and nodes.
    pub const ROUTES: Self = Self(1);

    /// The revision of an endpoint.
    #[inline(always)]
    pub const fn of_endpoint(slot: Slot) -> Self {
        Self(8 + slot.0)
    }

    /// The endpoint whose revision this is, where it is one's.
    pub const fn endpoint(self) -> Option<Slot> {
        match self.0.checked_sub(8) {
            Some(slot) if slot < MAX_ENDPOINTS => Some(Slot(slot)),
            _ => None,
        }
    }
}

/// The revision that a judgement was made under.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Whose revision.
    pub slot: RevisionSlot,
    /// Its value at the time; the judgement holds while `revisions[slot]` is the same.
    pub revision: u32,
}

const _: () = assert!(size_of::<Mac>() == 8 && size_of::<Endpoint>() == 32 && size_of::<Stamp>() == 8);

#[cfg(test)]
mod tests {
    use super::{Mac, RevisionSlot, Slot};

    #[test]
    fn an_endpoint_is_found_by_its_revision() {
        assert_eq!(RevisionSlot::of_endpoint(Slot(7)).endpoint(), Some(Slot(7)));
        assert_eq!(RevisionSlot::ROUTES.endpoint(), None);
        assert_eq!(RevisionSlot(60_000).endpoint(), None);
    }

    #[test]
    fn a_mac_keeps_its_octets_and_the_gateway_is_local_unicast() {
        assert_eq!(Mac::new(Mac::GATEWAY).octets(), Mac::GATEWAY);
        assert_eq!(Mac::GATEWAY[0] & 0b11, 0b10);
    }
}
