//! The maps of services, without the programs that read them.

use std::collections::HashMap as Named;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use sluice_abi::{
    Backend, BackendId, FRONTEND_BITS, Frontend, FrontendKey, Ipv4, Ipv6, MAGLEV_SIZE, Position, Prefix, RangePath,
    SetId, maps,
};
use sluice_agent::kernel::KernelError;
use sluice_agent::kernel::services::{Maps, Room};

/// Makes a map as the programs' object defines it.
fn make(name: &'static str, room: Room) -> Result<MapData> {
    use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE};
    const NO_PREALLOC: u32 = 1;
    const MAPPED: u32 = 1 << 10;
    fn of<K, V>() -> (u32, u32) {
        (size_of::<K>() as u32, size_of::<V>() as u32)
    }
    let (hash, array) = ((BPF_MAP_TYPE_HASH, NO_PREALLOC), (BPF_MAP_TYPE_ARRAY, MAPPED));
    let trie = (BPF_MAP_TYPE_LPM_TRIE, NO_PREALLOC);
    let ((kind, flags), (key, value), entries) = match name {
        maps::FRONTENDS4 => (hash, of::<FrontendKey<Ipv4>, Frontend>(), room.frontends as u32),
        maps::FRONTENDS6 => (hash, of::<FrontendKey<Ipv6>, Frontend>(), room.frontends as u32),
        maps::SOURCE_RANGES4 => (trie, of::<Prefix<RangePath<Ipv4>>, u32>(), room.frontends as u32),
        maps::SOURCE_RANGES6 => (trie, of::<Prefix<RangePath<Ipv6>>, u32>(), room.frontends as u32),
        maps::BACKENDS4 => (array, of::<BackendId, Backend<Ipv4>>(), room.backends),
        maps::BACKENDS6 => (array, of::<BackendId, Backend<Ipv6>>(), room.backends),
        maps::FRONTEND_BITS => (array, of::<u32, u64>(), FRONTEND_BITS / 64),
        maps::SETS => (array, of::<SetId, Position>(), room.sets),
        maps::MEMBERS => (array, of::<Position, u32>(), room.members),
        maps::MAGLEV => (hash, of::<SetId, [BackendId; MAGLEV_SIZE]>(), room.maglev as u32),
        other => bail!("no table of services: {other}"),
    };
    MapData::create(aya_obj::Map::new_from_params(kind as u32, key, value, entries, flags), name, None)
        .with_context(|| format!("making the map {name}"))
}

/// Maps that outlive those who open them.
pub struct Tables(Named<&'static str, MapData>);

impl Tables {
    /// Makes all of them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(room: Room) -> Result<Self> {
        let names = [
            [maps::FRONTENDS4, maps::SOURCE_RANGES4, maps::BACKENDS4, maps::FRONTEND_BITS, maps::SETS],
            [maps::FRONTENDS6, maps::SOURCE_RANGES6, maps::BACKENDS6, maps::MEMBERS, maps::MAGLEV],
        ];
        let made = names.into_iter().flatten().map(|name| Ok((name, make(name, room)?)));
        made.collect::<Result<_>>().map(Self)
    }

    /// Another handle of a map.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn data(&self, name: &str) -> Result<MapData> {
        let map = self.0.get(name).with_context(|| format!("no map {name}"))?;
        Ok(MapData::from_fd(map.fd().as_fd().try_clone_to_owned()?)?)
    }

    /// What the agent's writer writes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn maps(&self) -> Result<Maps> {
        let open = |name| {
            let action = || format!("opening the map {name}");
            self.data(name).map_err(|error| KernelError::Failed { action: action(), source: error.into() })
        };
        Ok(Maps::open(open, Path::new("/nonexistent"))?)
    }

    /// An array, to be read.
    ///
    /// # Errors
    /// Where it is none.
    pub fn array<V: Pod>(&self, name: &str) -> Result<Array<MapData, V>> {
        Ok(Map::from_map_data(self.data(name)?)?.try_into()?)
    }

    /// A hash, to be read.
    ///
    /// # Errors
    /// Where it is none.
    pub fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>> {
        Ok(Map::from_map_data(self.data(name)?)?.try_into()?)
    }
}
