//! What services cost.

mod cluster;
mod connections;
mod kube_proxy;
mod packets;
mod roads;
mod sockets;
mod stage;

use anyhow::Result;

use super::report::Row;

/// Measures packets, sockets and connections.
///
/// # Errors
/// Where one of these cannot be run.
pub fn run() -> Result<Vec<Row>> {
    // In a thread of its own, which moves to a network namespace.
    let mut rows = std::thread::spawn(packets::run).join().expect("no panic")?;
    rows.extend(sockets::run()?);
    rows.extend(connections::run()?);
    Ok(rows)
}
