//! Making the node what the objects and the host say that it should be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sluice_abi::{Config as KernelConfig, Features, Routing, Timeouts, Uplink};
use sluice_netlink::Address;
use sluice_topology::{Local, Mode, Plan, Underlay, plan, serves_node_ports};

use super::{Model, Ready};
use crate::config::{Dsr, Masquerade, Xdp};
use crate::conflist;
use crate::host::{self, Device, Given, Uplinks};
use crate::kernel::{Express, Sockets, UplinkDevice, jiffies};
use crate::refusal;

/// Seconds that flows may be idle, in the order of `TimeoutClass`.
const TIMEOUTS: [u32; 5] = [60, 21_600, 30, 120, 30];
/// Bytes that the overlay adds: outer Ethernet aside, IP, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD6: u32 = 40 + 8 + 8 + 14;

/// How far the node is what it should be.
enum Done {
    InFull,
    /// The problems say what is missing; the node can do without.
    InPart,
}

impl Model {
    /// Makes the node what the objects and the host say that it should be.
    /// What stands in the way is tried again later: a full disk tells nobody that it has room again.
    pub(super) fn apply(&mut self) {
        match self.try_apply() {
            Ok(done) => {
                self.waiting_for = None;
                match done {
                    Done::InFull => self.pace.succeeded(),
                    Done::InPart => self.pace.failed(Instant::now()),
                }
            }
            Err(error) => {
                self.pace.failed(Instant::now());
                let text = refusal::explained(&error);
                if self.waiting_for.as_ref() != Some(&text) {
                    tracing::warn!("waiting for: {text}");
                }
                self.waiting_for = Some(text);
            }
        }
    }

    fn try_apply(&mut self) -> Result<Done> {
        let view = host::view()?;
        if view.given != self.view.given {
            self.kernel.bump_routes()?;
        }
        self.view = view;
        if !self.is_listed {
            match self.source_problems.all() {
                [] => bail!("the first listing of all objects"),
                problems => bail!("the first listing of all objects; {}", problems.join("; ")),
            }
        }
        let devices = &self.view.given.devices;
        let local = self.local(&self.view.given)?;
        let uplinks =
            host::find_uplinks(devices, &self.config.uplinks, &local.addresses).map_err(anyhow::Error::msg)?;
        let names = |devices: &[Device]| devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>();
        let (main, side) = (names(&uplinks.main), names(&uplinks.side));
        for change in host::sysctl::apply(&main).map_err(anyhow::Error::msg)? {
            tracing::info!("set {change}");
        }
        let mode = Mode::from(self.config.routing);
        let wire = uplinks.main.iter().map(|device| device.mtu).min().unwrap_or(1500);
        let near = |address| {
            host::directly_connected(address).unwrap_or_else(|error| {
                tracing::warn!(%error, "taken for not connected");
                false
            })
        };
        let plan = plan(&local, &self.nodes, self.policies.places(), mode, near, &mut self.slots);
        let inner = wire.saturating_sub(overhead(&local, &plan));
        let port = self.config.vxlan.port;
        let overlay = match mode {
            Mode::Native => {
                // Down, before its program goes: nothing is to come in by it unseen.
                if host::remove_overlay()? {
                    tracing::info!("removed the overlay's device: routing is native");
                }
                None
            }
            Mode::Vxlan | Mode::Auto => {
                Some(host::ensure_overlay(port, inner).with_context(|| host::overlay_hint(port))?)
            }
        };
        let mtu = match (self.config.mtu, mode) {
            (0, Mode::Vxlan) => inner,
            (0, Mode::Native | Mode::Auto) => wire,
            (mtu, _) => mtu,
        };
        self.kernel.set_config(&self.kernel_config(&local, overlay, inner))?;
        self.kernel.set_uplinks(&uplink_devices(&uplinks, &local, self.config.xdp))?;
        self.kernel.set_overlay(overlay.map(|_| host::OVERLAY))?;
        if overlay.is_some() {
            host::switch_on_overlay().with_context(|| host::overlay_hint(port))?;
        }

        let mut changed = self.kernel.set_nodes(&plan.nodes)?;
        changed |= self.kernel.set_addresses(&plan.addresses)?;
        self.kernel.set_services_own(self.kernel.own_addresses());
        let tunnel = overlay.map(|index| host::Overlay { index, vni: self.config.vxlan.vni, mtu: inner });
        let routes = host::apply_routes(&plan.routes, &local.addresses, tunnel)?;
        changed |= routes.changed;
        if changed {
            self.kernel.bump_routes()?;
        }
        self.view.made = host::view()?.made;

        let sources = tunnel_problems(&local, &plan, |remote| host::source_to(remote).ok().flatten());
        let sockets: Vec<String> = self.translate_sockets().err().into_iter().collect();
        let is_incomplete = routes.is_incomplete || !sockets.is_empty();
        let ports = shared_ports(&self.config.masquerade, host::sysctl::local_ports());
        self.problems.set([plan.problems, routes.problems, sources, ports, sockets].concat());
        let uplinks = [main, side].concat();
        let content = conflist::content(&self.config, &local.pod_cidrs, mtu);
        if self
            .configuration
            .write(&self.config.cni_conf_dir, content)
            .with_context(|| format!("writing the CNI configuration into {}", self.config.cni_conf_dir.display()))?
        {
            tracing::info!(uplinks = uplinks.join(","), mtu, "ready; the CNI configuration is written");
        }
        self.ready = Ready { local: Some(local), uplinks, mtu, view: plan.view };
        self.tell_load_balancers();
        Ok(if is_incomplete { Done::InPart } else { Done::InFull })
    }

