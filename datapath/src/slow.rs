//! The slow path: whatever is not a plain packet of a known flow.
//!
//! It has stages, each a program of its own (see [`Stage`]); what one leaves for the next lies on the [`Desk`].

use sluice_abi::{
    AddressKind, Deliver, Direction, Endpoint, Features, FlowKey, FrontendBit, Hook, Ipv4, Ipv6, Mac, Protocol, Reason,
    Rewrites, Scope, Stage,
};

use crate::desk::{Desk, Refusal};
use crate::flows::Action;
use crate::outcome::{Family, Outcome};
use crate::packet::{Packet, View};
use crate::parse::{self, ETHERNET, Headers, Message, Parse, Piece};
use crate::rewrite::End;
use crate::service::ServiceTables;
use crate::tables::{FamilyTables, Tables, endpoint_behind};
use crate::{balance, fast, flows, fragment, icmp, judge, neighbour, open, refuse, rewrite, service, standing};

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

/// Runs the stage that an [`Outcome::Slow`] asks for.
pub fn run<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    stage: Stage,
    hook: Hook,
    packet: &mut P,
    tables: &T,
) -> Outcome {
    match stage {
        Stage::Admit => admit::<A, P, T>(hook, packet, tables),
        Stage::Find => find::<A, T>(hook, tables),
        Stage::Balance => balance::<A, T>(hook, tables),
        Stage::Judge => judge::<A, T>(hook, tables),
        Stage::Carry => carry::<A, P, T>(hook, packet, tables),
        Stage::Refuse => refuse::<A, P, T>(hook, packet, tables),
        Stage::Relate => relate::<A, P, T>(hook, packet, tables),
    }
}

/// Parses a packet and says whether it may come in at this hook; [`Stage::Find`] or [`Stage::Relate`] follow.
#[inline(always)]
pub fn admit<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(hook: Hook, packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| {
        desk.interface = packet.interface();
        desk.is_sent_on = false;
        // Most of what the host itself sends is nobody's business, parsable or not.
        if hook == Hook::ToNet {
            match leaving(address::<A, P>(packet, End::Source), tables)? {
                Some(scope) => desk.scope = scope,
                None => return Ok(Outcome::Pass),
            }
        }
        let parsed = parse::packet(packet, &mut desk.headers);
        let admission = match hook {
            Hook::FromPod => parsed.and_then(|()| from_pod(packet, &desk.headers, tables))?,
            Hook::ToPod => parsed.and_then(|()| to_pod(packet.interface(), &desk.headers, tables))?,
            Hook::FromNet => {
                let parsed = match parsed {
                    Ok(()) if is_wrapped(&desk.headers, tables) => {
                        let outer = desk.headers.transport - desk.headers.network;
                        if (packet.length() as usize) < ETHERNET + outer + A::HEADER {
                            return Err(Reason::Truncated);
                        }
                        packet.unwrap(outer as u32)?;
                        desk.is_sent_on = true;
                        parse::packet(packet, &mut desk.headers)
                    }
                    other => other,
                };
                from_net(parsed, packet, desk.is_sent_on, &desk.headers, tables)?
            }
            Hook::ToNet => to_net(parsed, desk.scope, &desk.headers, tables)?,
            Hook::FromOverlay => parsed.and_then(|()| from_overlay(packet, &desk.headers, tables))?,
        };
        match admission {
            Admission::Pass => return Ok(Outcome::Pass),
            Admission::May { open, scope } => {
                desk.may_open = open;
                desk.scope = scope;
            }
        }
        let stage = if desk.headers.message == Message::IcmpError { Stage::Relate } else { Stage::Find };
        Ok(Outcome::Slow(stage, Family::of::<A>()))
    })
}

/// What becomes of a packet that is in order.
enum Admission {
    /// It is none of ours.
    Pass,
    /// It belongs to a flow of this scope, and may open it or not.
    May { open: bool, scope: Scope },
}

