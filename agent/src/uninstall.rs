//! Removing every trace of agent and plugin from a node.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use clap::Args;
use sluice_api::{LAST_ERROR, LOCK, MISSED, SOCKET};
use sluice_netlink::Netlink;

use crate::config::Config;
use crate::kernel::Kernel;
use crate::{conflist, host, install, mounts, prepare};

/// What others may rely on by now, and what only the API server can remove.
const STAYS: [&str; 5] = [
    "forwarding of packets (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)",
    "router advertisements on uplinks (net.ipv6.conf.UPLINK.accept_ra = 2, where it was 1)",
    "the BPF file system at /sys/fs/bpf and control groups of version 2 at /sys/fs/cgroup, whoever has mounted them",
    "an empty clsact on uplinks, before Linux 6.6",
    "in the cluster: conditions (sluice.dev/Addresses of pods, which go with them; sluice.dev/Supported of ClusterNetworkPolicies), \
     and Leases of pod_cidr_pool, which go with their Nodes",
];

/// Where everything is, seen from a container.
#[derive(Args, Debug)]
pub struct Uninstall {
    /// The node's /proc, where this runs in a container: all paths are the node's then
    #[arg(long)]
    host_proc: Option<PathBuf>,
    /// The node's directory of CNI plugins, for the plugin to be removed from [default: it stays]
    #[arg(long)]
    cni_bin_dir: Option<PathBuf>,
    /// The node's directory that sluicectl is to be removed from [default: it stays]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// Removes everything that is ours, and says what. Directories may be shared with others: they go where nothing else is in
/// them. Settings of the host's network stack stay: others may rely on them by now.
///
/// # Errors
/// Where an agent runs, or something cannot be removed. In a container it waits for that agent, whose pod is about to go.
pub fn run(config: &Config, uninstall: &Uninstall) -> Result<()> {
    // Held until all is gone, so that no agent starts in between.
    let _lock = match &uninstall.host_proc {
        Some(proc) => {
            mounts::enter(proc).context("going to where the node's files are")?;
            prepare::wait_for_lock(&config.run_dir)?
        }
        None => prepare::lock(&config.run_dir)?,
    };
    for path in [conflist::path(&config.cni_conf_dir), conflist::aside(&config.cni_conf_dir)] {
        remove(&path, fs::remove_file(&path))?;
    }
    let mut netlink = Netlink::open()?;
    for link in netlink.links()?.into_iter().filter(|link| host::is_pods(&link.name)) {
        netlink.delete_link(&link.name)?;
        say(format!("interface {}", link.name));
    }
    for what in Kernel::uninstall(&config.bpf_dir, &config.run_dir)? {
        say(what);
    }
    let routes = host::remove_routes()?;
    if routes > 0 {
        say(format!("{routes} routes"));
    }
    if host::remove_overlay()? {
        say(format!("interface {}", host::OVERLAY));
    }
    for directory in [config.state_dir.join("addresses"), config.run_dir.join("endpoints")] {
        remove(&directory, fs::remove_dir_all(&directory))?;
    }
    if let Some(place) = mounts::remove_groups(&config.run_dir)? {
        say(format!("the control groups mounted at {}", place.display()));
    }
    for path in [SOCKET, LAST_ERROR, MISSED, LOCK].map(|name| config.run_dir.join(name)) {
        remove(&path, fs::remove_file(&path))?;
    }
    for directory in [&config.state_dir, &config.run_dir] {
        remove(directory, unless_shared(fs::remove_dir(directory)))?;
    }
    for path in install::places(uninstall.cni_bin_dir.as_deref(), uninstall.bin_dir.as_deref()) {
        remove(&path, fs::remove_file(&path))?;
    }
    STAYS.iter().for_each(|what| println!("what stays: {what}"));
    if let Some(log) = config.plugin_log_file.as_ref().filter(|log| log.exists()) {
        println!("what stays: the plugin's log {}", log.display());
    }
    Ok(())
}

fn say(what: impl Display) {
    println!("removed {what}");
}

/// Says what was removed; what is not there is no error.
fn remove(path: &Path, result: io::Result<()>) -> Result<()> {
    match result {
        Ok(()) => say(path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("removing {}", path.display())),
    }
    Ok(())
}

/// A directory with something else in it, or that something is mounted on, counts as not there.
pub fn unless_shared(result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}
