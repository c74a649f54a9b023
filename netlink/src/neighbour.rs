//! Neighbours: who has which link-layer address.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};

use crate::address::family;
use crate::{Netlink, NetlinkError};

impl Netlink {
    /// Says once and for all which link-layer address a neighbour has.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.attributes = vec![
            NeighbourAttribute::Destination(match address {
                IpAddr::V4(address) => NeighbourAddress::Inet(address),
                IpAddr::V6(address) => NeighbourAddress::Inet6(address),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        ];
        let object = format!("{address} of network device {index}");
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request("setting neighbour", object, RouteNetlinkMessage::NewNeighbour(message), flags)
    }

    /// Whether a neighbour's link-layer address is set once and for all, and to this.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn has_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<bool, NetlinkError> {
        let mut request = NeighbourMessage::default();
        request.header.family = family(address);
        request.attributes = vec![NeighbourAttribute::IfIndex(index)];
        let answers = self.dump("listing neighbours:", RouteNetlinkMessage::GetNeighbour(request))?;
        Ok(answers.into_iter().any(|answer| {
            let RouteNetlinkMessage::NewNeighbour(message) = answer else { return false };
            let has = |attribute: &NeighbourAttribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address == IpAddr::V4(*found),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address == IpAddr::V6(*found),
                NeighbourAttribute::LinkLayerAddress(found) => found[..] == mac,
                _ => false,
            };
            message.header.ifindex == index
                && message.header.state == NeighbourState::Permanent
                && message.attributes.iter().filter(|attribute| has(attribute)).count() == 2
        }))
    }
}