/// What a pod sends.
#[inline(always)]
fn from_pod<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &P,
    headers: &Headers<A>,
    tables: &T,
) -> Result<Admission, Reason> {
    let mac = packet.view::<ETHERNET>(0).ok_or(Reason::Truncated)?.mac::<6, 10>();
    let endpoint = endpoint_behind(packet.interface(), headers.source, tables);
    if headers.message == Message::Neighbour {
        neighbour::from_pod(packet, headers, endpoint, mac)?;
        // To neighbours: not to whom the stack would carry it further.
        let stays = headers.destination.is_link_local()
            || headers.destination.is_multicast()
            || tables.address(headers.destination).kind == AddressKind::Host;
        return if stays { Ok(Admission::Pass) } else { Err(Reason::ForgedNeighbour) };
    }
    genuine(headers, endpoint, mac)?;
    Ok(Admission::May { open: true, scope: Scope::pod(packet.interface()) })
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

/// What the node's own stack sends to the pod behind an interface.
#[inline(always)]
fn to_pod<A: Parse, T: Tables + FamilyTables<A>>(
    interface: u32,
    headers: &Headers<A>,
    tables: &T,
) -> Result<Admission, Reason> {
    if headers.message == Message::Neighbour {
        // Nobody but the node is the pod's neighbour.
        let own = headers.source.is_link_local()
            || headers.source.is_unspecified()
            || tables.address(headers.source).kind == AddressKind::Host;
        return if own { Ok(Admission::Pass) } else { Err(Reason::ForgedNeighbour) };
    }
    if headers.destination.is_multicast() {
        return Err(Reason::Multicast);
    }
    endpoint_behind(interface, headers.destination, tables).ok_or(Reason::NoEndpoint)?;
    Ok(Admission::May { open: true, scope: Scope::HOST })
}

/// What comes in through an uplink.
#[inline(always)]
fn from_net<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    parsed: Result<(), Reason>,
    packet: &P,
    is_sent_on: bool,
    headers: &Headers<A>,
    tables: &T,
) -> Result<Admission, Reason> {
    // Nobody but a service's client is sent on, and it is nothing for the stack.
    if is_sent_on {
        parsed?;
        return Ok(Admission::May { open: true, scope: Scope::NET });
    }
    let destination = if parsed.is_ok() { Some(headers.destination) } else { address(packet, End::Destination) };
    let Some(destination) = destination else { return Ok(Admission::Pass) };
    let open = match tables.address(destination).kind {
        AddressKind::Endpoint => true,
        AddressKind::LocalPods => return Err(parsed.err().unwrap_or(Reason::NoEndpoint)),
        // An answer to a masqueraded flow, for a node port, or the node's own.
        AddressKind::Host => false,
        AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::Services
            if tables.may_be_frontend(FrontendBit::of_address(destination)) =>
        {
            false
        }
        AddressKind::Outside
        | AddressKind::Unmasqueraded
        | AddressKind::RemotePods
        | AddressKind::Node
        | AddressKind::Services => {
            return Ok(Admission::Pass);
        }
    };
    match parsed {
        Ok(()) if headers.message == Message::Neighbour => {
            if open {
                Err(Reason::ForgedNeighbour)
            } else {
                Ok(Admission::Pass)
            }
        }
        Ok(()) => Ok(Admission::May { open, scope: Scope::NET }),
        // The stack knows better what is wrong with a packet that is its own.
        Err(_) if !open => Ok(Admission::Pass),
        Err(reason) => Err(reason),
    }
}

/// Whether another node has sent a packet on as it is, wrapped up, because a backend of this node is to serve its client.
#[inline(always)]
fn is_wrapped<A: Parse, T: Tables + FamilyTables<A>>(headers: &Headers<A>, tables: &T) -> bool {
    headers.protocol == A::WRAPPED
        && headers.piece == Piece::Whole
        && tables.config().is_some_and(|config| config.features.has(Features::DIRECT_RETURN))
        && tables.address(headers.destination).kind == AddressKind::Host
        && tables.address(headers.source).kind == AddressKind::Node
}

