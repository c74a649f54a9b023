//! What the flow table knows of a packet, and what follows from it.

use sluice_abi::{
    BackendId, Deliver, Direction, Flow, FlowKey, Hook, IpAddress, Mac, Protocol, Reason, Rewrites, Scope, Seen, Slot,
    Stage, Stamp, TimeoutClass,
};

use crate::desk::Case;
use crate::outcome::{Family, Outcome};
use crate::packet::{Packet, View};
use crate::parse::{Headers, Parse, tcp};
use crate::rewrite;
use crate::standing::Standing;
use crate::tables::{FamilyTables, Insert, Table, Tables};

/// What is to be done with the packets of a flow: the part of its entry that outlives the lookup.
#[derive(Clone, Copy)]
pub struct Action<A> {
    pub deliver: Deliver,
    pub interface: u32,
    pub node: Slot,
    pub next_hop: A,
    pub mtu: u16,
    pub rewrites: Rewrites,
    pub source: A,
    pub destination: A,
    pub source_port: sluice_abi::Port,
    pub destination_port: sluice_abi::Port,
}

impl<A: IpAddress> Action<A> {
    #[inline(always)]
    pub fn of(flow: &Flow<A>) -> Self {
        Self {
            deliver: flow.deliver,
            interface: flow.interface,
            node: flow.node,
            next_hop: flow.next_hop,
            mtu: flow.mtu,
            rewrites: flow.rewrites,
            source: flow.source,
            destination: flow.destination,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
        }
    }
}

/// The key of a packet seen in a scope.
#[inline(always)]
pub fn key<A: IpAddress>(scope: Scope, headers: &Headers<A>) -> FlowKey<A> {
    FlowKey {
        scope,
        source: headers.source,
        destination: headers.destination,
        source_port: headers.source_port,
        destination_port: headers.destination_port,
        protocol: headers.protocol,
    }
}

/// The key of the entry for the other direction.
#[inline(always)]
pub fn peer_key<A: IpAddress>(flow: &Flow<A>, protocol: Protocol) -> FlowKey<A> {
    FlowKey {
        scope: flow.peer_scope,
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        protocol,
    }
}

/// Whether the revisions that something was judged under still hold.
#[inline(always)]
pub fn holds<T: Tables>(stamps: &[Stamp; 3], tables: &T) -> bool {
    let [first, second, third] = stamps;
    tables.revision(first.slot) == first.revision
        && tables.revision(second.slot) == second.revision
        && tables.revision(third.slot) == third.revision
}

/// Whether a direction has been idle for longer than its class allows.
#[inline(always)]
pub fn is_idle<A: IpAddress, T: Tables>(flow: &Flow<A>, now: u32, tables: &T) -> bool {
    let Some(config) = tables.config() else { return true };
    // Signed: the clock of another CPU may be ahead of this one's.
    now.wrapping_sub(flow.last_seen) as i32 > config.timeouts.of(flow.class) as i32
}

/// Whether a packet asks for a connection.
#[inline(always)]
pub fn opens<A: IpAddress>(headers: &Headers<A>) -> bool {
    headers.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// Whether a protocol has connections, whose state its packets show.
#[inline(always)]
pub fn connects(protocol: Protocol) -> bool {
    protocol == Protocol::TCP || protocol == Protocol::SCTP
}

/// Accounts for a packet that passes.
#[inline(always)]
pub fn touch<A: IpAddress>(flow: &mut Flow<A>, headers: &Headers<A>, now: u32) {
    flow.packets += 1;
    flow.bytes += u64::from(headers.length);
    flow.last_seen = now;
    let mut seen = flow.seen.with(Seen::PACKET).without(Seen::RESET);
    if headers.flags & tcp::FIN != 0 {
        seen = seen.with(Seen::FIN);
    }
    if headers.flags & tcp::RST != 0 {
        seen = seen.with(Seen::RESET);
    }
    flow.seen = seen;
}

/// What a look at the table of established flows gives.
pub enum Glance<K> {
    /// The packet's flow, and what is to be known of it.
    Known(K),
    /// A packet that the slow path must see.
    Unsure,
    /// There is no such flow in the table.
    Absent,
}

/// What a valid entry says of a packet, which is then accounted for.
///
/// One lookup. Openings are not looked at: an entry there is as good as its peer, which others may have pushed out, and
/// the slow path looks at both.
#[inline(always)]
pub fn known<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    headers: &Headers<A>,
    mac: Option<Mac>,
    tables: &T,
) -> Glance<Action<A>> {
    if opens(headers) {
        return Glance::Unsure;
    }
    let now = tables.now();
    let glance = tables.flow(Table::Flows, key, |flow| {
        let good = holds(&flow.stamps, tables)
            && !is_idle(flow, now, tables)
            && mac.is_none_or(|mac| mac.high == flow.source_mac.high && mac.low == flow.source_mac.low);
        // Its checksum is nothing to be hasty with.
        if !good || (headers.protocol == Protocol::SCTP && flow.rewrites != Rewrites::NONE) {
            return Glance::Unsure;
        }
        touch(flow, headers, now);
        Glance::Known(Action::of(flow))
    });
    glance.unwrap_or(Glance::Absent)
}

