//! Small and nasty random clusters, what changes in them, and what to ask about them.
//!
//! Everything is drawn from a tiny alphabet, so that selectors hit, CIDRs overlap pods and each other, and names of ports
//! mean different things to different pods. All objects are ones that the API server accepts, or a later version of it
//! that knows more fields. Only what the documentation leaves open is left out: no two ClusterNetworkPolicies of a tier
//! have the same priority.
//!
//! Changes and probes are drawn without knowing the cluster, and find what they are about when they are applied:
//! therefore they stay meaningful while the cluster shrinks.

mod alphabet;
mod block;
mod change;
mod cluster;
mod cluster_network_policy;
mod network_policy;
mod object;
mod probe;

pub use change::{Change, change};
pub use cluster::cluster;
pub use cluster_network_policy::cluster_network_policy;
pub use network_policy::network_policy;
pub use probe::{ProbeDraft, ends, every_probe, probe};
