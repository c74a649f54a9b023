//! Who reads the tables as a program does for a packet: at once, or a step at a time while the writer goes on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluice_abi::{BackendId, Frontend, FrontendFlags, MAGLEV_SIZE, Position, Side};
use sluice_service::Family;

use super::ROOM;
use super::memory::Memory;
use crate::kernel::services::tables::{Array, Place, Tables, read_backend};
use crate::kernel::services::writer::{bit_of, family_of, rest_of};

/// An address and a port of a backend.
pub type Server = (IpAddr, u16);

/// What becomes of a client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Answer {
    /// It goes where it would without services.
    Unknown,
    /// It is told that nobody serves.
    Nobody,
    /// It hears nothing.
    Silence,
    /// One of these serves it.
    Among(BTreeSet<Server>),
}

/// What a place leads to, if anything does.
pub fn frontend(memory: &Memory, place: &Place) -> Option<Frontend> {
    let is_set = |place: &Place| {
        let (at, mask) = bit_of(place).place();
        memory.bits(at) & mask != 0
    };
    Some(place).filter(|place| is_set(place)).and_then(|place| memory.frontends.get(place)).copied()
}

/// What becomes of a client of a side that asks at a place, and whether it comes by a Maglev table.
pub fn ask(memory: &Memory, place: &Place, side: Side) -> Result<(Answer, bool), String> {
    let rest = rest_of(place.address);
    let Some(frontend) = frontend(memory, place).or_else(|| {
        let is_set = |(at, mask): (u32, u64)| memory.bits(at) & mask != 0;
        memory.frontends.get(&rest).copied().filter(|_| is_set(bit_of(&rest).place()))
    }) else {
        return Ok((Answer::Unknown, false));
    };
    let set = match side {
        Side::Inside => frontend.inside,
        Side::Outside => frontend.outside,
    };
    let spread = Some(set).filter(|_| matches!(side, Side::Outside) && frontend.flags.has(FrontendFlags::MAGLEV));
    let position = Position(memory.seen(Array::Sets, set.0));
    let lookup = spread.and_then(|set| memory.maglev.get(&set));
    let ids: Vec<BackendId> = match (position, lookup) {
        (Position::REJECT, _) => return Ok((Answer::Nobody, false)),
        (Position::DROP, _) => return Ok((Answer::Silence, false)),
        (_, Some(lookup)) => (0..MAGLEV_SIZE).step_by(17).map(|at| lookup[at]).collect(),
        (Position(start), None) => {
            let count = memory.word(Array::Members, start);
            if start + count >= ROOM.members || count == 0 {
                return Err(format!("{count} members at {start}"));
            }
            (1..=count).map(|at| BackendId(memory.word(Array::Members, start + at))).collect()
        }
    };
    let family = family_of(place.address);
    let mut servers = BTreeSet::new();
    for id in ids {
        if id == BackendId::NONE || id.0 >= ROOM.backends {
            return Err(format!("{id:?} in {set:?}"));
        }
        let backend = read_backend(memory, family, id);
        if backend.service != frontend.service {
            return Err(format!("{id:?} of {:?} serves {frontend:?}", backend.service));
        }
        servers.insert((backend.address, backend.port.get()));
    }
    Ok((Answer::Among(servers), lookup.is_some()))
}

/// Somebody who takes his time.
#[derive(Clone, Debug)]
pub struct SlowReader {
    pub place: Place,
    side: Side,
    /// Which member he takes.
    choice: u32,
    at: Step,
    /// Since which change he reads.
    pub since: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Start,
    Set(Frontend),
    Count(Frontend, Position),
    Member(Frontend, u32),
    Backend(Frontend, BackendId),
    Address(BackendId),
    End(Option<Server>),
}

impl SlowReader {
    pub fn new(place: Place, side: Side, choice: u32, since: usize) -> Self {
        Self { place, side, choice, at: Step::Start, since }
    }

    fn family(&self) -> Family {
        family_of(self.place.address)
    }

    /// Takes a step; what he has found, where it was the last.
    pub fn step(&mut self, memory: &Memory) -> Option<Option<Server>> {
        self.at = match self.at {
            Step::Start => frontend(memory, &self.place).map_or(Step::End(None), Step::Set),
            Step::Set(frontend) => {
                let set = if matches!(self.side, Side::Inside) { frontend.inside } else { frontend.outside };
                let position = Position(memory.word(Array::Sets, set.0));
                if position < Position::FIRST { Step::End(None) } else { Step::Count(frontend, position) }
            }
            Step::Count(frontend, Position(start)) => {
                let count = memory.word(Array::Members, start);
                assert!(count > 0 && start + count < ROOM.members, "{count} members at {start}");
                Step::Member(frontend, start + 1 + self.choice % count)
            }
            Step::Member(frontend, at) => Step::Backend(frontend, BackendId(memory.word(Array::Members, at))),
            Step::Backend(frontend, id) => {
                assert!(id != BackendId::NONE && id.0 < ROOM.backends);
                let service = read_backend(memory, self.family(), id).service;
                if service == frontend.service {
                    Step::Address(id)
                } else {
                    assert_eq!(service.0, 0, "a backend of another service");
                    Step::End(None)
                }
            }
            Step::Address(id) => {
                let backend = read_backend(memory, self.family(), id);
                Step::End(Some((backend.address, backend.port.get())))
            }
            Step::End(found) => Step::End(found),
        };
        match self.at {
            Step::End(found) => Some(found),
            _ => None,
        }
    }
}
