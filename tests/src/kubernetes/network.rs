//! Networks of the cluster, for what a test does there itself. Its sockets are not those of a node's processes: what they ask of
//! Services, packets are translated for.

use std::fs;

use anyhow::{Context, Result};

use super::{Cluster, Namespace};
use crate::lab::Place;

/// What says which network a process is in, wherever in the cluster it is.
const WHICH: [&str; 2] = ["readlink", "/proc/self/ns/net"];

impl Cluster {
    /// A node's.
    ///
    /// # Errors
    /// Where it is not found.
    pub fn node_network(&self, node: &str) -> Result<Place> {
        called(&self.on(node, &WHICH)?)
    }

    /// That outside, where the nodes' network ends.
    ///
    /// # Errors
    /// Where it is not found.
    pub fn outside_network(&self) -> Result<Place> {
        called(&self.outside(&WHICH)?)
    }
}

impl Namespace<'_> {
    /// A pod's.
    ///
    /// # Errors
    /// Where it is not found.
    pub fn network(&self, pod: &str) -> Result<Place> {
        called(&self.exec(pod, &WHICH)?).with_context(|| format!("the network of {pod}"))
    }
}

/// The network that the kernel calls so, which some process is in.
fn called(name: &str) -> Result<Place> {
    let processes = fs::read_dir("/proc").context("looking for processes")?.flatten();
    let mut processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_there = |process: &u32| {
        fs::read_link(format!("/proc/{process}/ns/net")).is_ok_and(|link| link.as_os_str() == name.trim())
    };
    Place::of(processes.find(is_there).with_context(|| format!("no process is in {name}"))?)
}
