//! The kernel's side of the agent: loads and attaches programs, writes their tables. Nothing else in the agent does.

pub mod addresses;
mod endpoints;
mod enforced;
mod error;
mod expedite;
mod features;
mod flows;
mod grace;
mod layout;
mod links;
pub mod loading;
mod meter;
mod object;
mod peers;
mod policy;
mod programs;
pub mod services;
mod sockets;
mod strangers;
mod versions;
mod xdp;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, MapData, PerCpuArray};
use ipnet::IpNet;
use sluice_abi::{
    AddressEntry, AddressKind, Config, Endpoint, Hook, Identity, Ipv4, Ipv6, MAX_ENDPOINTS, Node, Reason, RevisionSlot,
    Rule, RuleKey, RulePath, Slot, Uplink, maps,
};
use sluice_api::{Counter, EndpointRecord};
use sluice_policy::{Limits, PodName};

use crate::uninstall::unless_shared;
use addresses::{Addresses, Sequel};
use enforced::InForce;
use error::Doing;
pub use error::KernelError;
pub use features::{Feature, missing};
pub use flows::{Listed, Reaper, jiffies};
use layout::Pins;
pub use layout::Sizes;
pub use meter::{Count, Fill, Meter, Reading, Tally};
pub use peers::Peers;
pub use policy::Denied;
use policy::Policy;
use programs::Programs;
pub use sockets::root as groups;
pub use strangers::{Ahead, Strangers, Way};
pub use xdp::Express;

/// Whose sockets are translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Nobody's.
    Off,
    /// Those of all processes.
    All,
    /// Those of the processes below a control group.
    Below(PathBuf),
}

/// An interface to the outside.
#[derive(Clone, Debug, PartialEq)]
pub struct UplinkDevice {
    /// Its index.
    pub interface: u32,
    /// Its name.
    pub name: String,
    /// Where packets for backends on other nodes may be turned round.
    pub express: Express,
    /// What the programs need to know of it.
    pub uplink: Uplink,
}

