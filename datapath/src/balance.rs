//! The stage that finds out whether a packet is for a service, and gives it a backend.

use sluice_abi::{AddressKind, Direction, FrontendFlags, Hook, Port, Reason, Scope, Side, Stage};

use crate::desk::{Desk, Refusal};
use crate::flows;
use crate::outcome::{Family, Outcome};
use crate::parse::Parse;
use crate::service::{self, Choice, Locality, Target};
use crate::slow::unknown;
use crate::tables::{FamilyTables, Tables};

/// Gives the packet on the desk a backend, where it is for a service. Of a datagram's flow that is known, it says whether its
/// backend still serves: if not, the flow ends, and another begins with this packet.
///
/// # Errors
/// Why it must be dropped.
#[inline(always)]
pub fn balance<A: Parse, T: Tables + FamilyTables<A>>(
    hook: Hook,
    desk: &mut Desk<A>,
    tables: &T,
) -> Result<Outcome, Reason> {
    let family = Family::of::<A>();
    let standing = desk.case.standing();
    let direction = standing.map_or(Direction::Forward, |standing| standing.own.direction);
    let case = &mut desk.case;
    let opener = match direction {
        Direction::Forward => &case.key,
        Direction::Reply => &case.peer,
    };
    // A flow to another node's address has a backend only where that node has sent it on.
    let is_sent_on = desk.is_sent_on || case.target.is_backend();
    let locality = || {
        let entry = tables.address(opener.destination);
        if is_sent_on && entry.kind == AddressKind::Node { Locality::NodePorts } else { Locality::of(entry) }
    };
    // Loopback addresses are for the node's own sockets: nobody is to reach them from another machine.
    let frontend = if opener.destination.is_loopback() {
        None
    } else {
        service::find(opener.destination, opener.destination_port, opener.protocol, locality, tables)
    };
    if standing.is_some() {
        let is_current = match &frontend {
            Some(frontend) => service::serves(&case.target, frontend.service, tables),
            None => !case.target.is_backend(),
        };
        if is_current {
            return Ok(Outcome::Slow(Stage::Judge, family));
        }
        flows::forget(&case.key, &case.peer, tables);
        case.is_known = false;
        case.is_common = false;
        case.target = Target::plain(case.key.destination, case.key.destination_port);
        case.peer.destination_port = Port(0);
        if direction == Direction::Reply {
            return Err(Reason::NoFlow);
        }
    }
    let Some(frontend) = frontend else {
        // The stack would send it back.
        if desk.is_sent_on {
            return Err(Reason::NoFlow);
        }
        return if desk.may_open {
            Ok(Outcome::Slow(Stage::Judge, family))
        } else {
            unknown(hook, false, Reason::NoFlow)
        };
    };
    let key = &case.key;
    if frontend.flags.has(FrontendFlags::SOURCE_RANGES) && !tables.is_in_source_ranges(frontend.service, key.source) {
        return Err(Reason::SourceRange);
    }
    let side = if key.scope == Scope::NET || key.scope == Scope::OVERLAY { Side::Outside } else { Side::Inside };
    let hash = service::hash(key.source, key.source_port, key.destination, key.destination_port, key.protocol);
    match service::choose(&frontend, side, key.source.words(), hash, tables) {
        Choice::Backend(target, is_common) => {
            case.target = target;
            // One that was sent on goes no further.
            case.is_common = is_common && !desk.is_sent_on;
            Ok(Outcome::Slow(Stage::Judge, family))
        }
        Choice::Reject => {
            desk.refusal = Refusal::Unserved;
            Ok(Outcome::Slow(Stage::Refuse, family))
        }
        Choice::Drop => Err(Reason::NoLocalBackend),
    }
}
