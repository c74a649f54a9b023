//! A second opinion on policies, for tests: [`Cluster::judge`] says what becomes of a packet by the words of the API's
//! documentation, and [`generate`] makes random clusters to ask about.
//!
//! It shares no code with the compiler, only the types of the objects, so that a misreading must be made twice to go
//! unnoticed. It is written to be read beside the documentation: nested loops over the objects as they stand, nothing
//! prepared and nothing remembered.
//!
//! The sources, quoted where a sentence decides something:
//!
//! * <https://kubernetes.io/docs/concepts/services-networking/network-policies/> and the field documentation of
//!   `networking.k8s.io/v1`,
//! * <https://network-policy-api.sigs.k8s.io/api-overview/> and the field documentation of
//!   `policy.networking.k8s.io/v1alpha2`.
//!
//! Objects are taken to be ones that the API server accepts. What it would refuse is judged as nothing that anyone
//! should rely on, or ends in a panic that says what it was.
#![forbid(unsafe_code)]

pub mod cidr;
mod cluster;
mod cluster_network_policy;
pub mod compiler;
pub mod generate;
mod judge;
mod network_policy;
mod probe;
pub mod selector;

pub use cluster::Cluster;
pub use probe::{Decider, End, Family, Judgement, PolicyName, Probe, Protocol, Side, Verdict};
