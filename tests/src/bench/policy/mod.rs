//! What policies cost.

mod cluster;
mod enforced;
mod first_packet;
mod offline;

use anyhow::Result;

use super::report::Row;

pub use offline::measure;

/// Said to `sluice-bench` before the name of a case, instead of benches: measure that one in this process.
pub const CASE: &str = "--policy-case";

/// Measures the compiler, the first packets of flows, and edits.
///
/// # Errors
/// Where one of these cannot be run.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = offline::run()?;
    // In a thread of its own, which moves to a network namespace.
    let first = std::thread::spawn(first_packet::run);
    rows.extend(first.join().expect("no panic")?);
    rows.extend(enforced::run()?);
    Ok(rows)
}
