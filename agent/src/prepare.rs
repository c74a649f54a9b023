//! What a node needs before an agent can run on it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use sluice_api::LOCK;

use crate::config::Config;
use crate::kernel::{Kernel, Sizes};
use crate::mounts;

/// Takes the agent's lock on a node.
///
/// # Errors
/// Where another agent has it.
pub fn lock(run_dir: &Path) -> Result<Flock<fs::File>> {
    let (file, path) = lock_file(run_dir)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| anyhow!("another agent runs on this node: it holds {} ({errno})", path.display()))
}

/// Takes the agent's lock on a node once no agent has it.
///
/// # Errors
/// Where there can be no lock.
pub fn wait_for_lock(run_dir: &Path) -> Result<Flock<fs::File>> {
    let (file, path) = lock_file(run_dir)?;
    let free = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    free.or_else(|(file, _)| {
        println!("waiting for the agent of this node to end, which holds {}", path.display());
        Flock::lock(file, FlockArg::LockExclusive)
    })
    .map_err(|(_, errno)| anyhow!("waiting for {}: {errno}", path.display()))
}

fn lock_file(run_dir: &Path) -> Result<(fs::File, PathBuf)> {
    fs::create_dir_all(run_dir).with_context(|| format!("making {}", run_dir.display()))?;
    let path = run_dir.join(LOCK);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    Ok((file.with_context(|| format!("opening {}", path.display()))?, path))
}

/// The sizes of this node's tables.
///
/// # Errors
/// Where its memory cannot be told.
pub fn sizes(config: &Config) -> Result<Sizes> {
    let text = fs::read_to_string("/proc/meminfo").context("reading the node's memory from /proc/meminfo")?;
    let kilobytes: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .context("finding the node's memory in /proc/meminfo")?;
    let sizes = Sizes::choose(kilobytes * 1024, config.flow_entries, Kernel::pinned_flows(&config.bpf_dir));
    let set = |by_memory, wanted| if wanted == 0 { by_memory } else { wanted };
    Ok(Sizes {
        rules: set(sizes.rules, config.policy_rules),
        backends: set(sizes.backends, config.service_backends),
        ..sizes
    })
}

/// Mounts the BPF file system where pins are to be on it.
///
/// # Errors
/// Where the kernel refuses.
pub fn ensure_bpffs(bpf_dir: &Path) -> Result<()> {
    if bpf_dir.starts_with(mounts::BPF) && mounts::ensure_bpf()? {
        tracing::info!("mounted a BPF file system at {}", mounts::BPF);
    }
    Ok(())
}

/// Lets programs and tables take memory: before Linux 5.11 they count as locked, of which containers may have little. Where that
/// is not allowed and needed, the kernel says so as soon as a table is made.
pub fn lift_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}
