//! Measurements. Each compares what it measures with something else in the same run, or counts.

mod cni;
mod datapath;
mod delays;
mod footprint;
mod live;
mod policy;
mod process;
mod reference;
mod report;
mod restart;
mod services;
mod throughput;

use anyhow::{Result, bail};

/// The names of all benches.
pub const NAMES: [&str; 9] =
    ["datapath", "throughput", "cni", "restart", "policy", "services", "footprint", "footprint-served", "delays"];

/// Runs benches, publishes what each finds, and ends with what is to be reached.
///
/// # Errors
/// Where one cannot be run.
pub fn run(names: &[String]) -> Result<()> {
    if let [flag, case] = names
        && flag == policy::CASE
    {
        return policy::measure(case);
    }
    let mut all = Vec::new();
    for name in names {
        let rows = match name.as_str() {
            "datapath" => {
                let mut rows = datapath::run()?;
                rows.extend(live::run()?);
                rows
            }
            "throughput" => throughput::run()?,
            "cni" => cni::run()?,
            "restart" => restart::run()?,
            "policy" => policy::run()?,
            "services" => services::run()?,
            "footprint" => footprint::run()?,
            "footprint-served" => footprint::run_served()?,
            "delays" => delays::run()?,
            _ => bail!("there is no bench {name:?}; there are {}", NAMES.join(", ")),
        };
        report::publish(name, &rows)?;
        all.extend(rows);
    }
    report::summarize(&all);
    Ok(())
}
