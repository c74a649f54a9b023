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
mod service;
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
pub use service::{
    Affinity, AffinityKey, Backend, BackendId, FRONTEND_BITS, Frontend, FrontendBit, FrontendFlags, FrontendKey,
    MAGLEV_SIZE, Membership, PeerName, Position, RangePath, ServiceId, SetId, Side, SocketKey, SocketPeer,
};
pub use stage::Stage;

/// The version of all layouts in this crate: the pin directory of the maps carries it.
pub const LAYOUT: u32 = 3;

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
    /// Hash, [`FrontendKey`](crate::FrontendKey) -> [`Frontend`](crate::Frontend).
    pub const FRONTENDS4: &str = "frontends4";
    /// As [`FRONTENDS4`], for IPv6.
    pub const FRONTENDS6: &str = "frontends6";
    /// Array of `u64`: bit [`FrontendBit`](crate::FrontendBit) is set where there may be a frontend.
    pub const FRONTEND_BITS: &str = "frontend_bits";
    /// Array, [`SetId`](crate::SetId) -> [`Position`](crate::Position).
    pub const SETS: &str = "sets";
    /// Array, [`Position`](crate::Position) -> number of members, then as many [`BackendId`](crate::BackendId)s.
    pub const MEMBERS: &str = "members";
    /// Array, [`BackendId`](crate::BackendId) -> [`Backend`](crate::Backend).
    pub const BACKENDS4: &str = "backends4";
    /// As [`BACKENDS4`], for IPv6.
    pub const BACKENDS6: &str = "backends6";
    /// Hash, [`SetId`](crate::SetId) -> [`MAGLEV_SIZE`](crate::MAGLEV_SIZE) [`BackendId`](crate::BackendId)s.
    pub const MAGLEV: &str = "maglev";
    /// LRU hash, [`AffinityKey`](crate::AffinityKey) -> [`Affinity`](crate::Affinity).
    pub const AFFINITIES: &str = "affinities";
    /// Longest-prefix trie, [`RangePath`](crate::RangePath) -> `u32`: who may use a frontend.
    pub const SOURCE_RANGES4: &str = "source_ranges4";
    /// As [`SOURCE_RANGES4`], for IPv6.
    pub const SOURCE_RANGES6: &str = "source_ranges6";
    /// LRU hash, [`SocketKey`](crate::SocketKey) -> [`SocketPeer`](crate::SocketPeer), in both directions.
    pub const SOCKETS4: &str = "sockets4";
    /// As [`SOCKETS4`], for IPv6.
    pub const SOCKETS6: &str = "sockets6";
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
