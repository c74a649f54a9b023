//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel, RouteIpTunnelFlags,
    RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType, RouteVia,
};

use crate::address::family;
use crate::{Netlink, NetlinkError};

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub to: IpNet,
    /// What happens to packets.
    pub kind: RouteKind,
    /// The source address that the host's own packets take.
    pub source: Option<IpAddr>,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Who made the route: a number of /etc/iproute2/rt_protos.
    pub protocol: u8,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Out of a device, whose neighbour the destination is.
    Device(u32),
    /// Out of a device, to another router.
    Gateway(u32, IpAddr),
    /// Out of a tunnel device, to the other end of a tunnel.
    Tunnel(u32, Encap),
    /// Nowhere: the sender is told.
    Unreachable,
}

/// What a tunnel device is told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// The other end.
    pub remote: IpAddr,
    /// The network identifier.
    pub id: u32,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Out of this device.
    pub index: u32,
    /// To this router, unless the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// From this address.
    pub source: Option<IpAddr>,
    /// Whether the destination is the host itself.
    pub is_local: bool,
}

impl Hop {
    /// Whether the destination is on the link.
    pub fn is_direct(&self) -> bool {
        self.gateway.is_none() && !self.is_local
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        match &self.kind {
            RouteKind::Device(index) => write!(f, " by device {index}"),
            RouteKind::Gateway(index, gateway) => write!(f, " via {gateway} by device {index}"),
            RouteKind::Tunnel(index, encap) => write!(f, " in tunnel to {} by device {index}", encap.remote),
            RouteKind::Unreachable => write!(f, " unreachable"),
        }
    }
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn encap(encap: &Encap) -> [RouteAttribute; 2] {
    let id = u64::from(encap.id);
    match encap.remote {
        IpAddr::V4(remote) => [
            RouteAttribute::EncapType(RouteLwEnCapType::Ip),
            RouteAttribute::Encap(vec![
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(id)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(remote)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Ttl(64)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Flags(RouteIpTunnelFlags::Key)),
            ]),
        ],
        IpAddr::V6(remote) => [
            RouteAttribute::EncapType(RouteLwEnCapType::Ip6),
            RouteAttribute::Encap(vec![
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(id)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(remote)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(64)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Key)),
            ]),
        ],
    }
}

impl Route {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.to.addr());
        message.header.destination_prefix_length = self.to.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(self.protocol);
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Destination(address(self.to.network())));
        match &self.kind {
            RouteKind::Device(index) => {
                message.header.scope = RouteScope::Link;
                message.attributes.push(RouteAttribute::Oif(*index));
            }
            RouteKind::Gateway(index, gateway) => {
                message.attributes.push(RouteAttribute::Oif(*index));
                message.attributes.push(RouteAttribute::Gateway(address(*gateway)));
            }
            RouteKind::Tunnel(index, tunnel) => {
                message.header.scope = RouteScope::Link;
                message.attributes.push(RouteAttribute::Oif(*index));
                message.attributes.extend(encap(tunnel));
            }
            RouteKind::Unreachable => message.header.kind = RouteType::Unreachable,
        }
        if let Some(source) = self.source {
            message.attributes.push(RouteAttribute::PrefSource(address(source)));
        }
        if let Some(mtu) = self.mtu {
            message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        }
        message
    }

    /// What a message says, where it is of a kind that is told apart here.
    fn of(message: &RouteMessage) -> Option<Self> {
        let mut to = None;
        let (mut index, mut gateway, mut source, mut mtu) = (None, None, None, None);
        let (mut remote, mut id) = (None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(found) => to = ip(found),
                RouteAttribute::Oif(found) => index = Some(*found),
                RouteAttribute::Gateway(found) => gateway = ip(found),
                RouteAttribute::PrefSource(found) => source = ip(found),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Encap(parts) => {
                    for part in parts {
                        match part {
                            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(found)) => {
                                remote = Some(IpAddr::V4(*found))
                            }
                            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(found)) => {
                                remote = Some(IpAddr::V6(*found))
                            }
                            RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(found))
                            | RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(found)) => id = *found as u32,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let to = to.unwrap_or(match message.header.address_family {
            netlink_packet_route::AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
        });
        let kind = match (message.header.kind, index, gateway, remote) {
            (RouteType::Unreachable, ..) => RouteKind::Unreachable,
            (RouteType::Unicast, Some(index), _, Some(remote)) => RouteKind::Tunnel(index, Encap { remote, id }),
            (RouteType::Unicast, Some(index), Some(gateway), None) => RouteKind::Gateway(index, gateway),
            (RouteType::Unicast, Some(index), None, None) => RouteKind::Device(index),
            _ => return None,
        };
        let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
        Some(Self { to, kind, source, mtu, protocol: message.header.protocol.into() })
    }
}

impl Netlink {
    /// Makes a route, in place of one to the same destinations.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request("setting route", route, RouteNetlinkMessage::NewRoute(route.message()), flags)
    }

    /// Makes a route where there is none to the same destinations.
    ///
    /// # Errors
    /// Where there is one ([`NetlinkError::is_present`]), whoever made it, or the kernel refuses.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request("adding route", route, RouteNetlinkMessage::NewRoute(route.message()), flags)
    }

    /// Removes a route; `false` where there is none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool, NetlinkError> {
        match self.request("removing route", route, RouteNetlinkMessage::DelRoute(route.message()), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All routes of the main table that have one device or none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [netlink_packet_route::AddressFamily::Inet, netlink_packet_route::AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = RouteHeader::RT_TABLE_MAIN;
            let answers = self.dump("listing routes:", RouteNetlinkMessage::GetRoute(request))?;
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) if message.header.table == RouteHeader::RT_TABLE_MAIN => {
                    Route::of(message)
                }
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// Where the kernel would send a packet of the host's own; `None`: nowhere.
    ///
    /// # Errors
    /// Where the kernel refuses to say.
    pub fn hop(&mut self, to: IpAddr) -> Result<Option<Hop>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(to);
        request.header.destination_prefix_length = if to.is_ipv4() { 32 } else { 128 };
        request.attributes = vec![RouteAttribute::Destination(address(to))];
        let answer = match self.get("finding the route to", to, RouteNetlinkMessage::GetRoute(request)) {
            Ok(Some(RouteNetlinkMessage::NewRoute(answer))) => answer,
            Ok(_) => return Ok(None),
            Err(error) if error.is_no_route() => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_local = answer.header.kind == RouteType::Local;
        let mut hop = Hop { index: 0, gateway: None, source: None, is_local };
        for attribute in &answer.attributes {
            match attribute {
                RouteAttribute::Oif(index) => hop.index = *index,
                RouteAttribute::Gateway(gateway) => hop.gateway = ip(gateway),
                // Of IPv4, by way of an IPv6 router.
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => hop.gateway = Some((*gateway).into()),
                RouteAttribute::PrefSource(source) => hop.source = ip(source),
                _ => {}
            }
        }
        Ok((hop.index != 0).then_some(hop))
    }
}
