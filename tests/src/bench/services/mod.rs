//! What services cost.

mod agent;
mod cluster;
mod connections;
mod kube_proxy;
mod packets;
mod roads;
mod sockets;
mod stage;
mod writing;

use anyhow::Result;

use super::report::Row;

/// Measures packets, sockets, connections, and what the agent makes of services.
///
/// # Errors
/// Where one of these cannot be run.
pub fn run() -> Result<Vec<Row>> {
    // In a thread of its own, which moves to a network namespace.
    let mut rows = std::thread::spawn(packets::run).join().expect("no panic")?;
    rows.extend(sockets::run()?);
    rows.extend(connections::run()?);
    rows.extend(writing::run()?);
    rows.extend(agent::run()?);
    Ok(rows)
}
