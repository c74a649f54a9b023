//! Devices, and which of them lead outside.

use std::net::IpAddr;

use sluice_netlink::{Address, Link, Netlink, NetlinkError, Route};

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Whether a default route leads out of it.
    pub has_default_route: bool,
    /// Whether it has link-layer addresses.
    pub is_ethernet: bool,
    /// What it is: `veth`, `bond`, `bridge`; `None` for hardware.
    pub kind: Option<String>,
}

impl Device {
    /// Whether there is hardware behind it.
    pub fn is_hardware(&self) -> bool {
        self.kind.is_none()
    }

    /// Whether it is a network card, or made of some, with an address that is known beyond its link. What leads to this host's
    /// own containers, virtual machines and tunnels is not.
    fn is_card(&self, main: &[Self]) -> bool {
        let mut known = self.addresses.iter().filter(|address| match address.net.addr() {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        });
        match self.kind.as_deref() {
            None | Some("bond" | "team" | "vlan") => known.next().is_some(),
            // The card of a host that is a container itself; else it leads to one, as does one without a subnet even there.
            Some("veth" | "macvlan" | "ipvlan") => {
                main.iter().any(|main| main.kind == self.kind)
                    && known.any(|address| address.net.prefix_len() < address.net.max_prefix_len())
            }
            Some(_) => false,
        }
    }
}

/// The devices that lead outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplinks {
    /// Those that are named, or have a default route or one of the node's addresses.
    pub main: Vec<Device>,
    /// Other network cards: who comes in there is served too, and all else stays as the host has it.
    pub side: Vec<Device>,
}

/// Whether a device is there and up. One of which that cannot be told counts as up.
pub fn is_up(name: &str) -> bool {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(name));
    link.map_or(true, |link| link.is_some_and(|link| link.is_up))
}

/// Whether a device is one of ours: a pod's or the overlay's.
pub fn is_ours(name: &str) -> bool {
    name == super::OVERLAY || is_pods(name)
}

/// Of what the kernel lists, all devices but the loopback and ours.
pub fn devices(links: &[Link], addresses: &[Address], routes: &[Route]) -> Vec<Device> {
    let others = links.iter().filter(|link| !link.is_loopback && !is_ours(&link.name));
    let devices = others.map(|link| Device {
        addresses: addresses.iter().filter(|address| address.index == link.index).copied().collect(),
        has_default_route: routes.iter().any(|route| route.to.prefix_len() == 0 && route.kind.leads_out_of(link.index)),
        is_ethernet: link.mac.is_some(),
        kind: link.kind.clone(),
        index: link.index,
        name: link.name.clone(),
        mtu: link.mtu,
    });
    devices.collect()
}

