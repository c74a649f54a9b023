//! The pinned maps: where they are, and whether they are what this build expects.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapType};
use sluice_abi::{
    AddressEntry, Affinity, AffinityKey, Backend, BackendId, COUNTERS, Config, Denial, DenialKey, Endpoint,
    FRONTEND_BITS, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey, Ipv4, Ipv6, LAYOUT, MAGLEV_SIZE,
    MAX_ENDPOINTS, MAX_NODES, MAX_REVISIONS, Node, Position, Prefix, RangePath, Rule, RuleKey, SetId, SocketKey,
    SocketPeer, Uplink, maps,
};

use sluice_policy::Limits;

use super::error::{Doing, KernelError};
use super::services::Room;
use crate::mounts;

/// Sizes of the tables, for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of flows that were answered: two for each flow.
    pub flows: u32,
    /// Entries of flows that were not.
    pub openings: u32,
    /// Datagrams in fragments.
    pub fragments: u32,
    /// Most rules of policies.
    pub rules: u32,
    /// Backends of services.
    pub backends: u32,
}

/// Prefixes of addresses, and rules: tries take memory only for what is in them, so this is but a bound. It is far beyond
/// what is ever put there at a time, so that a change finds room beside what it replaces.
const PREFIXES: u32 = 1 << 20;
const RULES: u32 = 1 << 22;
/// Frontends and ranges of their clients: they take memory only for what is in them, too.
const FRONTENDS: u32 = 1 << 20;
/// Services that are reached from outside and spread by Maglev tables.
pub const MAGLEV_TABLES: u32 = 16_384;
/// Clients that stay with a backend.
const AFFINITIES: u32 = 32_768;
/// Sockets that were connected to a service.
const SOCKETS: u32 = 32_768;
/// Uplinks, VLANs among them.
const UPLINKS: u32 = 1_024;
/// Things that policies have denied.
pub const DENIALS: u32 = 8_192;

impl Sizes {
    /// Of so many entries for flows where that is set; else those that are there; else, for a node with so many bytes of
    /// memory, about one percent of it for flows of both families.
    pub fn choose(memory: u64, flow_entries: u32, pinned: Option<(u32, u32)>) -> Self {
        // An established entry takes some 200 bytes, of both families together some 450. A power of two, so that a node whose
        // memory is a little more or less after a start makes the same of it.
        let by_memory = power(memory / 200 / 450, 16_384);
        let (flows, openings) = match (flow_entries, pinned) {
            (0, Some(pinned)) => pinned,
            (0, None) => (by_memory, by_memory / 2),
            (set, _) => (set, set),
        };
        // A rule with the trie's inner nodes takes some 150 bytes: about one percent of the memory as well.
        let rules = power(memory / 100 / 150, 65_536);
        // A backend of both families with its places in sets takes some 60 bytes: half a percent.
        Self { flows, openings, fragments: 8_192, rules, backends: power(memory / 200 / 60, 65_536) }
    }

    /// Those of tables, in a fixed order.
    pub fn list(&self) -> [u32; 4] {
        [self.flows, self.openings, self.fragments, self.backends]
    }

    /// Sets of backends: one or two for each port of a service.
    pub const fn sets(&self) -> u32 {
        self.backends / 2
    }

    /// Words for the members of sets, old ones and new ones beside each other.
    pub const fn members(&self) -> u32 {
        self.backends * 4
    }

    /// How much of services is to be put into the tables.
    pub fn room(&self) -> Room {
        Room {
            backends: self.backends,
            sets: self.sets(),
            members: self.members(),
            frontends: FRONTENDS as usize,
            maglev: MAGLEV_TABLES as usize,
        }
    }

    /// How much of policies is to be put into the tables.
    pub fn limits(&self) -> Limits {
        Limits { rules: self.rules as usize, prefixes: PREFIXES as usize / 4 }
    }
}

/// The greatest power of two up to a number, between `least` and a million.
fn power(number: u64, least: u64) -> u32 {
    (number.clamp(least, 1_048_576) as u32 + 1).next_power_of_two() / 2
}

