//! From bytes to headers.

use sluice_abi::{IpAddress, Ipv4, Ipv6, Port, Protocol, Reason};

use crate::packet::{Packet, View};

/// Length of an Ethernet header, bytes.
pub const ETHERNET: usize = 14;
/// EtherType of ARP, host order.
pub const ARP: u16 = 0x0806;

/// Most IPv6 extension headers, or IPv4 options, that are followed.
const MAX_EXTENSIONS: usize = 8;
/// Where headers must end: bounds what the verifier has to follow.
const MAX_OFFSET: usize = 512;

/// Bits of the TCP flags octet (RFC 9293 section 3.1).
pub mod tcp {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// What part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header.
    First,
    /// Another fragment, without.
    Later,
}

/// What kind of message the transport header announces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// One that belongs to the flow of its own addresses and ports.
    Plain,
    /// An ICMP error about a packet that it quotes.
    IcmpError,
    /// A message between neighbours: IPv6 neighbour discovery (RFC 4861), IPv4 redirects and router discovery (RFC 1256).
    Neighbour,
}

/// The headers of an IP packet, as far as the datapath cares.
///
/// Every field is always written: before Linux 6.3 the verifier lets no copy read what nothing wrote, such as the payload of
/// another variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; of ICMP, the identifier of a request. Of a later fragment: 0.
    pub source_port: Port,
    /// Destination port; of ICMP, the identifier of a reply. Of a later fragment: 0.
    pub destination_port: Port,
    /// Protocol behind all extension headers.
    pub protocol: Protocol,
    /// Where the network header starts, bytes from the start of the packet.
    pub network: usize,
    /// Where the transport header starts, bytes from the start of the packet.
    pub transport: usize,
    /// Bytes from the network header on.
    pub length: u32,
    /// Of a fragment, the identification of its datagram, network byte order; else 0.
    pub id: u32,
    /// Whether and how it is a fragment.
    pub piece: Piece,
    /// Whose flow it belongs to.
    pub message: Message,
    /// ICMP type; of other protocols 0.
    pub icmp_type: u8,
    /// TCP flags; of SCTP, the flags that say the same. Else 0.
    pub flags: u8,
}

/// The EtherType of a packet, host order.
///
/// # Errors
/// [`Reason::Truncated`] where there is no Ethernet header.
#[inline(always)]
pub fn ether_type<P: Packet>(packet: &P) -> Result<u16, Reason> {
    let ethernet = packet.view::<ETHERNET>(0).ok_or(Reason::Truncated)?;
    Ok(u16::from_be(ethernet.half::<12>()))
}

/// An address family whose headers can be parsed.
pub trait Parse: IpAddress {
    /// ICMP of this family.
    const ICMP: Protocol;
    /// Where a pseudo header is part of ICMP's checksum.
    const ICMP_PSEUDO: bool;
    /// What is wrapped up in another header of this family.
    const WRAPPED: Protocol;
    /// Shortest network header, bytes.
    const HEADER: usize;

    /// Parses the network header at `network` without a look at the packet's length: as the packets quoted in ICMP
    /// errors are cut off. Gives everything but ports, message and flags.
    ///
    /// # Errors
    /// Why the packet must be dropped.
    fn network<P: Packet>(packet: &P, network: usize) -> Result<(Headers<Self>, u32), Reason>;

    /// Refuses what a network header may say beside its fixed part, where only the packet's own header is to be held
    /// to it, and not a quoted one.
    ///
    /// # Errors
    /// Why the packet must be dropped.
    fn options<P: Packet>(packet: &P, headers: &Headers<Self>) -> Result<(), Reason>;

    /// As [`network`](Parse::network) at [`ETHERNET`], for headers of the shortest length only.
    fn plain<P: Packet>(packet: &P) -> Option<(Headers<Self>, u32)>;

    /// What an ICMP type of this family means.
    fn icmp(kind: u8) -> Icmp;
}

/// What an ICMP type means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Icmp {
    /// A request with an identifier.
    Request,
    /// A reply with an identifier.
    Reply,
    /// An error that quotes a packet.
    Error,
    /// Neighbour discovery.
    Neighbour,
    /// Something else.
    Other,
}

