//! Why packets were dropped, and other things worth counting.

/// A place where packets meet a program.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// What a pod sends.
    FromPod = 0,
    /// What the node's own stack sends to a pod.
    ToPod = 1,
    /// What comes in through an uplink.
    FromNet = 2,
    /// What leaves through an uplink.
    ToNet = 3,
    /// What comes in through the overlay.
    FromOverlay = 4,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a packet was dropped, or what else happened to it that is worth counting.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name = $number,)* }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name that metrics and tools show.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than its own headers say.
    Truncated = 0, "truncated";
    /// Neither IPv4, IPv6 nor ARP, or with a VLAN tag.
    UnknownEtherType = 1, "unknown_ethertype";
    /// A header that contradicts itself.
    Malformed = 2, "malformed";
    /// More IPv6 extension headers, or IPv4 options, than are followed.
    TooManyHeaders = 3, "too_many_headers";
    /// IPv6 routing header of type 0 (RFC 5095), or an IPv4 source route.
    SourceRouted = 4, "source_routed";
    /// A fragment whose first fragment was not seen.
    OrphanFragment = 5, "orphan_fragment";
    /// A pod used an address that is not its own.
    ForgedSource = 6, "forged_source";
    /// A pod used a link-layer address that is not its own.
    ForgedMac = 7, "forged_mac";
    /// A pod sent ARP for an address that is not its own.
    ForgedArp = 8, "forged_arp";
    /// A neighbour or router advertisement, a redirect or the like from or to whom it does not belong.
    ForgedNeighbour = 9, "forged_neighbour";
    /// Multicast and broadcast are not carried.
    Multicast = 10, "multicast";
    /// No pod has this address.
    NoEndpoint = 11, "no_endpoint";
    /// An ICMP error about a packet of no known flow.
    UnrelatedIcmp = 12, "unrelated_icmp";
    /// A packet for the address of a masqueraded flow that does not exist.
    NoFlow = 13, "no_flow";
    /// No address to masquerade with.
    NoMasqueradeAddress = 14, "no_masquerade_address";
    /// All source ports for masquerading to this destination are taken.
    PortsExhausted = 15, "ports_exhausted";
    /// The flow could not be written.
    FlowTableFull = 16, "flow_table_full";
    /// No way to the destination: its node is not known, or it is a loopback address.
    NoRoute = 17, "no_route";
    /// Came through the overlay from somebody who is not a node.
    UnknownTunnel = 18, "unknown_tunnel";
    /// Comes from outside, but claims to come from this node, one of its pods, one that the overlay reaches, or nobody.
    MartianSource = 19, "martian_source";
    /// Cannot be translated: a protocol with neither ports nor an echo identifier that already has a flow, or one whose
    /// checksum cannot be corrected.
    Untranslatable = 20, "untranslatable";
    /// Denied by policy.
    Policy = 21, "policy";
    /// The slow path is missing: the programs are being replaced or were not loaded whole.
    NoSlowPath = 22, "no_slow_path";
    /// The packet could not be changed.
    RewriteFailed = 23, "rewrite_failed";
    /// Not a drop: a flow was answered, but the table of established flows is full; it stays among the openings.
    NotEstablished = 24, "not_established";
    /// Not a drop: a flow was opened.
    Opened = 25, "opened";
    /// Not a drop: a flow was judged again.
    Rejudged = 26, "rejudged";
    /// A service without any backend: its client was told so.
    NoBackend = 27, "no_backend";
    /// A service without a backend here, whose clients may not be sent elsewhere.
    NoLocalBackend = 28, "no_local_backend";
    /// A client that a service's source ranges do not name.
    SourceRange = 29, "source_range";
    /// Too large to be wrapped up for the node that it is for, or that serves it: its sender was told the size.
    TooLarge = 30, "too_large";
}

/// Room for reasons in each hook's part of the counters.
const ROOM: u32 = 64;

/// Number of counters.
pub const COUNTERS: u32 = 5 * ROOM;

impl Reason {
    /// Where this reason is counted for `hook`.
    #[inline(always)]
    pub const fn index(self, hook: Hook) -> u32 {
        hook as u32 * ROOM + self as u32
    }

    /// Whether it says that a packet was dropped.
    pub const fn is_drop(self) -> bool {
        !matches!(self, Self::NotEstablished | Self::Opened | Self::Rejudged)
    }
}

impl Hook {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::FromPod, Self::ToPod, Self::FromNet, Self::ToNet, Self::FromOverlay];

    /// The hook of a number.
    #[inline(always)]
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::FromPod),
            1 => Some(Self::ToPod),
            2 => Some(Self::FromNet),
            3 => Some(Self::ToNet),
            4 => Some(Self::FromOverlay),
            _ => None,
        }
    }

    /// Name of the program at this hook.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromNet => "from_net",
            Self::ToNet => "to_net",
            Self::FromOverlay => "from_overlay",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_found_by_their_numbers() {
        for hook in Hook::ALL {
            assert_eq!(Hook::of(hook as u32), Some(hook));
        }
        assert_eq!(Hook::of(Hook::ALL.len() as u32), None);
    }

    #[test]
    fn reasons_are_numbered_without_gaps_and_fit() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        assert!(Reason::ALL.len() <= ROOM as usize);
    }
}
