//! The slow path of each hook: whatever is not a plain packet of a known flow.

use sluice_abi::{AddressKind, Endpoint, Hook, Ipv4, Ipv6, Mac, Reason, Scope};

use crate::desk::Desk;
use crate::fast::may_be_masqueraded;
use crate::outcome::Outcome;
use crate::packet::{Packet, View};
use crate::parse::{self, ETHERNET, Headers, Message, Parse, Piece};
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
    let headers = parse::packet::<A, P>(packet)?;
    let mac = packet.view::<ETHERNET>(0).ok_or(Reason::Truncated)?.mac::<6, 10>();
    let endpoint = sender(&headers, packet.interface(), tables);
    if let Message::Neighbour(kind) = headers.message {
        return Ok(neighbour::from_pod(packet, &headers, kind, endpoint, mac));
    }
    genuine(&headers, endpoint, mac)?;
    if headers.destination.is_multicast() {
        return Err(Reason::Multicast);
    }
    let scope = Scope::pod(packet.interface());
    through(Hook::FromPod, scope, packet, headers, desk, tables)
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

/// The common part: a packet that may pass if its flow may, opened by it or not.
#[inline(always)]
fn through<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    hook: Hook,
    scope: Scope,
    packet: &mut P,
    mut headers: Headers<A>,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    if headers.message == Message::IcmpError {
        let action = icmp::follow(hook, scope, packet, &headers, desk, tables)?.ok_or(Reason::UnrelatedIcmp)?;
        return Ok(flows::deliver(&action, tables));
    }
    fragment::follow(scope, &mut headers, tables)?;
    desk.key = flows::key(scope, &headers);
    let action = judge::judge(hook, &headers, true, desk, tables)?.ok_or(Reason::NoFlow)?;
    Ok(flows::apply(packet, &headers, &action, tables))
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
    let mut headers = parse::packet::<A, P>(packet)?;
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
        let concerns = icmp::concerns(Hook::ToPod, packet.interface(), packet, &headers, desk, tables)?;
        return if concerns { Ok(Outcome::Pass) } else { Err(Reason::UnrelatedIcmp) };
    }
    fragment::follow(Scope::HOST, &mut headers, tables)?;
    desk.key = flows::key(Scope::HOST, &headers);
    judge::judge(Hook::ToPod, &headers, true, desk, tables)?;
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
    let headers = match parse::packet::<A, P>(packet) {
        Ok(headers) => headers,
        // The stack knows better what is wrong with a packet that is its own.
        Err(reason) if concerns_pods(destination::<A, P>(packet), tables) => return Err(reason),
        Err(_) => return Ok(Outcome::Pass),
    };
    match tables.address(headers.destination).map(|entry| entry.kind) {
        Some(AddressKind::Endpoint) => through(Hook::FromNet, Scope::NET, packet, headers, desk, tables),
        Some(AddressKind::LocalPods) => Err(Reason::NoEndpoint),
        Some(AddressKind::Host) => masqueraded(packet, headers, desk, tables),
        Some(AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::RemotePods | AddressKind::Node)
        | None => Ok(Outcome::Pass),
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

/// A packet to one of the node's own addresses: an answer to a masqueraded flow, or the node's own.
#[inline(always)]
fn masqueraded<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &mut P,
    mut headers: Headers<A>,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    if headers.message == Message::IcmpError {
        // An error about one of the node's own packets quotes no flow.
        return match icmp::follow(Hook::FromNet, Scope::NET, packet, &headers, desk, tables) {
            Ok(Some(action)) => Ok(flows::deliver(&action, tables)),
            Ok(None) | Err(Reason::UnrelatedIcmp | Reason::Truncated | Reason::Malformed) => Ok(Outcome::Pass),
            Err(reason) => Err(reason),
        };
    }
    let ours = match headers.piece {
        // Only later fragments of answers are remembered: the stack collects its own.
        Piece::Later(_) => fragment::follow(Scope::NET, &mut headers, tables).is_ok(),
        Piece::Whole | Piece::First(_) => {
            tables.config().is_some_and(|config| may_be_masqueraded(headers.destination_port, config))
        }
    };
    if !ours {
        return Ok(Outcome::Pass);
    }
    desk.key = flows::key(Scope::NET, &headers);
    match judge::judge(Hook::FromNet, &headers, false, desk, tables)? {
        Some(action) => {
            if let Piece::First(_) = headers.piece {
                fragment::follow(Scope::NET, &mut headers, tables)?;
            }
            Ok(flows::apply(packet, &headers, &action, tables))
        }
        None => Ok(Outcome::Pass),
    }
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
    let mut headers = parse::packet::<A, P>(packet)?;
    if headers.message == Message::IcmpError {
        icmp::follow(Hook::ToNet, scope, packet, &headers, desk, tables)?.ok_or(Reason::UnrelatedIcmp)?;
        return Ok(Outcome::Pass);
    }
    fragment::follow(scope, &mut headers, tables)?;
    desk.key = flows::key(scope, &headers);
    let action = judge::judge(Hook::ToNet, &headers, true, desk, tables)?.ok_or(Reason::NoFlow)?;
    rewrite::translate(packet, &headers, &action)?;
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
    let headers = parse::packet::<A, P>(packet)?;
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
        Some(AddressKind::Endpoint) => through(Hook::FromOverlay, Scope::OVERLAY, packet, headers, desk, tables),
        Some(AddressKind::Host) => Ok(Outcome::Pass),
        Some(AddressKind::LocalPods) => Err(Reason::NoEndpoint),
        Some(AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::RemotePods | AddressKind::Node)
        | None => Err(Reason::NoRoute),
    }
}
