//! Routes beside others to the same destinations.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::address::family;
use crate::{Netlink, NetlinkError, Route};

/// Which of several routes to the same destinations is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Before all others of the main table.
    First,
    /// The main table's, behind those of a lower number.
    Behind(u32),
    /// That of another table, where a [rule](Netlink::add_rule) sends a packet to that.
    Table(u32),
}

impl Netlink {
    /// Makes a route, unless there is one to the same destinations of the same rank.
    ///
    /// # Errors
    /// Where the kernel refuses, or there is one ([`NetlinkError::is_present`]).
    pub fn add_route(&mut self, route: &Route, rank: Rank) -> Result<(), NetlinkError> {
        let mut message = route.message();
        match rank {
            Rank::First => {}
            Rank::Behind(metric) => message.attributes.push(RouteAttribute::Priority(metric)),
            Rank::Table(table) => {
                message.header.table = RouteHeader::RT_TABLE_UNSPEC;
                message.attributes.push(RouteAttribute::Table(table));
            }
        }
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request("adding route", route, RouteNetlinkMessage::NewRoute(message), flags)
    }

    /// Whether there is a route, of whatever rank.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn has_route(&mut self, wanted: &Route) -> Result<bool, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(wanted.to.addr());
        let answers = self.dump("listing routes:", RouteNetlinkMessage::GetRoute(request))?;
        Ok(answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => {
                Route::of(message).is_some_and(|route| route.to == wanted.to && route.kind == wanted.kind)
            }
            _ => false,
        }))
    }

    /// Has the packets from an address take the routes of a table, where that has one for them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn add_rule(&mut self, from: IpAddr, table: u32) -> Result<(), NetlinkError> {
        let mut message = RuleMessage::default();
        message.header.family = family(from);
        message.header.src_len = if from.is_ipv4() { 32 } else { 128 };
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![RuleAttribute::Source(from), RuleAttribute::Table(table)];
        let object = format!("from {from} to table {table}");
        self.request("adding rule", object, RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}
