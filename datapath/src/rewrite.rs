//! Translation of addresses and ports, with the checksums that cover them.

use sluice_abi::{Mac, Port, Protocol, Reason, Rewrites};

use crate::crc;
use crate::flows::Action;
use crate::packet::{Checksum, Packet, View};
use crate::parse::{Headers, Parse, Piece};

/// Where a transport checksum stands, and how it is kept.
#[derive(Clone, Copy)]
struct Sum {
    offset: usize,
    pseudo: bool,
    optional: bool,
}

/// Which end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// Where an address of a network header stands.
#[inline(always)]
pub const fn address_offset(bits: u32, network: usize, end: End) -> usize {
    match (bits, end) {
        (32, End::Source) => network + 12,
        (32, End::Destination) => network + 16,
        (_, End::Source) => network + 8,
        (_, End::Destination) => network + 24,
    }
}

/// Where a port, or the identifier of an ICMP echo, stands.
#[inline(always)]
pub fn port_offset(protocol: Protocol, transport: usize, end: End) -> usize {
    match end {
        _ if protocol.is_icmp() => transport + 4,
        End::Source => transport,
        End::Destination => transport + 2,
    }
}

#[inline(always)]
fn sum<A: Parse>(headers: &Headers<A>) -> Option<Sum> {
    if headers.piece == Piece::Later {
        return None;
    }
    let at = headers.transport;
    if headers.protocol == Protocol::TCP {
        Some(Sum { offset: at + 16, pseudo: true, optional: false })
    } else if headers.protocol == Protocol::UDP {
        Some(Sum { offset: at + 6, pseudo: true, optional: true })
    } else if headers.protocol == A::ICMP {
        Some(Sum { offset: at + 2, pseudo: A::ICMP_PSEUDO, optional: false })
    } else {
        // SCTP's checksum does not cover addresses; for ports, see `sctp`.
        None
    }
}

/// Replaces what the flow says is to be replaced.
///
/// # Errors
/// [`Reason::RewriteFailed`] where the packet cannot be changed.
#[inline(always)]
pub fn translate<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>, action: &Action<A>) -> Result<(), Reason> {
    if action.rewrites.has(Rewrites::SOURCE) {
        address(packet, headers, End::Source, headers.source, action.source)?;
        port(packet, headers, End::Source, headers.source_port, action.source_port)?;
    }
    if action.rewrites.has(Rewrites::DESTINATION) {
        address(packet, headers, End::Destination, headers.destination, action.destination)?;
        port(packet, headers, End::Destination, headers.destination_port, action.destination_port)?;
    }
    Ok(())
}

/// Replaces what the flow says is to be replaced, the ports of SCTP too.
///
/// # Errors
/// As [`translate`]; [`Reason::Untranslatable`] for a fragment, which says nothing of the whole packet's length.
#[inline(always)]
pub fn translate_any<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    action: &Action<A>,
) -> Result<(), Reason> {
    translate(packet, headers, action)?;
    if headers.protocol == Protocol::SCTP { sctp(packet, headers, action) } else { Ok(()) }
}

#[inline(always)]
fn sctp<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>, action: &Action<A>) -> Result<(), Reason> {
    let source = if action.rewrites.has(Rewrites::SOURCE) { action.source_port } else { headers.source_port };
    let destination =
        if action.rewrites.has(Rewrites::DESTINATION) { action.destination_port } else { headers.destination_port };
    let (from, to) = (ports(headers.source_port, headers.destination_port), ports(source, destination));
    if from == to || headers.piece == Piece::Later {
        return Ok(());
    }
    if headers.piece != Piece::Whole {
        return Err(Reason::Untranslatable);
    }
    let checksum = headers.transport + 8;
    let old = packet.view::<4>(checksum).ok_or(Reason::Truncated)?.word::<0>();
    // 0 stands where a device is to fill it in.
    let length = headers.length - (headers.transport - headers.network) as u32;
    let new = if old == 0 { 0 } else { old ^ crc::change(from, to, length as u16) };
    packet.store(checksum, new.to_ne_bytes())?;
    packet.store(headers.transport, to.to_ne_bytes())?;
    // It makes up for nothing in a sum of another kind.
    packet.fix_sum_of_all([from, old, 0, 0], [to, new, 0, 0]);
    Ok(())
}

/// Two ports as they stand in a packet.
#[inline(always)]
fn ports(source: Port, destination: Port) -> u32 {
    let ([a, b], [c, d]) = (source.0.to_ne_bytes(), destination.0.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Where the checksum of TCP and UDP stands, of which the pseudo header is a part.
#[inline(always)]
pub fn checksum_offset<A: Parse>(headers: &Headers<A>) -> Option<usize> {
    sum(headers).filter(|sum| sum.pseudo).map(|sum| sum.offset)
}

/// Writes a link-layer address at an offset.
///
/// # Errors
/// As [`translate`].
#[inline(always)]
pub fn mac<P: Packet>(packet: &mut P, at: usize, mac: Mac) -> Result<(), Reason> {
    packet.store(at, mac.high.to_ne_bytes())?;
    packet.store(at + 4, mac.low.to_ne_bytes())
}

/// Replaces an address of a packet.
///
/// # Errors
/// As [`translate`].
#[inline(always)]
pub fn address<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    end: End,
    old: A,
    new: A,
) -> Result<(), Reason> {
    let at = address_offset(A::BITS, headers.network, end);
    let (old, new) = (old.words(), new.words());
    let sum = sum(headers);
    let mut word = 0;
    while word < A::BITS as usize / 32 {
        if old[word] != new[word] {
            if A::BITS == 32 {
                packet.fix_header_checksum(headers.network + 10, old[word], new[word])?;
            }
            if let Some(sum) = sum
                && sum.pseudo
            {
                packet.fix_checksum(sum.offset, old[word], new[word], Checksum::Pseudo, sum.optional)?;
            }
            packet.store(at + 4 * word, new[word].to_ne_bytes())?;
        }
        word += 1;
    }
    if A::BITS == 128 {
        packet.fix_sum_of_all(old, new);
    }
    Ok(())
}

/// Replaces a port of a packet, where it is there and of a protocol whose ports can be translated.
#[inline(always)]
fn port<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    end: End,
    old: Port,
    new: Port,
) -> Result<(), Reason> {
    let Some(sum) = sum(headers) else { return Ok(()) };
    if old == new {
        return Ok(());
    }
    packet.fix_checksum(sum.offset, u32::from(old.0), u32::from(new.0), Checksum::Segment, sum.optional)?;
    packet.store(port_offset(headers.protocol, headers.transport, end), new.0.to_ne_bytes())
}
