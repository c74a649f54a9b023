//! What is wrong with objects, kept as they come and go: to tell of it takes no look at those that nothing is wrong with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::name::{ObjectError, ObjectName};
use crate::object::{Note, PolicyObject, Severity, Tier};

/// Something is wrong with an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Which object.
    pub object: ObjectName,
    /// Where in it; empty: all of it.
    pub field: String,
    /// What is wrong, and what becomes of it.
    pub what: String,
}

impl Problem {
    pub(super) fn new(severity: Severity, object: &ObjectName, field: &str, what: String) -> Self {
        Self { severity, object: object.clone(), field: field.to_owned(), what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.what)
    }
}

/// The objects that something is wrong with.
#[derive(Debug, Default)]
pub(super) struct Problems {
    invalid: BTreeMap<ObjectName, ObjectError>,
    notes: BTreeMap<ObjectName, Vec<Note>>,
    /// ClusterNetworkPolicies, by what they are asked in the order of: of several at one place, each is a problem.
    places: BTreeMap<Tier, BTreeSet<ObjectName>>,
    version: u64,
}

impl Problems {
    /// Another one whenever there may be other problems.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// There may be others.
    pub fn change(&mut self) {
        self.version += 1;
    }

    /// An object makes no sense.
    pub fn refuse(&mut self, error: ObjectError) {
        if self.invalid.get(&error.object) != Some(&error) {
            self.invalid.insert(error.object.clone(), error);
            self.change();
        }
    }

    /// An object makes sense, but there is this to say of it.
    pub fn note(&mut self, name: &ObjectName, notes: &[Note]) {
        let was_invalid = self.invalid.remove(name).is_some();
        let before = self.notes.get(name).map(Vec::as_slice).unwrap_or_default();
        if before != notes {
            if notes.is_empty() {
                self.notes.remove(name);
            } else {
                self.notes.insert(name.clone(), notes.to_vec());
            }
        } else if !was_invalid {
            return;
        }
        self.change();
    }

    /// A policy takes its place among those of its tier and priority.
    pub fn place(&mut self, policy: &PolicyObject) {
        if policy.tier != Tier::Namespaced {
            let names = self.places.entry(policy.tier).or_default();
            names.insert(policy.name.clone());
            if names.len() > 1 {
                self.change();
            }
        }
    }

    /// A policy leaves its place.
    pub fn displace(&mut self, policy: &PolicyObject) {
        let Some(names) = self.places.get_mut(&policy.tier) else { return };
        names.remove(&policy.name);
        if names.is_empty() {
            self.places.remove(&policy.tier);
        } else {
            self.change();
        }
    }

    /// All of them.
    pub fn list(&self) -> Vec<Problem> {
        let invalid = self
            .invalid
            .values()
            .map(|ObjectError { object, field, what }| Problem::new(Severity::Error, object, field, what.clone()));
        let noted = self.notes.iter().flat_map(|(object, notes)| {
            notes.iter().map(|note| Problem::new(note.severity, object, &note.field, note.what.clone()))
        });
        let mut list: Vec<Problem> = invalid.chain(noted).collect();
        for names in self.places.values().filter(|names| names.len() > 1) {
            for name in names {
                let others: Vec<&str> = names.iter().filter(|other| *other != name).map(|other| &*other.name).collect();
                let what =
                    format!("{} has the same priority; they are asked in the order of their names", others.join(", "));
                list.push(Problem::new(Severity::Warning, name, "spec.priority", what));
            }
        }
        list
    }
}
