//! The kernel's side of the agent: loads and attaches programs, writes their tables. Nothing else in the agent does.

mod error;
mod expedite;
mod flows;
mod layout;
pub mod loading;
mod object;
mod programs;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray};
use ipnet::IpNet;
use sluice_abi::{
    AddressEntry, AddressKind, Config, Endpoint, Hook, Identity, Ipv4, Ipv6, MAX_ENDPOINTS, Mac, Node, Reason,
    RevisionSlot, Slot, Uplink, maps,
};
use sluice_api::{Counter, EndpointRecord, EndpointStatus, FlowStatus};

use crate::host::is_pods;
use crate::uninstall::unless_shared;
use error::Doing;
pub use error::KernelError;
use expedite::Expedite;
pub use flows::{Reaper, jiffies};
use layout::Pins;
pub use layout::Sizes;
use programs::Programs;

/// An interface to the outside.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkDevice {
    /// Its index.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// What the programs need to know of it.
    pub uplink: Uplink,
}

/// An endpoint that is in force.
#[derive(Clone, Debug)]
struct Enforced {
    slot: Slot,
    /// Index of its host side.
    interface: u32,
    record: EndpointRecord,
}

impl Enforced {
    /// Whether the interface is there, and no other of the same name.
    fn is_there(&self) -> bool {
        nix::net::if_::if_nametoindex(self.record.host_interface.as_str()) == Ok(self.interface)
    }
}

/// The programs, attached, and their tables.
pub struct Kernel {
    pins: Pins,
    programs: Programs,
    /// The marker of [`Expedite`].
    expedite: PathBuf,
    addresses4: LpmTrie<MapData, Ipv4, AddressEntry>,
    addresses6: LpmTrie<MapData, Ipv6, AddressEntry>,
    endpoints: Array<MapData, Endpoint>,
    nodes: Array<MapData, Node>,
    revisions: Array<MapData, u32>,
    uplinks: HashMap<MapData, u32, Uplink>,
    config: Array<MapData, Config>,
    counters: PerCpuArray<MapData, u64>,
    /// What the tries hold, endpoints included.
    known: BTreeMap<IpNet, AddressEntry>,
    /// What they are to hold beside the endpoints.
    planned: BTreeMap<IpNet, AddressEntry>,
    /// What the nodes' table holds.
    known_nodes: BTreeMap<u32, Node>,
    /// By the host side's name.
    enforced: BTreeMap<String, Enforced>,
    /// Slots whose endpoint has not been claimed by a record yet: what an earlier agent has left.
    unclaimed: BTreeMap<u32, Endpoint>,
}

impl Kernel {
    /// Takes over what is pinned, and puts the programs of this build in place of those of another.
    ///
    /// # Errors
    /// Where the kernel lacks something, or what is pinned is of another layout.
    pub fn open(bpf_dir: &Path, run_dir: &Path, sizes: &Sizes) -> Result<Self, KernelError> {
        let expedite = expedite::marker(run_dir);
        expedite::put_back(&expedite);
        object::bytes()?;
        let pins = Pins::below(bpf_dir);
        pins.make()?;
        let expected = layout::expected(sizes);
        let programs = Programs::load(&pins, object::generation(&sizes.list()), &expected)?;
        let mut kernel = Self {
            addresses4: open(&pins, maps::ADDRESSES4)?,
            addresses6: open(&pins, maps::ADDRESSES6)?,
            endpoints: open(&pins, maps::ENDPOINTS)?,
            nodes: open(&pins, maps::NODES)?,
            revisions: open(&pins, maps::REVISIONS)?,
            uplinks: open(&pins, maps::UPLINKS)?,
            config: open(&pins, maps::CONFIG)?,
            counters: open(&pins, maps::COUNTERS)?,
            known: BTreeMap::new(),
            planned: BTreeMap::new(),
            known_nodes: BTreeMap::new(),
            enforced: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            pins,
            programs,
            expedite,
        };
        kernel.read_back()?;
        let others = versions::others(bpf_dir, &kernel.pins);
        for version in &others {
            tracing::warn!(from = %version.display(), "taking over from an agent of another layout: all flows end");
            versions::adopt(version, &kernel.pins)?;
        }
        kernel.replace_programs()?;
        for version in &others {
            versions::remove(version)?;
        }
        Ok(kernel)
    }