/// Where things are pinned.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Below a directory of a BPF file system.
    pub fn below(bpf_dir: &Path) -> Self {
        Self { root: bpf_dir.join(format!("v{LAYOUT}")) }
    }

    /// The directory of this version.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a map is.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Where a map is made that is to take the place of another.
    pub fn fresh_map(&self, name: &str) -> PathBuf {
        self.fresh_maps().join(name)
    }

    /// Where all such maps are.
    pub fn fresh_maps(&self) -> PathBuf {
        self.root.join("maps-new")
    }

    /// Where the programs of a generation are.
    pub fn generation(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// Where all generations are.
    pub fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// Where links are.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// Where they cannot be made, or are on no BPF file system.
    pub fn make(&self) -> Result<(), KernelError> {
        for directory in [self.root.join("maps"), self.programs(), self.links()] {
            fs::create_dir_all(&directory).doing(|| format!("making {}", directory.display()))?;
        }
        if mounts::is_bpf(&self.root) { Ok(()) } else { Err(KernelError::NoBpffs(self.root.clone())) }
    }
}

/// What a map must be.
pub struct Expected {
    /// Its name.
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    /// Number of entries.
    pub entries: u32,
    resizing: Resizing,
}

/// What becomes of a table that is to have another number of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resizing {
    /// It is one of another layout.
    Never,
    /// It is made anew, and empty.
    Emptied,
    /// It is made anew, with as much of what the old one holds as it has room for: packets need it before it is known what
    /// it is to hold.
    Copied,
}

impl Expected {
    /// Whether one that is made anew holds what the old one does.
    pub fn is_copied(&self) -> bool {
        self.resizing == Resizing::Copied
    }
}

/// All maps that outlive the agent.
pub fn expected(sizes: &Sizes) -> Vec<Expected> {
    fn of<K, V>(name: &'static str, kind: MapType, entries: u32, resizing: Resizing) -> Expected {
        Expected { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries, resizing }
    }
    let (hash, lru, trie, array) = (MapType::Hash, MapType::LruHash, MapType::LpmTrie, MapType::Array);
    let (never, emptied, copied) = (Resizing::Never, Resizing::Emptied, Resizing::Copied);
    vec![
        of::<FlowKey<Ipv4>, Flow<Ipv4>>(maps::OPENINGS4, lru, sizes.openings, emptied),
        of::<FlowKey<Ipv6>, Flow<Ipv6>>(maps::OPENINGS6, lru, sizes.openings, emptied),
        of::<FlowKey<Ipv4>, Flow<Ipv4>>(maps::FLOWS4, hash, sizes.flows, emptied),
        of::<FlowKey<Ipv6>, Flow<Ipv6>>(maps::FLOWS6, hash, sizes.flows, emptied),
        of::<FragmentKey<Ipv4>, Fragment>(maps::FRAGMENTS4, lru, sizes.fragments, emptied),
        of::<FragmentKey<Ipv6>, Fragment>(maps::FRAGMENTS6, lru, sizes.fragments, emptied),
        of::<Prefix<Ipv4>, AddressEntry>(maps::ADDRESSES4, trie, PREFIXES, emptied),
        of::<Prefix<Ipv6>, AddressEntry>(maps::ADDRESSES6, trie, PREFIXES, emptied),
        of::<RuleKey, Rule>(maps::RULES, trie, RULES, emptied),
        of::<DenialKey, Denial>(maps::DENIALS, lru, DENIALS, emptied),
        of::<FrontendKey<Ipv4>, Frontend>(maps::FRONTENDS4, hash, FRONTENDS, emptied),
        of::<FrontendKey<Ipv6>, Frontend>(maps::FRONTENDS6, hash, FRONTENDS, emptied),
        of::<u32, u64>(maps::FRONTEND_BITS, array, FRONTEND_BITS / u64::BITS, never),
        of::<SetId, Position>(maps::SETS, array, sizes.sets(), copied),
        of::<Position, u32>(maps::MEMBERS, array, sizes.members(), copied),
        of::<BackendId, Backend<Ipv4>>(maps::BACKENDS4, array, sizes.backends, copied),
        of::<BackendId, Backend<Ipv6>>(maps::BACKENDS6, array, sizes.backends, copied),
        of::<SetId, [BackendId; MAGLEV_SIZE]>(maps::MAGLEV, hash, MAGLEV_TABLES, emptied),
        of::<AffinityKey, Affinity>(maps::AFFINITIES, lru, AFFINITIES, emptied),
        of::<Prefix<RangePath<Ipv4>>, u32>(maps::SOURCE_RANGES4, trie, FRONTENDS, emptied),
        of::<Prefix<RangePath<Ipv6>>, u32>(maps::SOURCE_RANGES6, trie, FRONTENDS, emptied),
        of::<SocketKey<Ipv4>, SocketPeer<Ipv4>>(maps::SOCKETS4, lru, SOCKETS, emptied),
        of::<SocketKey<Ipv6>, SocketPeer<Ipv6>>(maps::SOCKETS6, lru, SOCKETS, emptied),
        of::<u32, Endpoint>(maps::ENDPOINTS, array, MAX_ENDPOINTS, never),
        of::<u32, Node>(maps::NODES, array, MAX_NODES, never),
        of::<u32, u32>(maps::REVISIONS, array, MAX_REVISIONS, never),
        of::<u32, Uplink>(maps::UPLINKS, hash, UPLINKS, emptied),
        of::<u32, Config>(maps::CONFIG, array, 1, never),
        of::<u32, u64>(maps::COUNTERS, MapType::PerCpuArray, COUNTERS, never),
    ]
}

