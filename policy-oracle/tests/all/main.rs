//! What the documentation says, sentence by sentence, what follows from it for any cluster, and whether the compiler
//! agrees.

mod agreement;
mod cluster_network_policy;
mod common;
mod generate;
mod network_policy;
mod properties;