    /// Has sockets be translated as the settings say. The tables by which they are must be there.
    ///
    /// # Errors
    /// Says why they are not: then packets are.
    fn translate_sockets(&mut self) -> Result<(), String> {
        let wanted = match (self.config.socket_lb, &self.config.cgroup) {
            (false, _) => Sockets::Off,
            (true, None) => Sockets::All,
            (true, Some(group)) => Sockets::Below(group.clone()),
        };
        if self.sockets.as_ref() != Some(&wanted) {
            self.kernel.set_sockets(&wanted).map_err(|error| {
                format!("sockets are not translated for Services, each of their packets is: {error}")
            })?;
            self.sockets = Some(wanted);
        }
        Ok(())
    }

    /// What is known of this node.
    fn local(&self, host: &Given) -> Result<Local> {
        let name = &self.config.node_name;
        let object = self.nodes.get(name);
        let choose = |own: &[IpAddr]| {
            if own.is_empty() { object.map_or_else(Vec::new, |node| node.addresses.clone()) } else { own.to_vec() }
        };
        let addresses = choose(&self.config.addresses);
        let pod_cidrs = if self.config.pod_cidrs.is_empty() {
            object.map_or_else(Vec::new, |node| node.pod_cidrs.clone())
        } else {
            self.config.pod_cidrs.clone()
        };
        if addresses.is_empty() {
            bail!("the Node {name} with its addresses (status.addresses); is node_name right?");
        }
        if pod_cidrs.is_empty() && self.config.ipam.is_none() {
            bail!("a pod CIDR of the Node {name} (spec.podCIDRs), or pod_cidrs or pod_cidr_pool in the settings");
        }
        for net in &pod_cidrs {
            if let Some(address) = addresses.iter().find(|address| net.contains(*address)) {
                bail!("another pod CIDR for the Node {name}: {net} contains the node's own address {address}");
            }
        }
        Ok(Local {
            name: name.clone(),
            addresses,
            pod_cidrs,
            host_addresses: host.addresses.clone(),
            node_ports: self.config.node_port_addresses.clone(),
            service_cidrs: self.config.service_cidrs.clone(),
            exempt: self.config.masquerade.exempt.clone(),
        })
    }

    fn kernel_config(&self, local: &Local, overlay: Option<u32>, inner: u32) -> KernelConfig {
        let masquerade = &self.config.masquerade;
        let bit = |on: bool, feature: Features| if on { feature.0 } else { 0 };
        let is_loopback_served = |address: IpAddr| serves_node_ports(&self.config.node_port_addresses, address);
        let mut config = KernelConfig {
            features: Features(
                bit(masquerade.ipv4, Features::MASQUERADE4)
                    | bit(masquerade.ipv6, Features::MASQUERADE6)
                    | bit(self.config.dsr == Dsr::Ipip, Features::DIRECT_RETURN)
                    | bit(is_loopback_served(Ipv4Addr::LOCALHOST.into()), Features::LOOPBACK4)
                    | bit(is_loopback_served(Ipv6Addr::LOCALHOST.into()), Features::LOOPBACK6),
            ),
            overlay: overlay.unwrap_or(0),
            overlay_mtu: inner,
            vni: self.config.vxlan.vni,
            port_first: masquerade.port_first,
            port_last: masquerade.port_last,
            timeouts: Timeouts::new(TIMEOUTS.map(jiffies)),
            namespace: host::namespace::cookie().unwrap_or_default(),
            ..KernelConfig::default()
        };
        for address in &local.addresses {
            match address {
                IpAddr::V4(address) => config.ipv4 = (*address).into(),
                IpAddr::V6(address) => config.ipv6 = (*address).into(),
            }
        }
        config
    }
}

