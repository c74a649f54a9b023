//! Writing what was judged of a flow.

use sluice_abi::{Deliver, Direction, Flow, FlowKey, Hook, Mac, Port, Protocol, Reason, Seen, TimeoutClass};

use crate::desk::{Case, Disguise, Plan};
use crate::flows;
use crate::parse::Parse;
use crate::service::Target;
use crate::tables::{FamilyTables, Insert, Table, Tables};

/// How many source ports are tried for a translated flow before giving up.
const PORT_ATTEMPTS: u32 = 32;

/// Writes the judgement of a case into the entries of its flow, or opens it.
///
/// # Errors
/// Why its packets must be dropped now.
#[inline(always)]
pub fn write<A: Parse, T: Tables + FamilyTables<A>>(hook: Hook, case: &mut Case<A>, tables: &T) -> Result<(), Reason> {
    let Some(standing) = case.standing() else {
        open(case, tables)?;
        tables.count(hook, Reason::Opened);
        return Ok(());
    };
    let Case { key, peer, plan, target, .. } = case;
    let (own, other) = (standing.own, standing.other);
    let same = match own.direction {
        Direction::Forward => renew((key, own.table), (peer, other.table), target, plan, tables),
        Direction::Reply => renew((peer, other.table), (key, own.table), target, plan, tables),
    };
    if !same {
        // What it was translated to, or where its answers come from, is no longer so: its next packet opens another.
        flows::forget(key, peer, tables);
        return Err(Reason::NoFlow);
    }
    tables.count(hook, Reason::Rejudged);
    Ok(())
}

/// Says of one direction of a flow what the plan says of it.
#[inline(always)]
fn direct<A: Parse>(flow: &mut Flow<A>, direction: Direction, target: &Target<A>, plan: &Plan<A>) {
    let (way, opposite) = match direction {
        Direction::Forward => (&plan.forward, &plan.back),
        Direction::Reply => (&plan.back, &plan.forward),
    };
    flow.next_hop = way.next_hop;
    flow.interface = way.interface;
    flow.node = way.node;
    // The stack, which fragments or complains, would know neither of the addresses that are translated.
    let is_stacks = matches!(way.deliver, Deliver::Pod | Deliver::Stack);
    flow.mtu = if target.is_backend() && is_stacks { 0 } else { way.mtu };
    flow.backend = target.backend;
    flow.deliver = way.deliver;
    flow.source_mac = if opposite.deliver == Deliver::Pod { opposite.mac } else { Mac::default() };
    flow.policy = match direction {
        Direction::Forward => plan.policies[0],
        Direction::Reply => plan.policies[1],
    };
    flow.verdict = plan.verdict;
    flow.stamps = plan.stamps();
}

/// Writes a new judgement into both entries of a flow. `false`: it cannot go on as it is.
#[inline(always)]
fn renew<A: Parse, T: Tables + FamilyTables<A>>(
    (forward_key, forward_table): (&FlowKey<A>, Table),
    (reply_key, reply_table): (&FlowKey<A>, Table),
    target: &Target<A>,
    plan: &Plan<A>,
    tables: &T,
) -> bool {
    let same = tables.flow(forward_table, forward_key, |flow| {
        let same = flow.source == plan.source
            && flow.rewrites == plan.rewrites(Direction::Forward, target)
            && flow.peer_scope == plan.forward.scope();
        if same {
            direct(flow, Direction::Forward, target, plan);
        }
        same
    });
    if same == Some(true) {
        tables.flow(reply_table, reply_key, |flow| direct(flow, Direction::Reply, target, plan));
    }
    same == Some(true)
}

