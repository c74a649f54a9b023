//! What the cluster says of its nodes, turned into what this node must know: who has which addresses, where the other
//! nodes are, and which routes the host itself needs. Pure: objects in, tables out.

mod object;
mod plan;
mod pool;
mod slots;

pub use object::{NodeObject, ObjectError, PodPlace};
pub use plan::{HostRoute, Local, Mode, NodeView, Plan, Underlay, Way, plan, serves_node_ports};
pub use pool::{Claim, Claiming, Claims, Held, Lack, Pool, Range, kept_from_pool, overlaps};
pub use slots::Slots;
