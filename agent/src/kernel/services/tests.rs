//! Random changes: what readers see between every two writes, and what the next agent makes of it wherever one dies.

mod memory;
mod random;
mod reader;
mod resized;
mod room;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use sluice_abi::{FrontendBit, FrontendFlags, Protocol, Side};
use sluice_service::{Choice, Family, FrontendKind, PortName, ServicePort};

use self::memory::{Memory, Write};
use self::random::{Batch, Wishes, changes, names, own_addresses, resolve};
use self::reader::{Answer, SlowReader, ask, frontend};
use super::tables::{Place, Room, Tables, read_backend};
use super::writer::{MARK, Owed, Reached, Writer, bits_of, place, protocol, rest_of};

type State = BTreeMap<PortName, Arc<ServicePort>>;
type Delta = Vec<(PortName, Option<Arc<ServicePort>>)>;

const ROOM: Room = Room { backends: 256, sets: 128, members: 1024, frontends: 1024, maglev: 64 };

fn open(memory: Memory) -> Writer<Memory> {
    Writer::open(Memory { log: Vec::new(), ..memory }, ROOM, own_addresses(), true).unwrap()
}

/// Changes some wishes; what follows.
fn wish(wishes: &mut Wishes, batch: Batch) -> (State, Delta) {
    let before = resolve(wishes);
    let is_reached = |port: &ServicePort| !port.frontends.is_empty();
    for (name, port) in batch {
        match port {
            Some(port) => wishes.insert(name, port),
            None => wishes.remove(&name),
        };
    }
    let after: State = resolve(wishes);
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
    let changed = after.iter().filter(|(name, port)| before.get(*name) != Some(*port));
    let changed = changed.map(|(name, port)| (name.clone(), Some(port.clone())));
    let delta = gone.chain(changed).collect();
    (after.into_iter().filter(|(_, port)| is_reached(port)).collect(), delta)
}

