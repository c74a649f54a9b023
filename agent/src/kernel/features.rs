//! What the kernel must have been built with: found out by trying.

use std::fmt;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};

use super::error::{Doing, KernelError};

/// Something that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A kind of table.
    Table(&'static str),
    /// Programs of traffic control.
    TrafficControl,
    /// Programs before the stack.
    Xdp,
    /// Programs for sockets below a control group.
    Sockets,
}

impl Feature {
    /// Whether the agent's settings can leave out what needs it.
    pub fn can_do_without(&self) -> bool {
        match self {
            Self::Table(_) | Self::TrafficControl => false,
            Self::Xdp | Self::Sockets => true,
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(kind) => write!(f, "tables of the kind {kind} (CONFIG_BPF_SYSCALL)"),
            Self::TrafficControl => f.write_str("programs of traffic control (CONFIG_NET_CLS_BPF, CONFIG_NET_CLS_ACT)"),
            Self::Xdp => f.write_str("XDP (or set xdp to off)"),
            Self::Sockets => f.write_str("programs of control groups (CONFIG_CGROUP_BPF; or set socket_lb to false)"),
        }
    }
}

/// What this kernel lacks.
///
/// # Errors
/// Where it does not say.
pub fn missing() -> Result<Vec<Feature>, KernelError> {
    let tables = [
        ("hash", MapType::Hash),
        ("array", MapType::Array),
        ("LRU hash", MapType::LruHash),
        ("LPM trie", MapType::LpmTrie),
        ("array of programs", MapType::ProgramArray),
        ("array of each CPU", MapType::PerCpuArray),
    ];
    let programs = [
        (ProgramType::SchedClassifier, Feature::TrafficControl),
        (ProgramType::Xdp, Feature::Xdp),
        (ProgramType::CgroupSockAddr, Feature::Sockets),
    ];
    let mut missing = Vec::new();
    for (name, kind) in tables {
        if !is_map_supported(kind).doing(|| format!("making a table of the kind {name}"))? {
            missing.push(Feature::Table(name));
        }
    }
    for (kind, feature) in programs {
        if !is_program_supported(kind).doing(|| format!("loading a program, to see whether there are {feature}"))? {
            missing.push(feature);
        }
    }
    Ok(missing)
}