/// Parses the packet of a hook: network header at [`ETHERNET`].
///
/// # Errors
/// Why the packet must be dropped.
#[inline(always)]
pub fn packet<A: Parse, P: Packet>(packet: &P, headers: &mut Headers<A>) -> Result<(), Reason> {
    let (parsed, claimed) = A::network(packet, ETHERNET)?;
    *headers = parsed;
    A::options(packet, headers)?;
    let real = packet.length().wrapping_sub(ETHERNET as u32);
    // Large packets may claim no length at all (RFC 2675; "BIG TCP", kernel 6.3 for IPv4).
    if !packet.is_segmented() && claimed > real {
        return Err(Reason::Truncated);
    }
    headers.length = if packet.is_segmented() { real } else { claimed };
    transport(packet, headers)
}

/// As [`packet`], but gives up on whatever is not plain: options, extension headers, fragments, broken packets.
#[inline(always)]
pub fn plain<A: Parse, P: Packet>(packet: &P) -> Option<Headers<A>> {
    let (mut headers, claimed) = A::plain(packet)?;
    let real = packet.length().wrapping_sub(ETHERNET as u32);
    if !packet.is_segmented() && claimed > real {
        return None;
    }
    headers.length = if packet.is_segmented() { real } else { claimed };
    transport(packet, &mut headers).ok()?;
    Some(headers)
}

/// Adds what the transport header says.
#[inline(always)]
fn transport<A: Parse, P: Packet>(packet: &P, headers: &mut Headers<A>) -> Result<(), Reason> {
    let at = headers.transport;
    let needed = match headers.protocol {
        _ if headers.piece == Piece::Later => 0,
        Protocol::TCP => 20,
        Protocol::UDP => 8,
        Protocol::SCTP => 13,
        protocol if protocol == A::ICMP => 8,
        _ => 0,
    };
    // What follows the packet in its frame is no part of it.
    if at + needed > headers.network + headers.length as usize {
        return Err(Reason::Truncated);
    }
    if headers.piece == Piece::Later {
        return Ok(());
    }
    if headers.protocol == Protocol::TCP {
        let tcp = packet.view::<20>(at).ok_or(Reason::Truncated)?;
        headers.source_port = Port(tcp.half::<0>());
        headers.destination_port = Port(tcp.half::<2>());
        headers.flags = tcp.byte::<13>();
    } else if headers.protocol == Protocol::UDP {
        let udp = packet.view::<8>(at).ok_or(Reason::Truncated)?;
        headers.source_port = Port(udp.half::<0>());
        headers.destination_port = Port(udp.half::<2>());
    } else if headers.protocol == Protocol::SCTP {
        let sctp = packet.view::<13>(at).ok_or(Reason::Truncated)?;
        headers.source_port = Port(sctp.half::<0>());
        headers.destination_port = Port(sctp.half::<2>());
        headers.flags = sctp_flags(sctp.byte::<12>());
    } else if headers.protocol == A::ICMP {
        let icmp = packet.view::<8>(at).ok_or(Reason::Truncated)?;
        headers.icmp_type = icmp.byte::<0>();
        match A::icmp(headers.icmp_type) {
            Icmp::Request => headers.source_port = Port(icmp.half::<4>()),
            Icmp::Reply => headers.destination_port = Port(icmp.half::<4>()),
            Icmp::Error => headers.message = Message::IcmpError,
            Icmp::Neighbour => headers.message = Message::Neighbour,
            Icmp::Other => {}
        }
    }
    Ok(())
}

/// Says what an SCTP chunk does in terms of TCP (RFC 9260 section 3.2).
#[inline(always)]
fn sctp_flags(chunk: u8) -> u8 {
    match chunk {
        1 => tcp::SYN,
        6 => tcp::RST,
        // SHUTDOWN, its acknowledgement from the other side, and SHUTDOWN COMPLETE.
        7 | 8 | 14 => tcp::FIN,
        _ => tcp::ACK,
    }
}

/// Parses a packet that an ICMP error quotes, at `network`: addresses and ports only.
///
/// # Errors
/// Why it cannot be recognized.
#[inline(always)]
pub fn quoted<A: Parse, P: Packet>(packet: &P, network: usize, headers: &mut Headers<A>) -> Result<(), Reason> {
    let (parsed, _) = A::network(packet, network)?;
    *headers = parsed;
    if headers.piece == Piece::Later {
        return Err(Reason::UnrelatedIcmp);
    }
    // Eight bytes of transport header are all that an error must quote (RFC 792, RFC 1812 section 4.3.2.3).
    let start = packet.view::<8>(headers.transport).ok_or(Reason::Truncated)?;
    if headers.protocol == A::ICMP {
        match A::icmp(start.byte::<0>()) {
            Icmp::Request => headers.source_port = Port(start.half::<4>()),
            Icmp::Reply => headers.destination_port = Port(start.half::<4>()),
            // No error is ever sent about an error (RFC 1122 section 3.2.2).
            Icmp::Error | Icmp::Neighbour => return Err(Reason::UnrelatedIcmp),
            Icmp::Other => {}
        }
    } else if headers.protocol == Protocol::TCP
        || headers.protocol == Protocol::UDP
        || headers.protocol == Protocol::SCTP
    {
        headers.source_port = Port(start.half::<0>());
        headers.destination_port = Port(start.half::<2>());
    }
    Ok(())
}

