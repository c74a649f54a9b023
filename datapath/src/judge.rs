//! Judging flows: once when they open, and again whenever something that they depend on has changed.

use sluice_abi::{
    AddressKind, Deliver, Direction, Features, Flow, FlowKey, Hook, IpAddress, Mac, Port, Protocol, Reason, Rewrites,
    Scope, Seen, Stamp, TimeoutClass, Verdict,
};

use crate::flows::{self, Action, Known};
use crate::parse::{Headers, Parse};
use crate::tables::{FamilyTables, Insert, Table, Tables};
use crate::way::{self, Way};

/// How many source ports are tried for a masqueraded flow before giving up.
const PORT_ATTEMPTS: u32 = 32;

/// What a judgement says of a flow.
struct Plan<A> {
    forward: Way<A>,
    back: Way<A>,
    /// The source address behind translation.
    source: A,
    masquerade: bool,
}

impl<A: Parse> Plan<A> {
    #[inline(always)]
    fn stamps(&self) -> [Stamp; 3] {
        [self.back.stamp, self.forward.stamp, Stamp::default()]
    }

    /// The key of the answers, but for a translated port.
    #[inline(always)]
    fn reply_key(&self, key: &FlowKey<A>) -> FlowKey<A> {
        FlowKey {
            scope: self.forward.scope(),
            source: key.destination,
            destination: self.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            protocol: key.protocol,
        }
    }
}

/// Judges the flow that a key opens, and finds its ways.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn plan<A: Parse, T: Tables + FamilyTables<A>>(key: &FlowKey<A>, tables: &T) -> Result<Plan<A>, Reason> {
    let from = tables.address(key.source);
    let to = tables.address(key.destination);
    let is = |entry: Option<sluice_abi::AddressEntry>, kind| entry.is_some_and(|entry| entry.kind == kind);

    let (forward, back) = if key.scope == Scope::HOST || key.scope == Scope::NET || key.scope == Scope::OVERLAY {
        let Some(to) = to.filter(|to| to.kind == AddressKind::Endpoint) else { return Err(Reason::NoEndpoint) };
        let forward: Way<A> = way::to_endpoint(to.slot, tables)?;
        let back = if key.scope == Scope::HOST {
            Way::stack()
        } else {
            if is(from, AddressKind::Endpoint) || is(from, AddressKind::LocalPods) || is(from, AddressKind::Host) {
                return Err(Reason::MartianSource);
            }
            way::to(forward.interface, key.destination, key.source, from, tables)?
        };
        (forward, back)
    } else {
        let Some(from) = from.filter(|from| from.kind == AddressKind::Endpoint) else {
            return Err(Reason::ForgedSource);
        };
        let back: Way<A> = way::to_endpoint(from.slot, tables)?;
        if back.interface != key.scope.0 {
            return Err(Reason::ForgedSource);
        }
        (way::to(key.scope.0, key.source, key.destination, to, tables)?, back)
    };

    let mut source = key.source;
    let masquerade = forward.leaves && masquerades::<A, T>(tables);
    if masquerade {
        let uplink = tables.uplink(forward.interface).ok_or(Reason::NoMasqueradeAddress)?;
        source = A::from_words(if A::BITS == 32 { uplink.ipv4.words() } else { uplink.ipv6.words() });
        if source.is_unspecified() {
            return Err(Reason::NoMasqueradeAddress);
        }
    }
    Ok(Plan { forward, back, source, masquerade })
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
struct Standing<A> {
    own: Known<A>,
    other: Known<A>,
}

