//! The fast path of each hook: one lookup for a packet of a known flow.

use sluice_abi::{Config, Features, FrontendBit, IpAddress, Ipv4, Ipv6, Protocol, Reason, Scope, Stage};

use crate::flows::{self, Glance};
use crate::outcome::{Family, Outcome};
use crate::packet::{Packet, View};
use crate::parse::{self, ARP, ETHERNET, Headers, Message, Parse, Piece};
use crate::service::BalancerTables;
use crate::tables::{FamilyTables, Table, Tables};
use crate::{MARK, MARK_MASK, arp};

/// What a pod sends: ingress of the host side of its veth pair.
#[inline(always)]
pub fn from_pod<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    // It would keep its tag on the way out, and go to whatever VLAN it names.
    if packet.vlan().is_some() {
        return Outcome::Drop(Reason::UnknownEtherType);
    }
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => pod_flow::<Ipv4, P, T>(packet, tables, Family::V4),
        Ok(Ipv6::ETHERTYPE) => pod_flow::<Ipv6, P, T>(packet, tables, Family::V6),
        Ok(ARP) => arp::from_pod(packet, tables),
        Ok(_) => Outcome::Drop(Reason::UnknownEtherType),
        Err(reason) => Outcome::Drop(reason),
    }
}

#[inline(always)]
fn pod_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T, family: Family) -> Outcome {
    let headers = match simple::<A, P>(packet) {
        Simple::Yes(headers) => headers,
        Simple::No => return Outcome::Slow(Stage::Admit, family),
    };
    let mac = match packet.view::<ETHERNET>(0) {
        Some(ethernet) => ethernet.mac::<6, 10>(),
        None => return Outcome::Drop(Reason::Truncated),
    };
    let key = flows::key(Scope::pod(packet.interface()), &headers);
    match flows::known(&key, &headers, Some(mac), tables) {
        Glance::Known(action) => flows::apply(packet, &headers, &action, tables),
        Glance::Unsure | Glance::Absent => Outcome::Slow(Stage::Admit, family),
    }
}

/// What the node's own stack sends to a pod: egress of the host side of its veth pair.
#[inline(always)]
pub fn to_pod<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    // From the node itself through a service: judged where it was translated.
    if is_judged(packet) {
        return Outcome::Pass;
    }
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => stack_flow::<Ipv4, P, T>(packet, tables, Family::V4),
        Ok(Ipv6::ETHERTYPE) => stack_flow::<Ipv6, P, T>(packet, tables, Family::V6),
        Ok(ARP) => Outcome::Pass,
        Ok(_) => Outcome::Drop(Reason::UnknownEtherType),
        Err(reason) => Outcome::Drop(reason),
    }
}

#[inline(always)]
fn stack_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T, family: Family) -> Outcome {
    match simple::<A, P>(packet) {
        Simple::Yes(headers) => {
            let key = flows::key(Scope::HOST, &headers);
            match flows::known_as_it_is(&key, &headers, tables) {
                // It is on its way into the pod already.
                Glance::Known(_) => Outcome::Pass,
                Glance::Unsure | Glance::Absent => Outcome::Slow(Stage::Admit, family),
            }
        }
        Simple::No => Outcome::Slow(Stage::Admit, family),
    }
}

/// What comes in through an uplink.
#[inline(always)]
pub fn from_net<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    if is_of_another_device(packet) {
        return Outcome::Pass;
    }
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => net_flow::<Ipv4, P, T>(packet, tables, Family::V4),
        Ok(Ipv6::ETHERTYPE) => net_flow::<Ipv6, P, T>(packet, tables, Family::V6),
        _ => Outcome::Pass,
    }
}

#[inline(always)]
fn net_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T, family: Family) -> Outcome {
    let headers = match simple::<A, P>(packet) {
        Simple::Yes(headers) => headers,
        Simple::No => return Outcome::Slow(Stage::Admit, family),
    };
    let Some(config) = tables.config() else { return Outcome::Pass };
    let own = is_own(headers.destination, config);
    if own && headers.protocol == A::WRAPPED && config.features.has(Features::DIRECT_RETURN) {
        return Outcome::Slow(Stage::Admit, family);
    }
    let is_port = own && tables.may_be_frontend(FrontendBit::of_port(headers.destination_port, headers.protocol));
    if own && !is_port && !may_be_masqueraded(&headers, config) {
        return Outcome::Pass;
    }
    let key = flows::key(Scope::NET, &headers);
    match flows::known(&key, &headers, None, tables) {
        Glance::Known(action) => flows::apply(packet, &headers, &action, tables),
        // The node's own traffic uses ports of that range too: tunnels, the Kubernetes API.
        Glance::Absent if own && !is_port && tables.flow(Table::Openings, &key, |_| ()).is_none() => Outcome::Pass,
        Glance::Unsure | Glance::Absent => Outcome::Slow(Stage::Admit, family),
    }
}

