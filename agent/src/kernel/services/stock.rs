//! What there is room for: ids and words that can be taken.

use std::fmt;
use std::ops::Range;

use sluice_abi::{BackendId, Position, ServiceId, SetId};
use sluice_service::Family;

use super::ids::Ids;
use super::spans::Spans;
use super::tables::Room;

/// What a port of a service may find no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Entries of backends.
    Backends(Family),
    /// Sets of backends.
    Sets,
    /// Words for the members of a set.
    Members,
    /// Addresses and ports at which services are reached.
    Frontends(Family),
    /// Ranges of clients.
    Ranges,
}

/// That there is no room for so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lack {
    /// Of what.
    pub of: Resource,
    /// How much was needed.
    pub needed: usize,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, needed } = self;
        match of {
            Resource::Backends(_) => {
                write!(f, "{needed} more backends do not fit into the table; raise `service_backends`")
            }
            Resource::Sets => {
                write!(f, "one more set of backends does not fit into the table; raise `service_backends`")
            }
            Resource::Members => {
                write!(f, "a set of {needed} backends does not fit into the table; raise `service_backends`")
            }
            Resource::Frontends(_) => {
                write!(f, "{needed} more addresses and ports do not fit into the table; have fewer services")
            }
            Resource::Ranges => write!(f, "{needed} more source ranges do not fit into the table; have fewer of them"),
        }
    }
}

/// Ids and words. What is taken can be given back at once until it is said to be kept.
#[derive(Debug)]
pub struct Stock {
    services: Ids,
    sets: Ids,
    backends: [Ids; 2],
    members: Spans,
    tentative: Vec<Taken>,
}

#[derive(Debug)]
enum Taken {
    Service(u32),
    Set(u32),
    Backend(Family, u32),
    Members(Range<u32>),
}

impl Stock {
    /// Of tables of such sizes.
    pub fn of(room: &Room) -> Self {
        Self {
            services: Ids::below(u32::MAX),
            sets: Ids::below(room.sets),
            backends: [Ids::below(room.backends), Ids::below(room.backends)],
            members: Spans::of(Position::FIRST.0..room.members),
            tentative: Vec::new(),
        }
    }

    /// An id for a port of a service: there are more of them than anything else.
    pub fn service(&mut self) -> Result<ServiceId, Lack> {
        let id = self.services.take().ok_or(Lack { of: Resource::Sets, needed: 1 })?;
        self.tentative.push(Taken::Service(id));
        Ok(ServiceId(id))
    }

    /// An id for a set.
    pub fn set(&mut self) -> Result<SetId, Lack> {
        let id = self.sets.take().ok_or(Lack { of: Resource::Sets, needed: 1 })?;
        self.tentative.push(Taken::Set(id));
        Ok(SetId(id))
    }

    /// Ids for so many backends.
    pub fn backends(&mut self, family: Family, needed: usize) -> Result<Vec<BackendId>, Lack> {
        let lack = Lack { of: Resource::Backends(family), needed };
        let ids = &mut self.backends[family as usize];
        if ids.available() < needed {
            return Err(lack);
        }
        let taken: Vec<BackendId> = (0..needed).map_while(|_| ids.take()).map(BackendId).collect();
        self.tentative.extend(taken.iter().map(|id| Taken::Backend(family, id.0)));
        Ok(taken)
    }

    /// Words for a set of so many members: their number, then they.
    pub fn members(&mut self, members: usize) -> Result<Range<u32>, Lack> {
        let span = u32::try_from(members + 1).ok().and_then(|words| self.members.take(words));
        let span = span.ok_or(Lack { of: Resource::Members, needed: members })?;
        self.tentative.push(Taken::Members(span.clone()));
        Ok(span)
    }

    /// What was taken is somebody's now.
    pub fn keep(&mut self) {
        self.tentative.clear();
    }

    /// What was taken was for nothing.
    pub fn undo(&mut self) {
        for taken in std::mem::take(&mut self.tentative) {
            match taken {
                Taken::Service(id) => self.services.put_back(id),
                Taken::Set(id) => self.sets.put_back(id),
                Taken::Backend(family, id) => self.backends[family as usize].put_back(id),
                Taken::Members(span) => self.members.put_back(span),
            }
        }
    }

    /// Takes what is somebody's already; `false`: it is not to be had.
    pub fn claim_service(&mut self, id: ServiceId) -> bool {
        self.services.claim(id.0)
    }