/// What leaves through an uplink and has not been judged: the node's own packets, and those of pods that came through the
/// stack because they were too large for their way. `None`: somebody else's.
#[inline(always)]
fn leaving<A: Parse, T: Tables + FamilyTables<A>>(source: Option<A>, tables: &T) -> Result<Option<Scope>, Reason> {
    let Some(source) = source else { return Ok(None) };
    let entry = tables.address(source);
    match entry.kind {
        AddressKind::Endpoint => {
            let endpoint = tables.endpoint(entry.slot).ok_or(Reason::NoEndpoint)?;
            Ok(Some(Scope::pod(endpoint.interface)))
        }
        AddressKind::LocalPods => Err(Reason::NoEndpoint),
        AddressKind::Host => Ok(Some(Scope::HOST)),
        AddressKind::Outside
        | AddressKind::Unmasqueraded
        | AddressKind::RemotePods
        | AddressKind::Node
        | AddressKind::Services => Ok(None),
    }
}

/// What leaves through an uplink, of a known scope: of the node's own, only what is for a service, or may be an answer of
/// one's backend.
#[inline(always)]
fn to_net<A: Parse, T: Tables + FamilyTables<A>>(
    parsed: Result<(), Reason>,
    scope: Scope,
    headers: &Headers<A>,
    tables: &T,
) -> Result<Admission, Reason> {
    let is_hosts = scope == Scope::HOST;
    match parsed {
        Ok(()) if is_hosts && !fast::may_be_services(headers, tables) => Ok(Admission::Pass),
        Ok(()) => Ok(Admission::May { open: !is_hosts, scope }),
        Err(_) if is_hosts => Ok(Admission::Pass),
        Err(reason) => Err(reason),
    }
}

/// What comes in through the overlay.
#[inline(always)]
fn from_overlay<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(
    packet: &P,
    headers: &Headers<A>,
    tables: &T,
) -> Result<Admission, Reason> {
    // Who sends through the tunnel must be the node that the source address belongs to.
    let remote = match packet.tunnel_remote() {
        Some((words, false)) => ServiceTables::<Ipv4>::address(tables, Ipv4(words[0])),
        Some((words, true)) => ServiceTables::<Ipv6>::address(tables, Ipv6(words)),
        None => return Err(Reason::UnknownTunnel),
    };
    let source = tables.address(headers.source);
    let theirs = remote.kind == AddressKind::Node
        && matches!(source.kind, AddressKind::RemotePods | AddressKind::Node)
        && source.slot == remote.slot;
    if !theirs {
        return Err(Reason::UnknownTunnel);
    }
    match tables.address(headers.destination).kind {
        AddressKind::Endpoint if headers.message == Message::Neighbour => Err(Reason::ForgedNeighbour),
        AddressKind::Endpoint => Ok(Admission::May { open: true, scope: Scope::OVERLAY }),
        AddressKind::Host => Ok(Admission::May { open: false, scope: Scope::OVERLAY }),
        AddressKind::LocalPods => Err(Reason::NoEndpoint),
        AddressKind::Outside
        | AddressKind::Unmasqueraded
        | AddressKind::RemotePods
        | AddressKind::Node
        | AddressKind::Services => Err(Reason::NoRoute),
    }
}

/// An address of a packet that need not, or could not, be parsed further.
#[inline(always)]
fn address<A: Parse, P: Packet>(packet: &P, end: End) -> Option<A> {
    let at = rewrite::address_offset(A::BITS, ETHERNET, end);
    if A::BITS == 32 {
        Some(A::from_words([packet.view::<4>(at)?.word::<0>(), 0, 0, 0]))
    } else {
        let address = packet.view::<16>(at)?;
        Some(A::from_words([address.word::<0>(), address.word::<4>(), address.word::<8>(), address.word::<12>()]))
    }
}