impl Parse for Ipv4 {
    const ICMP: Protocol = Protocol::ICMP;
    const ICMP_PSEUDO: bool = false;
    const WRAPPED: Protocol = Protocol::IPIP;
    const HEADER: usize = 20;

    /// RFC 791 section 3.1.
    #[inline(always)]
    fn network<P: Packet>(packet: &P, network: usize) -> Result<(Headers<Self>, u32), Reason> {
        ipv4_header(packet, network)
    }

    #[inline(always)]
    fn options<P: Packet>(packet: &P, headers: &Headers<Self>) -> Result<(), Reason> {
        let start = headers.network + Self::HEADER;
        refuse_source_route(packet, start, headers.transport - start)
    }

    #[inline(always)]
    fn plain<P: Packet>(packet: &P) -> Option<(Headers<Self>, u32)> {
        let ip = packet.view::<20>(ETHERNET)?;
        if ip.byte::<0>() != 0x45 {
            return None;
        }
        let (mut headers, length) = ipv4_header(packet, ETHERNET).ok()?;
        headers.transport = ETHERNET + Self::HEADER;
        Some((headers, length))
    }

    /// RFC 792, RFC 950.
    #[inline(always)]
    fn icmp(kind: u8) -> Icmp {
        match kind {
            8 | 13 | 15 | 17 => Icmp::Request,
            0 | 14 | 16 | 18 => Icmp::Reply,
            3 | 4 | 11 | 12 => Icmp::Error,
            // Redirect, router advertisement and solicitation (RFC 1256).
            5 | 9 | 10 => Icmp::Neighbour,
            _ => Icmp::Other,
        }
    }
}

/// The fixed part of an IPv4 header (RFC 791 section 3.1).
#[inline(always)]
fn ipv4_header<P: Packet>(packet: &P, network: usize) -> Result<(Headers<Ipv4>, u32), Reason> {
    let ip = packet.view::<20>(network).ok_or(Reason::Truncated)?;
    let first = ip.byte::<0>();
    if first >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    let header = usize::from(first & 0xf) * 4;
    let length = u32::from(u16::from_be(ip.half::<2>()));
    if header < 20 || (length < header as u32 && length != 0) {
        return Err(Reason::Malformed);
    }
    let id = u32::from(ip.half::<4>());
    let fragment = u16::from_be(ip.half::<6>());
    let piece = match (fragment & 0x1fff, fragment & 0x2000 != 0) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    };
    let headers = Headers {
        source: Ipv4(ip.word::<12>()),
        destination: Ipv4(ip.word::<16>()),
        source_port: Port(0),
        destination_port: Port(0),
        protocol: Protocol(u32::from(ip.byte::<9>())),
        network,
        transport: network + header,
        length,
        id,
        piece,
        message: Message::Plain,
        icmp_type: 0,
        flags: 0,
    };
    Ok((headers, length))
}

/// Walks IPv4 options (RFC 791 section 3.1) in search of a source route.
#[inline(always)]
fn refuse_source_route<P: Packet>(packet: &P, start: usize, length: usize) -> Result<(), Reason> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    let mut at = 0;
    for _ in 0..MAX_EXTENSIONS {
        if at >= length {
            return Ok(());
        }
        let kind = packet.view::<1>(start + at).ok_or(Reason::Truncated)?.byte::<0>();
        match kind {
            END => return Ok(()),
            NOTHING => at += 1,
            LOOSE_ROUTE | STRICT_ROUTE => return Err(Reason::SourceRouted),
            _ => {
                let size = usize::from(packet.view::<2>(start + at).ok_or(Reason::Truncated)?.byte::<1>());
                if size < 2 || size > length {
                    return Err(Reason::Malformed);
                }
                at += size;
            }
        }
    }
    if at >= length { Ok(()) } else { Err(Reason::TooManyHeaders) }
}

