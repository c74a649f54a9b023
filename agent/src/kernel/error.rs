//! What can go wrong between the agent and the kernel.

use std::error::Error;
use std::path::PathBuf;

use crate::causes;

/// The kernel refused, or is not what the programs need.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A build without kernel programs.
    #[error("this agent was built without kernel programs; `cargo xtask build` builds it with them")]
    NoObject,
    /// No BTF.
    #[error(
        "the kernel has no type information (/sys/kernel/btf/vmlinux is missing); use one built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// The directory for pins is of another file system.
    #[error("{} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf", .0.display())]
    NoBpffs(PathBuf),
    /// A pinned map is not what this build expects.
    #[error(
        "the pinned map {} is of another layout ({what}); `sluice-agent uninstall` removes what an incompatible version \
         has left, and ends all flows", path.display()
    )]
    Layout {
        /// The map.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A record names something impossible.
    #[error("endpoint record of {interface}: {what}")]
    Record {
        /// The endpoint's host side.
        interface: String,
        /// What is wrong.
        what: String,
    },
    /// No free slot.
    #[error("this node has {0} endpoints, and no room for more; let it run fewer pods")]
    Full(usize),
    /// A step failed.
    #[error("{action}: {}", causes::of(source.as_ref()))]
    Failed {
        /// What was attempted, on what.
        action: String,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Says what was attempted.
pub trait Doing<T> {
    /// Adds what was attempted to an error.
    ///
    /// # Errors
    /// The error itself.
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|error| KernelError::Failed { action: action(), source: error.into() })
    }
}
