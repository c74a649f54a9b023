//! The host's network as far as it decides where packets of pods go.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluice_netlink::{FibEntry, Netlink, NetlinkError, Rule};

use super::device::{self, Device};
use super::routes::PROTOCOL;

/// What the host's network is. The interfaces of pods are no part of it: they come and go, and change nobody's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What is given: devices, addresses, routes and rules of others.
    pub given: Given,
    /// Our own routes.
    pub made: Vec<FibEntry>,
}

/// What others have made of the host's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The devices but for the loopback, those of pods and the overlay.
    pub devices: Vec<Device>,
    /// The addresses that are the host's own, those on its loopback device included.
    pub addresses: Vec<IpAddr>,
    routes: Vec<FibEntry>,
    rules: Vec<Rule>,
}

/// Looks at the host's network.
///
/// # Errors
/// Where the kernel refuses.
pub fn view() -> Result<View, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let links = netlink.links()?;
    let all = netlink.addresses_in_detail()?;
    let (made, routes): (Vec<FibEntry>, Vec<FibEntry>) =
        netlink.fib()?.into_iter().partition(|route| route.protocol() == PROTOCOL);
    // Once more, for the interfaces of pods that have come meanwhile.
    let again = netlink.links()?;
    let ours: BTreeSet<u32> =
        links.iter().chain(&again).filter(|link| device::is_ours(&link.name)).map(|link| link.index).collect();
    let addresses = all.iter().filter(|address| !ours.contains(&address.index)).map(|address| address.net.addr());
    let of_others = |route: &FibEntry| !ours.iter().any(|index| route.leads_out_of(*index));
    Ok(View {
        given: Given {
            devices: device::devices(&links, &all, &netlink.routes()?),
            addresses: addresses.filter(|address| !address.is_loopback()).collect(),
            routes: routes.into_iter().filter(of_others).collect(),
            rules: netlink.rules()?,
        },
        made,
    })
}
