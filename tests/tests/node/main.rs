//! The node tier: the real binaries between network namespaces.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod cluster;
mod host;
mod lifecycle;
mod policy;
mod refused;
mod verbs;
