//! The layout of everything that kernel programs and user space share: map keys, map values, counters.
//!
//! Every type is `repr(C)` without implicit padding, and each size is asserted, so that a change of layout is a change
//! of [`LAYOUT`] and never an accident. Addresses and ports are in network byte order and have types of their own;
//! all other integers are in host order.
#![no_std]

mod address;
mod config;
mod counter;
mod endpoint;
mod flow;
mod ip;
mod node;
#[cfg(feature = "user")]
mod pod;
mod policy;
mod stage;

pub use address::{AddressEntry, AddressKind, Prefix};
pub use config::{Config, Features, TimeoutClass, Timeouts, Uplink};
pub use counter::{COUNTERS, Hook, Reason};
pub use endpoint::{Endpoint, Mac, RevisionSlot, Slot, Stamp};
pub use flow::{Deliver, Direction, Flow, FlowKey, Fragment, FragmentKey, Rewrites, Scope, Seen, Verdict};
pub use ip::{IpAddress, Ipv4, Ipv6, Port, Protocol};
pub use node::{Node, Routing};
pub use policy::{
    Denial, DenialKey, Identity, PolicyDirection, PolicyMode, Rule, RuleKey, RulePath, RuleSetId, RuleVerdict,
};
pub use stage::Stage;

/// The version of all layouts in this crate: the pin directory of the maps carries it.
pub const LAYOUT: u32 = 2;

/// Names of the maps, as `bpftool map` shows them (15 characters at most) and as they are pinned.
pub mod maps {
    /// LRU hash, [`FlowKey`](crate::FlowKey) -> [`Flow`](crate::Flow): flows that have not been answered. See [`FLOWS4`].
    pub const OPENINGS4: &str = "openings4";
    /// As [`OPENINGS4`], for IPv6.
    pub const OPENINGS6: &str = "openings6";
    /// Hash, [`FlowKey`](crate::FlowKey) -> [`Flow`](crate::Flow): flows that both sides have taken part in.
    pub const FLOWS4: &str = "flows4";
    /// As [`FLOWS4`], for IPv6.
    pub const FLOWS6: &str = "flows6";
    /// LRU hash, [`FragmentKey`](crate::FragmentKey) -> [`Fragment`](crate::Fragment).
    pub const FRAGMENTS4: &str = "fragments4";
    /// As [`FRAGMENTS4`], for IPv6.
    pub const FRAGMENTS6: &str = "fragments6";
    /// Longest-prefix trie, [`Prefix`](crate::Prefix) -> [`AddressEntry`](crate::AddressEntry).
    pub const ADDRESSES4: &str = "addresses4";
    /// As [`ADDRESSES4`], for IPv6.
    pub const ADDRESSES6: &str = "addresses6";
    /// Longest-prefix trie, [`RuleKey`](crate::RuleKey) -> [`Rule`](crate::Rule).
    pub const RULES: &str = "rules";
    /// LRU hash, [`DenialKey`](crate::DenialKey) -> [`Denial`](crate::Denial).
    pub const DENIALS: &str = "denials";
    /// Array, [`Slot`](crate::Slot) -> [`Endpoint`](crate::Endpoint).
    pub const ENDPOINTS: &str = "endpoints";
    /// Array, [`Slot`](crate::Slot) -> [`Node`](crate::Node).
    pub const NODES: &str = "nodes";
    /// Array, [`RevisionSlot`](crate::RevisionSlot) -> `u32`.
    pub const REVISIONS: &str = "revisions";
    /// Hash, interface index (`u32`) -> [`Uplink`](crate::Uplink).
    pub const UPLINKS: &str = "uplinks";
    /// Array of one [`Config`](crate::Config).
    pub const CONFIG: &str = "config";
    /// Per-CPU array of `u64`, indexed by [`Reason::index`](crate::Reason::index).
    pub const COUNTERS: &str = "counters";
    /// Program array: the parts of the slow path, in the order of [`Stage::PROGRAMS`](crate::Stage::PROGRAMS). Belongs to one generation of programs, see ARCHITECTURE.md.
    pub const SLOW_PATHS: &str = "slow_paths";
}

/// Greatest number of pods on a node, slot 0 (nobody) included.
pub const MAX_ENDPOINTS: u32 = 4096;
/// Greatest number of nodes in a cluster, slot 0 (nobody) included.
pub const MAX_NODES: u32 = 16_384;
/// Revision slots: see [`RevisionSlot`].
pub const MAX_REVISIONS: u32 = 65_536;
