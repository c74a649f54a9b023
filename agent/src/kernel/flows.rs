//! Reading the flow table, and removing what has ended from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapInfo};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use sluice_abi::{
    Config, Deliver, Direction, Endpoint, Flow, FlowKey, IpAddress, Ipv4, Ipv6, Rewrites, Scope, Seen, Slot,
    TimeoutClass, Verdict, maps,
};
use sluice_api::{EndpointRecord, FlowStatus};

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::meter::Fill;
use super::open;
use super::programs::Programs;

/// Jiffies a second: the resolution of the coarse clock is one of them.
fn hertz() -> u64 {
    nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .ok()
        .and_then(|resolution| 1_000_000_000_u64.checked_div(resolution.tv_nsec() as u64))
        .unwrap_or(250)
        .max(1)
}

/// Jiffies in so many seconds.
pub fn jiffies(seconds: u32) -> u32 {
    (u64::from(seconds) * hertz()) as u32
}

/// Seconds that so many jiffies take.
pub fn seconds(jiffies: u32) -> u64 {
    u64::from(jiffies) / hertz()
}

/// The clock that flows are stamped with.
pub struct Clock(SchedClassifier);

impl Clock {
    /// Opens it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(programs: &Programs) -> Result<Self, KernelError> {
        programs.open("clock").map(Self)
    }

    /// The time, jiffies.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn now(&self) -> Result<u32, KernelError> {
        let packet = [0; 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet);
        Ok(self.0.test_run(options).doing(|| "asking the programs for the time".into())?.return_value)
    }
}

/// An address family of the flow tables.
trait Family: IpAddress + Pod
where
    FlowKey<Self>: Pod,
    Flow<Self>: Pod,
{
    const FLOWS: &'static str;
    const OPENINGS: &'static str;
    fn ip(self) -> IpAddr;
}

