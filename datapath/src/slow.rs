//! The slow path of each hook: whatever is not a plain packet of a known flow.

use sluice_abi::{AddressKind, Endpoint, Hook, Ipv4, Ipv6, Mac, Reason, Scope};

use crate::desk::Desk;
use crate::outcome::Outcome;
use crate::packet::{Packet, View};
use crate::parse::{self, ETHERNET, Headers, Message, Parse};
use crate::tables::{FamilyTables, Tables};
use crate::{flows, fragment, icmp, judge, neighbour, rewrite};

/// Lends a desk, and flattens the two ways to drop a packet.
#[inline(always)]
fn at_desk<A: Parse, T: FamilyTables<A>>(
    tables: &T,
    work: impl FnOnce(&mut Desk<A>) -> Result<Outcome, Reason>,
) -> Outcome {
    match tables.desk(work) {
        Some(Ok(outcome)) => outcome,
        Some(Err(reason)) => Outcome::Drop(reason),
        None => Outcome::Drop(Reason::NoSlowPath),
    }
}

/// What a pod sends.
#[inline(always)]
pub fn from_pod<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk| pod_packet::<A, P, T>(packet, desk, tables))
}

#[inline(always)]
fn pod_packet<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    let headers = &mut desk.headers;
    parse::packet(packet, headers)?;
    let mac = packet.view::<ETHERNET>(0).ok_or(Reason::Truncated)?.mac::<6, 10>();
    let endpoint = sender(headers, packet.interface(), tables);
    if let Message::Neighbour(kind) = headers.message {
        return Ok(neighbour::from_pod(packet, headers, kind, endpoint, mac));
    }
    genuine(headers, endpoint, mac)?;
    let scope = Scope::pod(packet.interface());
    follow(Hook::FromPod, scope, true, packet, desk, tables)?;
    Ok(flows::apply(packet, &desk.headers, &desk.case.action, tables))
}

/// The endpoint behind an interface, if a packet's source address is its own.
#[inline(always)]
fn sender<'a, A: Parse, T: Tables + FamilyTables<A>>(
    headers: &Headers<A>,
    interface: u32,
    tables: &'a T,
) -> Option<&'a Endpoint> {
    let entry = tables.address(headers.source)?;
    if entry.kind != AddressKind::Endpoint {
        return None;
    }
    tables.endpoint(entry.slot).filter(|endpoint| endpoint.interface == interface)
}

#[inline(always)]
fn genuine<A: Parse>(headers: &Headers<A>, endpoint: Option<&Endpoint>, mac: Mac) -> Result<(), Reason> {
    match endpoint {
        Some(endpoint) if endpoint.mac == mac => Ok(()),
        Some(_) => Err(Reason::ForgedMac),
        // What a starting interface says to everybody (RFC 3810, RFC 2131).
        None if headers.destination.is_multicast()
            && (headers.source.is_link_local() || headers.source.is_unspecified()) =>
        {
            Err(Reason::Multicast)
        }
        None => Err(Reason::ForgedSource),
    }
}

/// Finds or, with `may_open`, opens the flow that the packet on the desk belongs to, and leaves there what is to be done.
///
/// # Errors
/// Why the packet must be dropped: also [`Reason::NoFlow`] and, of errors, [`Reason::UnrelatedIcmp`].
#[inline(always)]
fn follow<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    hook: Hook,
    scope: Scope,
    may_open: bool,
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<(), Reason> {
    if desk.headers.message == Message::IcmpError {
        let known = icmp::follow(hook, scope, packet, desk, tables)?;
        return if known { Ok(()) } else { Err(Reason::UnrelatedIcmp) };
    }
    let Desk { headers, case, .. } = desk;
    fragment::follow(scope, headers, tables)?;
    case.key = flows::key(scope, headers);
    let known = judge::judge(hook, headers, may_open, case, tables)?;
    if known { Ok(()) } else { Err(Reason::NoFlow) }
}

/// What the node's own stack sends to a pod.
#[inline(always)]
pub fn to_pod<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk| stack_packet::<A, P, T>(packet, desk, tables))
}

#[inline(always)]
fn stack_packet<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    let headers = &mut desk.headers;
    parse::packet(packet, headers)?;
    if let Message::Neighbour(_) = headers.message {
        return Ok(Outcome::Pass);
    }
    if headers.destination.is_multicast() {
        return Err(Reason::Multicast);
    }
    let entry = tables.address(headers.destination).filter(|entry| entry.kind == AddressKind::Endpoint);
    let endpoint = entry.and_then(|entry| tables.endpoint(entry.slot));
    if endpoint.is_none_or(|endpoint| endpoint.interface != packet.interface()) {
        return Err(Reason::NoEndpoint);
    }
    if headers.message == Message::IcmpError {
        let concerns = icmp::concerns(Hook::ToPod, packet.interface(), packet, desk, tables)?;
        return if concerns { Ok(Outcome::Pass) } else { Err(Reason::UnrelatedIcmp) };
    }
    follow(Hook::ToPod, Scope::HOST, true, packet, desk, tables)?;
    Ok(Outcome::Pass)
}

/// What comes in through an uplink.
#[inline(always)]
pub fn from_net<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk| net_packet::<A, P, T>(packet, desk, tables))
}

