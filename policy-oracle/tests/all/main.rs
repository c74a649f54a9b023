//! What the documentation says, sentence by sentence.

mod cluster_network_policy;
mod common;
mod network_policy;
