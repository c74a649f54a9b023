//! Reading the flow table, and removing what has ended from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use sluice_abi::{Config, Deliver, Direction, Flow, FlowKey, IpAddress, Ipv4, Ipv6, Rewrites, Scope, maps};
use sluice_api::{EndpointRecord, FlowStatus};

use super::error::{Doing, KernelError};
use super::layout::Pins;
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
    const FLOWS: &str;
    const OPENINGS: &str;
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

/// Lists flows, those that were answered first.
///
/// # Errors
/// Where the kernel refuses.
pub fn list(
    pins: &Pins,
    clock: &Clock,
    pods: &BTreeMap<u32, EndpointRecord>,
    limit: usize,
) -> Result<Vec<FlowStatus>, KernelError> {
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
    list: &mut Vec<FlowStatus>,
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
            list.push(FlowStatus {
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
                }
                .into(),
                translated_source: translated(Rewrites::SOURCE, flow.source, flow.source_port),
                translated_destination: translated(Rewrites::DESTINATION, flow.destination, flow.destination_port),
                established,
                sent: (flow.packets, flow.bytes),
                received: reply.map_or((0, 0), |reply| (reply.packets, reply.bytes)),
                idle_seconds: u64::from(now.wrapping_sub(seen)) / hertz(),
                pod: pod.and_then(|record| record.pod.clone()),
            });
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

/// Removes flows whose time is over from the table that never evicts.
pub struct Reaper {
    clock: Clock,
    config: Array<MapData, Config>,
    flows4: FlowMap<Ipv4>,
    flows6: FlowMap<Ipv6>,
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
            flows4: open(pins, maps::FLOWS4)?,
            flows6: open(pins, maps::FLOWS6)?,
        })
    }

    /// Looks at every flow once, with rests in between; says how many ended.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn round(&mut self) -> Result<usize, KernelError> {
        let now = self.clock.now()?;
        let config = self.config.get(&0, 0).doing(|| "reading the node's settings".into())?;
        Ok(sweep(&mut self.flows4, now, &config) + sweep(&mut self.flows6, now, &config))
    }
}

fn sweep<A: IpAddress>(map: &mut FlowMap<A>, now: u32, config: &Config) -> usize
where
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let is_over = |flow: &Flow<A>| now.wrapping_sub(flow.last_seen) as i32 > config.timeouts.of(flow.class) as i32;
    let mut over = Vec::new();
    for (number, entry) in map.iter().enumerate() {
        // The entry went while it was looked at: the rest waits for the next round.
        let Ok((key, flow)) = entry else { break };
        if is_over(&flow) && map.get(&peer_key(&key, &flow), 0).map_or(true, |peer| is_over(&peer)) {
            over.push(key);
        }
        if number % BATCH == BATCH - 1 {
            std::thread::sleep(REST);
        }
    }
    over.iter().filter(|key| map.remove(key).is_ok()).count()
}
