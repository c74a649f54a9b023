//! The host's own routes to pods of other nodes.

use std::net::IpAddr;

use sluice_netlink::{Encap, Netlink, NetlinkError, Rank, Route, RouteKind};
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

/// What became of routes.
#[derive(Debug, Default)]
pub struct Applied {
    /// Whether anything was changed.
    pub changed: bool,
    /// What could not be done.
    pub problems: Vec<String>,
    /// Whether something may go well another time.
    pub is_incomplete: bool,
}

/// Makes these the routes that are ours, and no others. Each for itself: one that the kernel refuses is a problem, and no
/// obstacle to the rest.
///
/// # Errors
/// Where the kernel does not list routes.
pub fn apply(wanted: &[HostRoute], sources: &[IpAddr], overlay: Option<Overlay>) -> Result<Applied, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let (present, foreign): (Vec<Route>, Vec<Route>) =
        netlink.routes()?.into_iter().partition(|route| route.protocol == PROTOCOL);
    let mut applied = Applied::default();
    let mut keep = Vec::new();
    for route in wanted {
        let concrete = match concrete(&mut netlink, route, sources, overlay) {
            Ok(Some(route)) => route,
            Ok(None) => continue,
            Err(error) => {
                applied.refused(&error);
                keep.push(route.to);
                continue;
            }
        };
        match decide(&concrete, &present, &foreign) {
            Decision::Keep => keep.push(route.to),
            Decision::Set(how) => {
                let done = match how {
                    How::Add => netlink.add_route(&concrete, Rank::First),
                    How::Replace => netlink.set_route(&concrete),
                };
                keep.push(route.to);
                match done {
                    Ok(()) => applied.changed = true,
                    Err(error) => applied.refused(&error),
                }
            }
            Decision::Leave => {}
            Decision::Refuse(other) => applied.problems.push(format!(
                "the host has a route of its own, {other} (protocol {}), which stays: its own packets to {} do not go {concrete}",
                other.protocol, route.to
            )),
        }
    }
    for route in present.iter().filter(|route| !keep.contains(&route.to)) {
        match netlink.delete_route(route) {
            Ok(changed) => applied.changed |= changed,
            Err(error) => applied.refused(&error),
        }
    }
    Ok(applied)
}

impl Applied {
    fn refused(&mut self, error: &NetlinkError) {
        self.problems.push(error.to_string());
        self.is_incomplete = true;
    }
}

/// What is to be done for a route.
#[derive(Debug, PartialEq)]
enum Decision<'a> {
    /// It is there.
    Keep,
    /// It is to be written.
    Set(How),
    /// Somebody else's does the same.
    Leave,
    /// Somebody else's stands in its way.
    Refuse(&'a Route),
}

#[derive(Debug, PartialEq)]
enum How {
    Add,
    Replace,
}

/// Decides what is to be done for a route, by our own routes and those of others. Never in place of another's: it may be
/// what the node itself lives by.
fn decide<'a>(route: &Route, present: &[Route], foreign: &'a [Route]) -> Decision<'a> {
    if let Some(other) = foreign.iter().find(|other| other.to == route.to) {
        return if other.kind == route.kind { Decision::Leave } else { Decision::Refuse(other) };
    }
    match present.iter().find(|other| other.to == route.to) {
        Some(other) if other == route => Decision::Keep,
        Some(_) => Decision::Set(How::Replace),
        None => Decision::Set(How::Add),
    }
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
            // Between the plan and now it has become far.
            Some(hop) if !hop.is_direct() => return Ok(None),
            Some(hop) => (RouteKind::Gateway(hop.index, via), source, None),
            None => return Ok(None),
        },
        (Way::Overlay(remote), Some(overlay)) => {
            // The other node takes what comes from this node's address only.
            let local = sources.iter().find(|source| source.is_ipv4() == remote.is_ipv4()).copied();
            let encap = Encap { remote, local, id: overlay.vni };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, kind: RouteKind, protocol: u8) -> Route {
        Route { to: to.parse().expect("a CIDR"), kind, source: None, mtu: None, protocol }
    }

    #[test]
    fn routes_of_others_are_never_replaced() {
        let via = |last: u8| RouteKind::Gateway(2, IpAddr::from([192, 0, 2, last]));
        let wanted = route("10.2.0.0/24", via(2), PROTOCOL);
        assert_eq!(decide(&wanted, &[], &[]), Decision::Set(How::Add));
        let connected = [route("10.2.0.0/24", RouteKind::Device(2), 2)];
        assert_eq!(decide(&wanted, &[], &connected), Decision::Refuse(&connected[0]));
        assert_eq!(decide(&wanted, &[], &[route("10.2.0.0/24", via(2), 12)]), Decision::Leave, "a routing daemon's");
        assert_eq!(decide(&wanted, std::slice::from_ref(&wanted), &[]), Decision::Keep);
        assert_eq!(decide(&wanted, &[route("10.2.0.0/24", via(3), PROTOCOL)], &[]), Decision::Set(How::Replace));
    }

    #[test]
    fn another_mtu_is_another_route() {
        let wanted = Route { mtu: Some(1430), ..route("10.2.0.0/24", RouteKind::Unreachable, PROTOCOL) };
        let present = [Route { mtu: Some(1450), ..wanted.clone() }];
        assert_eq!(decide(&wanted, &present, &[]), Decision::Set(How::Replace));
    }
}