impl Family for Ipv4 {
    const FLOWS: &str = maps::FLOWS4;
    const OPENINGS: &str = maps::OPENINGS4;
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Family for Ipv6 {
    const FLOWS: &str = maps::FLOWS6;
    const OPENINGS: &str = maps::OPENINGS6;
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

type FlowMap<A> = HashMap<MapData, FlowKey<A>, Flow<A>>;

/// The key of the other direction.
fn peer_key<A: IpAddress>(key: &FlowKey<A>, flow: &Flow<A>) -> FlowKey<A> {
    FlowKey {
        scope: flow.peer_scope,
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        protocol: key.protocol,
    }
}

/// A flow, and the numbers of what policies said of it, of the pod that opened it and of the one that it was opened to; 0:
/// nothing.
pub struct Listed {
    /// The flow; of policies, it says nothing yet but the verdict.
    pub status: FlowStatus,
    /// By which reasons it may pass: of egress, of ingress.
    pub reasons: [u32; 2],
}

/// Lists flows, those that were answered first.
///
/// # Errors
/// Where the kernel refuses.
pub fn list(
    pins: &Pins,
    clock: &Clock,
    pods: &BTreeMap<u32, EndpointRecord>,
    limit: usize,
) -> Result<Vec<Listed>, KernelError> {
    let now = clock.now()?;
    let mut list = Vec::new();
    list_family::<Ipv4>(pins, now, pods, limit, &mut list)?;
    list_family::<Ipv6>(pins, now, pods, limit, &mut list)?;
    Ok(list)
}

fn list_family<A: Family>(
    pins: &Pins,
    now: u32,
    pods: &BTreeMap<u32, EndpointRecord>,
    limit: usize,
    list: &mut Vec<Listed>,
) -> Result<(), KernelError>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let flows: FlowMap<A> = open(pins, A::FLOWS)?;
    let openings: FlowMap<A> = open(pins, A::OPENINGS)?;
    for (map, established) in [(&flows, true), (&openings, false)] {
        // Entries that come and go meanwhile may be missed or end the listing early: it is a look, not an account.
        for (key, flow) in map.iter().map_while(Result::ok) {
            if list.len() >= limit {
                return Ok(());
            }
            if flow.direction != Direction::Forward {
                continue;
            }
            let peer = peer_key(&key, &flow);
            let reply = flows.get(&peer, 0).or_else(|_| openings.get(&peer, 0)).ok();
            let seen = reply.map_or(flow.last_seen, |reply| {
                if now.wrapping_sub(reply.last_seen) < now.wrapping_sub(flow.last_seen) {
                    reply.last_seen
                } else {
                    flow.last_seen
                }
            });
            let pod = pods.get(&key.scope.0);
            let translated = |rewrites, address: A, port: sluice_abi::Port| {
                flow.rewrites.has(rewrites).then(|| (address.ip(), port.get()))
            };
            let status = FlowStatus {
                protocol: key.protocol.0 as u8,
                source: key.source.ip(),
                source_port: key.source_port.get(),
                destination: key.destination.ip(),
                destination_port: key.destination_port.get(),
                scope: scope(key.scope, pod),
                deliver: match flow.deliver {
                    Deliver::Pod => "pod",
                    Deliver::Neighbour => "neighbour",
                    Deliver::Overlay => "overlay",
                    Deliver::Stack => "stack",
                    Deliver::Direct => "direct",
                }
                .into(),
                translated_source: translated(Rewrites::SOURCE, flow.source, flow.source_port),
                translated_destination: translated(Rewrites::DESTINATION, flow.destination, flow.destination_port),
                established,
                sent: (flow.packets, flow.bytes),
                received: reply.map_or((0, 0), |reply| (reply.packets, reply.bytes)),
                idle_seconds: seconds(now.wrapping_sub(seen)),
                pod: pod.and_then(|record| record.pod.clone()),
                verdict: match flow.verdict {
                    Verdict::Allow => "allowed",
                    Verdict::Audit => "audited",
                }
                .into(),
                egress: None,
                ingress: None,
            };
            let reasons = [flow.policy, reply.map_or(0, |reply| reply.policy)];
            list.push(Listed { status, reasons });
        }
    }
    Ok(())
}

fn scope(scope: Scope, pod: Option<&EndpointRecord>) -> String {
    match scope {
        Scope::HOST => "host".into(),
        Scope::NET => "net".into(),
        Scope::OVERLAY => "overlay".into(),
        Scope(index) => pod.map_or_else(|| format!("interface {index}"), |record| record.host_interface.clone()),
    }
}

/// Removes flows whose time is over: from the table that never evicts, because nothing else does, and from the other,
/// because what lies there keeps a port for masquerading taken.
pub struct Reaper {
    clock: Clock,
    config: Array<MapData, Config>,
    endpoints: Array<MapData, Endpoint>,
    v4: FlowTables<Ipv4>,
    v6: FlowTables<Ipv6>,
}

/// The flow tables of one address family.
struct FlowTables<A: IpAddress> {
    flows: FlowTable<A>,
    openings: FlowTable<A>,
}

/// A flow table, opened twice: what is removed through the one handle can be listed through the other meanwhile.
struct FlowTable<A: IpAddress> {
    name: &'static str,
    list: FlowMap<A>,
    table: FlowMap<A>,
    size: usize,
}

/// What a round has come to.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// How many entries were removed.
    pub removed: usize,
    /// How full it has left the tables.
    pub fills: Vec<Fill>,
}

/// Entries that are looked at in one go.
const BATCH: usize = 2_000;
/// Rest between two goes.
const REST: Duration = Duration::from_millis(20);

impl Reaper {
    /// Opens the tables.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(pins: &Pins, clock: Clock) -> Result<Self, KernelError> {
        Ok(Self {
            clock,
            config: open(pins, maps::CONFIG)?,
            endpoints: open(pins, maps::ENDPOINTS)?,
            v4: FlowTables::open(pins)?,
            v6: FlowTables::open(pins)?,
        })
    }

    /// Looks at every flow once, with rests in between.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn round(&mut self) -> Result<Round, KernelError> {
        let Self { clock, config, endpoints, v4, v6 } = self;
        let config = config.get(&0, 0).doing(|| "reading the node's settings".into())?;
        let interface = |slot: Slot| endpoints.get(&slot.0, 0).map_or(0, |endpoint| endpoint.interface);
        let mut round = Round::default();
        v4.sweep(clock, &config, interface, &mut round)?;
        v6.sweep(clock, &config, interface, &mut round)?;
        Ok(round)
    }
}