/// The programs, attached, and their tables.
pub struct Kernel {
    pins: Pins,
    programs: Programs,
    express: xdp::Attached,
    /// The marker of [`Expedite`].
    expedite: PathBuf,
    addresses4: LpmTrie<MapData, Ipv4, AddressEntry>,
    addresses6: LpmTrie<MapData, Ipv6, AddressEntry>,
    endpoints: Array<MapData, Endpoint>,
    nodes: Array<MapData, Node>,
    revisions: Array<MapData, u32>,
    uplinks: aya::maps::HashMap<MapData, u32, Uplink>,
    config: Array<MapData, Config>,
    counters: PerCpuArray<MapData, u64>,
    rules: LpmTrie<MapData, RulePath, Rule>,
    /// Whose addresses are, and as whom policies know them.
    addresses: Addresses,
    /// What the tries of addresses hold.
    written: BTreeMap<IpNet, AddressEntry>,
    /// What of the addresses is still to be written.
    unwritten: VecDeque<IpNet>,
    /// What the trie of rules holds.
    known_rules: HashMap<RuleKey, Rule>,
    /// How much of policies fits.
    limits: Limits,
    /// What policies say of pods.
    policies: BTreeMap<PodName, Policy>,
    /// What the nodes' table holds.
    known_nodes: BTreeMap<u32, Node>,
    enforced: InForce,
    /// Slots whose endpoint has not been claimed by a record yet: what an earlier agent has left.
    unclaimed: BTreeMap<u32, Endpoint>,
    /// How much of services fits.
    room: services::Room,
    /// Who writes services; `None`: it is not known what their tables hold.
    services: Option<services::Writer<services::Maps>>,
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
            rules: open(&pins, maps::RULES)?,
            addresses: Addresses::default(),
            written: BTreeMap::new(),
            unwritten: VecDeque::new(),
            known_rules: HashMap::new(),
            limits: sizes.limits(),
            policies: BTreeMap::new(),
            known_nodes: BTreeMap::new(),
            enforced: InForce::default(),
            unclaimed: BTreeMap::new(),
            room: sizes.room(),
            services: None,
            pins,
            programs,
            express: xdp::Attached::default(),
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
            self.written.extend(net(key.prefix_len(), IpAddr::V4(key.data().into())).map(|net| (net, entry)));
        }
        for entry in self.addresses6.iter() {
            let (key, entry) = entry.doing(action)?;
            self.written.extend(net(key.prefix_len(), IpAddr::V6(key.data().into())).map(|net| (net, entry)));
        }
        for entry in self.rules.iter() {
            let (key, rule) = entry.doing(action)?;
            self.known_rules.insert(RuleKey::of_path(key.prefix_len(), key.data()), rule);
        }
        for slot in 1..MAX_ENDPOINTS {
            let endpoint = self.endpoints.get(&slot, 0).doing(action)?;
            if endpoint.interface != 0 {
                self.unclaimed.insert(slot, endpoint);
            }
        }
        for (net, entry) in &self.written {
            let identity = match entry.kind {
                AddressKind::Endpoint => self.unclaimed.get(&entry.slot.0).map_or(Identity::ANYONE, |endpoint| {
                    if net.addr().is_ipv4() { endpoint.identity4 } else { endpoint.identity6 }
                }),
                _ => entry.identity,
            };
            self.addresses.read_back(*net, &AddressEntry { identity, ..*entry });
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
            self.express.attach(&self.programs, &device.name, device.express)?;
        }
        self.express.retain(&self.programs, &uplinks.iter().map(|device| device.name.as_str()).collect::<Vec<_>>())?;
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
        let changed = self.addresses.plan(table);
        let is_changed = !changed.is_empty();
        self.refresh(changed)?;
        Ok(is_changed)
    }

    /// Writes what the entries of these prefixes are to be, and of those before where that failed.
    fn refresh(&mut self, nets: impl IntoIterator<Item = IpNet>) -> Result<(), KernelError> {
        self.unwritten.extend(nets);
        while let Some(net) = self.unwritten.front().copied() {
            let entry = self.addresses.entry(&net);
            let before = self.written.get(&net).copied();
            if entry != before {
                self.write_address(net, entry)?;
            }
            match self.addresses.sequel(&net, before, entry) {
                Sequel::None => {}
                Sequel::Endpoint(known) => self.change_endpoint(known.slot, |endpoint| known.put(endpoint))?,
                Sequel::Revise(slot) => self.bump(slot)?,
            }
            self.unwritten.pop_front();
        }
        Ok(())
    }

    fn write_address(&mut self, net: IpNet, entry: Option<AddressEntry>) -> Result<(), KernelError> {
        let length = u32::from(net.prefix_len());
        match (net.network(), entry) {
            (IpAddr::V4(address), Some(entry)) => self.addresses4.insert(&Key::new(length, address.into()), entry, 0),
            (IpAddr::V4(address), None) => self.addresses4.remove(&Key::new(length, address.into())),
            (IpAddr::V6(address), Some(entry)) => self.addresses6.insert(&Key::new(length, address.into()), entry, 0),
            (IpAddr::V6(address), None) => self.addresses6.remove(&Key::new(length, address.into())),
        }
        .doing(|| format!("writing whose {net} is"))?;
        match entry {
            Some(entry) => self.written.insert(net, entry),
            None => self.written.remove(&net),
        };
        Ok(())
    }

    /// This node's own addresses, as the tables know them.
    pub fn own_addresses(&self) -> BTreeSet<IpAddr> {
        let own = self.written.iter().filter(|(_, entry)| matches!(entry.kind, AddressKind::Host));
        own.map(|(net, _)| net.addr()).collect()
    }

    /// The records of the endpoints that are in force.
    pub fn records(&self) -> impl Iterator<Item = &EndpointRecord> + Clone {
        self.enforced.iter().map(|enforced| &enforced.record)
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

    /// Counters that are not 0.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn counters(&self) -> Result<Vec<Counter>, KernelError> {
        let mut counts = meter::counts(&self.counters)?;
        counts.retain(|count| count.packets != 0);
        let named = |Count { hook, reason, packets }| Counter {
            hook: hook.name().to_owned(),
            reason: reason.name().to_owned(),
            drop: reason.is_drop(),
            packets,
        };
        Ok(counts.into_iter().map(named).collect())
    }

    /// Has sockets of all processes below a control group be translated where they are told whom to talk to; without one, of
    /// those below all; or not at all.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_sockets(&mut self, sockets: &Sockets) -> Result<(), KernelError> {
        match sockets {
            Sockets::Off => sockets::detach(&self.pins),
            Sockets::All => sockets::attach(&self.programs, &self.pins, &sockets::root()?),
            Sockets::Below(group) => sockets::attach(&self.programs, &self.pins, group),
        }
    }

    /// What reads counters beside this, on a thread of its own.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn meter(&self) -> Result<Meter, KernelError> {
        Meter::open(&self.pins)
    }

    /// What reads how often one thing has happened, on a thread of its own.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn tally(&self, reason: Reason) -> Result<Tally, KernelError> {
        Tally::open(&self.pins, reason)
    }

    /// How full the tables are that this writes. Of the flow tables, the [`Reaper`] tells.
    pub fn fills(&self) -> Vec<Fill> {
        let fill = |table, entries, capacity| Fill { table, entries, capacity };
        let mut fills = vec![
            // The first slot of either is nobody's.
            fill(maps::ENDPOINTS, self.enforced(), MAX_ENDPOINTS as usize - 1),
            fill(maps::NODES, self.known_nodes.len(), self.nodes.len() as usize - 1),
        ];
        fills.extend(self.service_fills());
        fills
    }

    /// Flows, as their openers see them, at most `limit`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn flows(&self, limit: usize) -> Result<Vec<Listed>, KernelError> {
        let pods: BTreeMap<u32, EndpointRecord> = self
            .enforced
            .iter()
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

    /// Whom sockets were connected to, read beside this on a thread of its own.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn peers(&self) -> Result<Peers, KernelError> {
        Peers::open(&self.pins)
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
