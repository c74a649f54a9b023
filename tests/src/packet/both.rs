//! One packet through both builds, which must agree.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use sluice_abi::{
    AddressEntry, AddressKind, Config, Direction, Endpoint, Features, Flow, FlowKey, Fragment, FragmentKey, Hook,
    Identity, IpAddress, Ipv4, Ipv6, Mac, Node, Reason, RevisionSlot, Routing, Slot, Timeouts, Uplink, maps,
};
use sluice_datapath::{MARK, MARK_MASK, Outcome};

use super::kernel::{Kernel, Returned};
use super::native::{Bytes, Native, masked};
use super::scene::{Scene, addresses};

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Dropped.
    Drop(Reason),
    /// On its way up the stack, or out of the device.
    Pass,
    /// Into the pod behind this interface.
    Pod(u32),
    /// Out of the uplink, to this next hop.
    Neighbour([u32; 4]),
    /// Through the overlay, to the node in this slot.
    Overlay(u32),
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
}

/// The link-layer address of a pod of the scene.
pub const fn mac(pod: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, pod]
}

fn route4(destination: Ipv4) -> Option<Ipv4> {
    let address = std::net::Ipv4Addr::from(destination).octets();
    Some(match address {
        // The broadcast addresses of the uplink's subnet, and the loopback's addresses.
        [192, 0, 2, 0 | 255] | [127, ..] => return None,
        [192, 0, 2, _] => destination,
        [10, 2, 0, _] => addresses::NATIVE_NODE.0.into(),
        _ => addresses::ROUTER.0.into(),
    })
}

fn route6(destination: Ipv6) -> Option<Ipv6> {
    let address = std::net::Ipv6Addr::from(destination).segments();
    Some(match address {
        // The subnet-router anycast address (RFC 4291 section 2.6.1) is a router's own.
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0] => return None,
        [0x2001, 0xdb8, 0, 0, ..] => destination,
        [0xfd00, 0x10, 2, 0, ..] => addresses::NATIVE_NODE.1.into(),
        _ => addresses::ROUTER.1.into(),
    })
}

impl Both {
    /// Sets the scene in a new network namespace of this thread.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set() -> Result<Self> {
        let scene = Scene::set()?;
        let mut both = Self { scene, native: Native::new(route4, route6), kernel: Kernel::load()? };
        both.configure(|config| *config = both_config(scene))?;
        both.endpoint(1, scene.pod_a, addresses::POD_A, mac(0xa))?;
        both.endpoint(2, scene.pod_b, addresses::POD_B, mac(0xb))?;
        let node = |(v4, v6): addresses::Pair, routing| Node { ipv4: v4.into(), ipv6: v6.into(), routing };
        both.node(1, node(addresses::NATIVE_NODE, Routing::Native))?;
        both.node(2, node(addresses::OVERLAY_NODE, Routing::Overlay4))?;
        let uplink = Uplink { ipv4: addresses::NODE.0.into(), ipv6: addresses::NODE.1.into(), mtu: 1500 };
        both.native.uplink = (scene.uplink, uplink);
        both.kernel.set_uplink(scene.uplink, uplink)?;

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

