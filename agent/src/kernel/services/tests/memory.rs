//! Tables in plain memory, which remember every write.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use sluice_abi::{Frontend, ServiceId, SetId};

use crate::kernel::error::KernelError;
use crate::kernel::services::tables::{Array, Lookup, Place, Room, Tables, backend_words};

/// A write, or the wait for those who may be reading.
#[derive(Clone, Debug)]
pub enum Write {
    Word(Array, u32, u32),
    Bits(u32, u64),
    Frontend(Place, Option<Frontend>),
    Range(ServiceId, IpNet, bool),
    Maglev(SetId, Option<Box<Lookup>>),
    Settle,
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub words: BTreeMap<(Array, u32), u32>,
    pub bits: BTreeMap<u32, u64>,
    pub frontends: HashMap<Place, Frontend>,
    pub ranges: BTreeSet<(ServiceId, IpNet)>,
    pub maglev: BTreeMap<SetId, Box<Lookup>>,
    pub log: Vec<Write>,
    /// How large arrays are, where that matters.
    pub room: Option<Room>,
}

impl Memory {
    /// With arrays of another size, and as much of what they hold as there is room for.
    pub fn resized(mut self, room: Room) -> Self {
        self.words.retain(|(array, at), _| *at < words(*array, &room));
        self.room = Some(room);
        self
    }

    /// A word as programs read it: there is nothing beyond an array.
    pub fn seen(&self, array: Array, at: u32) -> u32 {
        self.words.get(&(array, at)).copied().unwrap_or(0)
    }

    fn check(&self, array: Array, at: u32) {
        let is_there = self.room.is_none_or(|room| at < words(array, &room));
        assert!(is_there, "word {at} lies beyond the table {array:?}");
    }

    /// Does what a write did.
    pub fn replay(&mut self, write: &Write) {
        match write {
            Write::Word(array, at, word) => {
                self.words.insert((*array, *at), *word);
            }
            Write::Bits(at, bits) => {
                self.bits.insert(*at, *bits);
            }
            Write::Frontend(place, Some(frontend)) => {
                self.frontends.insert(*place, *frontend);
            }
            Write::Frontend(place, None) => {
                self.frontends.remove(place).expect("a frontend that is there");
            }
            Write::Range(service, range, true) => {
                self.ranges.insert((*service, *range));
            }
            Write::Range(service, range, false) => {
                assert!(self.ranges.remove(&(*service, *range)), "a range that is there");
            }
            Write::Maglev(set, Some(lookup)) => {
                self.maglev.insert(*set, lookup.clone());
            }
            Write::Maglev(set, None) => {
                self.maglev.remove(set).expect("a table that is there");
            }
            Write::Settle => {}
        }
    }

    fn write(&mut self, write: Write) -> Result<(), KernelError> {
        self.replay(&write);
        self.log.push(write);
        Ok(())
    }
}

/// How many words an array has.
fn words(array: Array, room: &Room) -> u32 {
    match array {
        Array::Sets => room.sets,
        Array::Members => room.members,
        Array::Backends(family) => room.backends * backend_words(family),
    }
}

impl Tables for Memory {
    fn word(&self, array: Array, at: u32) -> u32 {
        self.check(array, at);
        self.seen(array, at)
    }

    fn store(&mut self, array: Array, at: u32, word: u32) {
        self.check(array, at);
        self.write(Write::Word(array, at, word)).unwrap();
    }

    fn bits(&self, at: u32) -> u64 {
        self.bits.get(&at).copied().unwrap_or(0)
    }

    fn store_bits(&mut self, at: u32, bits: u64) {
        self.write(Write::Bits(at, bits)).unwrap();
    }

    fn frontends(&self) -> Result<Vec<(Place, Frontend)>, KernelError> {
        Ok(self.frontends.iter().map(|(place, frontend)| (*place, *frontend)).collect())
    }

    fn frontend(&self, place: &Place) -> Result<Option<Frontend>, KernelError> {
        Ok(self.frontends.get(place).copied())
    }

    fn insert_frontend(&mut self, place: &Place, frontend: &Frontend) -> Result<(), KernelError> {
        self.write(Write::Frontend(*place, Some(*frontend)))
    }

    fn remove_frontend(&mut self, place: &Place) -> Result<(), KernelError> {
        self.write(Write::Frontend(*place, None))
    }

    fn ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, KernelError> {
        Ok(self.ranges.iter().copied().collect())
    }

    fn set_range(&mut self, service: ServiceId, range: IpNet, is_there: bool) -> Result<(), KernelError> {
        self.write(Write::Range(service, range.trunc(), is_there))
    }

    fn maglev_sets(&self) -> Result<Vec<SetId>, KernelError> {
        Ok(self.maglev.keys().copied().collect())
    }

    fn maglev(&self, set: SetId) -> Result<Option<Box<Lookup>>, KernelError> {
        Ok(self.maglev.get(&set).cloned())
    }

    fn insert_maglev(&mut self, set: SetId, lookup: &Lookup) -> Result<(), KernelError> {
        self.write(Write::Maglev(set, Some(Box::new(*lookup))))
    }

    fn remove_maglev(&mut self, set: SetId) -> Result<(), KernelError> {
        self.write(Write::Maglev(set, None))
    }

    fn settle(&mut self) {
        self.write(Write::Settle).unwrap();
    }

    fn release(&mut self) {}
}
