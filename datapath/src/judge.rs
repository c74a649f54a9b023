//! Judging flows: once when they open, and again whenever something that they depend on has changed.

use sluice_abi::{
    AddressKind, Deliver, Direction, Features, Flow, FlowKey, Hook, IpAddress, Mac, Port, Protocol, Reason, Rewrites,
    Scope, Seen, Stamp, TimeoutClass, Verdict,
};

use crate::desk::{Case, Plan};
use crate::flows::{self, Action, Known};
use crate::parse::{Headers, Parse};
use crate::tables::{FamilyTables, Insert, Table, Tables};
use crate::way::{self, Way};

/// How many source ports are tried for a masqueraded flow before giving up.
const PORT_ATTEMPTS: u32 = 32;

/// Judges the flow that a key opens, and finds its ways.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn judge_flow<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    plan: &mut Plan<A>,
    tables: &T,
) -> Result<(), Reason> {
    let from = tables.address(key.source);
    let to = tables.address(key.destination);

    if key.scope == Scope::HOST || key.scope == Scope::NET || key.scope == Scope::OVERLAY {
        way::to_endpoint(to.endpoint().ok_or(Reason::NoEndpoint)?, &mut plan.forward, tables)?;
        if key.scope == Scope::HOST {
            plan.back = Way::stack();
        } else {
            let ours = matches!(from.kind, AddressKind::Endpoint | AddressKind::LocalPods | AddressKind::Host);
            if ours || key.source.is_multicast() || key.source.is_unspecified() {
                return Err(Reason::MartianSource);
            }
            let pod = plan.forward.interface;
            way::to(pod, key.destination, key.source, from, &mut plan.back, tables)?;
            // Whoever is reached through the overlay comes from there, where the sender is checked.
            if key.scope == Scope::NET && plan.back.deliver == Deliver::Overlay {
                return Err(Reason::MartianSource);
            }
        }
    } else {
        let from = from.endpoint().ok_or(Reason::ForgedSource)?;
        if key.destination.is_multicast() {
            return Err(Reason::Multicast);
        }
        // The stack would take it for the node's own where route_localnet is set (CVE-2020-8558).
        if key.destination.is_loopback() {
            return Err(Reason::NoRoute);
        }
        way::to_endpoint(from, &mut plan.back, tables)?;
        if plan.back.interface != key.scope.0 {
            return Err(Reason::ForgedSource);
        }
        way::to(key.scope.0, key.source, key.destination, to, &mut plan.forward, tables)?;
    }

    plan.source = key.source;
    plan.masquerade = plan.forward.leaves && masquerades::<A, T>(tables);
    if plan.masquerade {
        let uplink = tables.uplink(plan.forward.interface).ok_or(Reason::NoMasqueradeAddress)?;
        plan.source = A::from_words(if A::BITS == 32 { uplink.ipv4.words() } else { uplink.ipv6.words() });
        if plan.source.is_unspecified() {
            return Err(Reason::NoMasqueradeAddress);
        }
    }
    Ok(())
}

#[inline(always)]
fn masquerades<A: Parse, T: Tables>(tables: &T) -> bool {
    let feature = if A::BITS == 32 { Features::MASQUERADE4 } else { Features::MASQUERADE6 };
    tables.config().is_some_and(|config| config.features.has(feature))
}

/// Says of one direction of a flow which way it goes and under which revisions.
#[inline(always)]
fn direct<A: Parse>(flow: &mut Flow<A>, way: &Way<A>, opposite: &Way<A>, stamps: [Stamp; 3]) {
    flow.next_hop = way.next_hop;
    flow.interface = way.interface;
    flow.node = way.node;
    flow.mtu = way.mtu;
    flow.deliver = way.deliver;
    flow.source_mac = if opposite.deliver == Deliver::Pod { opposite.mac } else { Mac::default() };
    flow.policy = 0;
    flow.verdict = Verdict::Allow;
    flow.stamps = stamps;
}

/// An existing flow, seen from one of its packets.
#[derive(Clone, Copy)]
struct Standing {
    own: Known,
    other: Known,
}

/// Finds the live flow that the packet of the case belongs to, and leaves the key of its other direction there. Of a flow
/// that has lost its other direction, the port that it was translated to is left, so that it can have it again. With
/// `opens`, the packet asks for a new connection.
#[inline(always)]
fn standing<A: Parse, T: Tables + FamilyTables<A>>(case: &mut Case<A>, opens: bool, tables: &T) -> Option<Standing> {
    let now = tables.now();
    let Case { key, peer, .. } = case;
    peer.destination_port = Port(0);
    let own = flows::look(key, now, tables, |flow| *peer = flows::peer_key(flow, key.protocol))?;
    let mut is_its = false;
    let other = flows::look(peer, now, tables, |flow| is_its = flows::peer_key(flow, key.protocol) == *key);
    let Some(other) = other.filter(|_| is_its) else {
        tables.remove(own.table, key);
        return None;
    };
    // Only the opener may open again: others could forge both a reset and a wish for a new connection.
    let renewed = opens && own.direction == Direction::Forward && own.seen.ends(other.seen);
    if (own.idle && other.idle) || renewed {
        flows::forget(key, peer, tables);
        peer.destination_port = Port(0);
        return None;
    }
    Some(Standing { own, other })
}

