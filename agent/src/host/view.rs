//! The host's network as far as it decides where packets of pods go.

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
    let is_ours = |index: u32| links.iter().any(|link| link.index == index && device::is_ours(&link.name));
    let all = netlink.addresses_in_detail()?;
    let addresses = all.iter().filter(|address| !is_ours(address.index)).map(|address| address.net.addr());
    let ours: Vec<u32> = links.iter().map(|link| link.index).filter(|index| is_ours(*index)).collect();
    let (made, routes): (Vec<FibEntry>, Vec<FibEntry>) =
        netlink.fib()?.into_iter().partition(|route| route.protocol() == PROTOCOL);
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
