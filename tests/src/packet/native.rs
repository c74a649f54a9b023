//! The packet and the tables of the native build: plain memory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};

use sluice_abi::{
    AddressEntry, Affinity, AffinityKey, Backend, BackendId, COUNTERS, Config, DenialKey, Endpoint, Flow, FlowKey,
    Fragment, FragmentKey, Frontend, FrontendBit, FrontendKey, Hook, IpAddress, Ipv4, Ipv6, Mac, Node, Position,
    Reason, RevisionSlot, Rule, RuleKey, ServiceId, SetId, Slot, SocketKey, SocketPeer, Uplink,
};
use sluice_datapath::express::{self, Express, Link, Neighbours};
use sluice_datapath::parse::Parse;
use sluice_datapath::policy::PolicyTables;
use sluice_datapath::service::{BalancerTables, ServiceTables};
use sluice_datapath::{Checksum, Desk, Family, FamilyTables, Insert, Outcome, Packet, Route, Table, Tables, View};
use sluice_datapath::{fast, slow};

/// A packet in memory.
#[derive(Clone, Debug)]
pub struct Bytes {
    /// From the Ethernet header on.
    pub data: Vec<u8>,
    /// Index of the interface that it is seen on.
    pub interface: u32,
    /// Bytes of payload of the segments that it is to be cut into; 0: none.
    pub segment: u32,
    /// The VLAN that it is tagged with, beside its bytes. Test runs of the programs know no tags.
    pub vlan: Option<u16>,
    /// Its mark.
    pub mark: u32,
    /// What has changed of the sum over all behind the Ethernet header (`skb->csum` with CHECKSUM_COMPLETE), as the
    /// kernel's helpers keep it.
    pub sum_changed: u32,
    /// Whether it was found to have no transport checksum: then nobody looks at the sum.
    pub unchecked: bool,
}

impl Bytes {
    /// A packet that is nothing but its bytes.
    pub const fn new(data: Vec<u8>, interface: u32) -> Self {
        Self { data, interface, segment: 0, vlan: None, mark: 0, sum_changed: 0, unchecked: false }
    }

    /// The sum over all behind the Ethernet header.
    pub fn sum(&self) -> u16 {
        let words = self.data[14..].chunks(2);
        !words.fold(0xffff, |sum, word| {
            let word = u16::from_ne_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            replace(sum, 0, word.into())
        })
    }

    /// Whether a sum that a device supplied before still holds, kept as the kernel keeps it.
    pub fn sum_holds(&self, before: &Self) -> bool {
        let kept = !replace(!before.sum(), 0, self.sum_changed);
        // Zero has two forms.
        self.unchecked || kept % 0xffff == self.sum() % 0xffff
    }
}

/// `N` bytes of a packet in memory.
pub struct Slice<'a, const N: usize>(&'a [u8; N]);

impl<const N: usize> View<N> for Slice<'_, N> {
    fn byte<const AT: usize>(&self) -> u8 {
        self.0[AT]
    }

    fn half<const AT: usize>(&self) -> u16 {
        u16::from_ne_bytes([self.0[AT], self.0[AT + 1]])
    }

    fn word<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]])
    }
}

