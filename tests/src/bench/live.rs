//! What all programs that a packet meets cost together, under traffic between real pods.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_abi::{Hook, Stage};

use super::report::{Row, Target};
use crate::lab::{Families, Lab, Place, Plan};

/// Datagrams of a flow.
const DATAGRAMS: u64 = 300_000;
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Measures pods on one node, and on two: natively and through the overlay.
///
/// # Errors
/// Where the lab does not start, or nothing arrives.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (routing, second, id, target) in [
        ("native", 1, "ns_live_path.one_node", Target::AtMost(200.0)),
        ("native", 2, "ns_live_path.two_nodes", Target::AtMost(500.0)),
        ("vxlan", 2, "ns_live_path.two_nodes_overlay", Target::None),
    ] {
        let lab = Lab::named("sluice-bench", Plan { routing, families: Families::V4, ..Plan::default() })?;
        let (from, to) = (lab.pod(1, "a")?, lab.pod(second, "b")?);
        let costs = flow(&from.place, &to.place, to.addresses[0])?;
        rows.push(Row::new(id, costs.values().flatten().sum(), "ns", target));
        // The one program that test runs cannot show: they carry no tunnel.
        if let Some(ns) = costs.get(Hook::FromOverlay.name()) {
            rows.push(Row::new("ns_live.from_overlay", ns.iter().sum(), "ns", Target::None));
        }
    }
    Ok(rows)
}

/// Sends a flow that was answered; gives the ns of a run of each program that its datagrams meet, by the program's name: as
/// many as there are nodes on which they meet it.
fn flow(from: &Place, to: &Place, address: IpAddr) -> Result<BTreeMap<String, Vec<f64>>> {
    let server = to.inside(|| Ok(UdpSocket::bind(SocketAddr::new(address, 0))?))?;
    let client = from.inside(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.connect(server.local_addr()?)?;
    for _ in 0..3 {
        client.send(&[0; 64])?;
        let (_, peer) = server.recv_from(&mut [0; 64]).context("nothing arrives")?;
        server.send_to(&[0; 64], peer)?;
        client.recv(&mut [0; 64]).context("nothing comes back")?;
    }
    let stats = Stats::on()?;
    let programs: Vec<&str> = Hook::ALL.iter().map(|hook| hook.name()).chain(Stage::PROGRAMS).collect();
    let before = stats.read(&programs)?;
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut arrived = 0_u64;
        while server.recv(&mut buffer).is_ok_and(|length| length > 1) {
            arrived += 1;
        }
        arrived
    });
    for _ in 0..DATAGRAMS {
        // A full queue is no error of the path.
        let _ = client.send(&[0; 64]);
    }
    for _ in 0..10 {
        let _ = client.send(&[0]);
    }
    let arrived = drain.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
    let after = stats.read(&programs)?;
    ensure!(arrived > DATAGRAMS / 100, "only {arrived} of {DATAGRAMS} datagrams arrived");
    let mut costs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (id, now) in after {
        let then = before.get(&id).cloned().unwrap_or_default();
        let runs = now.runs - then.runs;
        // Fewer are not of this flow.
        if runs >= arrived {
            costs.entry(now.name).or_default().push((now.nanoseconds - then.nanoseconds) as f64 / runs as f64);
        }
    }
    Ok(costs)
}

/// What a program has done.
#[derive(Clone, Default)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// How often it has run,
    pub runs: u64,
    /// and how long that has taken.
    pub nanoseconds: u64,
}

/// The kernel's accounting of programs, switched on until dropped.
pub struct Stats {
    before: String,
}

impl Stats {
    /// Switches it on.
    ///
    /// # Errors
    /// Where the kernel has none.
    pub fn on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("reading {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("writing {SWITCH}"))?;
        Ok(Self { before })
    }

    /// What the programs of these names have done, by their ids.
    ///
    /// # Errors
    /// Where bpftool is missing.
    pub fn read(&self, names: &[&str]) -> Result<BTreeMap<u64, Run>> {
        let output = Command::new("bpftool").args(["prog", "show", "-j"]).output().context("starting bpftool")?;
        let programs: Vec<Value> = serde_json::from_slice(&output.stdout).context("reading what bpftool says")?;
        let number = |program: &Value, key: &str| program[key].as_u64().unwrap_or(0);
        let ours = programs.iter().filter_map(|program| {
            let name = names.iter().find(|name| program["name"] == **name)?;
            let (runs, nanoseconds) = (number(program, "run_cnt"), number(program, "run_time_ns"));
            Some((number(program, "id"), Run { name: (*name).into(), runs, nanoseconds }))
        });
        Ok(ours.collect())
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, &self.before);
    }
}