    /// Changes the node's settings.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.native.config);
        self.kernel.set_config(self.native.config)
    }

    /// Fills an endpoint's slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn endpoint(&mut self, slot: u32, interface: u32, (v4, v6): addresses::Pair, mac: [u8; 6]) -> Result<()> {
        let (ipv4, ipv6, mac) = (v4.into(), v6.into(), Mac::new(mac));
        let endpoint = Endpoint { interface, ipv4, ipv6, mac, ..Endpoint::default() };
        self.native.endpoints[slot as usize] = endpoint;
        self.kernel.set_endpoint(slot, endpoint)
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
        let entry = AddressEntry { kind, slot: Slot(slot), identity: Identity::ANYONE };
        let v4 = masked(Ipv4::from(v4).words(), lengths.0);
        let v6 = masked(Ipv6::from(v6).words(), lengths.1);
        self.native.v4.addresses.insert((lengths.0, v4), entry);
        self.native.v6.addresses.insert((lengths.1, v6), entry);
        self.kernel.set_address(maps::ADDRESSES4, lengths.0, Ipv4::from_words(v4), entry)?;
        self.kernel.set_address(maps::ADDRESSES6, lengths.1, Ipv6::from_words(v6), entry)
    }

    /// Ends the validity of judgements.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn revise(&mut self, slot: RevisionSlot) -> Result<()> {
        let revision = self.native.revisions.entry(slot.0).or_default();
        *revision += 1;
        self.kernel.set(maps::REVISIONS, slot.0, *revision)
    }

    /// Runs a packet through a hook of both builds.
    ///
    /// # Errors
    /// Where they do not agree on what becomes of it, on any byte of it, or on the reason.
    pub fn run(&mut self, hook: Hook, interface: u32, data: &[u8]) -> Result<Ran> {
        self.run_as(hook, Bytes::new(data.to_vec(), interface))
    }

    /// As [`run`](Both::run), for a packet with more to it than its bytes.
    ///
    /// # Errors
    /// As [`run`](Both::run).
    pub fn run_as(&mut self, hook: Hook, packet: Bytes) -> Result<Ran> {
        let (mut ours, mut theirs) = (packet.clone(), packet.clone());
        self.native.now.set(self.kernel.now()?);
        let outcome = self.native.run(hook, &mut ours);
        let returned = self.kernel.run(hook.name(), &mut theirs)?;
        let (verdict, expected, marked) = match outcome {
            Outcome::Drop(reason) => (Verdict::Drop(reason), Returned::Drop, false),
            Outcome::Pass => (Verdict::Pass, Returned::Pass, false),
            Outcome::Pod { interface } => (Verdict::Pod(interface), Returned::Redirect, false),
            Outcome::Neighbour { next_hop, .. } => (Verdict::Neighbour(next_hop), Returned::Redirect, true),
            Outcome::Overlay { node, .. } => (Verdict::Overlay(node.0), Returned::Redirect, true),
            Outcome::Slow(..) => anyhow::bail!("the slow path asked for itself"),
        };
        ensure!(returned == expected, "native says {outcome:?}, the kernel {returned:?}");
        ensure!(
            ours.data == theirs.data,
            "native and kernel disagree on bytes ({outcome:?}):\n{:02x?}\n{:02x?}",
            ours.data,
            theirs.data
        );
        if !matches!(outcome, Outcome::Drop(_)) && packet.data.len() >= 34 {
            ensure!(ours.sum_holds(&packet), "a sum over all of the packet does not hold: {:02x?}", ours.data);
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

    /// Forgets all flows and fragments.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn clear(&mut self) -> Result<()> {
        for name in [maps::OPENINGS4, maps::FLOWS4] {
            self.kernel.retain::<FlowKey<Ipv4>, Flow<Ipv4>>(name, |_| false)?;
        }
        for name in [maps::OPENINGS6, maps::FLOWS6] {
            self.kernel.retain::<FlowKey<Ipv6>, Flow<Ipv6>>(name, |_| false)?;
        }
        self.kernel.retain::<FragmentKey<Ipv4>, Fragment>(maps::FRAGMENTS4, |_| false)?;
        self.kernel.retain::<FragmentKey<Ipv6>, Fragment>(maps::FRAGMENTS6, |_| false)?;
        self.native.v4.openings.borrow_mut().clear();
        self.native.v4.flows.borrow_mut().clear();
        self.native.v4.fragments.borrow_mut().clear();
        self.native.v6.openings.borrow_mut().clear();
        self.native.v6.flows.borrow_mut().clear();
        self.native.v6.fragments.borrow_mut().clear();
        Ok(())
    }
}

fn both_config(scene: Scene) -> Config {
    Config {
        ipv4: addresses::NODE.0.into(),
        ipv6: addresses::NODE.1.into(),
        features: Features(Features::MASQUERADE4.0 | Features::MASQUERADE6.0),
        overlay: scene.overlay,
        overlay_mtu: 1450,
        vni: 7,
        // One port only, so that both builds must choose the same.
        port_first: 20_000,
        port_last: 20_000,
        timeouts: Timeouts::new([u32::MAX / 2; 5]),
    }
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
