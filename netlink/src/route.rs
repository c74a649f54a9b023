//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel, RouteIpTunnelFlags,
    RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol, RouteScope,
    RouteType, RouteVia,
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
    /// One of several of these ways for each flow: out of a device, to a router or to whom it is for.
    Multipath(Vec<(u32, Option<IpAddr>)>),
    /// Nowhere: the sender is told.
    Unreachable,
}

impl RouteKind {
    /// Whether it leads out of a device to the link behind it.
    pub fn leads_out_of(&self, device: u32) -> bool {
        match self {
            Self::Device(index) | Self::Gateway(index, _) => *index == device,
            Self::Multipath(hops) => hops.iter().any(|(index, _)| *index == device),
            Self::Tunnel(..) | Self::Unreachable => false,
        }
    }
}

/// What a tunnel device is told of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encap {
    /// The other end.
    pub remote: IpAddr,
    /// This end; `None`: as the kernel chooses.
    pub local: Option<IpAddr>,
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
            RouteKind::Multipath(hops) => write!(f, " by {} ways", hops.len()),
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
    let (kind, mut parts) = match encap.remote {
        IpAddr::V4(remote) => (
            RouteLwEnCapType::Ip,
            vec![
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(id)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(remote)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Ttl(64)),
                RouteLwTunnelEncap::Ip(RouteIpTunnel::Flags(RouteIpTunnelFlags::Key)),
            ],
        ),
        IpAddr::V6(remote) => (
            RouteLwEnCapType::Ip6,
            vec![
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(id)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(remote)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(64)),
                RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Key)),
            ],
        ),
    };
    parts.extend(encap.local.map(|local| match local {
        IpAddr::V4(local) => RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(local)),
        IpAddr::V6(local) => RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(local)),
    }));
    [RouteAttribute::EncapType(kind), RouteAttribute::Encap(parts)]
}

fn hop(hop: &RouteNextHop) -> (u32, Option<IpAddr>) {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(found) => ip(found),
        RouteAttribute::Via(RouteVia::Inet6(found)) => Some((*found).into()),
        _ => None,
    });
    (hop.interface_index, gateway)
}

impl Route {
    pub(crate) fn message(&self) -> RouteMessage {
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
            RouteKind::Multipath(hops) => {
                let hops = hops.iter().map(|(index, gateway)| {
                    let mut hop = RouteNextHop::default();
                    hop.interface_index = *index;
                    hop.attributes = gateway.iter().map(|to| RouteAttribute::Gateway(address(*to))).collect();
                    hop
                });
                message.attributes.push(RouteAttribute::MultiPath(hops.collect()));
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
    pub(crate) fn of(message: &RouteMessage) -> Option<Self> {
        let mut to = None;
        let (mut index, mut gateway, mut source, mut mtu) = (None, None, None, None);
        let (mut remote, mut local, mut id, mut hops) = (None, None, 0, Vec::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(found) => to = ip(found),
                RouteAttribute::Oif(found) => index = Some(*found),
                RouteAttribute::Gateway(found) => gateway = ip(found),
                RouteAttribute::MultiPath(found) => hops = found.iter().map(hop).collect(),
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
                            // The kernel tells of it where none was given, too.
                            RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(found)) if !found.is_unspecified() => {
                                local = Some(IpAddr::V4(*found));
                            }
                            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(found)) if !found.is_unspecified() => {
                                local = Some(IpAddr::V6(*found));
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
            (RouteType::Unicast, Some(index), _, Some(remote)) => RouteKind::Tunnel(index, Encap { remote, local, id }),
            (RouteType::Unicast, Some(index), Some(gateway), None) => RouteKind::Gateway(index, gateway),
            (RouteType::Unicast, Some(index), None, None) => RouteKind::Device(index),
            (RouteType::Unicast, None, ..) if !hops.is_empty() => RouteKind::Multipath(hops),
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

    /// All routes of the main table, but for kinds that are not told apart here.
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