impl<A: Family> FlowTables<A>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    fn open(pins: &Pins) -> Result<Self, KernelError> {
        let table = |name: &'static str| -> Result<FlowTable<A>, KernelError> {
            let info = MapInfo::from_pin(pins.map(name)).doing(|| format!("reading the size of {name}"))?;
            let size = info.max_entries() as usize;
            Ok(FlowTable { name, list: open(pins, name)?, table: open(pins, name)?, size })
        };
        Ok(Self { flows: table(A::FLOWS)?, openings: table(A::OPENINGS)? })
    }

    fn sweep(
        &mut self,
        clock: &Clock,
        config: &Config,
        interface: impl Fn(Slot) -> u32,
        round: &mut Round,
    ) -> Result<(), KernelError> {
        let Self { flows, openings } = self;
        flows.sweep(&openings.list, clock, config, &interface, round)?;
        openings.sweep(&flows.list, clock, config, &interface, round)
    }
}

impl<A: Family> FlowTable<A>
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    /// Removes what is over; the other direction of a flow may be in the `other` table.
    fn sweep(
        &mut self,
        other: &FlowMap<A>,
        clock: &Clock,
        config: &Config,
        interface: &impl Fn(Slot) -> u32,
        round: &mut Round,
    ) -> Result<(), KernelError> {
        let (mut listed, mut removed) = (0, 0);
        // A key that goes while it is the last one listed has the kernel begin again from the start: none is removed
        // before the next is known, and one round lists no more than there can be.
        let mut keys = once(self.list.keys(), self.size);
        let mut last = None;
        loop {
            let batch: Vec<_> = keys.by_ref().take(BATCH).collect();
            let is_end = batch.is_empty();
            listed += batch.len();
            let mut due: Vec<_> = last.into_iter().chain(batch).collect();
            last = if is_end { None } else { due.pop() };
            let now = clock.now()?;
            for key in due {
                // Looked at only now that it may go: packets since it was listed count.
                let Ok(flow) = self.table.get(&key, 0) else { continue };
                let peer = peer_key(&key, &flow);
                let peer = self.table.get(&peer, 0).or_else(|_| other.get(&peer, 0)).ok();
                let over = is_over(&flow, peer.as_ref(), now, config) || is_orphan(&key, &flow, interface);
                removed += usize::from(over && self.table.remove(&key).is_ok());
            }
            if is_end {
                round.removed += removed;
                round.fills.push(Fill { table: self.name, entries: listed - removed, capacity: self.size });
                return Ok(());
            }
            std::thread::sleep(REST);
        }
    }
}

/// The keys of a table, no more than there can be. Whoever goes on asking the listing behind its end has it begin again.
fn once<K, E>(listing: impl Iterator<Item = Result<K, E>>, size: usize) -> impl Iterator<Item = K> {
    listing.map_while(Result::ok).take(size).fuse()
}

/// Whether both directions of a flow have been idle for longer than they may be; of a connection that has ended, that is
/// not long.
fn is_over<A: IpAddress>(flow: &Flow<A>, peer: Option<&Flow<A>>, now: u32, config: &Config) -> bool {
    let ended = flow.seen.ends(peer.map_or(Seen::default(), |peer| peer.seen));
    let is_idle = |flow: &Flow<A>| {
        let class = if ended { TimeoutClass::Transient } else { flow.class };
        now.wrapping_sub(flow.last_seen) as i32 > config.timeouts.of(class) as i32
    };
    is_idle(flow) && peer.is_none_or(is_idle)
}

