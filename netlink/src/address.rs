//! Addresses of devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, NetlinkError};

pub(crate) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

impl Netlink {
    /// Gives a device an address, usable at once: without duplicate address detection.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.attributes = vec![
            AddressAttribute::Address(address.addr()),
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        let object = format!("{address} to network device {index}");
        self.request("adding address", object, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// All addresses, with the indexes of their devices.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let answers = self.dump("listing addresses:", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = answers.into_iter().filter_map(|answer| {
            let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
            let find = |local: bool| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) if local => Some(*address),
                    AddressAttribute::Address(address) if !local => Some(*address),
                    _ => None,
                })
            };
            let address = find(true).or_else(|| find(false))?;
            Some((message.header.index, IpNet::new(address, message.header.prefix_len).ok()?))
        });
        Ok(addresses.collect())
    }
}
