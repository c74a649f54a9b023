//! One packet through both builds, which must agree.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use sluice_abi::{
    AddressEntry, AddressKind, Affinity, AffinityKey, Config, Denial, DenialKey, Direction, Endpoint, Flow, FlowKey,
    Fragment, FragmentKey, Hook, IpAddress, Ipv4, Ipv6, Mac, Node, PolicyMode, Reason, RevisionSlot, Rule, RuleKey,
    Slot, Uplink, maps,
};
use sluice_datapath::express::Express;
use sluice_datapath::{MARK, MARK_MASK, Outcome};
use sluice_policy::{PodName, Step};

use super::build::{Ip, Recipe, Transport};
use super::kernel::{Kernel, Returned};
use super::native::{Bytes, Native};
use super::scene::{Scene, addresses};
use super::writer::{Build, Writer};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Dropped.
    Drop(Reason),
    /// On its way up the stack, or out of the device.
    Pass,
    /// Back where it came from.
    Back,
    /// Into the pod behind this interface.
    Pod(u32),
    /// Out of the uplink, to this next hop.
    Neighbour([u32; 4]),
    /// Through the overlay, to the node in this slot.
    Overlay(u32),
    /// Wrapped up, to the node in this slot.
    Direct(u32),
}

impl Verdict {
    /// Of an outcome.
    ///
    /// # Errors
    /// Where it is none yet.
    pub fn of(outcome: Outcome) -> Result<Self> {
        Ok(match outcome {
            Outcome::Drop(reason) => Self::Drop(reason),
            Outcome::Pass => Self::Pass,
            Outcome::Back => Self::Back,
            Outcome::Pod { interface } => Self::Pod(interface),
            Outcome::Neighbour { next_hop, .. } => Self::Neighbour(next_hop),
            Outcome::Overlay { node, .. } => Self::Overlay(node.0),
            Outcome::Direct { node, .. } => Self::Direct(node.0),
            Outcome::Slow(..) => anyhow::bail!("the slow path asked for itself"),
        })
    }
}

/// A packet that was run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// What became of it.
    pub verdict: Verdict,
    /// Its bytes afterwards.
    pub data: Vec<u8>,
}

/// Both builds, with the same tables.
pub struct Both {
    /// The devices.
    pub scene: Scene,
    /// The native build.
    pub native: Native,
    /// The compiled programs.
    pub kernel: Kernel,
    writer: Writer,
}

/// An endpoint that policies say nothing of.
pub fn endpoint(interface: u32, (v4, v6): addresses::Pair, mac: [u8; 6]) -> Endpoint {
    Endpoint { interface, ipv4: v4.into(), ipv6: v6.into(), mac: Mac::new(mac), ..Endpoint::default() }
}

/// The link-layer address of a pod of the scene.
pub const fn mac(pod: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, pod]
}

