//! Services, turned into what a node's datapath sends their clients by. Pure: Kubernetes objects in, plain tables out.
#![forbid(unsafe_code)]

mod compile;
mod index;
pub mod maglev;
pub mod object;
mod tables;

pub use index::{Delta, Event, HostPort, Index, View};
pub use sluice_policy::{Family, Problem, Severity, Transport};
pub use tables::{Backend, Choice, Frontend, FrontendKind, Health, Place, PortName, ServiceName, ServicePort};
