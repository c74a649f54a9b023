//! Translation of addresses and ports, with the checksums that cover them.

use sluice_abi::{Mac, Port, Protocol, Reason, Rewrites};

use crate::flows::Action;
use crate::packet::{Checksum, Packet};
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
        // SCTP's checksum covers neither addresses nor can it be corrected: its ports are never translated.
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
