//! What matters of each kind of object, validated as the API server does it.
//! Policies may be read more [strictly](crate::Strictness).

mod cluster_policy;
mod mode;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod policy;

pub use sluice_abi::PolicyMode;

pub use namespace::NamespaceObject;
pub use node::NodeObject;
pub use pod::{ADDRESSES, PodObject};
pub use policy::{Action, Direction, Note, Peer, Peers, Policy, PolicyObject, PolicyRule, Scope, Severity, Tier};
