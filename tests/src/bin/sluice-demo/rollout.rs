//! One more front end comes and goes, while connections to their Service are made.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::lab::{Lab, Pod, until_so};

use crate::echo::{self, Connection, PATIENCE, PORT, Server};
use crate::party::Party;
use crate::services::{self, Frontend};
use crate::step;

/// Who calls the front end, and by which of its addresses.
const CALLERS: [(&str, &str); 4] =
    [("front-1", "cluster IP"), ("n2", "cluster IP"), ("world", "n1:30080"), ("world", "n3:30080")];

/// All of the front end, in the end: the last one comes and goes, on this node.
const SERVERS: [&str; 3] = ["front-1", "front-2", "front-3"];
const NODE: usize = 3;

/// How many connections each caller makes in a phase, at least.
const SOME: u64 = 60;
/// How many connections are tried until the new one has one.
const TRIES: usize = 200;

/// What there is while connections are made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Two,
    Three,
    Unready,
    Ended,
    Between,
}

/// What became of the connections of a phase.
#[derive(Default)]
struct Tally {
    /// How many each server had.
    answered: BTreeMap<String, u64>,
    failed: Vec<String>,
}

/// Somebody who connects again and again, over each family in turn.
struct Caller<'a> {
    from: &'a Party<'a>,
    to: Vec<SocketAddr>,
    made: AtomicU64,
}

/// All who do.
struct Callers<'a> {
    each: Vec<Caller<'a>>,
    phase: Mutex<Phase>,
    tallies: Mutex<BTreeMap<Phase, Tally>>,
    stop: AtomicBool,
}

