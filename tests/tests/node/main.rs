//! The node tier: the real binaries between network namespaces.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod api_server;
mod cluster;
mod configurations;
mod confined;
mod health;
mod host;
mod install;
mod kube_proxy;
mod large;
mod leftovers;
mod lifecycle;
mod loopback;
mod metrics;
mod policy;
mod refused;
mod roles;
mod service_tables;
mod services;
mod sockets;
mod verbs;
