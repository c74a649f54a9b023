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
    /// Whether there is hardware behind it.
    pub is_hardware: bool,
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
        is_hardware: link.kind.is_none(),
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

/// The devices that lead outside: those named, or those with a default route, or those with one of the node's addresses.
///
/// # Errors
/// Says which is not there, or what to set.
pub fn find_uplinks(devices: &[Device], named: &[String], addresses: &[IpAddr]) -> Result<Vec<Device>, String> {
    if !named.is_empty() {
        return named
            .iter()
            .map(|name| {
                let found = devices.iter().find(|device| device.name == *name);
                found.cloned().ok_or_else(|| format!("uplinks names {name}, which this host does not have"))
            })
            .collect();
    }
    let has_address = |device: &Device| device.addresses.iter().any(|address| addresses.contains(&address.net.addr()));
    let found: Vec<Device> = devices
        .iter()
        .filter(|device| device.is_ethernet && (device.has_default_route || has_address(device)))
        .cloned()
        .collect();
    if found.is_empty() {
        return Err("no interface has a default route or the node's address; name the interfaces in uplinks".into());
    }
    Ok(found)
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
            is_hardware: true,
        }
    }

    #[test]
    fn uplinks_are_those_that_lead_outside() {
        let devices = [device("eth0", "192.0.2.1/24", true), device("br0", "172.17.0.1/16", false)];
        let node: IpAddr = "172.17.0.1".parse().expect("an address");
        let names = |named: &[String], addresses: &[IpAddr]| {
            find_uplinks(&devices, named, addresses)
                .map(|found| found.into_iter().map(|it| it.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[], &[]), Ok(vec!["eth0".into()]));
        assert_eq!(names(&[], &[node]), Ok(vec!["eth0".into(), "br0".into()]));
        assert_eq!(names(&["br0".into()], &[]), Ok(vec!["br0".into()]));
        assert!(names(&["eth7".into()], &[]).is_err_and(|error| error.contains("eth7")));
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