impl Both {
    /// Sets the scene in a new network namespace of this thread.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set() -> Result<Self> {
        let mut both = Self::bare()?;
        let scene = both.scene;
        both.endpoint(1, scene.pod_a, addresses::POD_A, mac(0xa))?;
        both.endpoint(2, scene.pod_b, addresses::POD_B, mac(0xb))?;
        both.addresses(addresses::NOBODY, (24, 64), AddressKind::LocalPods, 0)?;
        both.addresses(addresses::POD_A, (32, 128), AddressKind::Endpoint, 1)?;
        both.addresses(addresses::POD_B, (32, 128), AddressKind::Endpoint, 2)?;
        both.addresses(addresses::NODE, (32, 128), AddressKind::Host, 0)?;
        both.addresses(addresses::NATIVE_NODE, (32, 128), AddressKind::Node, 1)?;
        both.addresses(addresses::NATIVE_POD, (24, 64), AddressKind::RemotePods, 1)?;
        both.addresses(addresses::OVERLAY_NODE, (32, 128), AddressKind::Node, 2)?;
        both.addresses(addresses::OVERLAY_POD, (24, 64), AddressKind::RemotePods, 2)?;
        both.addresses(addresses::EXEMPT, (24, 64), AddressKind::Unmasqueraded, 0)?;
        Ok(both)
    }

    /// Sets the scene with nobody in it but other nodes, whose addresses are not known.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn bare() -> Result<Self> {
        let scene = Scene::set()?;
        let native = Native::of(scene);
        let mut kernel = Kernel::load()?;
        kernel.set_config(native.config)?;
        kernel.set_uplink(native.uplink.0, native.uplink.1)?;
        for (slot, node) in (0..).zip(&native.nodes) {
            kernel.set_node(slot, *node)?;
        }
        Ok(Self { scene, native, kernel, writer: Writer::default() })
    }

    /// Has the writer of the tables do something.
    fn write(&mut self, work: impl FnOnce(&mut Writer, &mut Self) -> Result<()>) -> Result<()> {
        let mut writer = std::mem::take(&mut self.writer);
        let result = work(&mut writer, self);
        self.writer = writer;
        result
    }

    /// Changes the node's settings.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.native.config);
        self.kernel.set_config(self.native.config)
    }

    /// Changes the uplink.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn change_uplink(&mut self, change: impl FnOnce(&mut Uplink)) -> Result<()> {
        let (interface, uplink) = &mut self.native.uplink;
        change(uplink);
        self.kernel.set_uplink(*interface, *uplink)
    }

    /// Fills an endpoint's slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn endpoint(&mut self, slot: u32, interface: u32, pair: addresses::Pair, mac: [u8; 6]) -> Result<()> {
        let endpoint = endpoint(interface, pair, mac);
        self.write(|writer, both| writer.put(Slot(slot), endpoint, both))
    }

    /// Makes the endpoint in a slot that of a pod, which policies may select.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn enforce(&mut self, pod: &PodName, slot: u32) -> Result<()> {
        self.write(|writer, both| writer.enforce(pod, Slot(slot), writer.endpoint(Slot(slot)), both))
    }

    /// Makes steps, each in both builds.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn make(&mut self, steps: &[Step]) -> Result<()> {
        self.write(|writer, both| steps.iter().try_for_each(|step| writer.make(step, both)))
    }

    /// Sets what becomes of what the policies of the pod in a slot deny.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_mode(&mut self, slot: u32, mode: PolicyMode) -> Result<()> {
        self.write(|writer, both| writer.set_mode(Slot(slot), mode, both))
    }

    /// Fills a node's slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn node(&mut self, slot: u32, node: Node) -> Result<()> {
        self.native.nodes[slot as usize] = node;
        self.kernel.set_node(slot, node)
    }

    /// Says who has the addresses around a pair.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn addresses(
        &mut self,
        (v4, v6): addresses::Pair,
        lengths: (u32, u32),
        kind: AddressKind,
        slot: u32,
    ) -> Result<()> {
        let v4 = IpNet::new(v4.into(), lengths.0 as u8).context("a prefix of IPv4")?.trunc();
        let v6 = IpNet::new(v6.into(), lengths.1 as u8).context("a prefix of IPv6")?.trunc();
        self.write(|writer, both| writer.give([v4, v6], kind, Slot(slot), both))
    }

    /// Runs a packet through a hook of both builds.
    ///
    /// # Errors
    /// Where they do not agree on what becomes of it, on any byte of it, or on the reason.
    pub fn run(&mut self, hook: Hook, interface: u32, data: &[u8]) -> Result<Ran> {
        self.run_as(hook, Bytes::new(data.to_vec(), interface))
    }

    /// Runs a frame past the stack, as the uplink's driver does; whether it leaves again, and its bytes.
    ///
    /// # Errors
    /// Where the builds do not agree.
    pub fn express(&mut self, data: &[u8]) -> Result<(bool, Vec<u8>)> {
        let packet = Bytes::new(data.to_vec(), self.scene.uplink);
        let (mut ours, mut theirs) = (packet.clone(), packet);
        self.native.now.set(self.kernel.now()?);
        let ends = self.native.express(&mut ours);
        if let Some(returned) = self.kernel.run_express(&mut theirs)? {
            ensure!(ends == returned, "native says {ends:?}, the kernel {returned:?}");
            ensure!(ours.data == theirs.data, "on bytes:\n{:02x?}\n{:02x?}", ours.data, theirs.data);
        }
        Ok((ends == Express::Back, ours.data))
    }

    /// Runs a packet through the native build, where chance, if it decides, makes this choice; among how many, and whether
    /// what becomes of it is what became of it in the kernel.
    fn agrees(
        &self,
        hook: Hook,
        packet: &Bytes,
        (returned, theirs): (Returned, &Bytes),
        choice: u32,
    ) -> (u32, Result<Ran>) {
        let mut ours = packet.clone();
        let (outcome, among) = self.native.run_by_chance(hook, &mut ours, choice);
        let ran = self.is_same(hook, packet, (outcome, ours), (returned, theirs)).and_then(|ran| {
            // Where it does not show in the packet who was chosen, it does in the flow.
            if among > 1 && matches!(ran.verdict, Verdict::Back | Verdict::Drop(_)) {
                self.compare_flows()?;
            }
            Ok(ran)
        });
        (among, ran)
    }

    fn is_same(
        &self,
        hook: Hook,
        packet: &Bytes,
        (outcome, mut ours): (Outcome, Bytes),
        (returned, theirs): (Returned, &Bytes),
    ) -> Result<Ran> {
        let verdict = Verdict::of(outcome)?;
        let (expected, marked) = match verdict {
            Verdict::Drop(_) => (Returned::Drop, false),
            Verdict::Pass => (Returned::Pass, false),
            Verdict::Pod(_) => (Returned::Redirect, false),
            Verdict::Back => (Returned::Redirect, hook == Hook::FromNet),
            Verdict::Neighbour(_) | Verdict::Overlay(_) | Verdict::Direct(_) => (Returned::Redirect, true),
        };
        if let Verdict::Direct(node) = verdict {
            ours.data = wrapped(&ours.data, self.native.config, self.native.nodes[node as usize]);
        }
        ensure!(returned == expected, "native says {outcome:?}, the kernel {returned:?}");
        ensure!(
            ours.data == theirs.data,
            "native and kernel disagree on bytes ({outcome:?}):\n{:02x?}\n{:02x?}",
            ours.data,
            theirs.data
        );
        // The kernel itself sees to what a packet is wrapped up in.
        if !matches!(outcome, Outcome::Drop(_) | Outcome::Direct { .. }) && packet.data.len() >= 34 {
            ensure!(ours.sum_holds(packet), "a sum over all of the packet does not hold: {:02x?}", ours.data);
        }
        if marked {
            ensure!(theirs.mark & MARK_MASK == MARK, "a packet that was judged is not marked");
        }
        if let Outcome::Drop(reason) = outcome {
            let index = reason.index(hook);
            let (native, kernel) = (self.native.counters.borrow()[index as usize], self.kernel.counter(index)?);
            ensure!(native == kernel, "native drops for {reason:?} ({native}), the kernel has counted {kernel}");
        }
        Ok(Ran { verdict, data: ours.data })
    }

    /// Compares all flows.
    ///
    /// # Errors
    /// Where they differ in anything but time.
    pub fn compare_flows(&self) -> Result<()> {
        compare("openings4", &self.native.v4.openings.borrow(), self.kernel.flows4(maps::OPENINGS4)?)?;
        compare("flows4", &self.native.v4.flows.borrow(), self.kernel.flows4(maps::FLOWS4)?)?;
        compare("openings6", &self.native.v6.openings.borrow(), self.kernel.flows6(maps::OPENINGS6)?)?;
        compare("flows6", &self.native.v6.flows.borrow(), self.kernel.flows6(maps::FLOWS6)?)
    }

    /// Compares what policies have denied, and how often.
    ///
    /// # Errors
    /// Where it differs.
    pub fn compare_denials(&self) -> Result<()> {
        let native = self.native.denials.borrow();
        let kernel = self.kernel.denials()?;
        ensure!(native.len() == kernel.len(), "native has {} denials, the kernel {}", native.len(), kernel.len());
        for (key, denial) in kernel {
            let ours = native.get(&key).copied().unwrap_or(0);
            ensure!(ours == denial.packets, "{key:?}: native {ours}, kernel {}", denial.packets);
        }
        Ok(())
    }

    /// Compares all counters.
    ///
    /// # Errors
    /// Where they differ.
    pub fn compare_counters(&self) -> Result<()> {
        let (native, kernel) = (self.native.counters.borrow().clone(), self.kernel.counters()?);
        for hook in Hook::ALL {
            for reason in Reason::ALL {
                let at = reason.index(hook) as usize;
                ensure!(native[at] == kernel[at], "{hook:?} {reason:?}: native {}, kernel {}", native[at], kernel[at]);
            }
        }
        Ok(())
    }

    /// Has all flows be idle for so many jiffies more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn age(&mut self, jiffies: u32) -> Result<()> {
        for name in [maps::OPENINGS4, maps::FLOWS4] {
            self.kernel.change::<FlowKey<Ipv4>, Flow<Ipv4>>(name, |flow| older(flow, jiffies))?;
        }
        for name in [maps::OPENINGS6, maps::FLOWS6] {
            self.kernel.change::<FlowKey<Ipv6>, Flow<Ipv6>>(name, |flow| older(flow, jiffies))?;
        }
        for table in [&self.native.v4.openings, &self.native.v4.flows] {
            table.borrow_mut().values_mut().for_each(|flow| older(flow, jiffies));
        }
        for table in [&self.native.v6.openings, &self.native.v6.flows] {
            table.borrow_mut().values_mut().for_each(|flow| older(flow, jiffies));
        }
        Ok(())
    }

    /// Has all clients that stay with a backend be away for so many seconds more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn away(&mut self, seconds: u32) -> Result<()> {
        let away = |affinity: &mut Affinity| affinity.last_seen = affinity.last_seen.wrapping_sub(seconds);
        self.kernel.change::<AffinityKey, Affinity>(maps::AFFINITIES, away)?;
        self.native.affinities.borrow_mut().values_mut().for_each(away);
        Ok(())
    }

    /// Pushes one direction of all openings out, as others do where there are many.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn evict(&mut self, direction: Direction) -> Result<()> {
        self.kernel.retain::<FlowKey<Ipv4>, Flow<Ipv4>>(maps::OPENINGS4, |flow| flow.direction != direction)?;
        self.kernel.retain::<FlowKey<Ipv6>, Flow<Ipv6>>(maps::OPENINGS6, |flow| flow.direction != direction)?;
        self.native.v4.openings.borrow_mut().retain(|_, flow| flow.direction != direction);
        self.native.v6.openings.borrow_mut().retain(|_, flow| flow.direction != direction);
        Ok(())
    }

    /// How many entries there are of established flows, of both families.
    pub fn established(&self) -> usize {
        self.native.v4.flows.borrow().len() + self.native.v6.flows.borrow().len()
    }

    /// How often something has happened at a hook.
    pub fn count(&self, hook: Hook, reason: Reason) -> u64 {
        self.native.counters.borrow()[reason.index(hook) as usize]
    }
}

