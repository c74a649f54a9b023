//! What load balancers are told: whether this node takes their traffic, and how much of a Service's. They hear what
//! kube-proxy would tell them (Kubernetes, pkg/proxy/healthcheck).

mod checks;
mod node;

pub use checks::{Checks, Wanted, addresses};
pub use node::{Health, serve};
