//! ARP from pods (RFC 826): of their own address or not at all.

use sluice_abi::{Ipv4, Mac, Reason};

use crate::outcome::Outcome;
use crate::packet::{Packet, View};
use crate::parse::ETHERNET;
use crate::tables::{Tables, endpoint_behind};

/// Length of an ARP packet for IPv4 over Ethernet.
const ARP: usize = 28;

/// Judges ARP from a pod. What is genuine goes to the stack.
#[inline(always)]
pub fn from_pod<P: Packet, T: Tables>(packet: &P, tables: &T) -> Outcome {
    let (Some(ethernet), Some(arp)) = (packet.view::<ETHERNET>(0), packet.view::<ARP>(ETHERNET)) else {
        return Outcome::Drop(Reason::Truncated);
    };
    // A probe for an address in use has no sender address (RFC 5227 section 2.1.1): then the target is claimed.
    let sender = Ipv4(arp.word::<14>());
    let claimed = if sender == Ipv4(0) { Ipv4(arp.word::<24>()) } else { sender };
    let genuine = |mac: Mac| ethernet.mac::<6, 10>() == mac && arp.mac::<8, 12>() == mac;
    match endpoint_behind(packet.interface(), claimed, tables) {
        Some(endpoint) if genuine(endpoint.mac) => Outcome::Pass,
        _ => Outcome::Drop(Reason::ForgedArp),
    }
}