/// Shows how connections are spread, and that none fails while a front end comes and goes.
///
/// # Errors
/// Where it is not as it should be.
pub fn show(lab: &Lab, parties: &[Party<'_>], pods: &[Pod]) -> Result<()> {
    let callers = Callers::new(parties)?;
    thread::scope(|scope| {
        for caller in &callers.each {
            scope.spawn(|| callers.call(caller));
        }
        let outcome = come_and_go(lab, &callers, pods);
        callers.stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let tallies = callers.tallies.into_inner().unwrap_or_else(PoisonError::into_inner);
    print(&tallies);
    tallies.iter().try_for_each(|(phase, tally)| tally.check(*phase))
}

fn come_and_go(lab: &Lab, callers: &Callers<'_>, pods: &[Pod]) -> Result<()> {
    let [.., name] = SERVERS;
    step("connections to the front end are made, by its cluster IP and from outside by node ports", || {
        callers.enter(Phase::Two)
    })?;
    let labels = [("app", "frontend")];
    let (pod, server, mut held) = step(&format!("{name} starts on n{NODE}, and has its share"), || {
        callers.are_in(Phase::Between);
        let pod = lab.pod_of("shop", NODE, name)?;
        let server = Server::start(&pod.place, name)?;
        lab.declare(&pod, &labels, &[PORT])?;
        services::are_served(lab, pods.iter().chain([&pod]))?;
        callers.enter(Phase::Three)?;
        let held = callers.connect_to(name)?;
        Ok((pod, server, held))
    })?;
    step(&format!("{name} is not ready any more: it keeps the connections that it has, and gets no more"), || {
        callers.are_in(Phase::Between);
        lab.declare_unready(&pod, &labels, &[PORT])?;
        services::are_served(lab, pods)?;
        callers.enter(Phase::Unready)?;
        held.talk().with_context(|| format!("a connection that {name} has"))
    })?;
    step(&format!("{name} ends"), || {
        callers.are_in(Phase::Between);
        drop(server);
        pod.delete()?;
        lab.take_back_pod(&pod)?;
        callers.enter(Phase::Ended)
    })
}

impl<'a> Callers<'a> {
    fn new(parties: &'a [Party<'a>]) -> Result<Self> {
        let frontends = Frontend::all(parties);
        let caller = |(from, by): (&str, &str)| {
            let from = parties.iter().find(|party| party.name == from);
            let to = frontends.iter().find(|frontend| frontend.heading() == ("frontend", by.to_owned()));
            let (from, to) = from.zip(to).with_context(|| format!("nobody calls the front end by {by}"))?;
            Ok(Caller { from, to: to.addresses(), made: AtomicU64::new(0) })
        };
        let each = CALLERS.into_iter().map(caller).collect::<Result<_>>()?;
        Ok(Self { each, phase: Mutex::new(Phase::Two), tallies: Mutex::default(), stop: AtomicBool::new(false) })
    }

    /// Makes one connection after the other, until it is to stop.
    fn call(&self, caller: &Caller<'_>) {
        for to in caller.to.iter().cycle().take_while(|_| !self.stop.load(Ordering::Relaxed)) {
            let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let outcome = echo::call(caller.from.place, *to, PATIENCE);
            let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
            let tally = tallies.entry(phase).or_default();
            match outcome {
                Ok(heard) => *tally.answered.entry(heard.name).or_default() += 1,
                Err(error) => tally.failed.push(format!("{error:#}")),
            }
            caller.made.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections that begin from now on are of a phase.
    fn are_in(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// As [`are_in`](Callers::are_in), and waits until all earlier ones are over, and there are enough of these.
    fn enter(&self, phase: Phase) -> Result<()> {
        self.are_in(phase);
        self.each.iter().try_for_each(|caller| {
            let goal = caller.made.load(Ordering::Relaxed) + 1 + SOME;
            until_so("connections are made", || Ok(caller.made.load(Ordering::Relaxed) >= goal))
        })
    }

    /// A connection of the first caller that this server has.
    fn connect_to(&self, name: &str) -> Result<Connection> {
        let caller = self.each.first().context("there is no caller")?;
        for to in caller.to.iter().cycle().take(TRIES) {
            let connection = Connection::open(caller.from.place, *to, PATIENCE)?;
            if connection.heard.name == name {
                return Ok(connection);
            }
        }
        bail!("{name} has none of {TRIES} connections")
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Two => "two front ends",
            Self::Three => "three",
            Self::Unready => "the third one is not ready",
            Self::Ended => "it is gone",
            Self::Between => "while that changed",
        }
    }

    /// Who is to have a fair share of its connections.
    fn servers(self) -> &'static [&'static str] {
        match self {
            Self::Two | Self::Unready | Self::Ended => &SERVERS[..2],
            Self::Three => &SERVERS,
            Self::Between => &[],
        }
    }
}

impl Tally {
    fn had(&self, server: &str) -> u64 {
        self.answered.get(server).copied().unwrap_or(0)
    }

    fn check(&self, phase: Phase) -> Result<()> {
        if let Some(error) = self.failed.first() {
            bail!("{}: {} connections have failed, the first one: {error}", phase.name(), self.failed.len());
        }
        let all: u64 = self.answered.values().sum();
        let servers = phase.servers();
        for name in servers {
            let (had, share) = (self.had(name), all / servers.len() as u64);
            ensure!(had >= share / 2, "{}: {name} had {had} connections, its share would be {share}", phase.name());
        }
        let other = self.answered.keys().find(|name| !servers.is_empty() && !servers.contains(&name.as_str()));
        ensure!(other.is_none(), "{}: {other:?} had connections", phase.name());
        Ok(())
    }
}

fn print(tallies: &BTreeMap<Phase, Tally>) {
    let line = |what: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>9}")).collect();
        println!("  {what:26}{cells}");
    };
    println!();
    line("connections", ["made", "failed"].into_iter().chain(SERVERS).map(str::to_owned).collect());
    for (phase, tally) in tallies {
        let failed = tally.failed.len() as u64;
        let numbers = [tally.answered.values().sum::<u64>() + failed, failed];
        let numbers = numbers.into_iter().chain(SERVERS.iter().map(|server| tally.had(server)));
        line(phase.name(), numbers.map(|number| number.to_string()).collect());
    }
    println!();
}
