//! Policies, turned into what the datapath judges by. Pure: Kubernetes objects in, plain tables out.
#![forbid(unsafe_code)]

mod block;
pub mod cluster_policy;
mod labels;
mod name;
pub mod object;
mod path;
mod selector;
mod traffic;

pub use block::Block;
pub use labels::Labels;
pub use name::{Kind, ObjectError, ObjectName, PodName};
pub use selector::Selector;
pub use traffic::{NamedPort, Ports, Traffic, Transport};