/// Nodes to which packets through the overlay do not go from this node's address, and which drop them therefore. The
/// kernel chooses that address by its routes: what programs can say of it (`struct bpf_tunnel_key`, `local_ipv4`) is heard
/// from Linux 6.0 on only. The routes are not ours to change.
fn tunnel_problems(local: &Local, plan: &Plan, source: impl Fn(IpAddr) -> Option<IpAddr>) -> Vec<String> {
    let mut problems = Vec::new();
    for view in &plan.view {
        let Underlay::Overlay(remote) = view.underlay else { continue };
        let Some(own) = local.addresses.iter().find(|own| own.is_ipv4() == remote.is_ipv4()) else { continue };
        if let Some(source) = source(remote).filter(|source| source != own) {
            problems.push(format!(
                "packets through the overlay to node {} would leave from {source}, and not from this node's address {own}: it \
                 drops them; set the source of the route (ip route change ... src {own}), or make {source} one that the \
                 kernel does not choose (ip address change ... preferred_lft 0)",
                view.object.name
            ));
        }
    }
    problems
}

/// Ports that translated flows and the node's own connections would share: answers to one could be taken for the other's.
fn shared_ports(masquerade: &Masquerade, local: Option<RangeInclusive<u16>>) -> Vec<String> {
    let (first, last) = (masquerade.port_first, masquerade.port_last);
    let shared = local.filter(|local| *local.start() <= last && first <= *local.end());
    let problem = |local: RangeInclusive<u16>| {
        let (start, end) = local.into_inner();
        format!(
            "the node's own connections take ports {start} to {end} (net.ipv4.ip_local_port_range), and translated flows {first} to \
             {last} (masquerade.port_first, port_last): set one of them so that they share none"
        )
    };
    shared.map(problem).into_iter().collect()
}

/// Bytes that the overlay adds, where it goes over both families: the more.
fn overhead(local: &Local, plan: &Plan) -> u32 {
    let over6 = plan.nodes.values().any(|node| node.routing == Routing::Overlay6);
    if over6 || !local.addresses.iter().any(IpAddr::is_ipv4) { OVERHEAD6 } else { OVERHEAD4 }
}

/// What the programs need to know of the uplinks. Other nodes are not at the side: no packets for them are turned round there.
fn uplink_devices(uplinks: &Uplinks, local: &Local, xdp: Xdp) -> Vec<UplinkDevice> {
    let main = uplinks.main.iter().map(|device| uplink(device, false, local, xdp));
    main.chain(uplinks.side.iter().map(|device| uplink(device, true, local, Xdp::Off))).collect()
}

/// What the programs need to know of an uplink.
fn uplink(device: &Device, is_side: bool, local: &Local, xdp: Xdp) -> UplinkDevice {
    let mut uplink =
        Uplink { mtu: device.mtu.try_into().unwrap_or(u16::MAX), is_side: is_side.into(), ..Uplink::default() };
    if let Some(IpAddr::V4(address)) = masquerade_address(device, local, IpAddr::is_ipv4) {
        uplink.ipv4 = address.into();
    }
    if let Some(IpAddr::V6(address)) = masquerade_address(device, local, IpAddr::is_ipv6) {
        uplink.ipv6 = address.into();
    }
    let express = match xdp {
        // A device without hardware has nothing to gain, and much to lose (veth: its segmentation).
        Xdp::Auto if !device.is_hardware() => Express::Off,
        Xdp::Auto => Express::Best,
        Xdp::Driver => Express::Driver,
        Xdp::Generic => Express::Generic,
        Xdp::Off => Express::Off,
    };
    UplinkDevice { interface: device.index, name: device.name.clone(), express, uplink }
}