/// All places that anybody may ask at, and ports of cluster IPs that nobody has.
fn places() -> Vec<Place> {
    let all = names()
        .into_iter()
        .flat_map(|name| random::frontends(name.family).into_iter().map(move |frontend| place(&name, &frontend)));
    let mut places: Vec<Place> = Vec::new();
    for place in all.flat_map(|place| [place, Place { port: sluice_abi::Port::new(1), ..place }]) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The kind of a port's frontend at a place.
fn kind(name: &PortName, port: &ServicePort, at: &Place) -> Option<FrontendKind> {
    port.frontends.iter().find(|frontend| place(name, frontend) == *at).map(|frontend| frontend.kind)
}

fn choice(port: &ServicePort, kind: FrontendKind, side: Side) -> &Choice {
    match (kind, side) {
        (FrontendKind::ClusterIp, _) => &port.inside,
        (_, Side::Inside) => &port.inside_external,
        (_, Side::Outside) => &port.outside,
    }
}

fn answer(port: &ServicePort, kind: FrontendKind, side: Side) -> Answer {
    match choice(port, kind, side) {
        Choice::Among(all) => {
            let server = |at: &u32| (port.backends[*at as usize].address, port.backends[*at as usize].port);
            Answer::Among(all.iter().map(server).collect())
        }
        Choice::Reject => Answer::Nobody,
        Choice::Drop => Answer::Silence,
    }
}

/// What is to be seen at a place.
fn wanted(state: &State, at: &Place, side: Side) -> Answer {
    let found = state.iter().find_map(|(name, port)| Some((port, kind(name, port, at)?)));
    let is_cluster_ip = |(name, port): (&PortName, &Arc<ServicePort>)| {
        let mut cluster_ips = port.frontends.iter().filter(|frontend| frontend.kind == FrontendKind::ClusterIp);
        cluster_ips.any(|frontend| place(name, frontend).address == at.address)
    };
    match found {
        Some((port, kind)) => answer(port, kind, side),
        None if state.iter().any(is_cluster_ip) => Answer::Nobody,
        None => Answer::Unknown,
    }
}

/// What may be seen at a place while states follow each other: what anybody who has it in one of them answers in one.
fn allowed(states: &[&State], at: &Place, side: Side) -> BTreeSet<Answer> {
    let mut all: BTreeSet<Answer> = states.iter().map(|state| wanted(state, at, side)).collect();
    for (name, kind) in
        states.iter().flat_map(|state| state.iter().filter_map(|(name, port)| Some((name, kind(name, port, at)?))))
    {
        let still = |port: &&Arc<ServicePort>| self::kind(name, port, at).is_some();
        let ports = states.iter().filter_map(|state| state.get(name)).filter(still);
        all.extend(ports.map(|port| answer(port, kind, side)));
    }
    all
}

const SIDES: [Side; 2] = [Side::Inside, Side::Outside];

/// What may be seen everywhere.
fn all_allowed(states: &[&State]) -> Vec<(Place, Side, BTreeSet<Answer>)> {
    let everywhere = places().into_iter().flat_map(|place| SIDES.map(|side| (place, side)));
    everywhere.map(|(place, side)| (place, side, allowed(states, &place, side))).collect()
}

/// Asks everywhere.
fn check_between(memory: &Memory, all: &[(Place, Side, BTreeSet<Answer>)]) -> Result<(), String> {
    for (place, side, allowed) in all {
        let (answer, _) = ask(memory, place, *side).map_err(|error| format!("{place:?} {side:?}: {error}"))?;
        if !allowed.contains(&answer) {
            return Err(format!("{place:?} {side:?}: {answer:?}, not one of {allowed:?}"));
        }
    }
    Ok(())
}

/// Whoever may come before and after may come in between.
fn check_ranges(memory: &Memory, at: &Place, states: &[&State]) -> Result<(), String> {
    let Some(frontend) = frontend(memory, at).filter(|frontend| frontend.flags.has(FrontendFlags::SOURCE_RANGES))
    else {
        return Ok(());
    };
    let owners: Vec<&Arc<ServicePort>> = states
        .iter()
        .flat_map(|state| state.iter())
        .filter(|(name, port)| kind(name, port, at).is_some())
        .map(|(_, port)| port)
        .collect();
    let Some(first) = owners.first() else { return Err(format!("{at:?} is nobody's")) };
    let always = first
        .source_ranges
        .iter()
        .filter(|range| owners.iter().all(|port| port.source_ranges.is_empty() || port.source_ranges.contains(range)));
    for range in always {
        if !memory.ranges.contains(&(frontend.service, range.trunc())) {
            return Err(format!("{at:?}: {range} is kept out"));
        }
    }
    Ok(())
}

/// Whether the tables are those of a state, and nothing else.
fn check_after(writer: &Writer<Memory>, state: &State) -> Result<(), String> {
    let memory = &writer.tables;
    check_between(memory, &all_allowed(&[state]))?;
    places().iter().try_for_each(|place| check_ranges(memory, place, &[state]))?;
    let mut bits: HashMap<u32, u64> = HashMap::new();
    let mut set = |bit: FrontendBit| {
        let (at, mask) = bit.place();
        *bits.entry(at).or_default() |= mask;
    };
    let (mut frontends, mut backends, mut ranges, mut lookups) = (BTreeSet::new(), 0, 0, 0);
    for (name, port) in state {
        for reached in &port.frontends {
            let at = place(name, reached);
            let is_cluster_ip = reached.kind == FrontendKind::ClusterIp;
            bits_of(&Reached { place: at, is_cluster_ip }).for_each(&mut set);
            frontends.insert(format!("{at:?}"));
            if reached.kind == FrontendKind::ClusterIp {
                frontends.insert(format!("{:?}", rest_of(at.address)));
            }
            let entry = frontend(memory, &at).ok_or("no frontend")?;
            let is_spread = matches!(ask(memory, &at, Side::Outside)?, (_, true));
            let is_wide = matches!(&port.outside, Choice::Among(members) if members.len() > 1);
            let is_external = !matches!(reached.kind, FrontendKind::ClusterIp | FrontendKind::HostPort);
            if is_spread != (is_wide && is_external) {
                return Err(format!("{at:?} is spread: {is_spread}"));
            }
            let has_ranges = reached.kind == FrontendKind::LoadBalancer && !port.source_ranges.is_empty();
            if entry.affinity != port.affinity.unwrap_or(0)
                || entry.flags.has(FrontendFlags::SOURCE_RANGES) != has_ranges
                || entry.flags.has(FrontendFlags::CLUSTER_IP) != (reached.kind == FrontendKind::ClusterIp)
            {
                return Err(format!("{at:?}: {entry:?} of {port:?}"));
            }
        }
        lookups += usize::from(is_spread(port));
        backends += port.backends.len();
        ranges += port.source_ranges.iter().map(IpNet::trunc).collect::<BTreeSet<_>>().len();
        let own = port.backends.iter().filter(|backend| own_addresses().contains(&backend.address));
        own.for_each(|backend| set(FrontendBit::of_host_backend(sluice_abi::Port::new(backend.port), protocol(name))));
    }
    let serving = |family| {
        let ids = (1..ROOM.backends).map(sluice_abi::BackendId);
        ids.filter(|id| read_backend(memory, family, *id).service.0 != 0).count()
    };
    let there = (
        memory.frontends.len(),
        serving(Family::V4) + serving(Family::V6),
        memory.ranges.len(),
        memory.maglev.len(),
        memory.bits.iter().filter(|(_, bits)| **bits != 0).map(|(at, bits)| (*at, *bits)).collect::<HashMap<_, _>>(),
    );
    let wanted = (frontends.len(), backends, ranges, lookups, bits);
    if there != wanted {
        return Err(format!("frontends, backends, ranges, Maglev tables, bits: {there:?}, not {wanted:?}"));
    }
    let fills = writer.fills();
    let used = fills[2].entries + fills[3].entries;
    if (fills[0].entries + fills[1].entries, used, fills[6].entries) != (frontends.len(), backends, lookups) {
        return Err(format!("{fills:?} for {wanted:?}"));
    }
    Ok(())
}

fn is_spread(port: &ServicePort) -> bool {
    let is_wide = matches!(&port.outside, Choice::Among(members) if members.len() > 1);
    let is_external = |kind| !matches!(kind, FrontendKind::ClusterIp | FrontendKind::HostPort);
    is_wide && port.frontends.iter().any(|frontend| is_external(frontend.kind))
}

/// Whose flows must be judged again where one state follows another: of frontends that come, go or lead to another service, and
/// of backends that go.
fn must_owe(before: &State, after: &State) -> BTreeSet<IpAddr> {
    let owner = |state: &State, at: &Place| {
        state.iter().find(|(name, port)| kind(name, port, at).is_some()).map(|(name, _)| name.clone())
    };
    let moved = places().into_iter().filter(|at| owner(before, at) != owner(after, at)).map(|at| at.address);
    let gone = before.iter().flat_map(|(name, port)| {
        let now = after.get(name).map(|port| port.backends.clone()).unwrap_or_default();
        port.backends.iter().filter(move |backend| !now.contains(backend)).map(|backend| backend.address)
    });
    moved.chain(gone).collect()
}

/// The same where names do not count, which are not in the tables.
fn must_owe_anyhow(before: &State, after: &State) -> BTreeSet<IpAddr> {
    let is_there = |state: &State, at: &Place| state.iter().any(|(name, port)| kind(name, port, at).is_some());
    let moved = places().into_iter().filter(|at| is_there(before, at) != is_there(after, at)).map(|at| at.address);
    let servers = |state: &State| {
        let all = state.values().flat_map(|port| port.backends.iter().map(|backend| backend.address));
        all.collect::<BTreeSet<IpAddr>>()
    };
    let (then, now) = (servers(before), servers(after));
    moved.chain(then.difference(&now).copied()).collect()
}

fn owes(writer: &Writer<Memory>, addresses: &BTreeSet<IpAddr>) -> bool {
    match writer.owed() {
        Owed::All => true,
        Owed::Of(owed) => addresses.is_subset(owed),
    }
}

/// Checks every moment of what was written onto these tables.
fn check_log(mut memory: Memory, log: &[Write], states: &[&State]) -> Result<(), String> {
    let (allowed, places) = (all_allowed(states), places());
    check_between(&memory, &allowed)?;
    for (number, write) in log.iter().enumerate() {
        memory.replay(write);
        check_between(&memory, &allowed)
            .and_then(|()| places.iter().try_for_each(|place| check_ranges(&memory, place, states)))
            .map_err(|error| format!("after write {number}, {write:?}: {error}"))?;
    }
    Ok(())
}

proptest! {
    // One dies at each of its writes.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_successor_goes_on_wherever_one_dies(batches in changes(2..4), target in changes(1..2)) {
        let (mut wishes, mut before) = (Wishes::new(), State::new());
        let mut writer = open(Memory::default());
        let last = batches.len() - 1;
        for (number, batch) in batches.into_iter().enumerate() {
            let (after, delta) = wish(&mut wishes, batch);
            let mut memory = Memory { log: Vec::new(), ..writer.tables.clone() };
            writer.apply(delta).unwrap();
            let mut log = std::mem::take(&mut writer.tables.log);
            writer.paid();
            log.append(&mut writer.tables.log);
            if number == last {
                let other = wish(&mut wishes.clone(), target[0].clone()).0;
                for cut in 0..=log.len() {
                    let next = if cut % 3 == 0 { &other } else { &after };
                    let mut successor = open(memory.clone());
                    successor.take_over(next.clone()).unwrap();
                    let written = std::mem::take(&mut successor.tables.log);
                    let checked = check_log(memory.clone(), &written, &[&before, &after, next])
                        .and_then(|()| check_after(&successor, next));
                    prop_assert!(checked.is_ok(), "cut at {cut}: {}", checked.unwrap_err());
                    if cut < log.len() {
                        prop_assert!(owes(&successor, &must_owe_anyhow(&before, next)), "cut at {cut}");
                    }
                    if let Some(write) = log.get(cut) {
                        memory.replay(write);
                    }
                }
            }
            before = after;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn readers_see_the_old_or_the_new(batches in changes(1..8)) {
        let mut writer = open(Memory::default());
        let (mut wishes, mut before) = (Wishes::new(), State::new());
        for batch in batches {
            let (after, delta) = wish(&mut wishes, batch);
            let start = Memory { log: Vec::new(), ..writer.tables.clone() };
            writer.apply(delta).unwrap();
            let log = std::mem::take(&mut writer.tables.log);
            let checked = check_log(start, &log, &[&before, &after]).and_then(|()| check_after(&writer, &after));
            prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
            prop_assert!(owes(&writer, &must_owe(&before, &after)));
            prop_assert_eq!(writer.problems().count(), 0);
            writer.paid();
            prop_assert_eq!(writer.tables.word(MARK.0, MARK.1), 0);
            writer.tables.log.clear();
            before = after;
        }
    }

    #[test]
    fn nothing_is_written_that_is_right(batches in changes(1..5)) {
        let mut writer = open(Memory::default());
        let mut wishes = Wishes::new();
        let mut state = State::new();
        for batch in batches {
            let (after, delta) = wish(&mut wishes, batch);
            writer.apply(delta).unwrap();
            state = after;
        }
        writer.paid();
        let mut successor = open(writer.tables);
        successor.take_over(state.clone()).unwrap();
        let written = |log: &[Write]| log.iter().filter(|write| !matches!(write, Write::Settle)).count();
        prop_assert_eq!(written(&successor.tables.log), 0, "{:?}", successor.tables.log);
        prop_assert!(owes(&successor, &BTreeSet::new()) && matches!(successor.owed(), Owed::Of(owed) if owed.is_empty()));
        // The same once more is no change either.
        successor.apply(state.into_iter().map(|(name, port)| (name, Some(port)))).unwrap();
        prop_assert_eq!(written(&successor.tables.log), 0, "{:?}", successor.tables.log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn who_reads_slowly_finds_a_backend_that_was_there(
        batches in changes(3..12),
        paces in proptest::collection::vec((0_usize..1000, 0_u32..8), 200),
    ) {
        let room = Room { backends: 64, sets: 64, members: 48, ..ROOM };
        let mut writer = Writer::open(Memory::default(), room, own_addresses(), false).unwrap();
        let places = places();
        let (mut wishes, mut states) = (Wishes::new(), vec![State::new()]);
        let mut readers: Vec<SlowReader> = Vec::new();
        let mut paces = paces.into_iter().cycle();
        for batch in batches {
            let (after, delta) = wish(&mut wishes, batch);
            states.push(after);
            let mut memory = Memory { log: Vec::new(), ..writer.tables.clone() };
            writer.apply(delta).unwrap();
            for write in std::mem::take(&mut writer.tables.log) {
                // Before what is out of reach is free, everybody has read what he reads.
                let steps = if matches!(write, Write::Settle) { 10 } else { 1 };
                let (which, choice) = paces.next().unwrap();
                readers.push(SlowReader::new(places[which % places.len()], SIDES[which % 2], choice, states.len() - 2));
                let mut still = Vec::new();
                for mut reader in readers {
                    let is_up = steps > 1 || paces.next().unwrap().1 < 2;
                    let found = if is_up { (0..steps).find_map(|_| reader.step(&memory)) } else { None };
                    match found {
                        None => still.push(reader),
                        Some(None) => {}
                        Some(Some(server)) => prop_assert!(
                            was_behind(&states[reader.since..], &reader.place, server),
                            "{server:?} at {:?}", reader.place
                        ),
                    }
                }
                readers = still;
                memory.replay(&write);
            }
        }
    }
}

/// Whether a backend was one of whoever had a place, in any of these states.
fn was_behind(states: &[State], at: &Place, (address, number): reader::Server) -> bool {
    let owners: BTreeSet<&PortName> = states
        .iter()
        .flat_map(|state| state.iter())
        .filter(|(name, port)| kind(name, port, at).is_some())
        .map(|(name, _)| name)
        .collect();
    let mut ports = states.iter().flat_map(|state| owners.iter().filter_map(|name| state.get(*name)));
    ports.any(|port| port.backends.iter().any(|backend| (backend.address, backend.port) == (address, number)))
}

#[test]
fn the_nodes_addresses_say_whose_answers_are_looked_at() {
    let mut writer = open(Memory::default());
    let name = names().remove(0);
    let backend =
        |address: &str| sluice_service::Backend { address: address.parse().unwrap(), port: 8_080, is_local: true };
    let mut port = ServicePort {
        frontends: random::frontends(Family::V4)[..1].to_vec(),
        backends: vec![backend("10.0.0.1"), backend("10.0.0.9")],
        inside: Choice::Among([0, 1].into()),
        inside_external: Choice::Among([0, 1].into()),
        outside: Choice::Among([0, 1].into()),
        affinity: None,
        source_ranges: Vec::new(),
    };
    let (at, mask) = FrontendBit::of_host_backend(sluice_abi::Port::new(8_080), protocol(&name)).place();
    let is_set = |writer: &Writer<Memory>| writer.tables.bits(at) & mask != 0;
    writer.apply([(name.clone(), Some(Arc::new(port.clone())))]).unwrap();
    assert!(is_set(&writer));
    writer.set_own(["10.0.0.9".parse().unwrap()].into());
    assert!(is_set(&writer), "by the other");
    assert!(!writer.tables.log.iter().rev().take(2).any(|write| matches!(write, Write::Bits(word, 0) if *word == at)));
    port.backends.truncate(1);
    for choice in [&mut port.inside, &mut port.inside_external, &mut port.outside] {
        *choice = Choice::Among([0].into());
    }
    writer.apply([(name, Some(Arc::new(port)))]).unwrap();
    assert!(!is_set(&writer));
    writer.set_own(own_addresses());
    assert!(is_set(&writer), "the first is its own again");
}

#[test]
fn it_is_told_that_backends_of_datagrams_are_gone() {
    let mut writer = open(Memory::default());
    assert!(writer.take_ended(), "a predecessor may not have told");
    for name in &names()[..2] {
        let mut apply = |port| {
            writer.apply([(name.clone(), port)]).unwrap();
            writer.take_ended()
        };
        assert!(!apply(Some(room::served(1, 0..2))) && !apply(Some(room::served(1, 0..3))), "more of them");
        for fewer in [Some(room::served(1, 1..3)), None] {
            assert_eq!(apply(fewer), protocol(name) == Protocol::UDP, "{name:?}");
        }
    }
}