#[inline(always)]
fn net_packet<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    if let Err(reason) = parse::packet(packet, &mut desk.headers) {
        // The stack knows better what is wrong with a packet that is its own.
        let dropped = concerns_pods(destination::<A, P>(packet), tables);
        return if dropped { Err(reason) } else { Ok(Outcome::Pass) };
    }
    let pods = match tables.address(desk.headers.destination).map(|entry| entry.kind) {
        Some(AddressKind::Endpoint) => true,
        Some(AddressKind::LocalPods) => return Err(Reason::NoEndpoint),
        // An answer to a masqueraded flow, or the node's own.
        Some(AddressKind::Host) => false,
        Some(AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::RemotePods | AddressKind::Node)
        | None => return Ok(Outcome::Pass),
    };
    match follow(Hook::FromNet, Scope::NET, pods, packet, desk, tables) {
        Ok(()) => Ok(flows::apply(packet, &desk.headers, &desk.case.action, tables)),
        // The node's own errors quote no flow, and the stack collects its own fragments.
        Err(
            Reason::NoFlow | Reason::UnrelatedIcmp | Reason::Truncated | Reason::Malformed | Reason::OrphanFragment,
        ) if !pods => Ok(Outcome::Pass),
        Err(reason) => Err(reason),
    }
}

/// The destination of a packet that could not be parsed further.
#[inline(always)]
fn destination<A: Parse, P: Packet>(packet: &P) -> Option<A> {
    if A::BITS == 32 {
        let ip = packet.view::<20>(ETHERNET)?;
        Some(A::from_words([ip.word::<16>(), 0, 0, 0]))
    } else {
        let ip = packet.view::<40>(ETHERNET)?;
        Some(A::from_words([ip.word::<24>(), ip.word::<28>(), ip.word::<32>(), ip.word::<36>()]))
    }
}

#[inline(always)]
fn concerns_pods<A: Parse, T: FamilyTables<A>>(address: Option<A>, tables: &T) -> bool {
    address
        .and_then(|address| tables.address(address))
        .is_some_and(|entry| matches!(entry.kind, AddressKind::Endpoint | AddressKind::LocalPods))
}

/// What leaves through an uplink and has not been judged: the node's own packets, and those of pods that came through the
/// stack because they were too large for their way.
#[inline(always)]
pub fn to_net<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk| leaving_packet::<A, P, T>(packet, desk, tables))
}

#[inline(always)]
fn leaving_packet<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    let source = source::<A, P>(packet);
    let slot = match source.and_then(|source| tables.address(source)) {
        Some(entry) if entry.kind == AddressKind::Endpoint => entry.slot,
        Some(entry) if entry.kind == AddressKind::LocalPods => return Err(Reason::NoEndpoint),
        _ => return Ok(Outcome::Pass),
    };
    let interface = tables.endpoint(slot).map(|endpoint| endpoint.interface).ok_or(Reason::NoEndpoint)?;
    let scope = Scope::pod(interface);
    parse::packet(packet, &mut desk.headers)?;
    follow(Hook::ToNet, scope, true, packet, desk, tables)?;
    rewrite::translate(packet, &desk.headers, &desk.case.action)?;
    Ok(Outcome::Pass)
}

/// The source of a packet that need not be parsed further.
#[inline(always)]
fn source<A: Parse, P: Packet>(packet: &P) -> Option<A> {
    if A::BITS == 32 {
        let ip = packet.view::<20>(ETHERNET)?;
        Some(A::from_words([ip.word::<12>(), 0, 0, 0]))
    } else {
        let ip = packet.view::<40>(ETHERNET)?;
        Some(A::from_words([ip.word::<8>(), ip.word::<12>(), ip.word::<16>(), ip.word::<20>()]))
    }
}

/// What comes in through the overlay.
#[inline(always)]
pub fn from_overlay<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk| overlay_packet::<A, P, T>(packet, desk, tables))
}

#[inline(always)]
fn overlay_packet<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    let headers = &mut desk.headers;
    parse::packet(packet, headers)?;
    // Who sends through the tunnel must be the node that the source address belongs to.
    let remote = match packet.tunnel_remote() {
        Some((words, false)) => FamilyTables::<Ipv4>::address(tables, Ipv4(words[0])),
        Some((words, true)) => FamilyTables::<Ipv6>::address(tables, Ipv6(words)),
        None => None,
    };
    let remote = remote.filter(|remote| remote.kind == AddressKind::Node).ok_or(Reason::UnknownTunnel)?;
    let theirs = tables.address(headers.source).is_some_and(|source| {
        matches!(source.kind, AddressKind::RemotePods | AddressKind::Node) && source.slot == remote.slot
    });
    if !theirs {
        return Err(Reason::UnknownTunnel);
    }
    match tables.address(headers.destination).map(|entry| entry.kind) {
        Some(AddressKind::Endpoint) => {
            follow(Hook::FromOverlay, Scope::OVERLAY, true, packet, desk, tables)?;
            Ok(flows::apply(packet, &desk.headers, &desk.case.action, tables))
        }
        Some(AddressKind::Host) => Ok(Outcome::Pass),
        Some(AddressKind::LocalPods) => Err(Reason::NoEndpoint),
        Some(AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::RemotePods | AddressKind::Node)
        | None => Err(Reason::NoRoute),
    }
}
