//! Endpoints (the pods of this node) and the revisions that flows are judged under.

use crate::ip::{IpAddress, Ipv4, Ipv6};
use crate::policy::{Identity, PolicyMode, RuleSetId};
use crate::{MAX_ENDPOINTS, MAX_REVISIONS};

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
    /// What policies say of its flows.
    pub rule_set: RuleSetId,
    /// What becomes of those that they deny.
    pub mode: PolicyMode,
    /// As whom the policies of others know its IPv4 address.
    pub identity4: Identity,
    /// As whom the policies of others know its IPv6 address.
    pub identity6: Identity,
}

impl Endpoint {
    /// Whether an address is its own.
    #[inline(always)]
    pub fn has<A: IpAddress>(&self, address: A) -> bool {
        let own = if A::BITS == 32 { self.ipv4.words() } else { self.ipv6.words() };
        A::from_words(own) == address
    }

    /// As whom the policies of others know its address of a family.
    #[inline(always)]
    pub fn identity<A: IpAddress>(&self) -> Identity {
        if A::BITS == 32 { self.identity4 } else { self.identity6 }
    }
}

/// Slots that addresses share.
const ADDRESS_REVISIONS: u32 = MAX_REVISIONS / 2;

/// Index into `revisions`, the array of counters that end the validity of judgements.
///
/// | slots | whose |
/// |---|---|
/// | 0 | nobody: always 0 |
/// | 1 | routes and nodes: changes where packets leave the node |
/// | 8 + n | endpoint in slot n: its policies, its identities, its end |
/// | the upper half | identities of all other addresses, which share these slots by a hash |
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

    /// The revision of an address that is no endpoint's: as whom policies know it.
    #[inline(always)]
    pub fn of_address<A: IpAddress>(address: A) -> Self {
        let [a, b, c, d] = address.words();
        let mixed = a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d.rotate_left(24);
        // Fibonacci hashing: the highest bits depend on all others.
        let hash = mixed.wrapping_mul(0x9e37_79b1) >> (u32::BITS - ADDRESS_REVISIONS.ilog2());
        Self(MAX_REVISIONS - ADDRESS_REVISIONS + hash)
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

const _: () = assert!(size_of::<Mac>() == 8 && size_of::<Endpoint>() == 48 && size_of::<Stamp>() == 8);

#[cfg(test)]
mod tests {
    use super::{ADDRESS_REVISIONS, Endpoint, Mac, RevisionSlot, Slot};
    use crate::ip::{IpAddress, Ipv4, Ipv6};
    use crate::{MAX_ENDPOINTS, MAX_REVISIONS};

    #[test]
    fn an_endpoint_is_found_by_its_revision() {
        assert_eq!(RevisionSlot::of_endpoint(Slot(7)).endpoint(), Some(Slot(7)));
        assert_eq!(RevisionSlot::ROUTES.endpoint(), None);
        assert_eq!(RevisionSlot(60_000).endpoint(), None);
    }

    #[test]
    fn addresses_share_slots_that_no_endpoint_has_and_spread_over_them() {
        let mut taken = [false; ADDRESS_REVISIONS as usize];
        let first = MAX_REVISIONS - ADDRESS_REVISIONS;
        assert!(RevisionSlot::of_endpoint(Slot(MAX_ENDPOINTS)).0 < first);
        for host in 0..ADDRESS_REVISIONS {
            let slot = RevisionSlot::of_address(Ipv4((0x0a00_0000 + host).to_be()));
            taken[(slot.0 - first) as usize] = true;
            let slot = RevisionSlot::of_address(Ipv6([0xfd00_0010_u32.to_be(), 0, 0, host.to_be()]));
            assert!((first..MAX_REVISIONS).contains(&slot.0));
        }
        // As many as chance would take, or more.
        assert!(taken.iter().filter(|taken| **taken).count() > ADDRESS_REVISIONS as usize / 2);
    }

    #[test]
    fn an_endpoint_knows_its_addresses() {
        let endpoint = Endpoint { ipv4: Ipv4(7), ipv6: Ipv6([1, 2, 3, 4]), ..Endpoint::default() };
        assert!(endpoint.has(Ipv4(7)) && !endpoint.has(Ipv4(8)));
        assert!(endpoint.has(Ipv6([1, 2, 3, 4])) && !endpoint.has(Ipv6::from_words([1, 2, 3, 5])));
    }

    #[test]
    fn a_mac_keeps_its_octets_and_the_gateway_is_local_unicast() {
        assert_eq!(Mac::new(Mac::GATEWAY).octets(), Mac::GATEWAY);
        assert_eq!(Mac::GATEWAY[0] & 0b11, 0b10);
    }
}
