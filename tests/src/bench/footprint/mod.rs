//! What a large cluster takes of an agent: memory, processor time, and what it has sent to it.

mod churn;
mod cluster;
mod objects;
mod server;
mod template;

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::process::Process;
use super::report::{Row, Target};
use crate::lab::{Families, Lab, Plan, until};
use churn::Churn;
use cluster::{Cluster, List, Size};
use server::Server;

/// 150,000 pods and 10,000 Services.
const SIZE: Size = Size { nodes: 5_000, namespaces: 1_000 };
/// For how long the cluster changes, in seconds.
const SECONDS: u32 = 30;

const MIB: f64 = 1_048_576.0;

/// Measures an agent that starts, one whose cluster changes, and one that must list all of it again.
///
/// # Errors
/// Where the agent does not get ready, or does not know what the cluster has.
pub fn run() -> Result<Vec<Row>> {
    // Nodes that are not there have no routes.
    let plan = Plan { nodes: 1, routing: "vxlan", families: Families::V4, ..Plan::default() };
    let mut stage = Stage::set(Lab::named("sluice-bench", plan)?)?;
    let mut rows = Vec::new();
    let whole = stage.start(&[])?;
    rows.push(Row::new("footprint_ready", whole.ready, "ms", Target::None));
    rows.push(Row::new("footprint_ready.processor_time", whole.processor, "ms", Target::None));
    rows.push(Row::new("footprint_memory.first_listing_peak", whole.peak, "MiB", Target::AtMost(400.0)));
    for (list, sent) in stage.server.take_sent() {
        let each = sent.listed as f64 / sent.objects.max(1) as f64;
        let id = |what: &str| format!("footprint_listed.{}{what}", list.name());
        rows.push(Row::new(&id(""), sent.listed as f64 / MIB, "MiB", Target::None));
        rows.push(Row::new(&id(".each"), each, "bytes", Target::None));
    }
    rows.extend(stage.change()?);
    rows.push(Row::new("footprint_memory", stage.agent()?.memory("RssAnon")?, "MiB", Target::AtMost(250.0)));
    rows.push(stage.list_again()?);

    // What each kind takes is what is missing without it.
    for (list, others, id) in [
        (List::Pods, &[][..], "pod"),
        (List::Nodes, &[], "node"),
        (List::Services, &[List::Slices], "service"),
        (List::Policies, &[], "policy"),
    ] {
        let less = stage.start(&[&[list], others].concat())?;
        let each = (whole.memory - less.memory) * MIB / (stage.cluster.count(list) - 1) as f64;
        rows.push(Row::new(&format!("footprint_memory.of_a_{id}"), each, "bytes", Target::None));
    }
    Ok(rows)
}

/// Waits for longer than usual, however busy the machine is: as long as the agent goes on listing.
fn as_long_as_it_lists<T>(server: &Server, mut wait: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        let outcome = wait();
        if outcome.is_ok() || !server.lists_on() {
            return outcome;
        }
    }
}

/// An agent, and the cluster that it is told of.
struct Stage {
    lab: Lab,
    cluster: Arc<Cluster>,
    server: Server,
}

/// What a start has taken.
struct Started {
    /// Milliseconds until the agent is ready,
    ready: f64,
    /// and of the processor.
    processor: f64,
    /// MiB of memory that it has then,
    memory: f64,
    /// and that were resident at most.
    peak: f64,
}

impl Stage {
    fn set(lab: Lab) -> Result<Self> {
        let cluster = Arc::new(Cluster::around(&lab.nodes[0], SIZE)?);
        let server = Server::start(&lab.nodes[0], Arc::clone(&cluster))?;
        Ok(Self { lab, cluster, server })
    }

    fn agent(&self) -> Result<Process> {
        Process::of_agent(&self.lab.nodes[0])
    }

    /// Starts the agent from nothing, in a cluster that has only the first of each of these.
    fn start(&mut self, cut: &[List]) -> Result<Started> {
        self.server.cut(cut);
        let node = &mut self.lab.nodes[0];
        node.stop_agent();
        fs::remove_dir_all(node.bpf_dir()).context("removing tables")?;
        let started = Instant::now();
        node.start_agent_with(&["--source", &format!("kubernetes:{}", self.server.kubeconfig.display())])?;
        let status = as_long_as_it_lists(&self.server, || node.wait_until_ready())?;
        let ready = started.elapsed().as_secs_f64() * 1e3;
        ensure!(status.problems.is_empty(), "{:?}", status.problems);
        let agent = self.agent()?;
        let started = Started {
            ready,
            processor: agent.processor_time()? * 1e3,
            memory: agent.memory("RssAnon")?,
            peak: agent.memory("VmHWM")?,
        };
        List::ALL.into_iter().try_for_each(|list| self.server.is_watched(list))?;
        let pods = if cut.contains(&List::Pods) { 1 } else { self.cluster.size.living() };
        self.knows(pods)?;
        Ok(started)
    }

    /// Waits until the agent knows of so many pods that have addresses.
    fn knows(&self, pods: usize) -> Result<()> {
        until("the agent knows all pods", || {
            let status = self.lab.nodes[0].status()?;
            ensure!(status.objects.pods == pods, "it knows {:?}", status.objects);
            Ok(())
        })
    }

    /// Has the cluster change.
    fn change(&mut self) -> Result<Vec<Row>> {
        let (agent, mut churn) = (self.agent()?, Churn::of(&self.cluster, &self.server));
        self.server.take_sent();
        let (started, before) = (Instant::now(), agent.processor_time()?);
        let rate = churn.go_on(SECONDS)?;
        let took = started.elapsed().as_secs_f64();
        let taken = (agent.processor_time()? - before) / took;
        let watched: u64 = self.server.take_sent().values().map(|sent| sent.watched).sum();
        churn.settle()?;
        self.knows(self.cluster.size.living())?;
        Ok(vec![
            Row::new("footprint_processor", taken * 100.0, "% of a core", Target::AtMost(10.0)),
            Row::new("footprint_changes", rate, "/s", Target::None),
            Row::new("footprint_watched", watched as f64 / took / 1024.0, "KiB/s", Target::None),
        ])
    }

    /// Has the agent list everything again, as one whose watches have expired: what it has at most meanwhile.
    fn list_again(&mut self) -> Result<Row> {
        let agent = self.agent()?;
        agent.forget_peak()?;
        for list in List::ALL {
            self.server.expire(list)?;
        }
        let is_watched = || List::ALL.into_iter().try_for_each(|list| self.server.is_watched(list));
        as_long_as_it_lists(&self.server, is_watched)?;
        self.knows(self.cluster.size.living())?;
        Ok(Row::new("footprint_memory.relisting_peak", agent.memory("VmHWM")?, "MiB", Target::AtMost(400.0)))
    }
}
