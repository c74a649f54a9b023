//! Services, in the programs' tables: one writer, who keeps of each of their ports what he has written.

mod bits;
mod change;
mod cluster_ips;
mod gone;
mod ids;
mod mapped;
mod members;
mod spans;
mod stock;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;
mod writer;

pub use tables::{Room, Tables};
pub use writer::{Owed, Writer};
