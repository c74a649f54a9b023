//! What permitted flows lose while agents are killed, restarted and replaced by those of another version.

use std::fs;

use anyhow::{Context, Result};

use super::report::{Row, Target};
use crate::lab::traffic::Steady;
use crate::lab::{Lab, Node, Plan};

/// Datagrams that each flow exchanges between two events.
const BETWEEN: u64 = 100;

/// Counts what flows lose, natively and through the overlay.
///
/// # Errors
/// Where the lab does not start, or a flow dries up.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (mut sent, mut lost) = (0, 0);
    for routing in ["native", "vxlan"] {
        let (more_sent, more_lost) = count(routing).with_context(|| format!("restarts with {routing} routing"))?;
        rows.push(Row::new(&format!("lost_packets_restart.{routing}"), more_lost as f64, "packets", Target::None));
        (sent, lost) = (sent + more_sent, lost + more_lost);
    }
    let all = Row::new("lost_packets_restart", lost as f64, "packets", Target::AtMost(0.0));
    rows.push(all.against("sent", sent as f64));
    Ok(rows)
}

/// Kills, restarts and upgrades the agents of both ends; gives how many datagrams were sent, and how many lost.
fn count(routing: &'static str) -> Result<(u64, u64)> {
    let mut lab = Lab::named("sluice-bench", Plan { routing, ..Plan::default() })?;
    let (a, near, far) = (lab.pod(1, "a")?, lab.pod(1, "b")?, lab.pod(2, "c")?);
    let ends = near.addresses.iter().map(|address| (&near, address));
    let ends = ends.chain(far.addresses.iter().map(|address| (&far, address)));
    let flows = ends.map(|(to, address)| Steady::start(&a.place, &to.place, *address)).collect::<Result<Vec<_>>>()?;
    let go_on = || flows.iter().try_for_each(|flow| flow.goes_on(BETWEEN));
    go_on()?;
    for upgrade in [false, true] {
        for node in &mut lab.nodes[..2] {
            node.stop_agent();
            go_on().context("without an agent")?;
            if upgrade {
                disown_programs(node)?;
            }
            node.start_agent()?;
            node.wait_until_ready()?;
            go_on().context("with a new agent")?;
        }
    }
    let (mut sent, mut lost) = (0, 0);
    for flow in flows {
        let (asked, answered) = flow.stop()?;
        (sent, lost) = (sent + asked, lost + asked - answered);
    }
    Ok((sent, lost))
}

/// Has the programs of a node look like those of another version: the next agent loads its own and puts them in their place.
fn disown_programs(node: &Node) -> Result<()> {
    let programs = node.bpf_dir().join("v3/programs");
    for generation in fs::read_dir(&programs).with_context(|| format!("listing {}", programs.display()))? {
        let path = generation?.path();
        fs::rename(&path, path.with_file_name("another")).with_context(|| format!("renaming {}", path.display()))?;
    }
    Ok(())
}
