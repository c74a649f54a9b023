//! The way past the stack: established flows of services whose backends are on other nodes turn round where they come in.

use sluice_abi::{Deliver, FrontendBit, IpAddress, Ipv4, Ipv6, Mac, Reason, Scope};

use crate::fast::{Simple, is_own, may_be_masqueraded, simple};
use crate::flows::{self, Action};
use crate::packet::{Packet, View};
use crate::parse::{self, Headers, Parse};
use crate::rewrite;
use crate::sum;
use crate::tables::{FamilyTables, Table, Tables};

/// What is to be done with a packet that the stack has not seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Express {
    /// The stack is to see it, and the program behind it.
    Pass,
    /// It is to leave by the interface that it came in by, as it is now.
    Back,
}

/// A neighbour's link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The interface that it is reached by.
    pub interface: u32,
    /// Its link-layer address.
    pub to: Mac,
    /// That of the interface.
    pub from: Mac,
}

/// Knows neighbours.
pub trait Neighbours<A> {
    /// How a packet of so many bytes, from the network header on, that came in through `interface` is handed to a next hop;
    /// `None` where that is not known, or the packet is too large.
    fn link(&self, interface: u32, next_hop: A, length: u32) -> Option<Link>;
}

/// What comes in through an uplink.
#[inline(always)]
pub fn xdp_lb<P: Packet, T: Tables + Neighbours<Ipv4> + Neighbours<Ipv6>>(packet: &mut P, tables: &T) -> Express {
    match parse::ether_type(packet) {
        Ok(Ipv4::ETHERTYPE) => service_flow::<Ipv4, P, T>(packet, tables),
        Ok(Ipv6::ETHERTYPE) => service_flow::<Ipv6, P, T>(packet, tables),
        _ => Express::Pass,
    }
}

#[inline(always)]
fn service_flow<A: Parse, P: Packet, T: Tables + FamilyTables<A> + Neighbours<A>>(
    packet: &mut P,
    tables: &T,
) -> Express {
    let Simple::Yes(headers) = simple::<A, P>(packet) else { return Express::Pass };
    let Some(config) = tables.config() else { return Express::Pass };
    // From a client, or from a backend to the node's address.
    let is_for_service = if is_own(headers.destination, config) {
        may_be_masqueraded(&headers, config)
            || tables.may_be_frontend(FrontendBit::of_port(headers.destination_port, headers.protocol))
    } else {
        tables.may_be_frontend(FrontendBit::of_address(headers.destination))
    };
    if !is_for_service || flows::opens(&headers) {
        return Express::Pass;
    }
    let now = tables.now();
    let key = flows::key(Scope::NET, &headers);
    let out = tables.flow(Table::Flows, &key, |flow| {
        // Whatever else there is, the program behind the stack's door does, and accounts for it.
        let is_remote = flow.deliver == Deliver::Neighbour && flow.backend != sluice_abi::BackendId::NONE;
        if !is_remote || !flows::holds(&flow.stamps, tables) || flows::is_idle(flow, now, tables) {
            return Express::Pass;
        }
        let action = Action::of(flow);
        let Some(link) = tables.link(packet.interface(), action.next_hop, headers.length) else {
            return Express::Pass;
        };
        // Another device may not take frames from here, and would drop them unseen: only drivers with `ndo_xdp_xmit` do, and
        // some of them only where they run a program too.
        if link.interface != packet.interface() || is_sum_partial(packet, &headers) {
            return Express::Pass;
        }
        match turn(packet, &headers, &action, &link) {
            Ok(()) => {
                flows::touch(flow, &headers, now);
                Express::Back
            }
            Err(_) => Express::Pass,
        }
    });
    out.unwrap_or(Express::Pass)
}

/// Whether a packet's checksum is that of its pseudo header only, and a device is to fill in the rest: frames do not say so
/// (generic XDP; a sender on the same machine), and what is taken for a whole checksum would become a wrong one.
#[inline(always)]
fn is_sum_partial<A: Parse, P: Packet>(packet: &P, headers: &Headers<A>) -> bool {
    let Some(at) = rewrite::checksum_offset(headers) else { return false };
    let length = headers.length - (headers.transport - headers.network) as u32;
    let addresses = sum::add(sum::add_all(&headers.source.words()), sum::add_all(&headers.destination.words()));
    let pseudo = sum::add(addresses, (length + headers.protocol.0).to_be());
    packet.view::<2>(at).is_some_and(|view| view.half::<0>() == !sum::fold(pseudo))
}

#[inline(always)]
fn turn<A: Parse, P: Packet>(
    packet: &mut P,
    headers: &Headers<A>,
    action: &Action<A>,
    link: &Link,
) -> Result<(), Reason> {
    rewrite::translate(packet, headers, action)?;
    rewrite::mac(packet, 0, link.to)?;
    rewrite::mac(packet, 6, link.from)
}