/// Opens the flow that was judged: writes the entries of both directions.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn open<A: Parse, T: Tables + FamilyTables<A>>(case: &mut Case<A>, tables: &T) -> Result<(), Reason> {
    let Case { key, peer, plan, target, flow, .. } = case;
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
    // The port that it had before, where it had one.
    let wanted = match plan.disguise {
        Disguise::Port if peer.destination_port == Port(0) => key.source_port,
        Disguise::None | Disguise::Port | Disguise::Node => peer.destination_port,
    };
    *peer = FlowKey {
        scope: plan.forward.scope(),
        source: target.address,
        destination: plan.source,
        source_port: target.port,
        destination_port: key.source_port,
        protocol: key.protocol,
    };
    // The answers first: their key is what a translated port must not share with another flow.
    direct(flow, Direction::Reply, target, plan);
    flow.direction = Direction::Reply;
    flow.rewrites = plan.rewrites(Direction::Reply, target);
    flow.peer_scope = key.scope;
    flow.source = key.destination;
    flow.source_port = key.destination_port;
    flow.destination = key.source;
    flow.destination_port = key.source_port;
    let is_claimed = plan.disguise != Disguise::None;
    if is_claimed {
        claim(peer, wanted, plan.disguise, flow, tables)?;
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

    direct(flow, Direction::Forward, target, plan);
    flow.direction = Direction::Forward;
    flow.rewrites = plan.rewrites(Direction::Forward, target);
    flow.peer_scope = peer.scope;
    flow.source = plan.source;
    flow.source_port = peer.destination_port;
    flow.destination = target.address;
    flow.destination_port = target.port;
    if tables.insert(Table::Openings, key, flow, Insert::New) {
        return Ok(());
    }
    // Another CPU has opened the same flow: its entries are as good, but only one port may be kept. Or both ends have
    // opened it at once, and each direction is an opener's.
    if is_claimed {
        tables.remove(Table::Openings, peer);
    } else {
        tables.flow(Table::Openings, key, |flow| flow.direction = Direction::Forward);
    }
    Ok(())
}

/// Finds a source port for a translated flow that no other flow to the same destination has, the `wanted` one if
/// possible, and takes it by writing the entry of the answers. Beside the node's own address it is one that the node itself
/// does not use.
#[inline(always)]
fn claim<A: Parse, T: Tables + FamilyTables<A>>(
    reply_key: &mut FlowKey<A>,
    wanted: Port,
    disguise: Disguise,
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
        return if take(reply_key, flow, false, tables) { Ok(()) } else { Err(Reason::Untranslatable) };
    }
    if disguise != Disguise::Node {
        reply_key.destination_port = wanted;
        if take(reply_key, flow, false, tables) {
            return Ok(());
        }
    }
    let config = tables.config().ok_or(Reason::PortsExhausted)?;
    let count = u32::from(config.port_last.saturating_sub(config.port_first)) + 1;
    let mut candidate = match wanted.get().checked_sub(config.port_first) {
        Some(port) if u32::from(port) < count => u32::from(port),
        _ => tables.random(),
    };
    for attempt in 0..PORT_ATTEMPTS {
        reply_key.destination_port = Port::new(config.port_first.wrapping_add((candidate % count) as u16));
        // Connections that nobody goes on with must not keep others out: of a flood of them, they lose their ports to others.
        let yields = reply_key.protocol == Protocol::TCP && attempt >= PORT_ATTEMPTS / 2;
        if take(reply_key, flow, yields, tables) {
            return Ok(());
        }
        // An odd step visits all ports of an even range, and leaves clusters of taken ones behind at once.
        candidate = candidate.wrapping_add(7919);
    }
    Err(Reason::PortsExhausted)
}

/// With `yields`, an opening gives way, even if it is young.
#[inline(always)]
fn take<A: Parse, T: Tables + FamilyTables<A>>(
    reply_key: &FlowKey<A>,
    flow: &Flow<A>,
    yields: bool,
    tables: &T,
) -> bool {
    let is_established = || tables.flow(Table::Flows, reply_key, |_| ()).is_some();
    if is_established() {
        return false;
    }
    // The opener's packets keep both entries of an opening young; and one whose answers are another's by now has lost
    // them (see `standing`).
    let is_idle = |flow: &mut Flow<A>| flows::is_idle(flow, tables.now(), tables);
    let how = match tables.flow(Table::Openings, reply_key, is_idle) {
        Some(is_idle) if is_idle || yields => Insert::Any,
        Some(_) => return false,
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
