//! The same through a real API server, which has the cluster in its etcd.

use std::cell::Cell;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use super::churn::{Tell, What};
use super::cluster::{Life, List};
use super::control_plane::ControlPlane;
use super::stage::{MIB, PEAK, Stage, as_long_as};
use crate::bench::report::{Row, Target};
use crate::lab::Place;

/// A pod that goes while the API server is away, and comes back.
const POD: usize = 1;

/// Measures an agent that starts, one whose cluster changes, and one whose API server crashes and comes back.
///
/// # Errors
/// Where there is no API server, the agent does not get ready, or does not know what the cluster has.
pub fn run() -> Result<Vec<Row>> {
    let mut stage = Stage::set("footprint_served")?;
    let (mut control_plane, took) = ControlPlane::start(&stage.lab, &stage.cluster)?;
    let received = Received::of(&stage.lab.nodes[0].place)?;
    let mut rows = start(&mut stage, &control_plane, &received)?;
    rows.push(stage.row("api_server.ready", took.as_secs_f64() * 1e3, "ms", Target::None));
    anstream::println!("the cluster changes");
    rows.extend(stage.change(&control_plane, || received.take())?);
    rows.extend(list_again(&stage, &mut control_plane, &received)?);
    Ok(rows)
}

/// Starts the agent from nothing.
fn start(stage: &mut Stage, control_plane: &ControlPlane, received: &Received) -> Result<Vec<Row>> {
    anstream::println!("the agent starts");
    let server = control_plane.api_server()?;
    let (listed, processor) = (control_plane.listed()?, server.processor_time()?);
    let started = stage.start(&control_plane.kubeconfig(), || received.goes_on())?;
    let processor = server.processor_time()? - processor;
    stage.knows(stage.cluster.size.living())?;
    let mut rows = stage.rows(&started);
    for (list, bytes) in control_plane.listed()? {
        let bytes = bytes - listed.get(&list).copied().unwrap_or_default();
        rows.push(stage.row(&format!("listed.{}", list.name()), bytes / MIB, "MiB", Target::None));
    }
    rows.push(stage.row("api_server.listing", processor * 1e3, "ms", Target::None));
    rows.push(stage.row("api_server.memory", server.memory("RssAnon")?, "MiB", Target::None));
    Ok(rows)
}

/// Has the API server crash, and a pod be gone when it is back, which nobody remembers: all must be listed again.
fn list_again(stage: &Stage, control_plane: &mut ControlPlane, received: &Received) -> Result<Vec<Row>> {
    let (agent, living) = (stage.agent()?, stage.cluster.size.living());
    let tell = |control_plane: &ControlPlane, what| {
        control_plane.tell(List::Pods, POD, what, &|version, out| {
            stage.cluster.write_pod(POD, Life::Running, version, out);
        })
    };
    agent.forget_peak()?;
    let in_all = Received::of(&stage.lab.nodes[0].place)?;
    control_plane.kill_api_server();
    tell(control_plane, What::Deleted)?;
    control_plane.compact()?;
    let started = Instant::now();
    control_plane.start_api_server()?;
    let work = control_plane.work()?;
    as_long_as(|| Ok(received.goes_on()? || work.goes_on()?), || stage.knows(living - 1))?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let bytes = in_all.take()? as f64 / MIB;
    let peak = agent.memory("VmHWM")?;
    // It watches again.
    tell(control_plane, What::Added)?;
    stage.knows(living)?;
    Ok(vec![
        stage.row("memory.relisting_peak", peak, "MiB", PEAK),
        stage.row("relisting", took, "ms", Target::None),
        stage.row("relisting.received", bytes, "MiB", Target::None),
    ])
}

/// What a node is sent: the agent alone has somebody to talk to there.
struct Received {
    place: Place,
    seen: Cell<u64>,
}

impl Received {
    fn of(place: &Place) -> Result<Self> {
        let received = Self { place: place.share()?, seen: Cell::new(0) };
        received.take()?;
        Ok(received)
    }

    /// Bytes since this was last asked, as the node's interface counts them.
    fn take(&self) -> Result<u64> {
        let text = self.place.inside(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("eth0:"));
        let bytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        let bytes = bytes.context("the node has no interface eth0 that counts")?;
        Ok(bytes - self.seen.replace(bytes))
    }

    /// Whether that was more than what keeps connections alive.
    fn goes_on(&self) -> Result<bool> {
        Ok(self.take()? as f64 > MIB)
    }
}