/// As [`known`], for packets that are on their way already: one that is to be translated is the slow path's. (Linux 5.10
/// could not compile a program that did both: its images did not come out of the same size twice.)
#[inline(always)]
pub fn known_as_it_is<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    headers: &Headers<A>,
    tables: &T,
) -> Glance<()> {
    if opens(headers) {
        return Glance::Unsure;
    }
    let now = tables.now();
    let glance = tables.flow(Table::Flows, key, |flow| {
        if !holds(&flow.stamps, tables) || is_idle(flow, now, tables) || flow.rewrites != Rewrites::NONE {
            return Glance::Unsure;
        }
        touch(flow, headers, now);
        Glance::Known(())
    });
    glance.unwrap_or(Glance::Absent)
}

/// Whether a packet is too large for its way: the stack fragments it or answers with an ICMP error, as the packet wants.
#[inline(always)]
pub fn is_too_large<A: Parse, P: Packet>(packet: &P, headers: &Headers<A>, action: &Action<A>) -> bool {
    action.mtu != 0 && on_the_wire(packet, headers) > u32::from(action.mtu)
}

/// Length of the largest packet that a packet becomes, from the network header on.
#[inline(always)]
fn on_the_wire<A: Parse, P: Packet>(packet: &P, headers: &Headers<A>) -> u32 {
    /// `GSO_BY_FRAGS` (include/linux/skbuff.h): SCTP, cut as its sender has put it together for the way's MTU.
    const BY_FRAGMENTS: u32 = 0xffff;
    let payload = packet.segment();
    if payload == 0 {
        return headers.length;
    }
    if payload == BY_FRAGMENTS {
        return 0;
    }
    let transport = if headers.protocol == Protocol::TCP {
        packet.view::<20>(headers.transport).map_or(20, |tcp| u32::from(tcp.byte::<12>() >> 4) * 4)
    } else {
        // Of UDP. Inside a tunnel of the sender's own there is more, which is left to the sender.
        8
    };
    headers.length.min((headers.transport - headers.network) as u32 + transport + payload)
}

/// Does to a packet what its flow says, if it fits.
#[inline(always)]
pub fn apply<A: Parse, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<A>,
    action: &Action<A>,
    tables: &T,
) -> Outcome {
    // Somebody has to say so.
    if is_too_large(packet, headers, action) {
        return Outcome::Slow(Stage::Admit, Family::of::<A>());
    }
    if action.rewrites != Rewrites::NONE
        && let Err(reason) = rewrite::translate(packet, headers, action)
    {
        return Outcome::Drop(reason);
    }
    deliver(action, tables)
}

/// Where a flow's packets go.
#[inline(always)]
pub fn deliver<A: Parse, T: Tables>(action: &Action<A>, tables: &T) -> Outcome {
    match action.deliver {
        Deliver::Pod => Outcome::Pod { interface: action.interface },
        Deliver::Neighbour => Outcome::Neighbour {
            interface: action.interface,
            family: Family::of::<A>(),
            next_hop: action.next_hop.words(),
        },
        Deliver::Overlay => {
            Outcome::Overlay { interface: tables.config().map_or(0, |config| config.overlay), node: action.node }
        }
        Deliver::Direct => Outcome::Direct {
            interface: action.interface,
            family: Family::of::<A>(),
            next_hop: action.next_hop.words(),
            node: action.node,
        },
        Deliver::Stack => Outcome::Pass,
    }
}

/// Where packets of the node's own go that were on their way out, and have got another destination.
#[inline(always)]
pub fn divert<A: Parse, T: Tables>(action: &Action<A>, tables: &T) -> Outcome {
    match action.deliver {
        // From an egress hook nothing goes into a pod but by its device.
        Deliver::Pod => Outcome::Neighbour {
            interface: action.interface,
            family: Family::of::<A>(),
            next_hop: action.destination.words(),
        },
        Deliver::Neighbour | Deliver::Overlay | Deliver::Direct | Deliver::Stack => deliver(action, tables),
    }
}

/// What matters of an entry when its flow must be judged.
#[derive(Clone, Copy)]
pub struct Known {
    pub table: Table,
    pub direction: Direction,
    pub idle: bool,
    pub holds: bool,
    pub seen: Seen,
    pub backend: BackendId,
    /// Whether its packets are sent on as they are.
    pub is_direct: bool,
}