/// How a pinned map is what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Fits,
    /// There is none.
    Missing,
    /// It has another number of entries, and is to be made anew.
    Resize,
}

/// Compares what is pinned with what is expected.
///
/// # Errors
/// [`KernelError::Layout`] where they differ in more than the size of a table.
pub fn examine(pins: &Pins, expected: &Expected) -> Result<Fit, KernelError> {
    let path = pins.map(expected.name);
    if !path.exists() {
        return Ok(Fit::Missing);
    }
    let map = MapData::from_pin(&path).doing(|| format!("opening the pinned map {}", path.display()))?;
    let info = map.info().doing(|| format!("asking what {} is", path.display()))?;
    let kind = info.map_type().doing(|| format!("asking what {} is", path.display()))?;
    let (key, value, entries) = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
    if (kind, key, value) != (expected.kind, expected.key, expected.value) {
        let what = format!(
            "{kind:?}, key {key} and value {value} bytes, instead of {:?}, {} and {}",
            expected.kind, expected.key, expected.value
        );
        return Err(KernelError::Layout { path, what });
    }
    if entries == expected.entries {
        return Ok(Fit::Fits);
    }
    let (map, to) = (expected.name, expected.entries);
    match expected.resizing {
        Resizing::Never => {
            let what = format!("{entries} entries instead of {to}");
            return Err(KernelError::Layout { path, what });
        }
        Resizing::Emptied => tracing::warn!(map, from = entries, to, "table is made anew, its entries are lost"),
        Resizing::Copied => tracing::info!(map, from = entries, to, "table is made anew, with what it has room for"),
    }
    Ok(Fit::Resize)
}

/// The numbers of entries that the pinned tables of flows and openings have.
pub fn pinned_flows(pins: &Pins) -> Option<(u32, u32)> {
    let entries = |name| Some(MapData::from_pin(pins.map(name)).ok()?.info().ok()?.max_entries());
    Some((entries(maps::FLOWS4)?, entries(maps::OPENINGS4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_do_not_follow_every_change_of_memory() {
        let of = |megabytes: u64| Sizes::choose(megabytes << 20, 0, None);
        assert_eq!(of(8_000), of(7_900));
        assert!(of(64_000).flows > of(8_000).flows && of(1).flows == 16_384 && of(1 << 30).flows == 1_048_576);
        assert!(of(8_000).flows.is_power_of_two());
    }

    #[test]
    fn what_is_set_counts_else_what_is_there_stays() {
        let flows = |set, pinned| {
            let sizes = Sizes::choose(8 << 30, set, pinned);
            (sizes.flows, sizes.openings)
        };
        assert_eq!(flows(50_000, Some((1 << 16, 1 << 15))), (50_000, 50_000));
        assert_eq!(flows(0, Some((40_000, 20_000))), (40_000, 20_000));
        assert_eq!(flows(0, None), (1 << 16, 1 << 15));
    }
}
