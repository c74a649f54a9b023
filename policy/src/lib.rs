//! Policies, turned into what the datapath judges by. Pure: Kubernetes objects in, plain tables out.
#![forbid(unsafe_code)]

mod block;
pub mod cluster_policy;
mod evaluator;
mod explain;
mod flatten;
mod index;
mod labels;
mod lint;
pub mod manifest;
mod matchers;
mod name;
pub mod object;
mod path;
mod prefixes;
pub mod question;
mod reading;
mod reason;
mod selector;
#[cfg(test)]
mod semantics;
mod steps;
mod tables;
mod traffic;

pub use block::Block;
pub use evaluator::{Answer, Evaluator, Judgement, Party, ProbeError, Why};
pub use explain::{Match, Part, Reasoning};
pub use index::{Counts, Delta, Event, Index, Limits, Problem, Severity, View};
pub use labels::{Labels, check_dns_label};
pub use lint::ignored_sections;
pub use name::{Kind, ObjectError, ObjectName, PodName};
pub use prefixes::Prefixes;
pub use reading::Strictness;
pub use reason::Reason;
pub use selector::Selector;
pub use sluice_abi::{PolicyDirection, Protocol};
pub use sluice_datapath::Family;
pub use sluice_datapath::policy::Verdict;
pub use steps::Step;
pub use tables::{LastNumbers, Tables};
pub use traffic::{NamedPort, Ports, Traffic, Transport};
