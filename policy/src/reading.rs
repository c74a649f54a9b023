//! How policies are read.

use crate::object::{Note, Severity};
use crate::path::Path;

/// What becomes of what the API server takes, but warns of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strictness {
    /// The policy is refused: somebody is writing it, and can mend it.
    Strict,
    /// It is taken as the API server takes it, and noted: the policy is in force already.
    AsServed,
}

/// What is found out on the way through a policy.
pub(crate) struct Reading {
    pub strictness: Strictness,
    pub notes: Vec<Note>,
}

impl Reading {
    pub fn new(strictness: Strictness) -> Self {
        Self { strictness, notes: Vec::new() }
    }

    /// Something is supported, but not written as it should be.
    pub fn warn(&mut self, path: &Path<'_>, what: String) {
        self.notes.push(Note { severity: Severity::Warning, field: path.to_string(), what });
    }
}
