//! The tables of services as the kernel has them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, Map, MapData};
use ipnet::IpNet;
use sluice_abi::{Frontend, FrontendKey, IpAddress, Ipv4, Ipv6, RangePath, ServiceId, SetId, maps};
use sluice_service::Family;

use super::mapped::Mapped;
use super::tables::{Array, Lookup, Place, Tables, backend_words};
use crate::kernel::error::{Doing, KernelError};
use crate::kernel::grace;

/// Of a path in the tries of ranges, those of the service: all of them count.
const SERVICE_BITS: u32 = u32::BITS;

/// An address as tables have it.
trait Address: IpAddress + Pod + Into<Self::Ip> {
    type Ip: Into<IpAddr>;
    const FAMILY: Family;
}

impl Address for Ipv4 {
    type Ip = std::net::Ipv4Addr;
    const FAMILY: Family = Family::V4;
}

impl Address for Ipv6 {
    type Ip = std::net::Ipv6Addr;
    const FAMILY: Family = Family::V6;
}

/// Those of one family.
struct OfFamily<A: IpAddress> {
    frontends: HashMap<MapData, FrontendKey<A>, Frontend>,
    ranges: LpmTrie<MapData, RangePath<A>, u32>,
    backends: Mapped<u32>,
}

/// All of them.
pub struct Maps {
    of4: OfFamily<Ipv4>,
    of6: OfFamily<Ipv6>,
    bits: Mapped<u64>,
    sets: Mapped<u32>,
    members: Mapped<u32>,
    maglev: HashMap<MapData, SetId, Lookup>,
    /// The marker of grace periods that are expedited.
    marker: PathBuf,
}