/// Finds the live flow that a packet belongs to, judged again where that is due.
///
/// # Errors
/// Why its packets must be dropped now.
#[inline(always)]
fn standing<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    key: &FlowKey<A>,
    opens: bool,
    tables: &T,
) -> Result<Option<Standing<A>>, Reason> {
    let now = tables.now();
    let Some(own) = flows::look(key, now, tables) else { return Ok(None) };
    let Some(other) = flows::look(&own.peer, now, tables) else {
        flows::forget(key, &own.peer, tables);
        return Ok(None);
    };
    let ended = own.seen.has(Seen::RESET)
        || other.seen.has(Seen::RESET)
        || (own.seen.has(Seen::FIN) && other.seen.has(Seen::FIN));
    if (own.idle && other.idle) || (opens && ended) {
        flows::forget(key, &own.peer, tables);
        return Ok(None);
    }
    if !(own.holds && other.holds) {
        let same = match own.direction {
            Direction::Forward => again(key, own.table, &own.peer, other.table, tables)?,
            Direction::Reply => again(&own.peer, other.table, key, own.table, tables)?,
        };
        if !same {
            flows::forget(key, &own.peer, tables);
            return Ok(None);
        }
        tables.count(hook, Reason::Rejudged);
    }
    Ok(Some(Standing { own, other }))
}

/// Judges a flow again. `false`: it cannot go on as it is, its translation having changed.
#[inline(always)]
fn again<A: Parse, T: Tables + FamilyTables<A>>(
    forward_key: &FlowKey<A>,
    forward_table: Table,
    reply_key: &FlowKey<A>,
    reply_table: Table,
    tables: &T,
) -> Result<bool, Reason> {
    let plan = plan(forward_key, tables)?;
    let stamps = plan.stamps();
    let scope = plan.forward.scope();
    let same = tables.flow(forward_table, forward_key, |flow| {
        let same = flow.source == plan.source
            && flow.rewrites.has(Rewrites::SOURCE) == plan.masquerade
            && flow.peer_scope == scope;
        if same {
            direct(flow, &plan.forward, &plan.back, stamps);
        }
        same
    });
    if same == Some(true) {
        tables.flow(reply_table, reply_key, |flow| direct(flow, &plan.back, &plan.forward, stamps));
    }
    Ok(same == Some(true))
}

/// What is to be done with a packet of a flow that is known or, with `may_open`, may be opened.
/// `None`: no such flow.
///
/// # Errors
/// Why it must be dropped.
#[inline(always)]
pub fn judge<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    key: &FlowKey<A>,
    headers: &Headers<A>,
    may_open: bool,
    tables: &T,
) -> Result<Option<Action<A>>, Reason> {
    let mut table = Table::Openings;
    match standing(hook, key, flows::opens(headers), tables)? {
        Some(Standing { own, other }) => {
            table = own.table;
            let both_seen = match own.direction {
                // Of a connection, the opener's packet after the answer: not an answer alone, which a forged source
                // could call forth.
                Direction::Forward => {
                    flows::connects(key.protocol) && other.seen.has(Seen::PACKET) && !flows::opens(headers)
                }
                Direction::Reply => !flows::connects(key.protocol),
            };
            if both_seen && (own.table == Table::Openings || other.table == Table::Openings) {
                if flows::establish(key, tables) && flows::establish(&own.peer, tables) {
                    table = Table::Flows;
                } else {
                    tables.count(hook, Reason::NotEstablished);
                }
            }
        }
        None if may_open => {
            open(key, tables)?;
            tables.count(hook, Reason::Opened);
        }
        None => return Ok(None),
    }
    let now = tables.now();
    let act = |flow: &mut Flow<A>| {
        flows::touch(flow, headers, now);
        Action::of(flow)
    };
    let action = tables.flow(table, key, act).or_else(|| {
        // Only one direction could be moved, or another CPU moved it meanwhile.
        let elsewhere = if table == Table::Flows { Table::Openings } else { Table::Flows };
        tables.flow(elsewhere, key, act)
    });
    action.map(Some).ok_or(Reason::FlowTableFull)
}

