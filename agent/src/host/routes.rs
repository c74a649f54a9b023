//! The host's own routes to pods of other nodes.

use std::net::IpAddr;

use sluice_netlink::{Encap, Netlink, NetlinkError, Route, RouteKind};
use sluice_topology::{HostRoute, Way};

/// Marks our routes in the kernel's table (`ip route show proto 83`).
pub const PROTOCOL: u8 = 83;

/// What routes need to know of the overlay.
#[derive(Clone, Copy, Debug)]
pub struct Overlay {
    /// Index of its device.
    pub index: u32,
    /// Its network identifier.
    pub vni: u32,
    /// Its largest inner packet, bytes.
    pub mtu: u32,
}

/// Makes these the routes that are ours, and no others; `true` where that changed anything.
///
/// # Errors
/// Where the kernel refuses.
pub fn apply(wanted: &[HostRoute], sources: &[IpAddr], overlay: Option<(u32, u32, u32)>) -> Result<bool, NetlinkError> {
    let overlay = overlay.map(|(index, vni, mtu)| Overlay { index, vni, mtu });
    let mut netlink = Netlink::open()?;
    let present: Vec<Route> = netlink.routes()?.into_iter().filter(|route| route.protocol == PROTOCOL).collect();
    let mut changed = false;
    let mut keep = Vec::new();
    for route in wanted {
        let Some(route) = concrete(&mut netlink, route, sources, overlay)? else { continue };
        keep.push(route.to);
        // What the kernel adds of its own (metrics, scope) is not compared.
        let same = |other: &&Route| other.to == route.to && other.kind == route.kind && other.source == route.source;
        if !present.iter().any(|other| same(&other)) {
            netlink.set_route(&route)?;
            changed = true;
        }
    }
    for route in present.iter().filter(|route| !keep.contains(&route.to)) {
        changed |= netlink.delete_route(route)?;
    }
    Ok(changed)
}

fn concrete(
    netlink: &mut Netlink,
    route: &HostRoute,
    sources: &[IpAddr],
    overlay: Option<Overlay>,
) -> Result<Option<Route>, NetlinkError> {
    let source = sources.iter().find(|source| source.is_ipv4() == route.to.addr().is_ipv4()).copied();
    let (kind, source, mtu) = match (route.way, overlay) {
        (Way::Unreachable, _) => (RouteKind::Unreachable, None, None),
        (Way::Via(via), _) => match netlink.hop(via)? {
            Some(hop) => (RouteKind::Gateway(hop.index, via), source, None),
            None => return Ok(None),
        },
        (Way::Overlay(remote), Some(overlay)) => {
            let encap = Encap { remote, id: overlay.vni };
            (RouteKind::Tunnel(overlay.index, encap), source, Some(overlay.mtu))
        }
        (Way::Overlay(_), None) => return Ok(None),
    };
    Ok(Some(Route { to: route.to, kind, source, mtu, protocol: PROTOCOL }))
}

/// Removes all our routes; says how many.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_all() -> Result<usize, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let mut removed = 0;
    for route in netlink.routes()?.into_iter().filter(|route| route.protocol == PROTOCOL) {
        removed += usize::from(netlink.delete_route(&route)?);
    }
    Ok(removed)
}