/// Sees to it that the flow of the packet of the case is one that was judged as things are now: judges it again, or
/// opens it. `None`: there is none, and none may be opened.
///
/// # Errors
/// Why its packets must be dropped now.
#[inline(always)]
fn judged<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    standing: Option<Standing>,
    may_open: bool,
    case: &mut Case<A>,
    tables: &T,
) -> Result<Option<Standing>, Reason> {
    match standing {
        Some(Standing { own, other }) if own.holds && other.holds => return Ok(standing),
        None if !may_open => return Ok(None),
        _ => {}
    }
    let Case { key, peer, plan, .. } = &mut *case;
    let opener = match standing {
        Some(Standing { own, .. }) if own.direction == Direction::Reply => &*peer,
        _ => &*key,
    };
    match judge_flow(opener, plan, tables) {
        Ok(()) => {}
        Err(Reason::ForgedSource) if standing.is_some() => {
            // The pod that opened it is gone, and another may have its address: what comes next opens another.
            flows::forget(key, peer, tables);
            return Err(Reason::NoFlow);
        }
        Err(reason) => return Err(reason),
    }
    let Some(Standing { own, other }) = standing else {
        open(case, tables)?;
        tables.count(hook, Reason::Opened);
        return Ok(None);
    };
    let same = match own.direction {
        Direction::Forward => renew(key, own.table, peer, other.table, plan, tables),
        Direction::Reply => renew(peer, other.table, key, own.table, plan, tables),
    };
    if !same {
        // What it was translated to, or where its answers come from, is no longer so: its next packet opens another.
        flows::forget(key, peer, tables);
        return Err(Reason::NoFlow);
    }
    tables.count(hook, Reason::Rejudged);
    Ok(standing)
}

/// Writes a new judgement into both entries of a flow. `false`: it cannot go on as it is.
#[inline(always)]
fn renew<A: Parse, T: Tables + FamilyTables<A>>(
    forward_key: &FlowKey<A>,
    forward_table: Table,
    reply_key: &FlowKey<A>,
    reply_table: Table,
    plan: &Plan<A>,
    tables: &T,
) -> bool {
    let same = tables.flow(forward_table, forward_key, |flow| {
        let same = flow.source == plan.source
            && flow.rewrites.has(Rewrites::SOURCE) == plan.masquerade
            && flow.peer_scope == plan.forward.scope();
        if same {
            direct(flow, &plan.forward, &plan.back, plan.stamps());
        }
        same
    });
    if same == Some(true) {
        tables.flow(reply_table, reply_key, |flow| direct(flow, &plan.back, &plan.forward, plan.stamps()));
    }
    same == Some(true)
}

/// Says what is to be done with a packet of the case's flow, known or, with `may_open`, opened by it. One that is only
/// `about` the flow opens none, and is not accounted for. `false`: there is no such flow.
///
/// # Errors
/// Why it must be dropped.
#[inline(always)]
pub fn judge<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    headers: &Headers<A>,
    about: bool,
    may_open: bool,
    case: &mut Case<A>,
    tables: &T,
) -> Result<bool, Reason> {
    let may_open = may_open && !about;
    let standing = standing(case, !about && flows::opens(headers), tables);
    let standing = judged(hook, standing, may_open, case, tables)?;
    let Case { key, peer, action, .. } = case;
    if about {
        let Some(Standing { own, .. }) = standing else { return Ok(false) };
        return Ok(tables.flow(own.table, key, |flow| *action = Action::of(flow)).is_some());
    }
    if let Some(Standing { own, other }) = standing {
        // The opener's packet after an answer: not an answer alone, which a forged source could call forth, and which is
        // all that most questions need.
        let both_seen = own.direction == Direction::Forward && other.seen.has(Seen::PACKET) && !flows::opens(headers);
        if both_seen
            && (own.table == Table::Openings || other.table == Table::Openings)
            && !flows::establish(key, peer, tables)
        {
            tables.count(hook, Reason::NotEstablished);
        }
    } else if !may_open {
        return Ok(false);
    }
    let now = tables.now();
    let mut act = |flow: &mut Flow<A>| {
        flows::touch(flow, headers, now);
        *action = Action::of(flow);
    };
    if tables.flow(Table::Flows, key, &mut act).is_none() {
        tables.flow(Table::Openings, key, &mut act).ok_or(Reason::FlowTableFull)?;
        tables.flow(Table::Openings, peer, |flow| flow.last_seen = now);
    }
    Ok(true)
}

