//! The node daemon: one thread owns the model, others bring it events. See ARCHITECTURE.md.

mod causes;
#[cfg(test)]
mod chart;
pub mod check;
pub mod config;
pub mod conflist;
mod disconnect;
pub mod ending;
mod exhaustion;
#[cfg(test)]
mod fixture;
pub mod health;
pub mod host;
pub mod http;
pub mod install;
pub mod kernel;
pub mod leftovers;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod mounts;
pub mod plugin;
mod ports;
pub mod prepare;
pub mod refusal;
pub mod rivals;
pub mod server;
pub mod source;
pub mod uninstall;