impl Maps {
    /// Those that `open` opens, by name.
    ///
    /// # Errors
    /// Where one cannot be opened, or is not what it should be.
    pub fn open(
        open: impl Fn(&'static str) -> Result<MapData, KernelError>,
        marker: &Path,
    ) -> Result<Self, KernelError> {
        let words = |name| Mapped::of(open(name)?, name);
        Ok(Self {
            of4: OfFamily::open(&open, [maps::FRONTENDS4, maps::SOURCE_RANGES4, maps::BACKENDS4])?,
            of6: OfFamily::open(&open, [maps::FRONTENDS6, maps::SOURCE_RANGES6, maps::BACKENDS6])?,
            bits: Mapped::of(open(maps::FRONTEND_BITS)?, maps::FRONTEND_BITS)?,
            sets: words(maps::SETS)?,
            members: words(maps::MEMBERS)?,
            maglev: typed(open(maps::MAGLEV)?, maps::MAGLEV)?,
            marker: marker.to_owned(),
        })
    }

    fn words(&self, array: Array) -> &Mapped<u32> {
        match array {
            Array::Sets => &self.sets,
            Array::Members => &self.members,
            Array::Backends(Family::V4) => &self.of4.backends,
            Array::Backends(Family::V6) => &self.of6.backends,
        }
    }
}

impl<A: Address> OfFamily<A>
where
    FrontendKey<A>: Pod,
    RangePath<A>: Pod,
{
    fn open(
        open: &impl Fn(&'static str) -> Result<MapData, KernelError>,
        [frontends, ranges, backends]: [&'static str; 3],
    ) -> Result<Self, KernelError> {
        let mapped = Mapped::of(open(backends)?, backends)?;
        debug_assert_eq!(mapped.words_of_value(), backend_words(A::FAMILY) as usize);
        Ok(Self {
            frontends: typed(open(frontends)?, frontends)?,
            ranges: typed(open(ranges)?, ranges)?,
            backends: mapped,
        })
    }

    fn frontends(&self) -> impl Iterator<Item = Result<(Place, Frontend), KernelError>> {
        self.frontends.iter().map(|entry| {
            let (FrontendKey { address, protocol, port, pad }, frontend) =
                entry.doing(|| "reading back frontends".into())?;
            Ok((FrontendKey { address: address.into().into(), protocol, port, pad }, frontend))
        })
    }

    fn frontend(&self, key: &FrontendKey<A>) -> Result<Option<Frontend>, KernelError> {
        found(self.frontends.get(key, 0)).doing(|| format!("reading the frontend {}", shown(key)))
    }

    fn insert(&mut self, key: &FrontendKey<A>, frontend: &Frontend) -> Result<(), KernelError> {
        self.frontends.insert(key, frontend, 0).doing(|| format!("writing the frontend {}", shown(key)))
    }

    fn remove(&mut self, key: &FrontendKey<A>) -> Result<(), KernelError> {
        self.frontends.remove(key).doing(|| format!("removing the frontend {}", shown(key)))
    }

    fn ranges(&self) -> impl Iterator<Item = Result<(ServiceId, IpNet), KernelError>> {
        self.ranges.iter().map(|entry| {
            let action = || "reading back source ranges".into();
            let (key, _) = entry.doing(action)?;
            let RangePath { service, address } = key.data();
            let length = key.prefix_len().saturating_sub(SERVICE_BITS) as u8;
            Ok((service, IpNet::new(address.into().into(), length).doing(action)?))
        })
    }

    fn set_range(&mut self, service: ServiceId, address: A, length: u8, is_there: bool) -> Result<(), KernelError> {
        let key = Key::new(SERVICE_BITS + u32::from(length), RangePath { service, address });
        let written = if is_there { self.ranges.insert(&key, 1, 0) } else { self.ranges.remove(&key) };
        written.doing(|| {
            let address: IpAddr = address.into().into();
            format!("writing who may come from {address}/{length}")
        })
    }
}

fn typed<T>(map: MapData, name: &str) -> Result<T, KernelError>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let action = || format!("opening the table {name}");
    Map::from_map_data(map).doing(action)?.try_into().doing(action)
}

fn found<T>(value: Result<T, aya::maps::MapError>) -> Result<Option<T>, aya::maps::MapError> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn shown<A: Address>(key: &FrontendKey<A>) -> String {
    let address: IpAddr = key.address.into().into();
    format!("{address} port {} protocol {}", key.port.get(), key.protocol.0)
}

fn with<A>(place: &Place, address: A) -> FrontendKey<A> {
    FrontendKey { address, protocol: place.protocol, port: place.port, pad: place.pad }
}

impl Tables for Maps {
    fn word(&self, array: Array, at: u32) -> u32 {
        self.words(array).load(at as usize)
    }

    fn store(&mut self, array: Array, at: u32, word: u32) {
        self.words(array).store(at as usize, word);
    }

    fn bits(&self, at: u32) -> u64 {
        self.bits.load(at as usize)
    }

    fn store_bits(&mut self, at: u32, bits: u64) {
        self.bits.store(at as usize, bits);
    }

    fn frontends(&self) -> Result<Vec<(Place, Frontend)>, KernelError> {
        self.of4.frontends().chain(self.of6.frontends()).collect()
    }

    fn frontend(&self, place: &Place) -> Result<Option<Frontend>, KernelError> {
        match place.address {
            IpAddr::V4(address) => self.of4.frontend(&with(place, address.into())),
            IpAddr::V6(address) => self.of6.frontend(&with(place, address.into())),
        }
    }

    fn insert_frontend(&mut self, place: &Place, frontend: &Frontend) -> Result<(), KernelError> {
        match place.address {
            IpAddr::V4(address) => self.of4.insert(&with(place, address.into()), frontend),
            IpAddr::V6(address) => self.of6.insert(&with(place, address.into()), frontend),
        }
    }

    fn remove_frontend(&mut self, place: &Place) -> Result<(), KernelError> {
        match place.address {
            IpAddr::V4(address) => self.of4.remove(&with(place, address.into())),
            IpAddr::V6(address) => self.of6.remove(&with(place, address.into())),
        }
    }

    fn ranges(&self) -> Result<Vec<(ServiceId, IpNet)>, KernelError> {
        self.of4.ranges().chain(self.of6.ranges()).collect()
    }

    fn set_range(&mut self, service: ServiceId, range: IpNet, is_there: bool) -> Result<(), KernelError> {
        match range.network() {
            IpAddr::V4(address) => self.of4.set_range(service, address.into(), range.prefix_len(), is_there),
            IpAddr::V6(address) => self.of6.set_range(service, address.into(), range.prefix_len(), is_there),
        }
    }

    fn maglev_sets(&self) -> Result<Vec<SetId>, KernelError> {
        self.maglev.keys().collect::<Result<_, _>>().doing(|| "reading back Maglev tables".into())
    }

    fn maglev(&self, set: SetId) -> Result<Option<Box<Lookup>>, KernelError> {
        let lookup = found(self.maglev.get(&set, 0)).doing(|| format!("reading the Maglev table of set {}", set.0))?;
        Ok(lookup.map(Box::new))
    }

    fn insert_maglev(&mut self, set: SetId, lookup: &Lookup) -> Result<(), KernelError> {
        self.maglev.insert(set, lookup, 0).doing(|| format!("writing the Maglev table of set {}", set.0))
    }

    fn remove_maglev(&mut self, set: SetId) -> Result<(), KernelError> {
        self.maglev.remove(&set).doing(|| format!("removing the Maglev table of set {}", set.0))
    }

    fn settle(&mut self) {
        grace::wait(&self.marker);
    }

    fn release(&mut self) {
        self.bits.release();
        for words in [&mut self.sets, &mut self.members, &mut self.of4.backends, &mut self.of6.backends] {
            words.release();
        }
    }
}
