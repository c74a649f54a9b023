//! What the documentation says, sentence by sentence, and what follows from it for any cluster.

mod cluster_network_policy;
mod common;
mod generate;
mod network_policy;
mod properties;