/// Whether an endpoint that a flow was judged for is there no longer: its slot is free or another's.
fn is_orphan<A: IpAddress>(key: &FlowKey<A>, flow: &Flow<A>, interface: &impl Fn(Slot) -> u32) -> bool {
    flow.stamps.iter().filter_map(|stamp| stamp.slot.endpoint()).any(|slot| {
        let now = Scope::pod(interface(slot));
        now != key.scope && now != flow.peer_scope
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::{BackendId, Mac, Port, Protocol, RevisionSlot, Stamp, Timeouts, Verdict};

    const SETTINGS: Timeouts = Timeouts::new([60, 20_000, 30, 120, 10]);

    fn flow(last_seen: u32, class: TimeoutClass, seen: Seen) -> Flow<Ipv4> {
        Flow {
            packets: 0,
            bytes: 0,
            stamps: [Stamp::default(); 3],
            source: Ipv4::default(),
            destination: Ipv4::default(),
            next_hop: Ipv4::default(),
            source_port: Port(0),
            destination_port: Port(0),
            interface: 0,
            peer_scope: Scope::NET,
            node: Slot::NONE,
            backend: BackendId::NONE,
            policy: 0,
            last_seen,
            source_mac: Mac::default(),
            mtu: 0,
            deliver: Deliver::Stack,
            direction: Direction::Forward,
            verdict: Verdict::Allow,
            rewrites: Rewrites::NONE,
            seen,
            class,
            tail: [],
        }
    }

    fn over(ours: (u32, Seen), theirs: Option<(u32, Seen)>, now: u32) -> bool {
        let config = Config { timeouts: SETTINGS, ..Config::default() };
        let connected = |(last_seen, seen)| flow(last_seen, TimeoutClass::Connected, seen);
        is_over(&connected(ours), theirs.map(connected).as_ref(), now, &config)
    }

    #[test]
    fn a_table_is_walked_once_however_often_it_is_asked_for_more() {
        let mut steps = [Some(1), Some(2), None].into_iter().cycle();
        let listing = std::iter::from_fn(|| steps.next().flatten().map(Ok::<_, ()>));
        let mut keys = once(listing, 100);
        let mut batch = || keys.by_ref().take(10).collect::<Vec<_>>();
        assert_eq!([batch(), batch()], [vec![1, 2], vec![]]);
    }

    #[test]
    fn connections_that_have_ended_go_soon_and_others_late() {
        let none = Seen::PACKET;
        let (fin, reset) = (none.with(Seen::FIN), none.with(Seen::RESET));
        assert!(!over((0, none), Some((0, none)), 61));
        assert!(over((0, none), Some((0, none)), 20_001));
        assert!(!over((0, fin), Some((0, none)), 61), "half closed: the other side may go on for long");
        for ended in [(fin, fin), (reset, none), (none, reset)] {
            assert!(!over((0, ended.0), Some((0, ended.1)), 60));
            assert!(over((0, ended.0), Some((0, ended.1)), 61));
            assert!(!over((0, ended.0), Some((2, ended.1)), 61), "the other direction counts too");
        }
        assert!(over((0, reset), None, 61));
    }

    #[test]
    fn time_wraps_and_clocks_of_cpus_differ() {
        assert!(!over((u32::MAX - 5, Seen::PACKET), None, 100));
        assert!(over((u32::MAX - 5, Seen::PACKET), None, 20_000));
        assert!(!over((11, Seen::PACKET), None, 10), "seen by a CPU that is ahead");
    }

    #[test]
    fn flows_of_endpoints_that_are_gone_are_orphans() {
        let key = FlowKey {
            scope: Scope::pod(11),
            source: Ipv4::default(),
            destination: Ipv4::default(),
            source_port: Port(0),
            destination_port: Port(0),
            protocol: Protocol::UDP,
        };
        let stamp = |slot| Stamp { slot, revision: 1 };
        let of = |n| stamp(RevisionSlot::of_endpoint(Slot(n)));
        let mut flow = flow(0, TimeoutClass::Datagram, Seen::PACKET);
        flow.stamps = [of(1), stamp(RevisionSlot::ROUTES), Stamp::default()];
        assert!(!is_orphan(&key, &flow, &|_| 11));
        assert!(is_orphan(&key, &flow, &|_| 0), "its slot is free");
        assert!(is_orphan(&key, &flow, &|_| 12), "its slot is another's");
        flow.peer_scope = Scope::pod(12);
        flow.stamps[1] = of(2);
        assert!(!is_orphan(&key, &flow, &|Slot(n)| 10 + n));
        assert!(is_orphan(&key, &flow, &|Slot(n)| if n == 2 { 0 } else { 11 }), "the other pod");
    }
}