/// The address that pods leave with by an uplink: the node's own where the uplink has it, else the one of the uplink that
/// is best suited to stay; and the node's own, wherever it is, by an uplink without any.
fn masquerade_address(device: &Device, local: &Local, family: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let usable = |address: &&Address| match address.net.addr() {
        IpAddr::V4(ip) => !ip.is_link_local() && !address.is_tentative,
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !address.is_tentative,
    };
    let rank = |address: &&Address| {
        let is_private = matches!(address.net.addr(), IpAddr::V6(ip) if ip.is_unique_local());
        let is_single = address.net.prefix_len() == address.net.max_prefix_len();
        (
            !local.addresses.contains(&address.net.addr()),
            address.is_deprecated,
            // One of many that a router or a load balancer has put there.
            is_single,
            is_private,
            address.is_secondary,
        )
    };
    let of_family = device.addresses.iter().filter(|address| family(&address.net.addr())).filter(usable);
    let best = of_family.min_by_key(rank).map(|address| address.net.addr());
    best.or_else(|| {
        local.addresses.iter().copied().find(|address| family(address) && local.host_addresses.contains(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(net: &str) -> Address {
        let net = net.parse().expect("a CIDR");
        Address { index: 2, net, is_tentative: false, is_deprecated: false, is_secondary: false }
    }

    fn chosen(addresses: &[Address], node: &str) -> Option<String> {
        let device = Device {
            index: 2,
            name: "eth0".into(),
            mtu: 1500,
            addresses: addresses.to_vec(),
            has_default_route: true,
            is_ethernet: true,
            kind: None,
        };
        let node: IpAddr = node.parse().expect("an address");
        let local = Local {
            name: "a".into(),
            addresses: vec![node],
            pod_cidrs: Vec::new(),
            host_addresses: vec![node],
            node_ports: Vec::new(),
            service_cidrs: Vec::new(),
            exempt: Vec::new(),
        };
        let v4 = node.is_ipv4();
        masquerade_address(&device, &local, |ip| ip.is_ipv4() == v4).map(|ip| ip.to_string())
    }

    #[test]
    fn at_side_uplinks_pods_keep_their_addresses_and_nothing_is_turned_round() {
        let local = Local {
            name: "a".into(),
            addresses: vec!["192.0.2.7".parse().expect("an address")],
            pod_cidrs: Vec::new(),
            host_addresses: Vec::new(),
            node_ports: Vec::new(),
            service_cidrs: Vec::new(),
            exempt: Vec::new(),
        };
        let device = |name: &str, net| Device {
            index: 2,
            name: name.into(),
            mtu: 1500,
            addresses: vec![address(net)],
            has_default_route: false,
            is_ethernet: true,
            kind: None,
        };
        let uplinks =
            Uplinks { main: vec![device("eth0", "192.0.2.7/24")], side: vec![device("eth1", "198.51.100.1/24")] };
        let made = uplink_devices(&uplinks, &local, Xdp::Driver);
        let made = made
            .iter()
            .map(|made| (&*made.name, made.express, made.uplink.ipv4, made.uplink.is_side))
            .collect::<Vec<_>>();
        let [main, side] = [[192, 0, 2, 7], [198, 51, 100, 1]].map(|address| std::net::Ipv4Addr::from(address).into());
        assert_eq!(made, [("eth0", Express::Driver, main, 0), ("eth1", Express::Off, side, 1)]);
    }

    #[test]
    fn ports_that_the_node_itself_takes_are_not_for_translated_flows() {
        let masquerade = Masquerade::default();
        assert!(shared_ports(&masquerade, Some(32_768..=60_999)).is_empty());
        assert!(shared_ports(&masquerade, None).is_empty());
        assert_eq!(shared_ports(&masquerade, Some(1_024..=65_535)).len(), 1);
        assert_eq!(shared_ports(&masquerade, Some(29_999..=40_000)).len(), 1);
    }

    #[test]
    fn pods_leave_with_the_nodes_address_or_one_that_stays() {
        let v4 = [address("192.0.2.200/32"), address("192.0.2.5/24"), address("192.0.2.7/24")];
        assert_eq!(chosen(&v4, "192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(chosen(&v4, "10.0.0.1").as_deref(), Some("192.0.2.5"), "no virtual address");
        assert_eq!(chosen(&v4[..1], "10.0.0.1").as_deref(), Some("192.0.2.200"), "unless there is no other");
        assert_eq!(chosen(&[], "10.0.0.1").as_deref(), Some("10.0.0.1"), "an uplink without addresses");
        let v6 = [
            Address { is_tentative: true, ..address("2001:db8::1/64") },
            Address { is_deprecated: true, ..address("2001:db8::2/64") },
            Address { is_secondary: true, ..address("2001:db8::3/64") },
            address("fe80::1/64"),
            address("fd00::4/64"),
            address("2001:db8::5/64"),
        ];
        assert_eq!(chosen(&v6, "fd77::1").as_deref(), Some("2001:db8::5"));
        assert_eq!(chosen(&v6[..3], "fd77::1").as_deref(), Some("2001:db8::3"));
        assert_eq!(chosen(&v6[..2], "fd77::1").as_deref(), Some("2001:db8::2"));
    }
}
