//! Who is in a set, as it stands in the tables.

use std::ops::Range;

use sluice_abi::{BackendId, Position, SetId};

use super::tables::{Array, Tables};

/// What a set's word leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Members {
    /// To nobody: one of the positions that say so.
    Nobody(Position),
    /// To these.
    Among(Vec<BackendId>),
}

impl Members {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Nobody(_) => 0,
            Self::Among(members) => members.len(),
        }
    }
}

/// Where a set's members stand, if it has any.
pub(super) fn position(tables: &impl Tables, SetId(set): SetId) -> Option<Position> {
    Some(Position(tables.word(Array::Sets, set))).filter(|position| *position >= Position::FIRST)
}

/// The words that a set's members take.
pub(super) fn span(tables: &impl Tables, set: SetId) -> Option<Range<u32>> {
    let Position(start) = position(tables, set)?;
    Some(start..start.saturating_add(1).saturating_add(tables.word(Array::Members, start)))
}

/// Reads a set.
pub(super) fn read(tables: &impl Tables, set: SetId) -> Members {
    match span(tables, set) {
        Some(span) => {
            let members = span.skip(1).map(|at| BackendId(tables.word(Array::Members, at)));
            Members::Among(members.collect())
        }
        None => Members::Nobody(Position(tables.word(Array::Sets, set.0))),
    }
}

/// Has a set lead elsewhere.
pub(super) fn lead(tables: &mut impl Tables, SetId(set): SetId, Position(position): Position) {
    if tables.word(Array::Sets, set) != position {
        tables.store(Array::Sets, set, position);
    }
}

/// Writes members where nobody reads them yet.
pub(super) fn write(tables: &mut impl Tables, span: Range<u32>, members: &[BackendId]) {
    let words = [members.len() as u32].into_iter().chain(members.iter().map(|id| id.0));
    for (at, word) in span.zip(words) {
        tables.store(Array::Members, at, word);
    }
}