    /// The numbers of entries of flows and openings in the tables that an earlier agent has left.
    pub fn pinned_flows(bpf_dir: &Path) -> Option<(u32, u32)> {
        layout::pinned_flows(&Pins::below(bpf_dir))
    }

    /// Learns what the tables hold.
    fn read_back(&mut self) -> Result<(), KernelError> {
        let action = || "reading back the tables".to_owned();
        for entry in self.addresses4.iter() {
            let (key, entry) = entry.doing(action)?;
            self.known.extend(net(key.prefix_len(), IpAddr::V4(key.data().into())).map(|net| (net, entry)));
        }
        for entry in self.addresses6.iter() {
            let (key, entry) = entry.doing(action)?;
            self.known.extend(net(key.prefix_len(), IpAddr::V6(key.data().into())).map(|net| (net, entry)));
        }
        for slot in 1..MAX_ENDPOINTS {
            let endpoint = self.endpoints.get(&slot, 0).doing(action)?;
            if endpoint.interface != 0 {
                self.unclaimed.insert(slot, endpoint);
            }
        }
        for slot in 1..self.nodes.len() {
            let node = self.nodes.get(&slot, 0).doing(action)?;
            if node != Node::default() {
                self.known_nodes.insert(slot, node);
            }
        }
        Ok(())
    }

    /// Puts this generation's programs on all links that there are, then removes the other generations.
    fn replace_programs(&self) -> Result<(), KernelError> {
        for hook in Hook::ALL {
            for device in self.programs.attached(hook) {
                if nix::net::if_::if_nametoindex(device.as_str()).is_ok() {
                    self.programs.attach(hook, &device)?;
                } else {
                    self.programs.detach(hook, &device)?;
                }
            }
        }
        self.programs.retire_others()
    }

