//! Services in both builds' tables.

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData};
use sluice_abi::{
    Backend, BackendId, Frontend, FrontendBit, FrontendFlags, FrontendKey, IpAddress, Ipv4, Ipv6, MAGLEV_SIZE,
    Membership, Port, Position, Protocol, RangePath, RevisionSlot, ServiceId, SetId, maps,
};

use super::both::Both;
use super::native::{FamilyMaps, Native};
use super::scene::addresses::Pair;
use super::writer::Build;

/// Who serves clients of one side.
#[derive(Clone, Debug)]
pub enum Serving {
    /// These, by the place in [`Served::backends`].
    Among(Vec<usize>),
    /// Nobody at all.
    Reject,
    /// Nobody here.
    Drop,
}

/// A port of a service, of both families.
#[derive(Clone, Debug)]
pub struct Served {
    /// Where clients reach it; `None`: at any address of the node.
    pub at: Option<Pair>,
    /// At which port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Who may serve.
    pub backends: Vec<(Pair, u16)>,
    /// Who serves clients of the node.
    pub inside: Serving,
    /// Who serves all others.
    pub outside: Serving,
    /// Seconds that clients stay.
    pub affinity: u32,
    /// Whether others are spread by a Maglev table.
    pub maglev: bool,
    /// Whether it is a host port.
    pub host_port: bool,
    /// Who may use it: prefixes of IPv4 and of IPv6, with their lengths. Empty: everybody.
    pub source_ranges: Vec<(Pair, (u32, u32))>,
}

impl Served {
    /// A cluster IP whose backends serve everybody.
    pub fn new(at: Pair, port: u16, protocol: Protocol, backends: &[(Pair, u16)]) -> Self {
        let all = Serving::Among((0..backends.len()).collect());
        Self {
            at: Some(at),
            port,
            protocol,
            backends: backends.to_vec(),
            inside: all.clone(),
            outside: all,
            affinity: 0,
            maglev: false,
            host_port: false,
            source_ranges: Vec::new(),
        }
    }

    /// A node port whose backends serve everybody.
    pub fn node_port(port: u16, protocol: Protocol, backends: &[(Pair, u16)]) -> Self {
        Self { at: None, ..Self::new((0.into(), 0.into()), port, protocol, backends) }
    }

    fn key<A: IpAddress>(&self, address: impl Fn(Pair) -> A) -> FrontendKey<A> {
        let address = self.at.map_or(A::default(), address);
        FrontendKey { address, protocol: self.protocol, port: Port::new(self.port), pad: 0 }
    }
}

/// A family of the tables: which maps of either build it has, and which address of a pair.
trait Side: IpAddress {
    const FRONTENDS: &'static str;
    const BACKENDS: &'static str;
    const SOURCE_RANGES: &'static str;
    fn of(pair: Pair) -> Self;
    fn native(native: &mut Native) -> &mut FamilyMaps<Self>;
}

impl Side for Ipv4 {
    const FRONTENDS: &'static str = maps::FRONTENDS4;
    const BACKENDS: &'static str = maps::BACKENDS4;
    const SOURCE_RANGES: &'static str = maps::SOURCE_RANGES4;

    fn of(pair: Pair) -> Self {
        pair.0.into()
    }

    fn native(native: &mut Native) -> &mut FamilyMaps<Self> {
        &mut native.v4
    }
}

impl Side for Ipv6 {
    const FRONTENDS: &'static str = maps::FRONTENDS6;
    const BACKENDS: &'static str = maps::BACKENDS6;
    const SOURCE_RANGES: &'static str = maps::SOURCE_RANGES6;

    fn of(pair: Pair) -> Self {
        pair.1.into()
    }

    fn native(native: &mut Native) -> &mut FamilyMaps<Self> {
        &mut native.v6
    }
}

