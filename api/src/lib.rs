//! What `sluice`, `sluicectl` and `sluice-agent` say to each other on one node.
//!
//! The agent listens on a unix socket (`agent.sock` in its run directory, mode 0600). A connection carries JSON objects, one
//! a line: a [`Response`] for each [`Request`], in order.

mod client;
pub mod last_error;
mod message;
mod record;

pub use client::{Client, ClientError};
pub use message::{
    Answer, BackendStatus, Call, Counter, DenialStatus, EndpointStatus, ErrorKind, Failure, FlowStatus, FrontendStatus,
    NodeStatus, ObjectCounts, Outcome, PolicyStatus, PolicyVerdict, Request, Response, ServicePortStatus, Status,
    VERSION,
};
pub use record::{EndpointRecord, PodRef, PortMapping, PortProtocol, RecordError, Records};

/// Where the agent keeps its socket and the endpoint records, unless told otherwise.
pub const RUN_DIR: &str = "/run/sluice";

/// Name of the socket in the run directory.
pub const SOCKET: &str = "agent.sock";

/// Name of the file in the run directory that an agent locks while it runs. It stays when that ends, until the node starts anew.
pub const LOCK: &str = "agent.lock";

/// Name of the file in the run directory that is made when an agent is missed.
pub const MISSED: &str = "agent.missed";

/// Name of the file in the run directory that says what has kept an agent from its work (see [`last_error`]).
pub const LAST_ERROR: &str = "last-error";
