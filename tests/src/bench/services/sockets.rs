//! What a socket pays that is told whom to talk to: by the kernel's accounting, under real calls.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};

use super::cluster::{PORT, any, vip};
use super::roads::{Road, Server};
use super::stage::{FEW, Stage, v4};
use crate::bench::live::Stats;
use crate::bench::report::{Row, Target};
use crate::lab::Pod;

/// Sockets that are connected.
const CONNECTS: u64 = 200_000;
const PROGRAM: &str = "connect4";

/// Measures connections to a service, and to an address that is none's.
///
/// # Errors
/// Where the lab does not start, or the service is not served.
pub fn run() -> Result<Vec<Row>> {
    let stage = Stage::set("sluice-bench", 1, FEW, "")?;
    let server = Server::start(&stage.near.place)?;
    let road = Road::by("cluster IP", &stage.client.place, &server, |worker, random| any(FEW, worker, random));
    road.opens()?;
    let other = connects(&stage.client, v4(&stage.near))?;
    let own = connects(&stage.client, vip(0))?;
    Ok(vec![
        Row::new("ns_live.connect4.service", own, "ns", Target::None).against("no service", other),
        Row::new("ns_live.connect4.other", other, "ns", Target::None),
    ])
}

/// ns of a run of the program for sockets that are connected to an address.
fn connects(client: &Pod, address: Ipv4Addr) -> Result<f64> {
    let at = SocketAddr::new(address.into(), PORT);
    let stats = Stats::on()?;
    let before = stats.read(&[PROGRAM])?;
    client.place.inside(|| {
        // Of datagrams: nothing is sent, and each is another socket, as with connections.
        for _ in 0..CONNECTS {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?.connect(at)?;
        }
        Ok(())
    })?;
    let after = stats.read(&[PROGRAM])?;
    let (runs, nanoseconds) = after
        .iter()
        .map(|(id, now)| {
            let then = before.get(id).cloned().unwrap_or_default();
            (now.runs - then.runs, now.nanoseconds - then.nanoseconds)
        })
        .max()
        .context("no such program")?;
    ensure!(runs >= CONNECTS, "{PROGRAM} has run {runs} times for {CONNECTS} sockets");
    Ok(nanoseconds as f64 / runs as f64)
}
