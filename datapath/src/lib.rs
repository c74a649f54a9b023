//! What happens to a packet.
//!
//! Everything here is pure: where a packet's bytes come from is a [`Packet`], where the tables live is [`Tables`], and
//! what is to be done with the packet comes back as an [`Outcome`]. The same source runs in the kernel, compiled to
//! eBPF, and natively under tests.
//!
//! Each hook has a fast path ([`fast`]), which needs one lookup for a packet of a known flow; they share a slow path
//! ([`slow`]), which judges and writes flows. See ARCHITECTURE.md, "The path of a packet".
#![no_std]
#![forbid(unsafe_code)]

mod arp;
mod balance;
mod crc;
mod desk;
pub mod express;
pub mod fast;
mod flows;
mod fragment;
mod icmp;
mod judge;
mod neighbour;
mod open;
mod outcome;
mod packet;
pub mod parse;
pub mod policy;
mod refuse;
mod rewrite;
pub mod service;
pub mod slow;
pub mod socket;
mod standing;
mod sum;
mod tables;
mod way;

pub use desk::Desk;
pub use outcome::{Family, Outcome};
pub use packet::{Checksum, Packet, View};
pub use refuse::header_checksum;
pub use tables::{FamilyTables, Insert, Route, Table, Tables};

/// The mark of packets that a program has judged, in the bits of [`MARK_MASK`].
pub const MARK: u32 = 0x51ce_0000;

/// The bits of a packet's mark that Sluice uses.
pub const MARK_MASK: u32 = 0xffff_0000;
