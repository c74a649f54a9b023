//! Which way packets go to an address.

use sluice_abi::{
    AddressEntry, AddressKind, Deliver, Features, IpAddress, Mac, Reason, RevisionSlot, Routing, Scope, Slot, Stamp,
};

use crate::parse::Parse;
use crate::tables::{FamilyTables, Route, Tables};

/// The way to an address, and what ends its validity.
#[derive(Clone, Copy)]
pub struct Way<A> {
    pub deliver: Deliver,
    pub interface: u32,
    pub node: Slot,
    pub next_hop: A,
    pub mtu: u16,
    /// Of a pod on this node: its link-layer address.
    pub mac: Mac,
    /// The revision that was current when the way was found.
    pub stamp: Stamp,
    /// Whether the destination is outside the cluster and wants this node's address as source.
    pub leaves: bool,
}

impl<A: Parse> Way<A> {
    /// To this node's own stack.
    #[inline(always)]
    pub fn stack() -> Self {
        Self {
            deliver: Deliver::Stack,
            interface: 0,
            node: Slot::NONE,
            next_hop: A::default(),
            mtu: 0,
            mac: Mac::default(),
            stamp: Stamp::default(),
            leaves: false,
        }
    }

    /// The scope in which packets that come back along this way are seen.
    #[inline(always)]
    pub fn scope(&self) -> Scope {
        match self.deliver {
            Deliver::Pod => Scope::pod(self.interface),
            Deliver::Neighbour | Deliver::Direct => Scope::NET,
            Deliver::Overlay => Scope::OVERLAY,
            Deliver::Stack => Scope::HOST,
        }
    }
}

/// A revision as it is now.
#[inline(always)]
pub fn stamp<T: Tables>(slot: RevisionSlot, tables: &T) -> Stamp {
    Stamp { slot, revision: tables.revision(slot) }
}

/// The way to a pod of this node.
///
/// # Errors
/// [`Reason::NoEndpoint`] where the slot is free, or another's by now.
#[inline(always)]
pub fn to_endpoint<A: Parse, T: Tables>(slot: Slot, address: A, way: &mut Way<A>, tables: &T) -> Result<(), Reason> {
    // Before the endpoint itself, so that a change in between is noticed at the next packet.
    let stamp = stamp(RevisionSlot::of_endpoint(slot), tables);
    let endpoint = tables.endpoint(slot).ok_or(Reason::NoEndpoint)?;
    if endpoint.interface == 0 || !endpoint.has(address) {
        return Err(Reason::NoEndpoint);
    }
    *way = Way { deliver: Deliver::Pod, interface: endpoint.interface, mac: endpoint.mac, stamp, ..Way::stack() };
    Ok(())
}

/// The way to the node that an address belongs to, for packets that are sent on to it as they are. `false`: there is none, or
/// not by an uplink, or packets are not sent on.
#[inline(always)]
pub fn direct<A: Parse, T: Tables + FamilyTables<A>>(
    interface: u32,
    entry: AddressEntry,
    routes: Stamp,
    way: &mut Way<A>,
    tables: &T,
) -> bool {
    if !matches!(entry.kind, AddressKind::RemotePods | AddressKind::Node) {
        return false;
    }
    let (Some(node), Some(config)) = (tables.node(entry.slot), tables.config()) else { return false };
    if !config.features.has(Features::DIRECT_RETURN) {
        return false;
    }
    let (own, address) =
        if A::BITS == 32 { (config.ipv4.words(), node.ipv4.words()) } else { (config.ipv6.words(), node.ipv6.words()) };
    let (own, address) = (A::from_words(own), A::from_words(address));
    if own.is_unspecified() || address.is_unspecified() {
        return false;
    }
    let Route::Via { interface, next_hop } = tables.route(interface, own, address) else { return false };
    let Some(uplink) = tables.uplink(interface) else { return false };
    let mtu = uplink.mtu.saturating_sub(A::HEADER as u16);
    *way = Way { deliver: Deliver::Direct, interface, next_hop, node: entry.slot, mtu, stamp: routes, ..Way::stack() };
    true
}

/// The way to any address for what comes in through `interface`, from a pod or, with `is_nodes`, from one of this node's
/// addresses. `routes` is the revision of routes and nodes from before the entry was looked up.
///
/// # Errors
/// Where nobody has the address.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "each is a register; together they would be memory")]
pub fn to<A: Parse, T: Tables + FamilyTables<A>>(
    interface: u32,
    source: A,
    destination: A,
    entry: AddressEntry,
    routes: Stamp,
    is_nodes: bool,
    way: &mut Way<A>,
    tables: &T,
) -> Result<(), Reason> {
    let AddressEntry { kind, slot, .. } = entry;
    *way = Way { stamp: routes, ..Way::stack() };
    match kind {
        AddressKind::Endpoint => return to_endpoint(slot, destination, way, tables),
        AddressKind::LocalPods => return Err(Reason::NoEndpoint),
        AddressKind::Services => return Err(Reason::NoRoute),
        AddressKind::Host => return Ok(()),
        // Nodes know one another without the overlay.
        AddressKind::Node if is_nodes => {}
        AddressKind::RemotePods | AddressKind::Node => {
            let node = tables.node(slot).ok_or(Reason::NoRoute)?;
            match node.routing {
                Routing::Unknown => return Err(Reason::NoRoute),
                Routing::Native => {}
                Routing::Overlay4 | Routing::Overlay6 => {
                    way.deliver = Deliver::Overlay;
                    way.node = slot;
                    way.mtu = tables.config().map_or(0, |config| config.overlay_mtu) as u16;
                    return Ok(());
                }
            }
        }
        AddressKind::Outside | AddressKind::Unmasqueraded => {}
    }
    let Route::Via { interface, next_hop } = tables.route(interface, source, destination) else { return Ok(()) };
    // Only uplinks have a program that takes the answers: what leaves elsewhere goes through the stack.
    let Some(uplink) = tables.uplink(interface) else { return Ok(()) };
    way.deliver = Deliver::Neighbour;
    way.interface = interface;
    way.next_hop = next_hop;
    way.mtu = uplink.mtu;
    way.leaves = matches!(kind, AddressKind::Outside) && uplink.is_side == 0;
    Ok(())
}