/// Opens the flow that was judged: writes the entries of both directions.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn open<A: Parse, T: Tables + FamilyTables<A>>(case: &mut Case<A>, tables: &T) -> Result<(), Reason> {
    let Case { key, peer, plan, flow, .. } = case;
    flow.packets = 0;
    flow.bytes = 0;
    flow.last_seen = tables.now();
    flow.seen = Seen::default();
    flow.tail = A::Tail::default();
    flow.class = if flows::connects(key.protocol) {
        TimeoutClass::Transient
    } else if key.protocol.is_icmp() {
        TimeoutClass::Echo
    } else {
        TimeoutClass::DatagramOpening
    };
    let wanted = peer.destination_port;
    *peer = FlowKey {
        scope: plan.forward.scope(),
        source: key.destination,
        destination: plan.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        protocol: key.protocol,
    };
    // The answers first: their key is what a translated port must not share with another flow.
    direct(flow, &plan.back, &plan.forward, plan.stamps());
    flow.direction = Direction::Reply;
    flow.rewrites = if plan.masquerade { Rewrites::DESTINATION } else { Rewrites::NONE };
    flow.peer_scope = key.scope;
    flow.source = key.destination;
    flow.source_port = key.destination_port;
    flow.destination = key.source;
    flow.destination_port = key.source_port;
    if plan.masquerade {
        claim(peer, wanted, flow, tables)?;
    } else {
        let mut is_its = false;
        let left =
            flows::look(peer, flow.last_seen, tables, |left| is_its = flows::peer_key(left, key.protocol) == *key);
        // What an older flow has left, such as one of a pod that had the same address, would hide what is written.
        if let Some(left) = left
            && !is_its
        {
            tables.remove(left.table, peer);
        }
        // Where another CPU is quicker, its entry is as good.
        if !is_its {
            tables.insert(Table::Openings, peer, flow, Insert::New);
        }
    }

    direct(flow, &plan.forward, &plan.back, plan.stamps());
    flow.direction = Direction::Forward;
    flow.rewrites = if plan.masquerade { Rewrites::SOURCE } else { Rewrites::NONE };
    flow.peer_scope = peer.scope;
    flow.source = plan.source;
    flow.source_port = peer.destination_port;
    flow.destination = key.destination;
    flow.destination_port = key.destination_port;
    if tables.insert(Table::Openings, key, flow, Insert::New) {
        return Ok(());
    }
    // Another CPU has opened the same flow: its entries are as good, but only one port may be kept. Or both ends have
    // opened it at once, and each direction is an opener's.
    if plan.masquerade {
        tables.remove(Table::Openings, peer);
    } else {
        tables.flow(Table::Openings, key, |flow| flow.direction = Direction::Forward);
    }
    Ok(())
}

/// Finds a source port for a masqueraded flow that no other flow to the same destination has, the `wanted` one if
/// possible, and takes it by writing the entry of the answers.
#[inline(always)]
fn claim<A: Parse, T: Tables + FamilyTables<A>>(
    reply_key: &mut FlowKey<A>,
    wanted: Port,
    flow: &Flow<A>,
    tables: &T,
) -> Result<(), Reason> {
    let has_port = reply_key.destination_port != Port(0)
        && (reply_key.protocol == Protocol::TCP
            || reply_key.protocol == Protocol::UDP
            || reply_key.protocol == A::ICMP);
    if reply_key.protocol == Protocol::DCCP || reply_key.protocol == Protocol::UDP_LITE {
        // Their checksums cover the addresses (RFC 4340 section 9.1, RFC 3828 section 3.1).
        return Err(Reason::Untranslatable);
    }
    if !has_port {
        return if take(reply_key, flow, tables) { Ok(()) } else { Err(Reason::Untranslatable) };
    }
    let config = tables.config().ok_or(Reason::PortsExhausted)?;
    let count = u32::from(config.port_last.saturating_sub(config.port_first)) + 1;
    let mut candidate = match wanted.get().checked_sub(config.port_first) {
        Some(port) if u32::from(port) < count => u32::from(port),
        _ => tables.random(),
    };
    for _ in 0..PORT_ATTEMPTS {
        reply_key.destination_port = Port::new(config.port_first.wrapping_add((candidate % count) as u16));
        if take(reply_key, flow, tables) {
            return Ok(());
        }
        // An odd step visits all ports of an even range, and leaves clusters of taken ones behind at once.
        candidate = candidate.wrapping_add(7919);
    }
    Err(Reason::PortsExhausted)
}

#[inline(always)]
fn take<A: Parse, T: Tables + FamilyTables<A>>(reply_key: &FlowKey<A>, flow: &Flow<A>, tables: &T) -> bool {
    let is_established = || tables.flow(Table::Flows, reply_key, |_| ()).is_some();
    if is_established() {
        return false;
    }
    // The opener's packets keep both entries of an opening young; and one whose answers are another's by now has lost
    // them (see `standing`).
    let is_idle = |flow: &mut Flow<A>| flows::is_idle(flow, tables.now(), tables);
    let how = match tables.flow(Table::Openings, reply_key, is_idle) {
        Some(true) => Insert::Any,
        Some(false) => return false,
        None => Insert::New,
    };
    if !tables.insert(Table::Openings, reply_key, flow, how) {
        return false;
    }
    // The owner of the same port may have moved to the other table in between.
    if is_established() {
        tables.remove(Table::Openings, reply_key);
        return false;
    }
    true
}
