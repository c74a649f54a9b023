//! What is wrong with objects, kept as they come and go.

use std::collections::BTreeMap;

use sluice_policy::object::Note;
use sluice_policy::{ObjectError, ObjectName, Problem, Severity};

/// The objects that something is wrong with.
#[derive(Debug, Default)]
pub struct Problems {
    problems: BTreeMap<ObjectName, Vec<Problem>>,
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

    /// An object makes no sense: what was known of it still holds.
    pub fn refuse(&mut self, error: ObjectError) {
        let ObjectError { object, field, what } = error;
        self.set(object.clone(), vec![Problem { severity: Severity::Error, object, field, what }]);
    }

    /// There is this to say of an object; of one that is gone, nothing.
    pub fn note(&mut self, object: ObjectName, notes: Vec<Note>) {
        let problem = |note: Note| Problem {
            severity: note.severity,
            object: object.clone(),
            field: note.field,
            what: note.what,
        };
        let problems = notes.into_iter().map(problem).collect();
        self.set(object, problems);
    }

    fn set(&mut self, object: ObjectName, problems: Vec<Problem>) {
        let before = self.problems.get(&object).map(Vec::as_slice).unwrap_or_default();
        if before == problems {
            return;
        }
        if problems.is_empty() {
            self.problems.remove(&object);
        } else {
            self.problems.insert(object, problems);
        }
        self.change();
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }
}
