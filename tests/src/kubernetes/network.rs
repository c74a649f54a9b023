//! Networks of the cluster, for what a test does there itself. Its sockets are not those of a node's processes: what they ask of
//! Services, packets are translated for.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Cluster, Namespace};
use crate::lab::Place;

impl Cluster {
    /// That of a node, or of `cp`: outside the cluster, where the nodes' network ends.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn network(&self, node: &str) -> Result<Place> {
        Place::of(&self.first_process(node)?)
    }
}

impl Namespace<'_> {
    /// A pod's.
    ///
    /// # Errors
    /// Where it is not found.
    pub fn network(&self, pod: &str) -> Result<Place> {
        let name = self.exec(pod, &["readlink", "/proc/self/ns/net"])?;
        let process = within(name.trim()).with_context(|| format!("looking for the network of {pod}"))?;
        Place::of(&process)
    }
}

/// A process in the network that the kernel calls so.
fn within(name: &str) -> Result<PathBuf> {
    let processes = fs::read_dir("/proc").context("looking for processes")?.flatten().map(|entry| entry.path());
    let mut there =
        processes.filter(|path| fs::read_link(path.join("ns/net")).is_ok_and(|link| link.as_os_str() == name));
    there.next().with_context(|| format!("no process is in {name}"))
}
