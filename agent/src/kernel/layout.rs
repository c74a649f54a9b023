//! The pinned maps: where they are, and whether they are what this build expects.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapType};
use sluice_abi::{
    AddressEntry, COUNTERS, Config, Endpoint, Flow, FlowKey, Fragment, FragmentKey, Ipv4, Ipv6, LAYOUT, MAX_ENDPOINTS,
    MAX_NODES, MAX_REVISIONS, Node, Prefix, Uplink, maps,
};

use super::error::{Doing, KernelError};

/// Sizes of the tables, for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of flows that were answered: two for each flow.
    pub flows: u32,
    /// Entries of flows that were not.
    pub openings: u32,
    /// Datagrams in fragments.
    pub fragments: u32,
    /// Prefixes of addresses.
    pub addresses: u32,
}

impl Sizes {
    /// For a node with so much memory: about one percent of it for flows of both families.
    pub fn from_memory(bytes: u64) -> Self {
        // An established entry takes some 200 bytes, of both families together some 450.
        let flows = (bytes / 200 / 450).clamp(16_384, 1_048_576) as u32;
        Self { flows, openings: flows / 2, fragments: 8_192, addresses: 262_144 }
    }

    /// In a fixed order.
    pub fn list(&self) -> [u32; 4] {
        [self.flows, self.openings, self.fragments, self.addresses]
    }
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

    /// Where a map is.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
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
        /// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
        const MAGIC: i64 = 0xcafe_4a11;
        let is_bpffs = nix::sys::statfs::statfs(&self.root).is_ok_and(|stat| stat.filesystem_type().0 == MAGIC);
        if is_bpffs { Ok(()) } else { Err(KernelError::NoBpffs(self.root.clone())) }
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
    /// Whether another number of entries is no other layout: the table is made anew, and its flows end.
    resizable: bool,
}

/// All maps that outlive the agent.
pub fn expected(sizes: &Sizes) -> Vec<Expected> {
    fn of<K, V>(name: &'static str, kind: MapType, entries: u32, resizable: bool) -> Expected {
        Expected { name, kind, key: size_of::<K>(), value: size_of::<V>(), entries, resizable }
    }
    let (hash, lru, array) = (MapType::Hash, MapType::LruHash, MapType::Array);
    vec![
        of::<FlowKey<Ipv4>, Flow<Ipv4>>(maps::OPENINGS4, lru, sizes.openings, true),
        of::<FlowKey<Ipv6>, Flow<Ipv6>>(maps::OPENINGS6, lru, sizes.openings, true),
        of::<FlowKey<Ipv4>, Flow<Ipv4>>(maps::FLOWS4, hash, sizes.flows, true),
        of::<FlowKey<Ipv6>, Flow<Ipv6>>(maps::FLOWS6, hash, sizes.flows, true),
        of::<FragmentKey<Ipv4>, Fragment>(maps::FRAGMENTS4, lru, sizes.fragments, true),
        of::<FragmentKey<Ipv6>, Fragment>(maps::FRAGMENTS6, lru, sizes.fragments, true),
        of::<Prefix<Ipv4>, AddressEntry>(maps::ADDRESSES4, MapType::LpmTrie, sizes.addresses, true),
        of::<Prefix<Ipv6>, AddressEntry>(maps::ADDRESSES6, MapType::LpmTrie, sizes.addresses, true),
        of::<u32, Endpoint>(maps::ENDPOINTS, array, MAX_ENDPOINTS, false),
        of::<u32, Node>(maps::NODES, array, MAX_NODES, false),
        of::<u32, u32>(maps::REVISIONS, array, MAX_REVISIONS, false),
        of::<u32, Uplink>(maps::UPLINKS, hash, 64, false),
        of::<u32, Config>(maps::CONFIG, array, 1, false),
        of::<u32, u64>(maps::COUNTERS, MapType::PerCpuArray, COUNTERS, false),
    ]
}

/// Compares what is pinned with what is expected. A table of another size is unpinned.
///
/// # Errors
/// [`KernelError::Layout`] where anything else differs.
pub fn check(pins: &Pins, expected: &Expected) -> Result<(), KernelError> {
    let path = pins.map(expected.name);
    if !path.exists() {
        return Ok(());
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
        return Ok(());
    }
    if !expected.resizable {
        let what = format!("{entries} entries instead of {}", expected.entries);
        return Err(KernelError::Layout { path, what });
    }
    tracing::warn!(
        map = expected.name,
        from = entries,
        to = expected.entries,
        "table is made anew, its entries are lost"
    );
    fs::remove_file(&path).doing(|| format!("unpinning {}", path.display()))
}