/// What leaves through an uplink. All that a program sent there has been judged and says so; what remains are the host's
/// own packets, and those of pods that took the way through the stack.
#[inline(always)]
pub fn to_net<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    if is_judged(packet) || is_of_another_device(packet) {
        return Outcome::Pass;
    }
    let Some(config) = tables.config() else { return Outcome::Pass };
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => host_flow::<Ipv4, P, T>(packet, config, tables),
        Ok(Ipv6::ETHERTYPE) => host_flow::<Ipv6, P, T>(packet, config, tables),
        _ => Outcome::Pass,
    }
}

#[inline(always)]
fn host_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, config: &Config, tables: &T) -> Outcome {
    let headers = match simple::<A, P>(packet) {
        Simple::Yes(headers) if is_own(headers.source, config) => headers,
        Simple::Yes(_) | Simple::No => return Outcome::Slow(Stage::Admit, Family::of::<A>()),
    };
    if !may_be_services(&headers, tables) {
        return Outcome::Pass;
    }
    // Most processes connect to backends directly: what has to be translated here may take its time. But whoever listens at
    // the port of a backend has clients of its own.
    let key = flows::key(Scope::HOST, &headers);
    let is_known = |table| tables.flow(table, &key, |_| ()).is_some();
    let is_for_one = tables.may_be_frontend(FrontendBit::of_address(headers.destination));
    if is_for_one || is_known(Table::Flows) || is_known(Table::Openings) {
        Outcome::Slow(Stage::Admit, Family::of::<A>())
    } else {
        Outcome::Pass
    }
}

/// Whether what the node itself sends may be for a service, or an answer of one's backend.
#[inline(always)]
pub fn may_be_services<A: IpAddress, T: BalancerTables>(headers: &Headers<A>, tables: &T) -> bool {
    tables.may_be_frontend(FrontendBit::of_address(headers.destination))
        || tables.may_be_frontend(FrontendBit::of_host_backend(headers.source_port, headers.protocol))
}

/// Whether a program has judged a packet already.
#[inline(always)]
fn is_judged<P: Packet>(packet: &P) -> bool {
    packet.mark() & MARK_MASK == MARK
}

/// Whether a packet is of a VLAN: it goes to or comes from the VLAN's own device, which may be an uplink by itself.
#[inline(always)]
fn is_of_another_device<P: Packet>(packet: &P) -> bool {
    packet.vlan().is_some_and(|vlan| vlan != 0)
}

/// What comes in through the overlay.
#[inline(always)]
pub fn from_overlay<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Outcome {
    if packet.vlan().is_some() {
        return Outcome::Drop(Reason::UnknownEtherType);
    }
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => overlay_flow::<Ipv4, P, T>(packet, tables, Family::V4),
        Ok(Ipv6::ETHERTYPE) => overlay_flow::<Ipv6, P, T>(packet, tables, Family::V6),
        Ok(_) => Outcome::Drop(Reason::UnknownEtherType),
        Err(reason) => Outcome::Drop(reason),
    }
}

#[inline(always)]
fn overlay_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    tables: &T,
    family: Family,
) -> Outcome {
    let headers = match simple::<A, P>(packet) {
        Simple::Yes(headers) => headers,
        Simple::No => return Outcome::Slow(Stage::Admit, family),
    };
    let key = flows::key(Scope::OVERLAY, &headers);
    match flows::known(&key, &headers, None, tables) {
        Glance::Known(action) => flows::apply(packet, &headers, &action, tables),
        Glance::Unsure | Glance::Absent => Outcome::Slow(Stage::Admit, family),
    }
}

/// Whether a packet is one that the fast path understands.
pub(crate) enum Simple<A> {
    /// It is.
    Yes(Headers<A>),
    /// It has options, is a fragment, an ICMP error or broken: the slow path says what becomes of it.
    No,
}

#[inline(always)]
pub(crate) fn simple<A: Parse, P: Packet>(packet: &P) -> Simple<A> {
    let at = ETHERNET + A::HEADER;
    match parse::plain::<A, P>(packet) {
        Some(headers)
            if headers.transport == at && headers.piece == Piece::Whole && headers.message == Message::Plain =>
        {
            Simple::Yes(headers)
        }
        _ => Simple::No,
    }
}

/// Whether this is the node's own address, as far as its settings know.
#[inline(always)]
pub(crate) fn is_own<A: IpAddress>(address: A, config: &Config) -> bool {
    if A::BITS == 32 { address.words() == config.ipv4.words() } else { address.words() == config.ipv6.words() }
}

/// Whether a packet to the node's own address could answer a masqueraded flow.
#[inline(always)]
pub(crate) fn may_be_masqueraded<A: IpAddress>(headers: &Headers<A>, config: &Config) -> bool {
    // Protocols without ports have port 0; they and SCTP are masqueraded without translating it.
    let port = headers.destination_port.get();
    port == 0 || headers.protocol == Protocol::SCTP || (config.port_first <= port && port <= config.port_last)
}