impl Both {
    /// Serves a port of a service.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn serve(&mut self, served: &Served) -> Result<()> {
        self.serve_family::<Ipv4>(served)?;
        self.serve_family::<Ipv6>(served)
    }

    /// Has what else is sent to a cluster IP be rejected.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn reject_rest(&mut self, at: Pair) -> Result<()> {
        let nothing =
            Served { inside: Serving::Reject, outside: Serving::Reject, ..Served::new(at, 0, Protocol(0), &[]) };
        self.serve(&nothing)
    }

    /// Has a service be served no longer: its frontend is removed, and so are its backends.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn unserve(&mut self, served: &Served) -> Result<()> {
        self.unserve_family::<Ipv4>(served)?;
        self.unserve_family::<Ipv6>(served)
    }

    /// Removes a backend of a service that is served: from its sets, then itself.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn lose_backend(&mut self, served: &Served, lost: usize) -> Result<()> {
        self.lose_backend_of::<Ipv4>(served, lost)?;
        self.lose_backend_of::<Ipv6>(served, lost)
    }

    /// Notes that a backend is a process of the node itself.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn hosts_backend(&mut self, port: u16, protocol: Protocol) -> Result<()> {
        self.set_bit(FrontendBit::of_host_backend(Port::new(port), protocol))
    }

    fn lose_backend_of<A: Side + Pod>(&mut self, served: &Served, lost: usize) -> Result<()>
    where
        FrontendKey<A>: Pod,
        Backend<A>: Pod,
    {
        let frontend = A::native(&mut self.native).frontends[&served.key(A::of)];
        for set in [frontend.inside, frontend.outside] {
            let position = self.native.sets[&set.0];
            let count = self.native.members[&position.0];
            let backends: Vec<u32> = (0..count).map(|at| self.native.members[&(position.0 + 1 + at)]).collect();
            let address = A::of(served.backends[lost].0);
            let kept: Vec<u32> =
                backends.into_iter().filter(|id| A::native(&mut self.native).backends[id].address != address).collect();
            let position = if kept.is_empty() { Position::REJECT } else { self.put_members(&kept)? };
            self.set_set(set, position)?;
        }
        let (address, port) = (A::of(served.backends[lost].0), Port::new(served.backends[lost].1));
        let gone = A::native(&mut self.native).backends.iter().find_map(|(id, backend)| {
            (backend.service == frontend.service && backend.address == address && backend.port == port).then_some(*id)
        });
        let gone = gone.context("no such backend")?;
        let backend = A::native(&mut self.native).backends[&gone];
        self.put_backend(gone, Backend { service: ServiceId::NONE, ..backend })?;
        self.revise_address(address)
    }

    fn serve_family<A: Side + Pod>(&mut self, served: &Served) -> Result<()>
    where
        FrontendKey<A>: Pod,
        Backend<A>: Pod,
        RangePath<A>: Pod,
    {
        let key = served.key(A::of);
        let service = ServiceId(self.native.sets.len() as u32 + 1);
        let mut ids = Vec::new();
        for (at, (pair, port)) in served.backends.iter().enumerate() {
            let is_in = |serving: &Serving, membership| match serving {
                Serving::Among(members) if members.contains(&at) => membership,
                Serving::Among(_) | Serving::Reject | Serving::Drop => Membership::NONE,
            };
            let membership =
                is_in(&served.inside, Membership::INSIDE).with(is_in(&served.outside, Membership::OUTSIDE));
            let id = A::native(&mut self.native).backends.len() as u32 + 1;
            let (address, port) = (A::of(*pair), Port::new(*port));
            self.put_backend(id, Backend { address, port, membership, service })?;
            ids.push(id);
        }
        let inside = self.put_set(&served.inside, &ids)?;
        let outside = self.put_set(&served.outside, &ids)?;
        let mut flags = FrontendFlags::NONE;
        if served.host_port {
            flags = flags.with(FrontendFlags::HOST_PORT);
        }
        if served.maglev {
            flags = flags.with(FrontendFlags::MAGLEV);
            let Serving::Among(members) = &served.outside else { anyhow::bail!("nobody to spread clients over") };
            let table: Vec<BackendId> =
                (0..MAGLEV_SIZE).map(|at| BackendId(ids[members[at % members.len()]])).collect();
            let array: [BackendId; MAGLEV_SIZE] = table.clone().try_into().map_err(|_| anyhow::anyhow!("a size"))?;
            self.native.maglev.insert(outside, table);
            self.kernel.insert(maps::MAGLEV, outside, array)?;
        }
        for (pair, lengths) in &served.source_ranges {
            flags = flags.with(FrontendFlags::SOURCE_RANGES);
            let length = if A::BITS == 32 { lengths.0 } else { lengths.1 };
            let address = A::from_words(super::native::masked(A::of(*pair).words(), length));
            A::native(&mut self.native).source_ranges.insert((service, length, address.words()));
            self.kernel.put_prefix(A::SOURCE_RANGES, &Key::new(32 + length, RangePath { service, address }), 0_u32)?;
        }
        let frontend = Frontend { service, inside, outside, affinity: served.affinity, flags };
        self.set_bit(match served.at {
            Some(_) => FrontendBit::of_address(key.address),
            None => FrontendBit::of_port(key.port, key.protocol),
        })?;
        A::native(&mut self.native).frontends.insert(key, frontend);
        self.kernel.insert(A::FRONTENDS, key, frontend)?;
        self.revise_address(key.address)
    }

    fn unserve_family<A: Side + Pod>(&mut self, served: &Served) -> Result<()>
    where
        FrontendKey<A>: Pod,
        Backend<A>: Pod,
    {
        let key = served.key(A::of);
        let frontend = A::native(&mut self.native).frontends.remove(&key).context("no such frontend")?;
        self.kernel.remove::<_, Frontend>(A::FRONTENDS, &key)?;
        let backends: Vec<(u32, Backend<A>)> = A::native(&mut self.native)
            .backends
            .iter()
            .filter(|(_, backend)| backend.service == frontend.service)
            .map(|(id, backend)| (*id, *backend))
            .collect();
        for (id, backend) in backends {
            self.put_backend(id, Backend { service: ServiceId::NONE, ..backend })?;
            self.revise_address(backend.address)?;
        }
        self.revise_address(key.address)
    }

    fn put_backend<A: Side>(&mut self, id: u32, backend: Backend<A>) -> Result<()>
    where
        Backend<A>: Pod,
    {
        A::native(&mut self.native).backends.insert(id, backend);
        self.kernel.set(A::BACKENDS, id, backend)
    }

    fn put_set(&mut self, serving: &Serving, ids: &[u32]) -> Result<SetId> {
        let set = SetId(self.native.sets.len() as u32 + 1);
        let position = match serving {
            Serving::Reject => Position::REJECT,
            Serving::Drop => Position::DROP,
            Serving::Among(members) => {
                let members: Vec<u32> = members.iter().map(|at| ids[*at]).collect();
                self.put_members(&members)?
            }
        };
        self.set_set(set, position)?;
        Ok(set)
    }

    fn set_set(&mut self, set: SetId, position: Position) -> Result<()> {
        self.native.sets.insert(set.0, position);
        self.kernel.set(maps::SETS, set.0, position)
    }

    fn put_members(&mut self, members: &[u32]) -> Result<Position> {
        let first = self.native.members.keys().max().map_or(Position::FIRST.0, |last| last + 1);
        for (at, word) in (first..).zip(std::iter::once(members.len() as u32).chain(members.iter().copied())) {
            self.native.members.insert(at, word);
            self.kernel.set(maps::MEMBERS, at, word)?;
        }
        Ok(Position(first))
    }

    fn set_bit(&mut self, bit: FrontendBit) -> Result<()> {
        self.native.frontend_bits.insert(bit.0);
        let (word, _) = bit.place();
        let is_set = |at: &u32| self.native.frontend_bits.contains(&(word * u64::BITS + at));
        let bits = (0..u64::BITS).filter(is_set).fold(0_u64, |bits, at| bits | 1 << at);
        self.kernel.set(maps::FRONTEND_BITS, word, bits)
    }

    fn revise_address<A: IpAddress>(&mut self, address: A) -> Result<()> {
        self.revise(RevisionSlot::of_address(address))
    }
}

impl super::kernel::Kernel {
    /// Inserts into a hash.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn insert<K: Pod, V: Pod>(&mut self, name: &str, key: K, value: V) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = HashMap::try_from(self.map_mut(name)?)?;
        map.insert(key, value, 0).with_context(|| format!("writing {name}"))
    }

    /// Removes from a hash.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove<K: Pod, V: Pod>(&mut self, name: &str, key: &K) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = HashMap::try_from(self.map_mut(name)?)?;
        map.remove(key).with_context(|| format!("removing from {name}"))
    }

    fn put_prefix<K: Pod, V: Pod>(&mut self, name: &str, key: &Key<K>, value: V) -> Result<()> {
        let mut trie: LpmTrie<&mut MapData, K, V> = LpmTrie::try_from(self.map_mut(name)?)?;
        trie.insert(key, value, 0).with_context(|| format!("writing {name}"))
    }
}
