//! Flows that are known already.

use sluice_abi::{Direction, Port};

use crate::desk::Case;
use crate::flows::{self, Known};
use crate::parse::Parse;
use crate::service::Target;
use crate::tables::{FamilyTables, Tables};

/// An existing flow, seen from one of its packets.
#[derive(Clone, Copy)]
pub struct Standing {
    /// The packet's direction.
    pub own: Known,
    /// The other direction.
    pub other: Known,
}

impl Standing {
    /// Whether it was judged as things are now.
    #[inline(always)]
    pub fn holds(&self) -> bool {
        self.own.holds && self.other.holds
    }
}

/// Finds the live flow that the packet of a case belongs to, and leaves it and the key of its other direction there. Of a
/// flow that has lost its other direction, the port that it was translated to is left, so that it can have it again. With
/// `opens`, the packet asks for a new connection.
#[inline(always)]
pub fn find<A: Parse, T: Tables + FamilyTables<A>>(case: &mut Case<A>, opens: bool, tables: &T) {
    let now = tables.now();
    let Case { key, peer, target, is_common, is_known, standing, .. } = case;
    *is_known = false;
    *is_common = false;
    *target = Target::plain(key.destination, key.destination_port);
    peer.destination_port = Port(0);
    let Some(own) = flows::look(key, now, tables, |flow| *peer = flows::peer_key(flow, key.protocol)) else { return };
    let mut is_its = false;
    let other = flows::look(peer, now, tables, |flow| is_its = flows::peer_key(flow, key.protocol) == *key);
    let Some(other) = other.filter(|_| is_its) else {
        tables.remove(own.table, key);
        return;
    };
    // Only the opener may open again: others could forge both a reset and a wish for a new connection.
    let renewed = opens && own.direction == Direction::Forward && own.seen.ends(other.seen);
    if (own.idle && other.idle) || renewed {
        flows::forget(key, peer, tables);
        peer.destination_port = Port(0);
        return;
    }
    *target = match own.direction {
        Direction::Forward => Target { address: peer.source, port: peer.source_port, backend: own.backend },
        Direction::Reply => Target { address: key.source, port: key.source_port, backend: other.backend },
    };
    *is_common = own.is_direct || other.is_direct;
    *standing = Standing { own, other };
    *is_known = true;
}
