//! The packet tier: compiled programs and native build on the same packets.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod changing_policy;
mod cluster;
mod generated;
mod generated_policy;
mod lifetimes;
mod live;
mod local;
mod outside;
mod policy;
mod services;
mod sockets;
mod sources;
