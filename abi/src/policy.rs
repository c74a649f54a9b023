//! What policies say: identities, and the longest-prefix table of rules.

use crate::endpoint::Slot;
use crate::ip::{IpAddress, Ipv6, Port, Protocol};

/// The compiled policy of one or more pods: a number, below two bits that say which directions it rules.
///
/// In a direction that it does not rule everything is allowed, without a lookup. In one that it does, what it has no rule
/// for is denied: so nothing gets past a policy whose rules are just being removed.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RuleSetId(pub u32);

impl RuleSetId {
    /// No policy: everything is allowed. Has no entries.
    pub const OPEN: Self = Self::new(0, [false; 2]);
    /// Of pods whose policy does not fit or is not known: everything is denied. Has no entries.
    pub const CLOSED: Self = Self::new(0, [true; 2]);
    /// The greatest number.
    pub const MAX_NUMBER: u32 = u32::MAX >> 2;

    /// With a number, from 1 on where entries are written for it, and with the directions that it rules.
    pub const fn new(number: u32, [ingress, egress]: [bool; 2]) -> Self {
        let [ingress, egress] =
            [ingress as u32 * Self::bit(PolicyDirection::Ingress), egress as u32 * Self::bit(PolicyDirection::Egress)];
        Self(ingress | egress | number & Self::MAX_NUMBER)
    }

    /// Whether it has to be asked about flows in this direction.
    #[inline(always)]
    pub const fn rules(self, direction: PolicyDirection) -> bool {
        self.0 & Self::bit(direction) != 0
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0 & Self::MAX_NUMBER
    }

    const fn bit(direction: PolicyDirection) -> u32 {
        match direction {
            PolicyDirection::Ingress => 1 << 31,
            PolicyDirection::Egress => 1 << 30,
        }
    }
}

/// A number for a set of addresses that all policies in force on this node treat alike.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Identity(pub u32);

impl Identity {
    /// Nobody in particular; its rules hold for everybody that a rule set has no other rules for.
    pub const ANYONE: Self = Self(0);
    /// The greatest: in keys, one bit is needed for the direction.
    pub const MAX: Self = Self(u32::MAX >> 1);
}

/// The direction of a flow as the pod sees it whose policy is asked.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PolicyDirection {
    /// To the pod.
    Ingress = 0,
    /// From the pod.
    Egress = 1,
}

impl PolicyDirection {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// Its name, as metrics and tools show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Key of the longest-prefix trie of rules, as the kernel lays it out (`struct bpf_lpm_trie_key`).
///
/// The trie compares bits in the order in which they lie in memory, so all fields but the length are big-endian: rule
/// set (32 bits), direction (1), identity (31), protocol (8), port (16), and 8 bits that never count.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleKey {
    /// Number of bits after this field that count, host order; the others are 0.
    pub length: u32,
    /// The [`RuleSetId`], big-endian.
    pub rule_set: u32,
    /// The [`PolicyDirection`] in the highest bit and the [`Identity`] in the others, big-endian.
    pub peer: u32,
    /// The [`Protocol`] in the highest 8 bits and the destination port in the next 16, big-endian.
    pub traffic: u32,
}

impl RuleKey {
    /// Length of keys for any protocol.
    pub const ANY_PROTOCOL: u32 = 64;
    /// Length of keys for a protocol and any port.
    pub const ANY_PORT: u32 = 72;
    /// Length of keys for one port. For 2^n ports it is n less.
    pub const ONE_PORT: u32 = 88;

    /// The key that asks for a port of a protocol; of protocols without ports the port does not matter.
    #[inline(always)]
    pub const fn new(
        rule_set: RuleSetId,
        direction: PolicyDirection,
        identity: Identity,
        protocol: Protocol,
        port: Port,
    ) -> Self {
        Self {
            length: Self::ONE_PORT,
            rule_set: rule_set.0.to_be(),
            peer: ((direction as u32) << 31 | identity.0).to_be(),
            traffic: (protocol.0 << 24 | (port.get() as u32) << 8).to_be(),
        }
    }

    /// The same with another identity.
    #[inline(always)]
    pub const fn of(self, identity: Identity) -> Self {
        Self { peer: (u32::from_be(self.peer) & !Identity::MAX.0 | identity.0).to_be(), ..self }
    }

    /// The first `length` bits of this key; at least [`ANY_PROTOCOL`](Self::ANY_PROTOCOL) of them, at most
    /// [`ONE_PORT`](Self::ONE_PORT).
    #[inline(always)]
    pub const fn prefix(self, length: u32) -> Self {
        let kept = length - Self::ANY_PROTOCOL;
        let mask = !(u32::MAX >> kept);
        Self { length, traffic: (u32::from_be(self.traffic) & mask).to_be(), ..self }
    }

    /// All but its length.
    #[inline(always)]
    pub const fn path(self) -> RulePath {
        RulePath { rule_set: self.rule_set, peer: self.peer, traffic: self.traffic }
    }

    /// Of a length and the rest.
    pub const fn of_path(length: u32, path: RulePath) -> Self {
        Self { length, rule_set: path.rule_set, peer: path.peer, traffic: path.traffic }
    }

    /// Whose rule it is.
    pub const fn rule_set(self) -> RuleSetId {
        RuleSetId(u32::from_be(self.rule_set))
    }

