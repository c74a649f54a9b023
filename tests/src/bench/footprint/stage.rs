//! An agent in front of a large cluster, whoever tells it of that.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::churn::{Churn, Tell};
use super::cluster::{Cluster, Size};
use crate::bench::process::Process;
use crate::bench::report::{Row, Target};
use crate::lab::{Families, Lab, Plan, until};

/// For how long the cluster changes, in seconds.
const SECONDS: u32 = 30;

/// Bytes of a MiB.
pub const MIB: f64 = 1_048_576.0;
/// What the agent may have at most while it lists.
pub const PEAK: Target = Target::AtMost(400.0);

/// An agent, and the cluster that it is told of.
pub struct Stage {
    /// Where the agent is,
    pub lab: Lab,
    /// and the cluster.
    pub cluster: Arc<Cluster>,
    /// What the ids of rows begin with.
    id: &'static str,
}

/// What a start has taken.
pub struct Started {
    /// Milliseconds until the agent is ready,
    pub ready: f64,
    /// and of the processor.
    pub processor: f64,
    /// MiB of memory that it has then,
    pub memory: f64,
    /// and that were resident at most.
    pub peak: f64,
}

impl Stage {
    /// A lab with one node, and the cluster around it.
    ///
    /// # Errors
    /// Where the lab cannot be started.
    pub fn set(id: &'static str) -> Result<Self> {
        // Nodes that are not there have no routes.
        let plan = Plan { nodes: 1, routing: "vxlan", families: Families::V4, ..Plan::default() };
        let size = Size::wanted()?;
        let lab = Lab::named("sluice-bench", plan)?;
        let cluster = Arc::new(Cluster::around(&lab.nodes[0], size)?);
        Ok(Self { lab, cluster, id })
    }

    /// A number of this bench.
    pub fn row(&self, what: &str, value: f64, unit: &'static str, target: Target) -> Row {
        Row::new(&format!("{}_{what}", self.id), value, unit, target)
    }

    /// The agent that runs.
    ///
    /// # Errors
    /// Where none does.
    pub fn agent(&self) -> Result<Process> {
        Process::of_agent(&self.lab.nodes[0])
    }

    /// Starts the agent from nothing, with somebody who says whether it has gone on listing since he was last asked.
    ///
    /// # Errors
    /// Where it does not get ready.
    pub fn start(&mut self, kubeconfig: &Path, lists_on: impl Fn() -> Result<bool>) -> Result<Started> {
        let node = &mut self.lab.nodes[0];
        node.stop_agent();
        fs::remove_dir_all(node.bpf_dir()).context("removing tables")?;
        let started = Instant::now();
        node.start_agent_with(&["--source", &format!("kubernetes:{}", kubeconfig.display())])?;
        let status = as_long_as(lists_on, || node.wait_until_ready())?;
        let ready = started.elapsed().as_secs_f64() * 1e3;
        ensure!(status.problems.is_empty(), "{:?}", status.problems);
        let agent = self.agent()?;
        Ok(Started {
            ready,
            processor: agent.processor_time()? * 1e3,
            memory: agent.memory("RssAnon")?,
            peak: agent.memory("VmHWM")?,
        })
    }

    /// What the first start has taken.
    pub fn rows(&self, started: &Started) -> Vec<Row> {
        vec![
            self.row("ready", started.ready, "ms", Target::None),
            self.row("ready.processor_time", started.processor, "ms", Target::None),
            self.row("memory.first_listing_peak", started.peak, "MiB", PEAK),
        ]
    }

    /// Waits until the agent knows of so many pods that have addresses.
    ///
    /// # Errors
    /// Where it does not.
    pub fn knows(&self, pods: usize) -> Result<()> {
        until("the agent knows all pods", || {
            let status = self.lab.nodes[0].status()?;
            ensure!(status.objects.pods == pods, "it knows {:?}", status.objects);
            Ok(())
        })
    }

    /// Has the cluster change; with how many bytes were sent of changes since that was last asked.
    ///
    /// # Errors
    /// Where the agent is not told, or does not know what has become of the cluster.
    pub fn change(&self, server: &dyn Tell, take_sent: impl Fn() -> Result<u64>) -> Result<Vec<Row>> {
        let (agent, mut churn) = (self.agent()?, Churn::of(&self.cluster, server));
        take_sent()?;
        let (started, before) = (Instant::now(), agent.processor_time()?);
        let rate = churn.go_on(SECONDS)?;
        let took = started.elapsed().as_secs_f64();
        let taken = (agent.processor_time()? - before) / took;
        let watched = take_sent()?;
        churn.settle()?;
        self.knows(self.cluster.size.living())?;
        Ok(vec![
            self.row("processor", taken * 100.0, "% of a core", Target::AtMost(10.0)),
            self.row("changes", rate, "/s", Target::None),
            self.row("watched", watched as f64 / took / 1024.0, "KiB/s", Target::None),
            self.row("memory", agent.memory("RssAnon")?, "MiB", Target::AtMost(250.0)),
        ])
    }
}

/// Waits for longer than usual, however busy the machine is: as long as something goes on.
pub fn as_long_as<T>(goes_on: impl Fn() -> Result<bool>, mut wait: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        let outcome = wait();
        if outcome.is_ok() || !goes_on()? {
            return outcome;
        }
    }
}