/// Whether a name is one that the plugin gives to host sides.
pub fn is_pods(name: &str) -> bool {
    name.len() == 14 && name.strip_prefix("sl").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The devices that lead outside: those named and no others, else those with a default route or one of the node's addresses,
/// and beside them other network cards.
///
/// # Errors
/// Says which is not there, or what to set.
pub fn find_uplinks(devices: &[Device], named: &[String], addresses: &[IpAddr]) -> Result<Uplinks, String> {
    if !named.is_empty() {
        let found = named.iter().map(|name| {
            let found = devices.iter().find(|device| device.name == *name);
            found.cloned().ok_or_else(|| format!("uplinks names {name}, which this host does not have"))
        });
        return Ok(Uplinks { main: found.collect::<Result<_, _>>()?, side: Vec::new() });
    }
    let has_address = |device: &Device| device.addresses.iter().any(|address| addresses.contains(&address.net.addr()));
    let (main, others): (Vec<Device>, Vec<Device>) = devices
        .iter()
        .filter(|device| device.is_ethernet)
        .cloned()
        .partition(|device| device.has_default_route || has_address(device));
    if main.is_empty() {
        return Err("no interface has a default route or the node's address; name the interfaces in uplinks".into());
    }
    let side = others.into_iter().filter(|device| device.is_card(&main)).collect();
    Ok(Uplinks { main, side })
}

/// The address that the host's packets to another take, where the kernel chooses it; `None`: there is no way.
///
/// # Errors
/// Where the kernel refuses to say.
pub fn source_to(address: IpAddr) -> Result<Option<IpAddr>, NetlinkError> {
    Ok(Netlink::open()?.hop(address)?.and_then(|hop| hop.source))
}

/// Whether an address is on a link of the host, as the kernel's routes have it: the prefix of an address alone does not
/// say so (`noprefixroute`, prefixes that are advertised as not on the link, devices that are switched off).
///
/// # Errors
/// Where the kernel refuses to say.
pub fn directly_connected(address: IpAddr) -> Result<bool, NetlinkError> {
    Ok(Netlink::open()?.hop(address)?.is_some_and(|hop| hop.is_direct()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_netlink::RouteKind;

    fn device(name: &str, address: &str, has_default_route: bool) -> Device {
        Device {
            index: 1,
            name: name.into(),
            mtu: 1500,
            addresses: vec![Address {
                index: 1,
                net: address.parse().expect("a CIDR"),
                is_tentative: false,
                is_deprecated: false,
                is_secondary: false,
            }],
            has_default_route,
            is_ethernet: true,
            kind: None,
        }
    }

    fn of_kind(kind: &str, device: Device) -> Device {
        Device { kind: Some(kind.into()), ..device }
    }

    #[test]
    fn uplinks_are_those_that_lead_outside() {
        let devices = [device("eth0", "192.0.2.1/24", true), of_kind("bridge", device("br0", "172.17.0.1/16", false))];
        let node: IpAddr = "172.17.0.1".parse().expect("an address");
        let found = |named: &[String], addresses: &[IpAddr]| {
            find_uplinks(&devices, named, addresses)
                .map(|found| found.main.into_iter().map(|it| it.name).collect::<Vec<_>>())
        };
        assert_eq!(found(&[], &[]), Ok(vec!["eth0".into()]));
        assert_eq!(found(&[], &[node]), Ok(vec!["eth0".into(), "br0".into()]));
        assert_eq!(found(&["br0".into()], &[]), Ok(vec!["br0".into()]));
        assert!(found(&["eth7".into()], &[]).is_err_and(|error| error.contains("eth7")));
        assert!(find_uplinks(&devices[1..], &[], &[]).is_err_and(|error| error.contains("name the interfaces")));
    }

    #[test]
    fn other_network_cards_are_uplinks_at_the_side() {
        let card = |name, address| device(name, address, false);
        let mut devices = [
            device("eth0", "192.0.2.1/24", true),
            card("eth1", "198.51.100.1/24"),
            card("eth2", "2001:db8:7::1/128"),
            of_kind("bond", card("bond1", "198.51.101.1/24")),
            of_kind("vlan", card("eth3.7", "198.51.102.1/32")),
            // A management controller, a port of a bond, and what has no link-layer addresses.
            card("usb0", "169.254.3.1/16"),
            card("eth5", "fe80::1/64"),
            Device { addresses: Vec::new(), ..card("eth6", "198.51.103.1/24") },
            Device { is_ethernet: false, ..card("wwan0", "198.51.104.1/24") },
            // To containers and virtual machines, or other tunnels.
            of_kind("bridge", card("docker0", "172.17.0.1/16")),
            of_kind("dummy", card("kube-ipvs0", "10.96.0.1/32")),
            of_kind("vxlan", card("flannel.1", "10.5.0.0/32")),
            of_kind("tun", card("tap0", "10.8.0.1/24")),
            of_kind("veth", card("ve-web", "192.168.9.1/28")),
            of_kind("veth", card("veth1", "10.88.0.1/32")),
        ];
        let found = |devices: &[Device], named: &[String]| {
            let names = |found: Vec<Device>| found.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" ");
            find_uplinks(devices, named, &[]).map(|found| (names(found.main), names(found.side)))
        };
        assert_eq!(found(&devices, &[]), Ok(("eth0".into(), "eth1 eth2 bond1 eth3.7".into())));
        assert_eq!(
            found(&devices, &["eth1".into()]),
            Ok(("eth1".into(), String::new())),
            "those that are named, and no others"
        );
        devices[0].kind = Some("veth".into());
        assert_eq!(found(&devices, &[]), Ok(("eth0".into(), "eth1 eth2 bond1 eth3.7 ve-web".into())), "in a container");
    }

    #[test]
    fn all_ways_of_a_default_route_lead_outside() {
        let link = |index: u32| Link {
            index,
            name: format!("eth{index}"),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            is_up: true,
            is_running: true,
            is_loopback: false,
            kind: None,
            vxlan: None,
            xdp: None,
            xdp_program: None,
        };
        let gateway = Some(IpAddr::from([192, 0, 2, 254]));
        let default = Route {
            to: "0.0.0.0/0".parse().expect("a CIDR"),
            kind: RouteKind::Multipath(vec![(1, gateway), (2, gateway)]),
            source: None,
            mtu: None,
            protocol: 4,
        };
        let found = devices(&[link(1), link(2), link(3)], &[], &[default]);
        assert_eq!(found.iter().map(|device| device.has_default_route).collect::<Vec<_>>(), [true, true, false]);
    }

    #[test]
    fn names_of_pods_are_told_apart() {
        assert!(is_pods("sl0123456789ab"));
        assert!(!is_pods("slirp0") && !is_pods("sl0123456789xx"));
    }
}