/// Finds the packet that the ICMP error on the desk is about; [`Stage::Find`] follows.
#[inline(always)]
pub fn relate<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(hook: Hook, packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| {
        let complains_to = if hook == Hook::ToPod { Some(packet.interface()) } else { None };
        match icmp::relate(packet, desk, complains_to) {
            Ok(()) => Ok(Outcome::Slow(Stage::Find, Family::of::<A>())),
            // What the node's own packets may look like is the stack's to say, and so of those that are quoted to it.
            Err(_) if is_nodes(hook, desk.may_open) => Ok(Outcome::Pass),
            Err(reason) => Err(reason),
        }
    })
}

/// Finds the flow that the packet on the desk is of, or, as an ICMP error, is about. [`Stage::Carry`] follows where it
/// was judged as things are now, else [`Stage::Judge`].
#[inline(always)]
pub fn find<A: Parse, T: Tables + FamilyTables<A>>(hook: Hook, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| {
        let Desk { headers, case, scope, may_open, is_sent_on, .. } = desk;
        let is_error = headers.message == Message::IcmpError;
        if !is_error {
            if let Err(reason) = fragment::follow(*scope, headers, tables) {
                return unknown(hook, *may_open, reason);
            }
            case.key = flows::key(*scope, headers);
        }
        standing::find(case, !is_error && flows::opens(headers), tables);
        case.is_judged = false;
        match case.standing() {
            Some(standing) if standing.holds() => Ok(Outcome::Slow(Stage::Carry, Family::of::<A>())),
            // Connections last as long as whom they were made with; datagrams go where they would go now.
            Some(standing) if case.key.protocol == Protocol::UDP && !is_error => {
                let opener = match standing.own.direction {
                    Direction::Forward => &case.key,
                    Direction::Reply => &case.peer,
                };
                let is_services = case.target.is_backend() || may_be_for_service(opener, tables);
                Ok(Outcome::Slow(if is_services { Stage::Balance } else { Stage::Judge }, Family::of::<A>()))
            }
            Some(_) => Ok(Outcome::Slow(Stage::Judge, Family::of::<A>())),
            None if is_error => unknown(hook, *may_open, Reason::UnrelatedIcmp),
            None if may_be_for_service(&case.key, tables) => Ok(Outcome::Slow(Stage::Balance, Family::of::<A>())),
            None if *is_sent_on => Err(Reason::NoFlow),
            None if !*may_open => unknown(hook, *may_open, Reason::NoFlow),
            None => Ok(Outcome::Slow(Stage::Judge, Family::of::<A>())),
        }
    })
}

#[inline(always)]
fn may_be_for_service<A: Parse, T: Tables + FamilyTables<A>>(key: &FlowKey<A>, tables: &T) -> bool {
    service::may_be_frontend(key.destination, key.destination_port, key.protocol, tables)
}

/// Gives the packet on the desk a backend, if it is for a service. [`Stage::Judge`] follows, or [`Stage::Refuse`].
#[inline(always)]
pub fn balance<A: Parse, T: Tables + FamilyTables<A>>(hook: Hook, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| balance::balance(hook, desk, tables))
}

/// Tells the sender of the packet on the desk why it is refused.
#[inline(always)]
pub fn refuse<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(hook: Hook, packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| {
        refuse::refuse(packet, &desk.headers, desk.refusal)?;
        let reason = match desk.refusal {
            Refusal::Unserved => Reason::NoBackend,
            Refusal::TooLarge(_) => Reason::TooLarge,
        };
        tables.count(hook, reason);
        match hook {
            Hook::FromOverlay => {
                let sender = tables.address(desk.headers.source).slot;
                Ok(Outcome::Overlay { interface: desk.interface, node: sender })
            }
            Hook::FromPod | Hook::ToPod | Hook::FromNet | Hook::ToNet => Ok(Outcome::Back),
        }
    })
}

/// Judges the flow that was found, or is to be opened; [`Stage::Carry`] follows.
#[inline(always)]
pub fn judge<A: Parse, T: Tables + FamilyTables<A>>(hook: Hook, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| match judge::judge(&mut desk.case, desk.interface, tables) {
        Ok(()) => {
            desk.case.is_judged = true;
            Ok(Outcome::Slow(Stage::Carry, Family::of::<A>()))
        }
        Err(reason) => unknown(hook, desk.may_open, reason),
    })
}