impl Build for Both {
    fn write_endpoint(&mut self, slot: Slot, endpoint: Endpoint) -> Result<()> {
        self.native.write_endpoint(slot, endpoint)?;
        self.kernel.set_endpoint(slot.0, endpoint)
    }

    fn write_address(&mut self, net: IpNet, entry: Option<AddressEntry>) -> Result<()> {
        self.native.write_address(net, entry)?;
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => self.kernel.set_address(maps::ADDRESSES4, length, Ipv4::from(address), entry),
            IpAddr::V6(address) => self.kernel.set_address(maps::ADDRESSES6, length, Ipv6::from(address), entry),
        }
    }

    fn write_rule(&mut self, key: RuleKey, rule: Option<Rule>) -> Result<()> {
        self.native.write_rule(key, rule)?;
        self.kernel.set_rule(key, rule)
    }

    fn revise(&mut self, slot: RevisionSlot) -> Result<()> {
        self.native.revise(slot)?;
        self.kernel.set(maps::REVISIONS, slot.0, self.native.revisions[&slot.0])
    }

    fn run_as(&mut self, hook: Hook, packet: Bytes) -> Result<Ran> {
        let mut theirs = packet.clone();
        self.native.now.set(self.kernel.now()?);
        let before = self.native.has_choices().then(|| self.native.traces());
        let returned = self.kernel.run(hook.name(), &mut theirs)?;
        // Chance, which has chosen in the kernel, must have chosen somebody by whom the native build comes to the same.
        let (mut choice, mut ran) = (0, self.agrees(hook, &packet, (returned, &theirs), 0));
        while let (Some(before), Err(_)) = (&before, &ran.1) {
            choice += 1;
            if choice >= ran.0 {
                break;
            }
            self.native.restore(before);
            ran = self.agrees(hook, &packet, (returned, &theirs), choice);
        }
        ran.1
    }

    fn clear(&mut self) -> Result<()> {
        for name in [maps::OPENINGS4, maps::FLOWS4] {
            self.kernel.retain::<FlowKey<Ipv4>, Flow<Ipv4>>(name, |_| false)?;
        }
        for name in [maps::OPENINGS6, maps::FLOWS6] {
            self.kernel.retain::<FlowKey<Ipv6>, Flow<Ipv6>>(name, |_| false)?;
        }
        self.kernel.retain::<FragmentKey<Ipv4>, Fragment>(maps::FRAGMENTS4, |_| false)?;
        self.kernel.retain::<FragmentKey<Ipv6>, Fragment>(maps::FRAGMENTS6, |_| false)?;
        self.kernel.retain::<DenialKey, Denial>(maps::DENIALS, |_| false)?;
        self.native.clear()
    }

    fn native(&self) -> &Native {
        &self.native
    }
}
/// A packet as it is sent on to another node: in a header from this node to that (RFC 2003, RFC 2473).
fn wrapped(packet: &[u8], config: Config, node: Node) -> Vec<u8> {
    let (frame, inner) = packet.split_at(14);
    let is_v6 = frame[12] == 0x86;
    let mac: [u8; 6] = frame[6..12].try_into().unwrap_or_default();
    let (ip, protocol) = if is_v6 {
        (Ip::v6(config.ipv6.into(), node.ipv6.into()), 41)
    } else {
        (Ip::v4(config.ipv4.into(), node.ipv4.into()), 4)
    };
    let mut outer = Recipe { mac, ip, transport: Transport::Other(protocol, inner.to_vec()), payload: 0 }.build();
    outer[..14].copy_from_slice(frame);
    if !is_v6 {
        // Not to be cut up, and without an identification.
        outer[18..22].copy_from_slice(&[0, 0, 0x40, 0]);
        outer[24..26].fill(0);
        let words: Vec<u32> =
            outer[14..34].chunks(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect();
        let sum = sluice_datapath::header_checksum(&[words[0], words[1], words[2], words[3], words[4]]).to_ne_bytes();
        outer[24..26].copy_from_slice(&sum[2..]);
    }
    outer
}

fn older<A: IpAddress>(flow: &mut Flow<A>, jiffies: u32) {
    flow.last_seen = flow.last_seen.wrapping_sub(jiffies);
}

fn compare<A: IpAddress>(
    name: &str,
    native: &HashMap<FlowKey<A>, Flow<A>>,
    kernel: Vec<(FlowKey<A>, Flow<A>)>,
) -> Result<()> {
    ensure!(native.len() == kernel.len(), "{name}: native has {} flows, the kernel {}", native.len(), kernel.len());
    for (key, mut flow) in kernel {
        let Some(ours) = native.get(&key) else { anyhow::bail!("{name}: only the kernel has {key:?}") };
        flow.last_seen = ours.last_seen;
        ensure!(flow == *ours, "{name}: {key:?}\nnative {ours:?}\nkernel {flow:?}");
    }
    Ok(())
}
