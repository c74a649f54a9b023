//! Addresses, ports and protocols as they stand in packets.

/// An IP address of one family: what the datapath is generic over.
pub trait IpAddress: Copy + Eq + core::hash::Hash + core::fmt::Debug + Default + 'static {
    /// Length of an address in bits.
    const BITS: u32;
    /// The EtherType of packets of this family, host order.
    const ETHERTYPE: u16;
    /// What fills a [`Flow`](crate::Flow) or a [`SocketKey`](crate::SocketKey) of this family up to a multiple of 8 bytes.
    type Tail: Copy + Eq + core::fmt::Debug + Default;
    /// The address as 32-bit words in network byte order; an IPv4 address is word 0, the others are 0.
    fn words(self) -> [u32; 4];
    /// The inverse of [`words`](IpAddress::words).
    fn from_words(words: [u32; 4]) -> Self;
    /// Neither assigned to anyone: `0.0.0.0` or `::`.
    fn is_unspecified(self) -> bool;
    /// Multicast, or the IPv4 limited broadcast.
    fn is_multicast(self) -> bool;
    /// `169.254.0.0/16` or `fe80::/10`.
    fn is_link_local(self) -> bool;
    /// `127.0.0.0/8` or `::1`.
    fn is_loopback(self) -> bool;
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ipv4(pub u32);

/// An IPv6 address: 32-bit words in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ipv6(pub [u32; 4]);

/// A TCP, UDP or SCTP port or an ICMP echo identifier, in network byte order; 0 where the protocol has none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Port(pub u16);

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers"), widened so that keys have no padding.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Protocol(pub u32);

impl Port {
    /// From host byte order.
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// In host byte order.
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IPv4 in IP.
    pub const IPIP: Self = Self(4);
    /// IPv6 in IP.
    pub const IPV6: Self = Self(41);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// ICMP of either family.
    pub const fn is_icmp(self) -> bool {
        self.0 == Self::ICMP.0 || self.0 == Self::ICMPV6.0
    }
}

impl IpAddress for Ipv4 {
    const BITS: u32 = 32;
    const ETHERTYPE: u16 = 0x0800;
    type Tail = [u32; 0];

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [self.0, 0, 0, 0]
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words[0])
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        self.0 & 0xf000_0000_u32.to_be() == 0xe000_0000_u32.to_be() || self.0 == u32::MAX
    }

    #[inline(always)]
    fn is_link_local(self) -> bool {
        self.0 & 0xffff_0000_u32.to_be() == 0xa9fe_0000_u32.to_be()
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0 & 0xff00_0000_u32.to_be() == 0x7f00_0000_u32.to_be()
    }
}

impl IpAddress for Ipv6 {
    const BITS: u32 = 128;
    const ETHERTYPE: u16 = 0x86dd;
    type Tail = [u32; 1];

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        self.0
    }

    #[inline(always)]
    fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    #[inline(always)]
    fn is_unspecified(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    #[inline(always)]
    fn is_multicast(self) -> bool {
        self.0[0] & 0xff00_0000_u32.to_be() == 0xff00_0000_u32.to_be()
    }

    #[inline(always)]
    fn is_link_local(self) -> bool {
        self.0[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be()
    }

    #[inline(always)]
    fn is_loopback(self) -> bool {
        self.0[0] | self.0[1] | self.0[2] == 0 && self.0[3] == 1_u32.to_be()
    }
}

impl From<core::net::Ipv4Addr> for Ipv4 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<Ipv4> for core::net::Ipv4Addr {
    fn from(address: Ipv4) -> Self {
        address.0.to_ne_bytes().into()
    }
}

impl From<core::net::Ipv6Addr> for Ipv6 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        let bytes = address.octets();
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Ipv6> for core::net::Ipv6Addr {
    fn from(address: Ipv6) -> Self {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(address.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn addresses_keep_their_octets() {
        let v4 = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(Ipv4Addr::from(Ipv4::from(v4)), v4);
        let v6: Ipv6Addr = "fd00:1:2::3".parse().expect("an address");
        assert_eq!(Ipv6Addr::from(Ipv6::from(v6)), v6);
    }

    #[test]
    fn classes_of_addresses() {
        let v4 = |text: &str| Ipv4::from(text.parse::<Ipv4Addr>().expect("an address"));
        let v6 = |text: &str| Ipv6::from(text.parse::<Ipv6Addr>().expect("an address"));
        assert!(v4("224.0.0.1").is_multicast() && v4("255.255.255.255").is_multicast());
        assert!(!v4("223.255.255.255").is_multicast() && !v4("240.0.0.1").is_multicast());
        assert!(v4("169.254.1.1").is_link_local() && !v4("169.253.1.1").is_link_local());
        assert!(v6("ff02::1").is_multicast() && !v6("fe80::1").is_multicast());
        assert!(v6("fe80::1").is_link_local() && v6("febf::1").is_link_local() && !v6("fec0::1").is_link_local());
        assert!(v6("::").is_unspecified() && v4("0.0.0.0").is_unspecified());
        assert!(v4("127.255.0.1").is_loopback() && !v4("128.0.0.1").is_loopback());
        assert!(v6("::1").is_loopback() && !v6("::").is_loopback() && !v6("1::1").is_loopback());
    }
}
