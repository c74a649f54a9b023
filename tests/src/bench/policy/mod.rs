//! What policies cost.

mod cluster;
mod offline;

pub use offline::{measure, run};

/// Said to `sluice-bench` before the name of a case, instead of benches: measure that one in this process.
pub const CASE: &str = "--policy-case";