/// Writes what was judged, and does to the packet on the desk what its flow says.
#[inline(always)]
pub fn carry<A: Parse, P: Packet, T: Tables + FamilyTables<A>>(hook: Hook, packet: &mut P, tables: &T) -> Outcome {
    at_desk(tables, |desk: &mut Desk<A>| {
        let Desk { headers, quoted, case, may_open, .. } = desk;
        let is_error = headers.message == Message::IcmpError;
        if case.is_judged
            && let Err(reason) = open::write(hook, case, tables)
        {
            return unknown(hook, *may_open, reason);
        }
        if is_error {
            if !flows::peek(case, tables) {
                return unknown(hook, *may_open, Reason::UnrelatedIcmp);
            }
        } else {
            flows::account(hook, headers, case, tables)?;
        }
        let action = &case.action;
        // What is on its way out is cut up behind this hook, where it is too large; and an error is never answered with an
        // error (RFC 1122 section 3.2.2).
        if hook != Hook::ToNet && !is_error && flows::is_too_large(packet, headers, action) {
            if is_unknown_to_stack(headers, action, case.target.is_backend(), tables) {
                desk.refusal = Refusal::TooLarge(action.mtu);
                return Ok(Outcome::Slow(Stage::Refuse, Family::of::<A>()));
            }
            return Ok(Outcome::Pass);
        }
        // What the stack complains of is known to it as the pod sent it.
        let is_complaint = hook == Hook::ToPod && is_error;
        if !is_complaint && action.rewrites != Rewrites::NONE {
            if is_error {
                icmp::translate(packet, headers, quoted, action)?;
            } else {
                rewrite::translate_any(packet, headers, action)?;
            }
        }
        Ok(deliver(hook, desk, tables))
    })
}

/// Whether the stack cannot answer or cut up what is too large for its way: it would send it another way.
#[inline(always)]
fn is_unknown_to_stack<A: Parse, T: Tables + FamilyTables<A>>(
    headers: &Headers<A>,
    action: &Action<A>,
    is_service: bool,
    tables: &T,
) -> bool {
    match action.deliver {
        // To the stack it would be the node's own.
        Deliver::Direct => true,
        // It knows which pods are reached through the overlay, but also a way to their nodes without, and nothing of what is
        // translated.
        Deliver::Overlay => {
            action.rewrites != Rewrites::NONE || tables.address(headers.destination).kind == AddressKind::Node
        }
        // What is only masqueraded it cuts up or answers, and sends the pieces the same way.
        Deliver::Neighbour => is_service,
        Deliver::Pod | Deliver::Stack => false,
    }
}

/// Where a packet goes that its flow lets pass.
#[inline(always)]
fn deliver<A: Parse, T: Tables>(hook: Hook, desk: &Desk<A>, tables: &T) -> Outcome {
    match hook {
        Hook::FromPod | Hook::FromNet | Hook::FromOverlay => flows::deliver(&desk.case.action, tables),
        Hook::ToNet if desk.scope == Scope::HOST => flows::divert(&desk.case.action, tables),
        // It is on its way already.
        Hook::ToPod | Hook::ToNet => Outcome::Pass,
    }
}

/// Whether a packet may be the node's own affair.
#[inline(always)]
fn is_nodes(hook: Hook, may_open: bool) -> bool {
    !may_open && matches!(hook, Hook::FromNet | Hook::FromOverlay | Hook::ToNet)
}

/// What becomes of a packet that no flow is found for.
#[inline(always)]
pub(crate) fn unknown(hook: Hook, may_open: bool, reason: Reason) -> Result<Outcome, Reason> {
    match reason {
        // The node's own errors quote no flow, and the stack collects its own fragments.
        Reason::NoFlow | Reason::UnrelatedIcmp | Reason::OrphanFragment if is_nodes(hook, may_open) => {
            Ok(Outcome::Pass)
        }
        _ => Err(reason),
    }
}