impl Known {
    /// Of an entry that is neither idle nor valid.
    pub const fn of<A: IpAddress>(table: Table, flow: &Flow<A>) -> Self {
        Self {
            table,
            direction: flow.direction,
            idle: false,
            holds: false,
            seen: flow.seen,
            backend: flow.backend,
            is_direct: matches!(flow.deliver, Deliver::Direct),
        }
    }
}

/// Looks an entry up in both tables.
#[inline(always)]
pub fn look<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    now: u32,
    tables: &T,
    mut and: impl FnMut(&Flow<A>),
) -> Option<Known> {
    let mut look_in = |table| {
        tables.flow(table, key, |flow| {
            and(flow);
            Known { idle: is_idle(flow, now, tables), holds: holds(&flow.stamps, tables), ..Known::of(table, flow) }
        })
    };
    let established = look_in(Table::Flows);
    if established.is_some() { established } else { look_in(Table::Openings) }
}

/// Reads what the flow of a case says of its packets, without accounting for one. `false`: it is gone.
#[inline(always)]
pub fn peek<A: Parse, T: FamilyTables<A>>(case: &mut Case<A>, tables: &T) -> bool {
    let Some(standing) = case.standing() else { return false };
    let Case { key, action, .. } = case;
    tables.flow(standing.own.table, key, |flow| *action = Action::of(flow)).is_some()
}

/// Reads what the flow of a case says of its packets, and accounts for one. A flow that both sides have taken part in by
/// now moves to the table that does not evict.
///
/// # Errors
/// [`Reason::FlowTableFull`] where it is gone already.
#[inline(always)]
pub fn account<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    headers: &Headers<A>,
    case: &mut Case<A>,
    tables: &T,
) -> Result<(), Reason> {
    let standing = case.standing();
    let Case { key, peer, action, .. } = case;
    if let Some(Standing { own, other }) = standing {
        // The opener's packet after an answer: not an answer alone, which a forged source could call forth, and which is
        // all that most questions need.
        let both_seen = own.direction == Direction::Forward && other.seen.has(Seen::PACKET) && !opens(headers);
        if both_seen
            && (own.table == Table::Openings || other.table == Table::Openings)
            && !establish(key, peer, tables)
        {
            tables.count(hook, Reason::NotEstablished);
        }
    }
    let now = tables.now();
    let mut act = |flow: &mut Flow<A>| {
        touch(flow, headers, now);
        *action = Action::of(flow);
    };
    if tables.flow(Table::Flows, key, &mut act).is_none() {
        let goes_on = connects(key.protocol) && !opens(headers);
        let found = tables.flow(Table::Openings, key, |flow| {
            // Answers to what is sent on go another way, and will never be seen here.
            if goes_on && flow.deliver == Deliver::Direct {
                flow.class = TimeoutClass::Connected;
            }
            act(flow);
        });
        found.ok_or(Reason::FlowTableFull)?;
        tables.flow(Table::Openings, peer, |flow| flow.last_seen = now);
    }
    Ok(())
}

/// Forgets both directions of a flow.
#[inline(always)]
pub fn forget<A: Parse, T: FamilyTables<A>>(key: &FlowKey<A>, peer: &FlowKey<A>, tables: &T) {
    for table in [Table::Flows, Table::Openings] {
        tables.remove(table, key);
        tables.remove(table, peer);
    }
}

/// Moves both directions of a flow to the table that does not evict; `false` where that is full: then neither moves.
#[inline(always)]
pub fn establish<A: Parse, T: FamilyTables<A>>(key: &FlowKey<A>, peer: &FlowKey<A>, tables: &T) -> bool {
    if !copy(key, tables) {
        return false;
    }
    if !copy(peer, tables) {
        tables.remove(Table::Flows, key);
        return false;
    }
    tables.remove(Table::Openings, key);
    tables.remove(Table::Openings, peer);
    true
}

/// Copies one direction of a flow to the table that does not evict; `false` where that is full.
#[inline(always)]
fn copy<A: Parse, T: FamilyTables<A>>(key: &FlowKey<A>, tables: &T) -> bool {
    let class = if connects(key.protocol) {
        TimeoutClass::Connected
    } else if key.protocol.is_icmp() {
        TimeoutClass::Echo
    } else {
        TimeoutClass::Datagram
    };
    let copied = tables.flow(Table::Openings, key, |flow| {
        flow.class = class;
        tables.insert(Table::Flows, key, flow, Insert::Any)
    });
    // Where there is none, another CPU was quicker.
    copied.unwrap_or(true)
}