    /// For which direction it is.
    pub const fn direction(self) -> PolicyDirection {
        match u32::from_be(self.peer) >> 31 {
            0 => PolicyDirection::Ingress,
            _ => PolicyDirection::Egress,
        }
    }

    /// Whom it is about.
    pub const fn identity(self) -> Identity {
        Identity(u32::from_be(self.peer) & Identity::MAX.0)
    }
}

/// What a rule is found by: the part of a [`RuleKey`] that its length counts.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RulePath {
    /// As [`RuleKey::rule_set`].
    pub rule_set: u32,
    /// As [`RuleKey::peer`].
    pub peer: u32,
    /// As [`RuleKey::traffic`].
    pub traffic: u32,
}

/// What a rule says.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RuleVerdict {
    /// May pass.
    Allow = 0,
    /// Must not.
    Deny = 1,
    /// Must not, because nothing allows it to a pod that is isolated; which a pod never is from its own node.
    Isolate = 2,
}

/// Value of the longest-prefix trie of rules.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rule {
    /// What it says.
    pub verdict: RuleVerdict,
    /// Which policy says so, or the lack of one: a number that the agent knows the meaning of; 0: no policy applies.
    pub policy: u32,
}

/// What becomes of flows that policies deny.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum PolicyMode {
    /// They are dropped.
    #[default]
    Enforce = 0,
    /// They pass, and it is written down.
    Audit = 1,
}

/// Key of `denials`: what was denied to whom, and why.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DenialKey {
    /// The pod whose policies were asked.
    pub endpoint: Slot,
    /// What they say: as [`Rule::policy`]; 0: none that could be named.
    pub policy: u32,
    /// The direction that they were asked about.
    pub direction: PolicyDirection,
    /// What became of it.
    pub mode: PolicyMode,
    /// The other end; an IPv4 address as an IPv4-mapped one (RFC 4291 section 2.5.5.2).
    pub peer: Ipv6,
    /// What was sent.
    pub protocol: Protocol,
    /// What it was sent to; 0 where the protocol has no ports.
    pub port: Port,
    /// Always 0.
    pub pad: u16,
}

impl DenialKey {
    /// An address as the key has it.
    #[inline(always)]
    pub fn peer<A: IpAddress>(address: A) -> Ipv6 {
        let words = address.words();
        Ipv6(if A::BITS == 32 { [0, 0, 0xffff_u32.to_be(), words[0]] } else { words })
    }
}

/// Value of `denials`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Denial {
    /// Packets. Kept without atomic operations: packets that several CPUs drop at once may be counted as fewer.
    pub packets: u64,
    /// Time of the last one, in jiffies (low 32 bits).
    pub last_seen: u32,
    /// Always 0.
    pub pad: u32,
}

const _: () = assert!(size_of::<RuleKey>() == 16 && align_of::<RuleKey>() == 4 && size_of::<Rule>() == 8);
const _: () = assert!(size_of::<RuleKey>() == size_of::<u32>() + size_of::<RulePath>());
const _: () = assert!(size_of::<DenialKey>() == 40 && size_of::<Denial>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RuleKey = RuleKey::new(
        RuleSetId(0x0102_0304),
        PolicyDirection::Egress,
        Identity(0x0506_0708),
        Protocol::TCP,
        Port::new(0x1234),
    );

    #[test]
    fn rule_sets_know_which_directions_they_rule() {
        use PolicyDirection::{Egress, Ingress};
        let ruled = |id: RuleSetId| [id.rules(Ingress), id.rules(Egress)];
        assert_eq!((ruled(RuleSetId::OPEN), ruled(RuleSetId::CLOSED)), ([false; 2], [true; 2]));
        for rules in [[false, false], [true, false], [false, true], [true, true]] {
            let id = RuleSetId::new(RuleSetId::MAX_NUMBER, rules);
            assert_eq!((ruled(id), id.number()), (rules, RuleSetId::MAX_NUMBER));
            assert_ne!(RuleSetId::new(1, rules), RuleSetId::new(0, rules));
        }
    }

    #[test]
    fn bits_lie_in_the_order_in_which_the_trie_compares_them() {
        let bytes: [[u8; 4]; 3] = [KEY.rule_set, KEY.peer, KEY.traffic].map(u32::to_ne_bytes);
        assert_eq!(bytes, [[1, 2, 3, 4], [0x85, 6, 7, 8], [6, 0x12, 0x34, 0]]);
        assert_eq!((KEY.rule_set(), KEY.identity()), (RuleSetId(0x0102_0304), Identity(0x0506_0708)));
        assert_eq!(KEY.direction(), PolicyDirection::Egress);
    }

    #[test]
    fn prefixes_keep_what_counts() {
        assert_eq!(KEY.prefix(RuleKey::ONE_PORT), KEY);
        assert_eq!(KEY.prefix(RuleKey::ANY_PORT).traffic.to_ne_bytes(), [6, 0, 0, 0]);
        assert_eq!(KEY.prefix(RuleKey::ANY_PROTOCOL).traffic, 0);
        assert_eq!(KEY.prefix(80).traffic.to_ne_bytes(), [6, 0x12, 0, 0]);
        assert_eq!(RuleKey::of_path(KEY.length, KEY.path()), KEY);
        assert_eq!(KEY.of(Identity::ANYONE).peer.to_ne_bytes(), [0x80, 0, 0, 0]);
    }
}
