//! The node of the scene, as the native build's tables have it: settings, routes, the uplink and other nodes.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use sluice_abi::{
    AddressEntry, Config, Endpoint, Features, Hook, IpAddress, Ipv4, Ipv6, Mac, Node, RevisionSlot, Routing, Rule,
    RuleKey, Slot, Timeouts, Uplink,
};

use super::both::{Ran, Verdict};
use super::native::{Bytes, Native};
use super::scene::{Scene, UPLINK, addresses};
use super::writer::Build;

impl Native {
    /// The node of a scene, with nobody in it but other nodes, whose addresses are not known.
    pub fn of(scene: Scene) -> Self {
        let mut native = Self::new(route4, route6);
        native.config = config(scene);
        let node = |(v4, v6): addresses::Pair, routing| Node { ipv4: v4.into(), ipv6: v6.into(), routing };
        native.nodes[1] = node(addresses::NATIVE_NODE, Routing::Native);
        native.nodes[2] = node(addresses::OVERLAY_NODE, Routing::Overlay4);
        native.uplink = (
            scene.uplink,
            Uplink { ipv4: addresses::NODE.0.into(), ipv6: addresses::NODE.1.into(), mtu: 1500, is_side: 0 },
        );
        native.uplink_mac = Mac::new(UPLINK);
        for ((v4, v6), last) in [(addresses::ROUTER, 0xfe), (addresses::NATIVE_NODE, 2), (addresses::OVERLAY_NODE, 3)] {
            let mac = Mac::new([0x02, 0, 0, 0, 0x02, last]);
            native.neighbours.extend([(Ipv4::from(v4).words(), mac), (Ipv6::from(v6).words(), mac)]);
        }
        native
    }
}

impl Build for Native {
    fn write_endpoint(&mut self, slot: Slot, endpoint: Endpoint) -> Result<()> {
        self.endpoints[slot.0 as usize] = endpoint;
        Ok(())
    }

    fn write_address(&mut self, net: IpNet, entry: Option<AddressEntry>) -> Result<()> {
        let (table, address) = match net.network() {
            IpAddr::V4(address) => (&mut self.v4.addresses, Ipv4::from(address).words()),
            IpAddr::V6(address) => (&mut self.v6.addresses, Ipv6::from(address).words()),
        };
        let prefix = (u32::from(net.prefix_len()), address);
        match entry {
            Some(entry) => table.insert(prefix, entry),
            None => table.remove(&prefix),
        };
        Ok(())
    }

    fn write_rule(&mut self, key: RuleKey, rule: Option<Rule>) -> Result<()> {
        match rule {
            Some(rule) => self.rules.insert(key, rule),
            None => self.rules.remove(&key),
        };
        Ok(())
    }

    fn revise(&mut self, slot: RevisionSlot) -> Result<()> {
        *self.revisions.entry(slot.0).or_default() += 1;
        Ok(())
    }

    fn run_as(&mut self, hook: Hook, mut packet: Bytes) -> Result<Ran> {
        let verdict = Verdict::of(self.run(hook, &mut packet))?;
        Ok(Ran { verdict, data: packet.data })
    }

    fn clear(&mut self) -> Result<()> {
        self.v4.clear();
        self.v6.clear();
        self.denials.borrow_mut().clear();
        Ok(())
    }

    fn native(&self) -> &Native {
        self
    }
}

fn config(scene: Scene) -> Config {
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
        namespace: 0,
    }
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