    /// As [`claim_service`](Self::claim_service).
    pub fn claim_set(&mut self, id: SetId) -> bool {
        self.sets.claim(id.0)
    }

    /// As [`claim_service`](Self::claim_service).
    pub fn claim_backend(&mut self, family: Family, id: BackendId) -> bool {
        self.backends[family as usize].claim(id.0)
    }

    /// As [`claim_service`](Self::claim_service).
    pub fn claim_members(&mut self, span: Range<u32>) -> bool {
        self.members.claim(span)
    }

    /// Gives back what somebody may still read.
    pub fn rest_service(&mut self, id: ServiceId) {
        self.services.rest(id.0);
    }

    /// As [`rest_service`](Self::rest_service).
    pub fn rest_set(&mut self, id: SetId) {
        self.sets.rest(id.0);
    }

    /// As [`rest_service`](Self::rest_service).
    pub fn rest_backend(&mut self, family: Family, id: BackendId) {
        self.backends[family as usize].rest(id.0);
    }

    /// As [`rest_service`](Self::rest_service).
    pub fn rest_members(&mut self, span: Range<u32>) {
        self.members.rest(span);
    }

    /// Nobody reads any more what rests by now.
    pub fn rested(&mut self) {
        self.services.rested();
        self.sets.rested();
        self.backends.iter_mut().for_each(Ids::rested);
        self.members.rested();
    }

    /// Whether anything rests.
    pub fn rests(&self) -> bool {
        self.members.resting() > 0 || self.ids().any(|ids| ids.resting() > 0)
    }

    /// Whether so much rests that it is better waited for before it is needed.
    pub fn rests_much(&self) -> bool {
        let much = |resting, capacity| resting > capacity / 8;
        let of_ids = |ids: &Ids| much(ids.resting(), ids.capacity());
        much(self.members.resting(), self.members.capacity()) || self.ids().any(of_ids)
    }

    /// Whether there may be room by now, with what rests.
    pub fn may_have(&self, lack: Lack) -> bool {
        let there = |ids: &Ids| ids.available() + ids.resting() >= lack.needed;
        match lack.of {
            Resource::Backends(family) => there(&self.backends[family as usize]),
            Resource::Sets => there(&self.sets),
            Resource::Members => self.members.longest().max(self.members.resting()) > lack.needed,
            Resource::Frontends(_) | Resource::Ranges => true,
        }
    }

    /// Backends that are somebody's, and all.
    pub fn backends_fill(&self, family: Family) -> (usize, usize) {
        let ids = &self.backends[family as usize];
        (ids.used(), ids.capacity())
    }

    /// Sets that are somebody's, and all.
    pub fn sets_fill(&self) -> (usize, usize) {
        (self.sets.used(), self.sets.capacity())
    }

    /// Words of members that are somebody's, and all.
    pub fn members_fill(&self) -> (usize, usize) {
        (self.members.used(), self.members.capacity())
    }

    fn ids(&self) -> impl Iterator<Item = &Ids> {
        // Of services there are so many that none need ever be waited for.
        [&self.sets].into_iter().chain(&self.backends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_for_nothing_is_there_again() {
        let mut stock = Stock::of(&Room { backends: 4, sets: 3, members: 9, frontends: 9, maglev: 9 });
        let mut take = || {
            let taken = (stock.service(), stock.set(), stock.backends(Family::V4, 2), stock.members(3));
            let lack = (stock.backends(Family::V4, 2), stock.members(3));
            stock.undo();
            (taken, lack)
        };
        let (taken, lack) = take();
        let ids = Ok(vec![BackendId(1), BackendId(2)]);
        assert_eq!(taken, (Ok(ServiceId(1)), Ok(SetId(1)), ids, Ok(2..6)));
        let of = |of, needed| Lack { of, needed };
        assert_eq!(lack, (Err(of(Resource::Backends(Family::V4), 2)), Err(of(Resource::Members, 3))));
        assert_eq!(take().0, taken);
        let span = stock.members(3).unwrap();
        stock.keep();
        stock.undo();
        stock.rest_members(span);
        assert!(stock.members(3).is_err() && stock.rests() && stock.rests_much());
        assert!(stock.may_have(of(Resource::Members, 3)) && !stock.may_have(of(Resource::Members, 4)));
        stock.rested();
        assert!(stock.members(6).is_ok() && !stock.rests());
    }
}