/// What is done with packets of a known flow, for a packet that only quotes one: it is not accounted for.
///
/// # Errors
/// Why it must be dropped.
#[inline(always)]
pub fn related<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    key: &FlowKey<A>,
    tables: &T,
) -> Result<Option<Action<A>>, Reason> {
    match standing(hook, key, false, tables)? {
        Some(Standing { own, .. }) => Ok(tables.flow(own.table, key, |flow| Action::of(flow))),
        None => Ok(None),
    }
}

/// Opens a flow: writes the entries of both directions.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn open<A: Parse, T: Tables + FamilyTables<A>>(key: &FlowKey<A>, tables: &T) -> Result<(), Reason> {
    let plan = plan(key, tables)?;
    let mut reply_key = plan.reply_key(key);
    let rewritten = plan.masquerade;
    tables
        .scratch(|flow| {
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
            // The answers first: their key is what a translated port must not share with another flow.
            direct(flow, &plan.back, &plan.forward, plan.stamps());
            flow.direction = Direction::Reply;
            flow.rewrites = if rewritten { Rewrites::DESTINATION } else { Rewrites::NONE };
            flow.peer_scope = key.scope;
            flow.source = key.destination;
            flow.source_port = key.destination_port;
            flow.destination = key.source;
            flow.destination_port = key.source_port;
            if rewritten {
                claim(&mut reply_key, flow, tables)?;
            } else if !tables.insert(Table::Openings, &reply_key, flow, Insert::Any) {
                return Err(Reason::FlowTableFull);
            }

            direct(flow, &plan.forward, &plan.back, plan.stamps());
            flow.direction = Direction::Forward;
            flow.rewrites = if rewritten { Rewrites::SOURCE } else { Rewrites::NONE };
            flow.peer_scope = reply_key.scope;
            flow.source = plan.source;
            flow.source_port = reply_key.destination_port;
            flow.destination = key.destination;
            flow.destination_port = key.destination_port;
            if tables.insert(Table::Openings, key, flow, Insert::New) {
                return Ok(());
            }
            // Another CPU has opened the same flow: its entries are as good, but only one port may be kept.
            if rewritten {
                tables.remove(Table::Openings, &reply_key);
            }
            Ok(())
        })
        .ok_or(Reason::FlowTableFull)?
}

/// Finds a source port for a masqueraded flow that no other flow to the same destination has, and takes it by writing
/// the entry of the answers.
#[inline(always)]
fn claim<A: Parse, T: Tables + FamilyTables<A>>(
    reply_key: &mut FlowKey<A>,
    flow: &Flow<A>,
    tables: &T,
) -> Result<(), Reason> {
    let has_port = reply_key.destination_port != Port(0)
        && (reply_key.protocol == Protocol::TCP
            || reply_key.protocol == Protocol::UDP
            || reply_key.protocol == A::ICMP);
    if !has_port {
        return if take(reply_key, flow, tables) { Ok(()) } else { Err(Reason::Untranslatable) };
    }
    let config = tables.config().ok_or(Reason::PortsExhausted)?;
    let count = u32::from(config.port_last.saturating_sub(config.port_first)) + 1;
    let mut candidate = tables.random();
    for _ in 0..PORT_ATTEMPTS {
        // An odd step visits all ports of an even range, and leaves clusters of taken ones behind at once.
        candidate = candidate.wrapping_add(7919);
        reply_key.destination_port = Port::new(config.port_first.wrapping_add((candidate % count) as u16));
        if take(reply_key, flow, tables) {
            return Ok(());
        }
    }
    Err(Reason::PortsExhausted)
}

#[inline(always)]
fn take<A: Parse, T: FamilyTables<A>>(reply_key: &FlowKey<A>, flow: &Flow<A>, tables: &T) -> bool {
    let is_established = || tables.flow(Table::Flows, reply_key, |_| ()).is_some();
    if is_established() || !tables.insert(Table::Openings, reply_key, flow, Insert::New) {
        return false;
    }
    // The owner of the same port may have moved to the other table in between.
    if is_established() {
        tables.remove(Table::Openings, reply_key);
        return false;
    }
    true
}
