//! What decides where packets go: the routes of all tables, and the rules that choose among tables.

use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, NetlinkError};

/// include/uapi/linux/rtnetlink.h
const RT_TABLE_LOCAL: u8 = 255;
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// A route of any table, to be compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibEntry(RouteMessage);

/// A rule, to be compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule(RuleMessage);

impl FibEntry {
    /// A route without what changes by itself, as time goes by. `None`: what the kernel keeps in its local table follows
    /// from addresses, and what it has learnt of single destinations is no route.
    fn of(mut message: RouteMessage) -> Option<Self> {
        let learnt = message.header.flags.contains(RouteFlags::Cloned);
        if learnt || message.header.table == RT_TABLE_LOCAL {
            return None;
        }
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
        Some(Self(message))
    }

    /// Who made it: a number of /etc/iproute2/rt_protos.
    pub fn protocol(&self) -> u8 {
        self.0.header.protocol.into()
    }

    /// Whether it leads out of a device.
    pub fn leads_out_of(&self, device: u32) -> bool {
        self.0.attributes.iter().any(|attribute| match attribute {
            RouteAttribute::Oif(index) => *index == device,
            RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.interface_index == device),
            _ => false,
        })
    }
}

impl Rule {
    /// The table of routes that it leads to; 0: it leads to none.
    pub fn table(&self) -> u32 {
        let whole = self.0.attributes.iter().find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
        // Numbers of one byte stand in the header too.
        whole.unwrap_or(self.0.header.table.into())
    }
}

impl Netlink {
    /// The routes of all tables.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn fib(&mut self) -> Result<Vec<FibEntry>, NetlinkError> {
        let mut entries = Vec::new();
        for family in FAMILIES {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = self.dump("listing the routes of all tables:", RouteNetlinkMessage::GetRoute(request))?;
            entries.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => FibEntry::of(message),
                _ => None,
            }));
        }
        Ok(entries)
    }

    /// The rules.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn rules(&mut self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in FAMILIES {
            let mut request = RuleMessage::default();
            request.header.family = family;
            let answers = match self.dump("listing rules:", RouteNetlinkMessage::GetRule(request)) {
                // A kernel without multiple tables has none.
                Err(error) if error.is_unsupported() => continue,
                other => other?,
            };
            rules.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => Some(Rule(message)),
                _ => None,
            }));
        }
        Ok(rules)
    }
}