    /// Sets the node's settings.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_config(&mut self, config: &Config) -> Result<(), KernelError> {
        self.config.set(0, config, 0).doing(|| "writing the node's settings".into())
    }

    /// Makes these the uplinks, and no others: tables first, then programs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_uplinks(&mut self, uplinks: &[UplinkDevice]) -> Result<(), KernelError> {
        for device in uplinks {
            self.uplinks
                .insert(device.interface, device.uplink, 0)
                .doing(|| format!("writing the settings of the uplink {}", device.name))?;
            self.programs.attach(Hook::FromNet, &device.name)?;
            self.programs.attach(Hook::ToNet, &device.name)?;
        }
        for hook in [Hook::FromNet, Hook::ToNet] {
            for name in self.programs.attached(hook) {
                if !uplinks.iter().any(|device| device.name == name) {
                    self.programs.detach(hook, &name)?;
                }
            }
        }
        let stale: Vec<u32> = self
            .uplinks
            .keys()
            .filter_map(Result::ok)
            .filter(|index| !uplinks.iter().any(|device| device.interface == *index))
            .collect();
        for index in stale {
            self.uplinks.remove(&index).doing(|| format!("removing the settings of uplink {index}"))?;
        }
        Ok(())
    }

    /// Makes this the overlay's device, or none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_overlay(&mut self, device: Option<&str>) -> Result<(), KernelError> {
        if let Some(device) = device {
            self.programs.attach(Hook::FromOverlay, device)?;
        }
        for name in self.programs.attached(Hook::FromOverlay) {
            if Some(name.as_str()) != device {
                self.programs.detach(Hook::FromOverlay, &name)?;
            }
        }
        Ok(())
    }

    /// Makes these the owners of addresses, beside the endpoints; `true` where that changed anything. What is new is
    /// written before what is gone is removed.
    ///
    /// # Errors
    /// Where the kernel refuses; what was written by then stays, and the next call goes on from there.
    pub fn set_addresses(&mut self, table: &BTreeMap<IpNet, AddressEntry>) -> Result<bool, KernelError> {
        let fresh: Vec<_> = table
            .iter()
            .filter(|(net, entry)| {
                self.known.get(*net).is_none_or(|known| known != *entry && known.kind != AddressKind::Endpoint)
            })
            .map(|(net, entry)| (*net, *entry))
            .collect();
        let stale: Vec<_> = self
            .known
            .iter()
            .filter(|(net, entry)| entry.kind != AddressKind::Endpoint && !table.contains_key(*net))
            .map(|(net, _)| *net)
            .collect();
        let changed = !(fresh.is_empty() && stale.is_empty());
        self.planned.clone_from(table);
        for (net, entry) in fresh {
            self.put_address(net, entry)?;
        }
        for net in stale {
            self.take_address(net)?;
        }
        Ok(changed)
    }

    fn put_address(&mut self, net: IpNet, entry: AddressEntry) -> Result<(), KernelError> {
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => self.addresses4.insert(&Key::new(length, address.into()), entry, 0),
            IpAddr::V6(address) => self.addresses6.insert(&Key::new(length, address.into()), entry, 0),
        }
        .doing(|| format!("writing the owner of {net}"))?;
        self.known.insert(net, entry);
        Ok(())
    }

    fn take_address(&mut self, net: IpNet) -> Result<(), KernelError> {
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => self.addresses4.remove(&Key::new(length, address.into())),
            IpAddr::V6(address) => self.addresses6.remove(&Key::new(length, address.into())),
        }
        .doing(|| format!("removing the owner of {net}"))?;
        self.known.remove(&net);
        Ok(())
    }

    /// The other nodes, by slot, as the programs know them.
    pub fn nodes(&self) -> &BTreeMap<u32, Node> {
        &self.known_nodes
    }

    /// Makes these the other nodes; `true` where that changed anything.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_nodes(&mut self, table: &BTreeMap<u32, Node>) -> Result<bool, KernelError> {
        let mut changed = false;
        let gone: Vec<u32> = self.known_nodes.keys().filter(|slot| !table.contains_key(slot)).copied().collect();
        let writes = table.iter().map(|(slot, node)| (*slot, *node));
        for (slot, node) in writes.chain(gone.into_iter().map(|slot| (slot, Node::default()))) {
            if self.known_nodes.get(&slot).copied().unwrap_or_default() == node {
                continue;
            }
            self.nodes.set(slot, node, 0).doing(|| format!("writing node {slot}"))?;
            self.known_nodes.insert(slot, node);
            changed = true;
        }
        self.known_nodes.retain(|_, node| *node != Node::default());
        Ok(changed)
    }

    /// Puts an endpoint under control of the programs. Again for the same endpoint, it sees that all is in place.
    ///
    /// # Errors
    /// Where the record is wrong, the node is full or the kernel refuses.
    pub fn enforce(&mut self, record: &EndpointRecord) -> Result<EndpointStatus, KernelError> {
        let name = record.host_interface.as_str();
        let wrong = |what: String| KernelError::Record { interface: name.into(), what };
        if !is_pods(name) {
            return Err(wrong("that is no name of an interface that the plugin makes".into()));
        }
        let interface = nix::net::if_::if_nametoindex(name)
            .map_err(|error| wrong(format!("there is no such interface ({error})")))?;
        let mac = parse_mac(&record.mac).ok_or_else(|| wrong(format!("{:?} is no link-layer address", record.mac)))?;
        let (mut ipv4, mut ipv6) = (Ipv4::default(), Ipv6::default());
        for address in &record.addresses {
            match address {
                IpAddr::V4(address) => ipv4 = (*address).into(),
                IpAddr::V6(address) => ipv6 = (*address).into(),
            }
            if let Some(owner) = self.owner(*address, name) {
                return Err(wrong(format!("{address} is the address of {owner} too")));
            }
        }
        let gone = record.addresses.iter().filter_map(|address| self.endpoint_with(*address, name));
        for other in gone.map(str::to_owned).collect::<Vec<_>>() {
            self.release(&other, false)?;
        }
        let endpoint = Endpoint { interface, ipv4, ipv6, mac, ..Endpoint::default() };
        let slot = self.slot(name, &endpoint)?;
        let action = || format!("writing the endpoint {name}");
        if self.endpoints.get(&slot.0, 0).doing(action)? != endpoint {
            // Before its revision: a packet in between that is judged by either is judged again.
            self.endpoints.set(slot.0, endpoint, 0).doing(action)?;
            self.bump(RevisionSlot::of_endpoint(slot))?;
        }
        self.enforced.insert(name.to_owned(), Enforced { slot, interface, record: record.clone() });
        self.unclaimed.remove(&slot.0);
        {
            let _quick = Expedite::on(&self.expedite);
            self.programs.attach(Hook::FromPod, name)?;
            self.programs.attach(Hook::ToPod, name)?;
        }
        // Those of an interface that had the same name.
        for net in self.addresses_of(slot) {
            if !record.addresses.contains(&net.addr()) {
                self.give_back(net)?;
            }
        }
        for address in &record.addresses {
            let entry = AddressEntry { kind: AddressKind::Endpoint, slot, identity: Identity::ANYONE };
            if self.known.get(&IpNet::from(*address)) != Some(&entry) {
                self.put_address(IpNet::from(*address), entry)?;
            }
        }
        Ok(EndpointStatus { record: record.clone(), slot: slot.0, revision: self.revision(slot)? })
    }

    /// Who else has an address, and cannot do without it: the host, another node, an endpoint whose interface is there.
    fn owner(&self, address: IpAddr, name: &str) -> Option<String> {
        let entry = self.known.get(&IpNet::from(address))?;
        match entry.kind {
            AddressKind::Endpoint => {
                let other = self.endpoint_with(address, name)?;
                self.enforced.get(other).is_some_and(Enforced::is_there).then(|| other.to_owned())
            }
            AddressKind::Host => Some("this node".into()),
            AddressKind::Node => Some("another node".into()),
            // A pod that the cluster has seen elsewhere may have moved here.
            AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::LocalPods | AddressKind::RemotePods => {
                None
            }
        }
    }

    /// The other endpoint that has an address.
    fn endpoint_with(&self, address: IpAddr, name: &str) -> Option<&str> {
        let entry = self.known.get(&IpNet::from(address)).filter(|entry| entry.kind == AddressKind::Endpoint)?;
        let (other, _) = self.enforced.iter().find(|(_, enforced)| enforced.slot == entry.slot)?;
        (other != name).then_some(other.as_str())
    }

    /// The slot of an endpoint: the one it has, has had before the agent started, or a free one.
    fn slot(&self, name: &str, endpoint: &Endpoint) -> Result<Slot, KernelError> {
        if let Some(enforced) = self.enforced.get(name) {
            return Ok(enforced.slot);
        }
        if let Some((slot, _)) = self.unclaimed.iter().find(|(_, found)| *found == endpoint) {
            return Ok(Slot(*slot));
        }
        let taken: std::collections::BTreeSet<u32> =
            self.enforced.values().map(|enforced| enforced.slot.0).chain(self.unclaimed.keys().copied()).collect();
        let free = (1..MAX_ENDPOINTS).find(|slot| !taken.contains(slot));
        free.map(Slot).ok_or(KernelError::Full(self.enforced.len()))
    }

    /// Ends an endpoint, and with it its flows; `false` where it is not known. Off a device that `still_passes` packets
    /// the programs do not come: a pod that is not known is not heard.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release(&mut self, host_interface: &str, still_passes: bool) -> Result<bool, KernelError> {
        let Some(enforced) = self.enforced.get(host_interface) else { return Ok(false) };
        self.end(enforced.slot)?;
        if !still_passes {
            let _quick = Expedite::on(&self.expedite);
            self.programs.detach(Hook::FromPod, host_interface)?;
            self.programs.detach(Hook::ToPod, host_interface)?;
        }
        self.enforced.remove(host_interface);
        Ok(true)
    }

    /// Ends all endpoints that no record has claimed since the agent started; says how many.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release_unclaimed(&mut self) -> Result<usize, KernelError> {
        let slots: Vec<u32> = self.unclaimed.keys().copied().collect();
        for slot in &slots {
            self.end(Slot(*slot))?;
            self.unclaimed.remove(slot);
        }
        for hook in [Hook::FromPod, Hook::ToPod] {
            for device in self.programs.attached(hook) {
                let is_there = nix::net::if_::if_nametoindex(device.as_str()).is_ok();
                if !is_there && !self.enforced.contains_key(&device) {
                    self.programs.detach(hook, &device)?;
                }
            }
        }
        Ok(slots.len())
    }

    /// Ends all endpoints whose interface is gone; gives their names.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release_vanished(&mut self) -> Result<Vec<String>, KernelError> {
        let vanished = self.enforced.iter().filter(|(_, enforced)| !enforced.is_there());
        let names: Vec<String> = vanished.map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.release(name, false)?;
        }
        Ok(names)
    }

    /// The addresses of the endpoint in a slot.
    fn addresses_of(&self, slot: Slot) -> Vec<IpNet> {
        let entries = self.known.iter();
        let of_slot = entries.filter(|(_, entry)| entry.kind == AddressKind::Endpoint && entry.slot == slot);
        of_slot.map(|(net, _)| *net).collect()
    }

    /// Takes an address from an endpoint, and gives it back to whom it was before.
    fn give_back(&mut self, net: IpNet) -> Result<(), KernelError> {
        match self.planned.get(&net) {
            Some(entry) => self.put_address(net, *entry),
            None => self.take_address(net),
        }
    }

    fn end(&mut self, slot: Slot) -> Result<(), KernelError> {
        for net in self.addresses_of(slot) {
            self.give_back(net)?;
        }
        self.endpoints.set(slot.0, Endpoint::default(), 0).doing(|| format!("clearing endpoint {}", slot.0))?;
        self.bump(RevisionSlot::of_endpoint(slot))
    }

    fn revision(&self, slot: Slot) -> Result<u32, KernelError> {
        let RevisionSlot(index) = RevisionSlot::of_endpoint(slot);
        self.revisions.get(&index, 0).doing(|| format!("reading revision {index}"))
    }

    fn bump(&mut self, RevisionSlot(index): RevisionSlot) -> Result<(), KernelError> {
        let action = || format!("raising revision {index}");
        let revision = self.revisions.get(&index, 0).doing(action)?;
        self.revisions.set(index, revision.wrapping_add(1), 0).doing(action)
    }

    /// Has all flows whose way depends on routes or nodes find it again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn bump_routes(&mut self) -> Result<(), KernelError> {
        self.bump(RevisionSlot::ROUTES)
    }

    /// The endpoints that are in force.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let status = |enforced: &Enforced| EndpointStatus {
            record: enforced.record.clone(),
            slot: enforced.slot.0,
            revision: self.revision(enforced.slot).unwrap_or_default(),
        };
        self.enforced.values().map(status).collect()
    }

    /// Counters that are not 0.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        let mut counters = Vec::new();
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let index = reason.index(hook);
                let values = self.counters.get(&index, 0).doing(|| format!("reading counter {index}"))?;
                let packets = values.iter().sum();
                if packets != 0 {
                    let (hook, drop) = (hook.name().to_owned(), reason.is_drop());
                    counters.push(Counter { hook, reason: reason.name().to_owned(), drop, packets });
                }
            }
        }
        Ok(counters)
    }

    /// Flows, as their openers see them, at most `limit`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn flows(&self, limit: usize) -> Result<Vec<FlowStatus>, KernelError> {
        let pods: BTreeMap<u32, EndpointRecord> = self
            .enforced
            .values()
            .filter_map(|enforced| {
                let index = nix::net::if_::if_nametoindex(enforced.record.host_interface.as_str()).ok()?;
                Some((index, enforced.record.clone()))
            })
            .collect();
        flows::list(&self.pins, &self.clock()?, &pods, limit)
    }

    fn clock(&self) -> Result<flows::Clock, KernelError> {
        flows::Clock::open(&self.programs)
    }

    /// What removes flows that have been idle for too long; it works on a thread of its own.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn reaper(&self) -> Result<Reaper, KernelError> {
        Reaper::open(&self.pins, self.clock()?)
    }

    /// Removes everything that any agent has left in the kernel and below this directory; says what. What others have there
    /// stays.
    ///
    /// # Errors
    /// Where something cannot be removed.
    pub fn uninstall(bpf_dir: &Path, run_dir: &Path) -> Result<Vec<String>, KernelError> {
        let mut removed = Vec::new();
        if expedite::put_back(&expedite::marker(run_dir)) {
            removed.push("the mark that grace periods are expedited, which they are no more".into());
        }
        for version in versions::all(bpf_dir) {
            removed.extend(versions::remove(&version)?);
        }
        match unless_shared(fs::remove_dir(bpf_dir)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("removing {}", bpf_dir.display()))
            }
            _ => Ok(removed),
        }
    }
}

fn net(length: u32, address: IpAddr) -> Option<IpNet> {
    IpNet::new(address, length as u8).ok()
}

fn open<T>(pins: &Pins, name: &str) -> Result<T, KernelError>
where
    T: TryFrom<aya::maps::Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    programs::map(pins, name)?.try_into().doing(|| format!("opening the pinned map {name}"))
}

fn parse_mac(text: &str) -> Option<Mac> {
    let octets: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    Some(Mac::new(octets.try_into().ok()?))
}
