//! Numbers of services, sets and backends: the lowest that is free. What is given back rests until nobody can still read it.

use std::collections::BTreeSet;

/// Numbers from 1 up; 0 is nobody's.
#[derive(Debug)]
pub struct Ids {
    /// One more than the greatest.
    end: u32,
    /// All from here on are free, and none of those before but these.
    next: u32,
    free: BTreeSet<u32>,
    resting: Vec<u32>,
}

impl Ids {
    /// All below `end` but 0, free.
    pub fn below(end: u32) -> Self {
        Self { end, next: 1, free: BTreeSet::new(), resting: Vec::new() }
    }

    /// The lowest one.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop_first().or_else(|| {
            let id = Some(self.next).filter(|id| *id < self.end)?;
            self.next += 1;
            Some(id)
        })
    }

    /// This one, where it is free.
    pub fn claim(&mut self, id: u32) -> bool {
        if (self.next..self.end).contains(&id) {
            self.free.extend(self.next..id);
            self.next = id + 1;
            return true;
        }
        self.free.remove(&id)
    }

    /// Gives back one that nobody has seen.
    pub fn put_back(&mut self, id: u32) {
        self.free.insert(id);
    }

    /// Gives back one that somebody may still read.
    pub fn rest(&mut self, id: u32) {
        self.resting.push(id);
    }

    /// Nobody reads any more what rests by now.
    pub fn rested(&mut self) {
        self.free.extend(self.resting.drain(..));
    }

    /// How many can be taken.
    pub fn available(&self) -> usize {
        self.free.len() + (self.end - self.next) as usize
    }

    /// How many rest.
    pub fn resting(&self) -> usize {
        self.resting.len()
    }

    /// How many are somebody's.
    pub fn used(&self) -> usize {
        self.capacity() - self.available() - self.resting.len()
    }

    /// How many there are.
    pub fn capacity(&self) -> usize {
        self.end as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_taken_and_what_rests_is_not() {
        let mut ids = Ids::below(5);
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(1), Some(2), Some(3)]);
        ids.rest(1);
        ids.put_back(2);
        assert_eq!((ids.used(), ids.available(), ids.resting()), (1, 2, 1));
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(2), Some(4), None]);
        ids.rested();
        assert_eq!([ids.take(), ids.take()], [Some(1), None]);
        assert_eq!((ids.used(), ids.capacity()), (4, 4));
    }

    #[test]
    fn what_is_claimed_is_not_taken() {
        let mut ids = Ids::below(5);
        assert!(ids.claim(3) && !ids.claim(3) && !ids.claim(0) && !ids.claim(5));
        assert!(ids.claim(1) && !ids.claim(1));
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(2), Some(4), None]);
    }
}
