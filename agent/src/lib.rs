//! The node daemon.

pub mod kernel;
