//! Addresses of devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, NetlinkError};

/// An address of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the device.
    pub index: u32,
    /// The address, with the length of its subnet.
    pub net: IpNet,
    /// Whether it cannot be used: another has it, or may have it.
    pub is_tentative: bool,
    /// Whether nothing new should be sent from it.
    pub is_deprecated: bool,
    /// Whether it is one of several and not the first: of IPv4 a secondary one of its subnet, of IPv6 a temporary one that
    /// another will replace (the kernel has one flag for both, include/uapi/linux/if_addr.h).
    pub is_secondary: bool,
}

impl Address {
    fn of(message: &AddressMessage) -> Option<Self> {
        let find = |local: bool| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) if local => Some(*address),
                AddressAttribute::Address(address) if !local => Some(*address),
                _ => None,
            })
        };
        let address = find(true).or_else(|| find(false))?;
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let has = |flag| flags.is_some_and(|flags| flags.contains(flag));
        Some(Self {
            index: message.header.index,
            net: IpNet::new(address, message.header.prefix_len).ok()?,
            is_tentative: (has(AddressFlags::Tentative) && !has(AddressFlags::Optimistic))
                || has(AddressFlags::Dadfailed),
            is_deprecated: has(AddressFlags::Deprecated),
            is_secondary: has(AddressFlags::Secondary),
        })
    }
}

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
        Ok(self.addresses_in_detail()?.into_iter().map(|address| (address.index, address.net)).collect())
    }

    /// All addresses.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn addresses_in_detail(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let answers = self.dump("listing addresses:", RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => Address::of(&message),
            _ => None,
        });
        Ok(addresses.collect())
    }
}
