//! How long ADD and DEL take, agent and enforcement included, beside the reference bridge plugin.

use std::fs;
use std::process::Child;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::reference::Bridge;
use super::report::{Row, Target, median};
use crate::lab::{Call, Families, Lab, Place, Plan};

/// Calls in a row, and calls at once.
const SEQUENTIAL: usize = 40;
const PARALLEL: usize = 16;

/// Measures both plugins, in turns.
///
/// # Errors
/// Where a plugin fails.
pub fn run() -> Result<Vec<Row>> {
    let mut lab = Lab::named("sluice-bench", Plan { nodes: 1, families: Families::V4, ..Plan::default() })?;
    let bridge = Bridge::make("sluice-bench-ref")?;
    let pods: Vec<Place> =
        (0..PARALLEL).map(|number| Place::make(&format!("sluice-bench-p{number}"))).collect::<Result<_>>()?;
    let node = &lab.nodes[0];
    let ours = |verb: &str, pod: &Place| Call::new(node, verb, &pod.name, &pod.path())?.spawn();
    let theirs = |verb: &str, pod: &Place| bridge.spawn(verb, &pod.name, &pod.path());
    type Spawn<'a> = &'a dyn Fn(&str, &Place) -> Result<Child>;
    let plugins: [Spawn<'_>; 2] = [&ours, &theirs];

    // The first call of each pays for what all need.
    for plugin in plugins {
        one(plugin, "ADD", &pods[0])?;
        one(plugin, "DEL", &pods[0])?;
    }
    let mut times = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..SEQUENTIAL {
        for (plugin, times) in plugins.into_iter().zip(&mut times) {
            let pod = &pods[round % PARALLEL];
            times[0].push(one(plugin, "ADD", pod)?);
            times[1].push(one(plugin, "DEL", pod)?);
        }
    }
    let [[mut add, mut del], [mut their_add, mut their_del]] = times;
    let (add, their_add) = (median(&mut add), median(&mut their_add));
    let what = "bridge plugin";
    let mut rows = vec![
        Row::new("add_p50", add, "ms", Target::AtMost(5.0)),
        Row::new("add_vs_bridge", add, "ms", Target::RatioAtLeast(4.0)).against(what, their_add),
        Row::new("del_p50", median(&mut del), "ms", Target::None).against(what, median(&mut their_del)),
    ];
    let mut totals = [[0.0; 2]; 2];
    for (plugin, totals) in plugins.into_iter().zip(&mut totals) {
        *totals = [at_once(plugin, "ADD", &pods)?, at_once(plugin, "DEL", &pods)?];
    }
    let [ours, theirs] = totals;
    for (verb, ours, theirs) in [("add", ours[0], theirs[0]), ("del", ours[1], theirs[1])] {
        let id = format!("{verb}_{PARALLEL}_at_once");
        rows.push(Row::new(&id, ours, "ms", Target::None).against(what, theirs));
    }

    // From the start of the agent to the first ADD served: where its programs are in the kernel already, and where not.
    for (id, fresh) in [("agent_ready.restart", false), ("agent_ready", true)] {
        let mut starts = Vec::new();
        for _ in 0..3 {
            let node = &mut lab.nodes[0];
            node.stop_agent();
            if fresh {
                fs::remove_dir_all(node.bpf_dir())?;
            }
            let started = Instant::now();
            node.start_agent()?;
            node.wait_until_ready()?;
            let node = &lab.nodes[0];
            let ours = |verb: &str, pod: &Place| Call::new(node, verb, &pod.name, &pod.path())?.spawn();
            one(&ours, "ADD", &pods[0])?;
            starts.push(started.elapsed().as_secs_f64() * 1000.0);
            one(&ours, "DEL", &pods[0])?;
        }
        let target = if fresh { Target::AtMost(500.0) } else { Target::None };
        rows.push(Row::new(id, median(&mut starts), "ms", target));
    }
    Ok(rows)
}

/// Milliseconds that a verb takes for one pod.
fn one(plugin: &dyn Fn(&str, &Place) -> Result<Child>, verb: &str, pod: &Place) -> Result<f64> {
    at_once(plugin, verb, std::slice::from_ref(pod))
}

/// Milliseconds until a verb is done for all of these pods.
fn at_once(plugin: &dyn Fn(&str, &Place) -> Result<Child>, verb: &str, pods: &[Place]) -> Result<f64> {
    let started = Instant::now();
    let children = pods.iter().map(|pod| plugin(verb, pod)).collect::<Result<Vec<_>>>()?;
    for child in children {
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}
