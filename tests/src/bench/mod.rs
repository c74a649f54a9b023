//! Measurements. Each compares what it measures with something else in the same run, or counts.

mod cni;
mod datapath;
mod live;
mod reference;
mod report;
mod throughput;

use anyhow::{Result, bail};

/// The names of all benches.
pub const NAMES: [&str; 3] = ["datapath", "throughput", "cni"];

/// Runs a bench and publishes what it finds.
///
/// # Errors
/// Where it cannot be run.
pub fn run(name: &str) -> Result<()> {
    let rows = match name {
        "datapath" => {
            let mut rows = datapath::run()?;
            rows.extend(live::run()?);
            rows
        }
        "throughput" => throughput::run()?,
        "cni" => cni::run()?,
        _ => bail!("there is no bench {name:?}; there are {}", NAMES.join(", ")),
    };
    report::publish(name, &rows)
}
