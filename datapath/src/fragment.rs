//! Fragments follow their first fragment.

use sluice_abi::{Fragment, FragmentKey, Protocol, Reason, Scope};

use crate::parse::{Headers, Parse, Piece};
use crate::tables::FamilyTables;

#[inline(always)]
fn key<A: Parse>(scope: Scope, headers: &Headers<A>) -> FragmentKey<A> {
    FragmentKey {
        scope,
        source: headers.source,
        destination: headers.destination,
        id: headers.id,
        // RFC 8200 section 4.5 names a datagram without its protocol, RFC 791 section 3.2 with it.
        protocol: if A::BITS == 32 { headers.protocol } else { Protocol(0) },
    }
}

/// Gives later fragments the ports of their first one, and remembers those of a first one.
///
/// # Errors
/// [`Reason::OrphanFragment`] where the first was not seen.
#[inline(always)]
pub fn follow<A: Parse, T: FamilyTables<A>>(scope: Scope, headers: &mut Headers<A>, tables: &T) -> Result<(), Reason> {
    match headers.piece {
        Piece::Whole => {}
        Piece::First => {
            let first = Fragment {
                source_port: headers.source_port,
                destination_port: headers.destination_port,
                protocol: headers.protocol,
            };
            tables.remember_fragment(&key(scope, headers), &first);
        }
        Piece::Later => {
            let first = tables.fragment(&key(scope, headers)).ok_or(Reason::OrphanFragment)?;
            headers.source_port = first.source_port;
            headers.destination_port = first.destination_port;
            headers.protocol = first.protocol;
        }
    }
    Ok(())
}
