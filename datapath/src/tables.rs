//! Where the tables live.

use sluice_abi::{
    Config, DenialKey, Endpoint, Flow, FlowKey, Fragment, FragmentKey, Hook, IpAddress, Ipv4, Ipv6, Node, Reason,
    RevisionSlot, Slot, Uplink,
};

use crate::desk::Desk;
use crate::policy::PolicyTables;
use crate::service::ServiceTables;

/// Which flow table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Flows that have not been answered; the oldest make room for new ones.
    Openings,
    /// Flows that both sides have taken part in; when full, it takes no more.
    Flows,
}

/// How to write an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// Only where there is none under this key.
    New,
    /// Replacing what is there.
    Any,
}

/// What the node's routing table says of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route<A> {
    /// Out of an interface, to a next hop (the destination itself where it is on the link).
    Via {
        /// Interface index.
        interface: u32,
        /// Address of the next hop.
        next_hop: A,
    },
    /// The stack must see to it: a local address, no route, or a route that the programs cannot follow.
    Stack,
}

/// The tables of one address family.
pub trait FamilyTables<A: IpAddress>: ServiceTables<A> {
    /// Lends the flow under a key, if there is one. One lookup.
    fn flow<R>(&self, table: Table, key: &FlowKey<A>, use_it: impl FnOnce(&mut Flow<A>) -> R) -> Option<R>;
    /// Writes a flow; `false` where the table is full or the key is taken (with [`Insert::New`]).
    fn insert(&self, table: Table, key: &FlowKey<A>, flow: &Flow<A>, how: Insert) -> bool;
    /// Removes a flow, if there is one.
    fn remove(&self, table: Table, key: &FlowKey<A>);
    /// What the first fragment of a datagram carried. One lookup.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment>;
    /// Remembers a first fragment.
    fn remember_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment);
    /// Lends memory to work in. Calls do not nest.
    fn desk<R>(&self, use_it: impl FnOnce(&mut Desk<A>) -> R) -> Option<R>;
    /// Asks the node's routing table, for a packet that came in through `interface`.
    fn route(&self, interface: u32, source: A, destination: A) -> Route<A>;
}

/// The endpoint that has an address, if it is the one behind this interface.
#[inline(always)]
pub(crate) fn endpoint_behind<A: IpAddress, T: Tables + FamilyTables<A>>(
    interface: u32,
    address: A,
    tables: &T,
) -> Option<&Endpoint> {
    let slot = tables.address(address).endpoint()?;
    tables.endpoint(slot).filter(|endpoint| endpoint.interface == interface)
}

/// All tables.
pub trait Tables: FamilyTables<Ipv4> + FamilyTables<Ipv6> + PolicyTables {
    /// The node's settings. An array read.
    fn config(&self) -> Option<&Config>;
    /// The endpoint in a slot. An array read.
    fn endpoint(&self, slot: Slot) -> Option<&Endpoint>;
    /// The node in a slot. An array read.
    fn node(&self, slot: Slot) -> Option<&Node>;
    /// The current revision in a slot. An array read.
    fn revision(&self, slot: RevisionSlot) -> u32;
    /// An interface to the outside. One lookup.
    fn uplink(&self, interface: u32) -> Option<&Uplink>;
    /// Counts. An array read.
    fn count(&self, hook: Hook, reason: Reason);
    /// Writes down that policy has denied something. At most two lookups.
    fn denied(&self, key: &DenialKey);
    /// The time: jiffies, low 32 bits.
    fn now(&self) -> u32;
}