impl Parse for Ipv6 {
    const ICMP: Protocol = Protocol::ICMPV6;
    const ICMP_PSEUDO: bool = true;
    const WRAPPED: Protocol = Protocol::IPV6;
    const HEADER: usize = 40;

    /// RFC 8200 sections 3 and 4.
    #[inline(always)]
    fn network<P: Packet>(packet: &P, network: usize) -> Result<(Headers<Self>, u32), Reason> {
        let (mut headers, length) = ipv6_header(packet, network)?;
        extensions(packet, &mut headers)?;
        Ok((headers, length))
    }

    /// Extension headers are looked at on the way to the transport header.
    #[inline(always)]
    fn options<P: Packet>(_: &P, _: &Headers<Self>) -> Result<(), Reason> {
        Ok(())
    }

    #[inline(always)]
    fn plain<P: Packet>(packet: &P) -> Option<(Headers<Self>, u32)> {
        let (headers, length) = ipv6_header(packet, ETHERNET).ok()?;
        let next = headers.protocol;
        let plain = next == Protocol::TCP || next == Protocol::UDP || next == Protocol::ICMPV6;
        plain.then_some((headers, length))
    }

    /// RFC 4443, RFC 4861.
    #[inline(always)]
    fn icmp(kind: u8) -> Icmp {
        match kind {
            128 => Icmp::Request,
            129 => Icmp::Reply,
            0..=127 => Icmp::Error,
            133..=137 => Icmp::Neighbour,
            _ => Icmp::Other,
        }
    }
}

/// The fixed header of IPv6 (RFC 8200 section 3).
#[inline(always)]
fn ipv6_header<P: Packet>(packet: &P, network: usize) -> Result<(Headers<Ipv6>, u32), Reason> {
    let ip = packet.view::<40>(network).ok_or(Reason::Truncated)?;
    if ip.byte::<0>() >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let length = u32::from(u16::from_be(ip.half::<4>())) + 40;
    let headers = Headers {
        source: Ipv6([ip.word::<8>(), ip.word::<12>(), ip.word::<16>(), ip.word::<20>()]),
        destination: Ipv6([ip.word::<24>(), ip.word::<28>(), ip.word::<32>(), ip.word::<36>()]),
        source_port: Port(0),
        destination_port: Port(0),
        protocol: Protocol(u32::from(ip.byte::<6>())),
        network,
        transport: network + 40,
        length,
        id: 0,
        piece: Piece::Whole,
        message: Message::Plain,
        icmp_type: 0,
        flags: 0,
    };
    Ok((headers, length))
}

/// Follows IPv6 extension headers up to the transport header (RFC 8200 section 4).
#[inline(always)]
fn extensions<P: Packet>(packet: &P, headers: &mut Headers<Ipv6>) -> Result<(), Reason> {
    const HOP_BY_HOP: u32 = 0;
    const ROUTING: u32 = 43;
    const FRAGMENT: u32 = 44;
    const DESTINATION: u32 = 60;
    const MOBILITY: u32 = 135;
    const HIP: u32 = 139;
    const SHIM6: u32 = 140;
    for _ in 0..MAX_EXTENSIONS {
        let kind = headers.protocol.0;
        match kind {
            HOP_BY_HOP | DESTINATION | MOBILITY | HIP | SHIM6 | ROUTING | FRAGMENT => {}
            _ => return Ok(()),
        }
        let extension = packet.view::<8>(headers.transport).ok_or(Reason::Truncated)?;
        headers.protocol = Protocol(u32::from(extension.byte::<0>()));
        if kind == FRAGMENT {
            let place = u16::from_be(extension.half::<2>());
            headers.id = extension.word::<4>();
            headers.transport += 8;
            if place & !0x7 != 0 {
                headers.piece = Piece::Later;
                return Ok(());
            }
            // A fragment of one piece is whole (RFC 6946).
            if place & 0x1 != 0 {
                headers.piece = Piece::First;
            }
        } else {
            // Whatever its type: a packet that still has somewhere else to go (RFC 5095).
            if kind == ROUTING && extension.byte::<3>() != 0 {
                return Err(Reason::SourceRouted);
            }
            headers.transport += (usize::from(extension.byte::<1>()) + 1) * 8;
        }
        if headers.transport > MAX_OFFSET {
            return Err(Reason::TooManyHeaders);
        }
    }
    Err(Reason::TooManyHeaders)
}
