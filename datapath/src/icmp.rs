//! ICMP errors (RFC 792, RFC 4443): they belong to the flow of the packet that they quote, and are translated with it.

use sluice_abi::{FlowKey, Reason, Rewrites, Scope};

use crate::desk::Desk;
use crate::flows::{self, Action};
use crate::packet::{Checksum, Packet};
use crate::parse::{self, Headers, Parse};
use crate::rewrite::{self, End};

/// Where in an ICMP error the quoted packet starts.
const QUOTE: usize = 8;

/// Finds the packet that an error quotes, and leaves the key of its flow in the case: of the answers to it where the
/// error came in from `scope`, and of itself where the node's own stack complains to the pod behind `complains_to`.
///
/// # Errors
/// Why it must be dropped.
#[inline(always)]
pub fn relate<A: Parse, P: Packet>(packet: &P, desk: &mut Desk<A>, complains_to: Option<u32>) -> Result<(), Reason> {
    let Desk { headers, quoted, case, scope, .. } = desk;
    parse::quoted::<A, P>(packet, headers.transport + QUOTE, quoted)?;
    // An error goes to the sender of the packet that caused it.
    if quoted.source != headers.destination {
        return Err(Reason::UnrelatedIcmp);
    }
    case.key = match complains_to {
        Some(interface) => flows::key(Scope::pod(interface), quoted),
        None => FlowKey {
            scope: *scope,
            source: quoted.destination,
            destination: quoted.source,
            source_port: quoted.destination_port,
            destination_port: quoted.source_port,
            protocol: quoted.protocol,
        },
    };
    Ok(())
}

/// Translates an error: its own addresses as those of the flow's packets, the quoted packet the other way round.
///
/// The quoted packet's transport checksum stays: most of what it covers is not quoted, and nobody can check it.
///
/// # Errors
/// Where the packet cannot be changed.
#[inline(always)]
pub fn translate<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    quoted: &Headers<A>,
    action: &Action<A>,
) -> Result<(), Reason> {
    if action.rewrites.has(Rewrites::DESTINATION) {
        rewrite::address(packet, headers, End::Destination, headers.destination, action.destination)?;
        quoted_address(packet, headers, quoted, End::Source, quoted.source, action.destination)?;
        quoted_port(packet, headers, quoted, End::Source, quoted.source_port, action.destination_port)?;
    }
    if action.rewrites.has(Rewrites::SOURCE) {
        // An error may also come from a router on the way, whose address says who it is.
        if headers.source == quoted.destination {
            rewrite::address(packet, headers, End::Source, headers.source, action.source)?;
        }
        quoted_address(packet, headers, quoted, End::Destination, quoted.destination, action.source)?;
        quoted_port(packet, headers, quoted, End::Destination, quoted.destination_port, action.source_port)?;
    }
    Ok(())
}

#[inline(always)]
fn quoted_address<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    quoted: &Headers<A>,
    end: End,
    old: A,
    new: A,
) -> Result<(), Reason> {
    let at = rewrite::address_offset(A::BITS, quoted.network, end);
    let (old, new) = (old.words(), new.words());
    let mut word = 0;
    while word < A::BITS as usize / 32 {
        if old[word] != new[word] {
            if A::BITS == 32 {
                // The quoted header's checksum makes up for the address: the error's own does not change.
                packet.fix_header_checksum(quoted.network + 10, old[word], new[word])?;
            } else {
                packet.fix_checksum(headers.transport + 2, old[word], new[word], Checksum::Segment, false)?;
            }
            packet.store(at + 4 * word, new[word].to_ne_bytes())?;
        }
        word += 1;
    }
    Ok(())
}

#[inline(always)]
fn quoted_port<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    quoted: &Headers<A>,
    end: End,
    old: sluice_abi::Port,
    new: sluice_abi::Port,
) -> Result<(), Reason> {
    if old == new {
        return Ok(());
    }
    let (from, to) = (u32::from(old.0), u32::from(new.0));
    packet.fix_checksum(headers.transport + 2, from, to, Checksum::Segment, false)?;
    packet.store(rewrite::port_offset(quoted.protocol, quoted.transport, end), new.0.to_ne_bytes())
}