/// One's complement sum of two words, as the kernel's `csum_add`.
fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// A checksum after a word has changed, as the kernel's `csum_replace4`.
fn replace(sum: u16, from: u32, to: u32) -> u16 {
    let mut folded = add(add(u32::from(!sum), !from), to);
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

impl Bytes {
    fn half(&mut self, offset: usize) -> Result<&mut [u8], Reason> {
        self.data.get_mut(offset..offset + 2).ok_or(Reason::RewriteFailed)
    }
}

impl Packet for Bytes {
    type View<'a, const N: usize> = Slice<'a, N>;

    fn length(&self) -> u32 {
        self.data.len() as u32
    }

    fn segment(&self) -> u32 {
        self.segment
    }

    fn vlan(&self) -> Option<u16> {
        self.vlan
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn tunnel_remote(&self) -> Option<([u32; 4], bool)> {
        None
    }

    fn view<const N: usize>(&self, offset: usize) -> Option<Slice<'_, N>> {
        assert!(offset < 1024, "an offset that the kernel would wrap: {offset}");
        self.data.get(offset..)?.first_chunk().map(Slice)
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), Reason> {
        self.data.get_mut(offset..offset + N).ok_or(Reason::RewriteFailed)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn resize(&mut self, length: u32) -> Result<(), Reason> {
        self.data.resize(length as usize, 0);
        // Such an answer is nobody's that a device has summed up.
        self.unchecked = true;
        Ok(())
    }

    fn unwrap(&mut self, bytes: u32) -> Result<(), Reason> {
        if self.data.len() < 14 + bytes as usize {
            return Err(Reason::RewriteFailed);
        }
        self.data.drain(14..14 + bytes as usize);
        self.unchecked = true;
        Ok(())
    }

    fn fix_header_checksum(&mut self, offset: usize, from: u32, to: u32) -> Result<(), Reason> {
        let place = self.half(offset)?;
        let sum = replace(u16::from_ne_bytes([place[0], place[1]]), from, to);
        place.copy_from_slice(&sum.to_ne_bytes());
        Ok(())
    }

    fn fix_sum_of_all(&mut self, from: [u32; 4], to: [u32; 4]) {
        for (from, to) in from.into_iter().zip(to) {
            self.sum_changed = add(self.sum_changed, add(to, !from));
        }
    }

    fn fix_checksum(
        &mut self,
        offset: usize,
        from: u32,
        to: u32,
        part: Checksum,
        optional: bool,
    ) -> Result<(), Reason> {
        let place = self.half(offset)?;
        let old = u16::from_ne_bytes([place[0], place[1]]);
        if optional && old == 0 {
            self.unchecked = true;
            return Ok(());
        }
        let mut sum = replace(old, from, to);
        if optional && sum == 0 {
            sum = 0xffff;
        }
        place.copy_from_slice(&sum.to_ne_bytes());
        // As `inet_proto_csum_replace4` (net/core/utils.c).
        if part == Checksum::Pseudo {
            self.sum_changed = add(self.sum_changed, add(from, !to));
        }
        Ok(())
    }
}

/// The tables of one family.
pub struct FamilyMaps<A: IpAddress> {
    /// Flows that were not answered.
    pub openings: RefCell<HashMap<FlowKey<A>, Flow<A>>>,
    /// Flows that were.
    pub flows: RefCell<HashMap<FlowKey<A>, Flow<A>>>,
    /// First fragments.
    pub fragments: RefCell<HashMap<FragmentKey<A>, Fragment>>,
    /// What stages leave for one another, and packets for the next.
    desk: RefCell<Desk<A>>,
    /// Who has an address, by (length, prefix).
    pub addresses: BTreeMap<(u32, [u32; 4]), AddressEntry>,
    /// What the routing table says.
    pub route: fn(A) -> Option<A>,
    /// Frontends of services.
    pub frontends: HashMap<FrontendKey<A>, Frontend>,
    /// Backends, by [`BackendId`].
    pub backends: HashMap<u32, Backend<A>>,
    /// Who may use services, by service, length and prefix.
    pub source_ranges: HashSet<(ServiceId, u32, [u32; 4])>,
    /// Whom sockets talk to.
    pub sockets: RefCell<HashMap<SocketKey<A>, SocketPeer<A>>>,
}

impl<A: Parse> FamilyMaps<A> {
    fn new(route: fn(A) -> Option<A>) -> Self {
        Self {
            openings: RefCell::default(),
            flows: RefCell::default(),
            fragments: RefCell::default(),
            desk: RefCell::default(),
            addresses: BTreeMap::new(),
            route,
            frontends: HashMap::new(),
            backends: HashMap::new(),
            source_ranges: HashSet::new(),
            sockets: RefCell::default(),
        }
    }

    /// Forgets all flows and fragments.
    pub fn clear(&self) {
        self.openings.borrow_mut().clear();
        self.flows.borrow_mut().clear();
        self.fragments.borrow_mut().clear();
    }

    fn traces(&self) -> FamilyTraces<A> {
        let Self { openings, flows, fragments, .. } = self;
        FamilyTraces { openings: openings.clone(), flows: flows.clone(), fragments: fragments.clone() }
    }

    fn restore(&self, traces: &FamilyTraces<A>) {
        self.openings.borrow_mut().clone_from(&traces.openings.borrow());
        self.flows.borrow_mut().clone_from(&traces.flows.borrow());
        self.fragments.borrow_mut().clone_from(&traces.fragments.borrow());
    }

    fn table(&self, table: Table) -> &RefCell<HashMap<FlowKey<A>, Flow<A>>> {
        match table {
            Table::Openings => &self.openings,
            Table::Flows => &self.flows,
        }
    }

    fn longest(&self, address: A) -> Option<AddressEntry> {
        (0..=A::BITS).rev().find_map(|length| self.addresses.get(&(length, masked(address.words(), length))).copied())
    }
}

/// What packets have left in the tables of one family.
struct FamilyTraces<A: IpAddress> {
    openings: RefCell<HashMap<FlowKey<A>, Flow<A>>>,
    flows: RefCell<HashMap<FlowKey<A>, Flow<A>>>,
    fragments: RefCell<HashMap<FragmentKey<A>, Fragment>>,
}

/// What packets have left in the tables.
pub struct Traces {
    v4: FamilyTraces<Ipv4>,
    v6: FamilyTraces<Ipv6>,
    counters: Vec<u64>,
    denials: HashMap<DenialKey, u64>,
    affinities: HashMap<AffinityKey, Affinity>,
}

/// Whom chance chooses among the members of a set, in place of the programs' random numbers.
#[derive(Default)]
struct Chance {
    /// The set that is asked about, until somebody is chosen.
    asked: Cell<Option<Position>>,
    /// The member that is to be chosen.
    choice: Cell<u32>,
    /// Among how many one was chosen last.
    among: Cell<u32>,
}

/// The first `length` bits of an address.
pub fn masked(words: [u32; 4], length: u32) -> [u32; 4] {
    let mut word = 0;
    words.map(|bits| {
        let kept = length.saturating_sub(32 * word).min(32);
        word += 1;
        let mask = if kept == 0 { 0 } else { u32::MAX << (32 - kept) };
        bits & mask.to_be()
    })
}

/// The native tables.
pub struct Native {
    /// IPv4.
    pub v4: FamilyMaps<Ipv4>,
    /// IPv6.
    pub v6: FamilyMaps<Ipv6>,
    /// The node's settings.
    pub config: Config,
    /// Endpoints by slot.
    pub endpoints: Vec<Endpoint>,
    /// Nodes by slot.
    pub nodes: Vec<Node>,
    /// Revisions by slot.
    pub revisions: HashMap<u32, u32>,
    /// The only uplink.
    pub uplink: (u32, Uplink),
    /// By [`Reason::index`].
    pub counters: RefCell<Vec<u64>>,
    /// What policies say.
    pub rules: HashMap<RuleKey, Rule>,
    /// How often they have denied what.
    pub denials: RefCell<HashMap<DenialKey, u64>>,
    /// Where there may be frontends, by [`FrontendBit`].
    pub frontend_bits: HashSet<u32>,
    /// By [`SetId`].
    pub sets: HashMap<u32, Position>,
    /// By [`Position`].
    pub members: HashMap<u32, u32>,
    /// Maglev tables.
    pub maglev: HashMap<SetId, Vec<BackendId>>,
    /// Clients that stay.
    pub affinities: RefCell<HashMap<AffinityKey, Affinity>>,
    /// Link-layer addresses of next hops by the uplink.
    pub neighbours: HashMap<[u32; 4], Mac>,
    /// That of the uplink.
    pub uplink_mac: Mac,
    /// Seconds since the node started.
    pub seconds: Cell<u32>,
    /// The time, jiffies.
    pub now: Cell<u32>,
    /// Lookups and writes so far in hashes and tries; reads of arrays are not counted.
    pub lookups: Cell<u32>,
    /// Entries that the table of established flows of each family has room for.
    pub room: Cell<usize>,
    /// What another CPU does right before the next entry is written.
    pub meanwhile: RefCell<Option<Meanwhile>>,
    chance: Chance,
}

/// Something that happens while a packet is at work.
type Meanwhile = Box<dyn FnOnce(&Native)>;

impl Native {
    /// Empty tables; the routes are functions from a destination to its next hop through the uplink.
    pub fn new(route4: fn(Ipv4) -> Option<Ipv4>, route6: fn(Ipv6) -> Option<Ipv6>) -> Self {
        Self {
            v4: FamilyMaps::new(route4),
            v6: FamilyMaps::new(route6),
            config: Config::default(),
            endpoints: vec![Endpoint::default(); 32],
            nodes: vec![Node::default(); 8],
            revisions: HashMap::new(),
            uplink: (0, Uplink::default()),
            counters: RefCell::new(vec![0; COUNTERS as usize]),
            rules: HashMap::new(),
            denials: RefCell::default(),
            frontend_bits: HashSet::new(),
            sets: HashMap::new(),
            members: HashMap::new(),
            maglev: HashMap::new(),
            affinities: RefCell::default(),
            neighbours: HashMap::new(),
            uplink_mac: Mac::default(),
            seconds: Cell::new(0),
            now: Cell::new(0),
            lookups: Cell::new(0),
            room: Cell::new(usize::MAX),
            meanwhile: RefCell::new(None),
            chance: Chance::default(),
        }
    }

    /// What packets have left so far.
    pub fn traces(&self) -> Traces {
        Traces {
            v4: self.v4.traces(),
            v6: self.v6.traces(),
            counters: self.counters.borrow().clone(),
            denials: self.denials.borrow().clone(),
            affinities: self.affinities.borrow().clone(),
        }
    }

    /// Forgets what packets have left since.
    pub fn restore(&self, traces: &Traces) {
        self.v4.restore(&traces.v4);
        self.v6.restore(&traces.v6);
        self.counters.borrow_mut().clone_from(&traces.counters);
        self.denials.borrow_mut().clone_from(&traces.denials);
        self.affinities.borrow_mut().clone_from(&traces.affinities);
    }

    /// Runs a packet as [`run`](Self::run) does; chance, where it decides, chooses this member of a set. Among how many.
    pub fn run_by_chance(&self, hook: Hook, packet: &mut Bytes, choice: u32) -> (Outcome, u32) {
        self.chance.choice.set(choice);
        self.chance.among.set(1);
        let outcome = self.run(hook, packet);
        self.chance.choice.set(0);
        (outcome, self.chance.among.get())
    }

    /// Whether chance may decide at all.
    pub fn has_choices(&self) -> bool {
        self.sets.values().any(|position| BalancerTables::member(self, *position) > 1)
    }

    fn looked_up(&self) {
        self.lookups.set(self.lookups.get() + 1);
    }

    /// Runs a frame that comes in through the uplink past the stack.
    pub fn express(&self, packet: &mut Bytes) -> Express {
        express::xdp_lb(packet, self)
    }

    /// Runs a packet through a hook, fast path and slow.
    pub fn run(&self, hook: Hook, packet: &mut Bytes) -> Outcome {
        let mut outcome = match hook {
            Hook::FromPod => fast::from_pod(packet, self),
            Hook::ToPod => fast::to_pod(packet, self),
            Hook::FromNet => fast::from_net(packet, self),
            Hook::ToNet => fast::to_net(packet, self),
            Hook::FromOverlay => fast::from_overlay(packet, self),
        };
        while let Outcome::Slow(stage, family) = outcome {
            outcome = match family {
                Family::V4 => slow::run::<Ipv4, _, _>(stage, hook, packet, self),
                Family::V6 => slow::run::<Ipv6, _, _>(stage, hook, packet, self),
            };
        }
        if let Outcome::Drop(reason) = outcome {
            self.count(hook, reason);
        }
        outcome
    }
}

macro_rules! family {
    ($address:ty, $maps:ident) => {
        impl ServiceTables<$address> for Native {
            fn address(&self, address: $address) -> AddressEntry {
                self.looked_up();
                self.$maps.longest(address).unwrap_or(AddressEntry::UNKNOWN)
            }

            fn frontend(&self, key: &FrontendKey<$address>) -> Option<Frontend> {
                self.looked_up();
                self.$maps.frontends.get(key).copied()
            }

            fn backend(&self, BackendId(id): BackendId) -> Option<Backend<$address>> {
                Some(self.$maps.backends.get(&id).copied().unwrap_or_default())
            }

            fn is_in_source_ranges(&self, service: ServiceId, address: $address) -> bool {
                self.looked_up();
                (0..=<$address>::BITS).any(|length| {
                    self.$maps.source_ranges.contains(&(service, length, masked(address.words(), length)))
                })
            }

            fn peer(&self, key: &SocketKey<$address>) -> Option<SocketPeer<$address>> {
                self.looked_up();
                self.$maps.sockets.borrow().get(key).copied()
            }

            fn remember_peer(&self, key: &SocketKey<$address>, peer: &SocketPeer<$address>) {
                self.$maps.sockets.borrow_mut().insert(*key, *peer);
            }
        }

        impl FamilyTables<$address> for Native {
            fn flow<R>(
                &self,
                table: Table,
                key: &FlowKey<$address>,
                use_it: impl FnOnce(&mut Flow<$address>) -> R,
            ) -> Option<R> {
                self.looked_up();
                // Used outside the table, as the programs do: they may write other entries meanwhile.
                let mut flow = *self.$maps.table(table).borrow().get(key)?;
                let result = use_it(&mut flow);
                self.$maps.table(table).borrow_mut().insert(*key, flow);
                Some(result)
            }

            fn insert(&self, table: Table, key: &FlowKey<$address>, flow: &Flow<$address>, how: Insert) -> bool {
                self.looked_up();
                let meanwhile = self.meanwhile.take();
                if let Some(meanwhile) = meanwhile {
                    meanwhile(self);
                }
                let is_limited = table == Table::Flows;
                let mut table = self.$maps.table(table).borrow_mut();
                if is_limited && table.len() >= self.room.get() && !table.contains_key(key) {
                    return false;
                }
                if how == Insert::New && table.contains_key(key) {
                    return false;
                }
                table.insert(*key, *flow);
                true
            }

            fn remove(&self, table: Table, key: &FlowKey<$address>) {
                self.$maps.table(table).borrow_mut().remove(key);
            }

            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment> {
                self.looked_up();
                self.$maps.fragments.borrow().get(key).copied()
            }

            fn remember_fragment(&self, key: &FragmentKey<$address>, fragment: &Fragment) {
                self.$maps.fragments.borrow_mut().insert(*key, *fragment);
            }

            fn desk<R>(&self, use_it: impl FnOnce(&mut Desk<$address>) -> R) -> Option<R> {
                // Away from its place meanwhile: what another CPU does has a desk of its own.
                let mut desk = self.$maps.desk.take();
                let result = use_it(&mut desk);
                self.$maps.desk.replace(desk);
                Some(result)
            }

            fn route(&self, _: u32, _: $address, destination: $address) -> Route<$address> {
                match (self.$maps.route)(destination) {
                    Some(next_hop) => Route::Via { interface: self.uplink.0, next_hop },
                    None => Route::Stack,
                }
            }
        }
    };
}

family!(Ipv4, v4);
family!(Ipv6, v6);

impl<A: IpAddress> Neighbours<A> for Native {
    fn link(&self, _: u32, next_hop: A, length: u32) -> Option<Link> {
        let to = *self.neighbours.get(&next_hop.words())?;
        (length <= self.uplink.1.mtu.into()).then_some(Link { interface: self.uplink.0, to, from: self.uplink_mac })
    }
}

impl PolicyTables for Native {
    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        self.looked_up();
        let lengths = RuleKey::ANY_PROTOCOL..=key.length;
        lengths.rev().find_map(|length| self.rules.get(&key.prefix(length)).copied())
    }
}

impl Tables for Native {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn endpoint(&self, slot: Slot) -> Option<&Endpoint> {
        self.endpoints.get(slot.0 as usize)
    }

    fn node(&self, slot: Slot) -> Option<&Node> {
        self.nodes.get(slot.0 as usize)
    }

    fn revision(&self, slot: RevisionSlot) -> u32 {
        self.revisions.get(&slot.0).copied().unwrap_or(0)
    }

    fn uplink(&self, interface: u32) -> Option<&Uplink> {
        self.looked_up();
        (self.uplink.0 == interface).then_some(&self.uplink.1)
    }

    fn count(&self, hook: Hook, reason: Reason) {
        self.counters.borrow_mut()[reason.index(hook) as usize] += 1;
    }

    fn denied(&self, key: &DenialKey) {
        *self.denials.borrow_mut().entry(*key).or_default() += 1;
    }

    fn now(&self) -> u32 {
        self.now.get()
    }
}

impl BalancerTables for Native {
    fn may_be_frontend(&self, bit: FrontendBit) -> bool {
        self.frontend_bits.contains(&bit.0)
    }

    fn position(&self, SetId(set): SetId) -> Position {
        let position = self.sets.get(&set).copied().unwrap_or(Position::REJECT);
        self.chance.asked.set(Some(position));
        position
    }

    fn member(&self, Position(position): Position) -> u32 {
        self.members.get(&position).copied().unwrap_or(0)
    }

    fn maglev(&self, set: SetId, index: u32) -> Option<BackendId> {
        self.looked_up();
        self.maglev.get(&set)?.get(index as usize).copied()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.looked_up();
        self.affinities.borrow().get(key).copied()
    }

    fn stay(&self, key: &AffinityKey, with: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *with);
    }

    fn seconds(&self) -> u32 {
        self.seconds.get()
    }

    fn random(&self) -> u32 {
        // Of ports, it is the first that is tried.
        let Some(position) = self.chance.asked.take() else { return 0 };
        let count = self.member(position).max(1);
        self.chance.among.set(count);
        // The least of the numbers that choose it.
        (u64::from(self.chance.choice.get() % count) << 32).div_ceil(count.into()) as u32
    }
}
