//! Neighbour discovery from pods (RFC 4861), and its IPv4 kin: of their own address or not at all.
//!
//! Pods need none of it: their gateway's link-layer address is a permanent entry.

use sluice_abi::{Endpoint, Ipv6, Mac, Reason};

use crate::packet::{Packet, View};
use crate::parse::{Headers, Parse};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER_SOLICITATION: u8 = 133;

/// Judges a message between neighbours. `endpoint` is the sender, where its source address is its own.
#[inline(always)]
pub fn from_pod<A: Parse, P: Packet>(
    packet: &P,
    headers: &Headers<A>,
    endpoint: Option<&Endpoint>,
    mac: Mac,
) -> Result<(), Reason> {
    if A::BITS == 32 {
        return Err(Reason::ForgedNeighbour);
    }
    match (headers.icmp_type, endpoint) {
        (SOLICITATION, Some(endpoint)) if endpoint.mac == mac => Ok(()),
        (ADVERTISEMENT, Some(endpoint)) if endpoint.mac == mac && advertises(packet, headers, endpoint) => Ok(()),
        // What a starting interface says to everybody.
        (SOLICITATION | ROUTER_SOLICITATION, None)
            if headers.source.is_link_local() || headers.source.is_unspecified() =>
        {
            Err(Reason::Multicast)
        }
        _ => Err(Reason::ForgedNeighbour),
    }
}

/// Whether an advertisement is of the sender's own addresses (RFC 4861 section 4.4).
#[inline(always)]
fn advertises<A: Parse, P: Packet>(packet: &P, headers: &Headers<A>, endpoint: &Endpoint) -> bool {
    const TARGET_LINK_LAYER: u8 = 2;
    let Some(message) = packet.view::<24>(headers.transport) else { return false };
    let target = Ipv6([message.word::<8>(), message.word::<12>(), message.word::<16>(), message.word::<20>()]);
    if target != endpoint.ipv6 {
        return false;
    }
    match packet.view::<8>(headers.transport + 24) {
        // One option fills what a plain advertisement has; what more there is cannot be trusted.
        Some(option) => {
            option.byte::<0>() == TARGET_LINK_LAYER
                && option.mac::<2, 6>() == endpoint.mac
                && headers.length as usize == headers.transport - headers.network + 32
        }
        None => headers.length as usize == headers.transport - headers.network + 24,
    }
}
