//! A small synchronous netlink socket with the operations that plugin and agent need.
//!
//! A [`Netlink`] speaks to the network namespace of the thread that opened it, whatever thread uses it later.

mod address;
mod channel;
mod connected;
mod error;
mod fib;
mod link;
mod monitor;
mod namespace;
mod neighbour;
mod nftables;
mod rank;
mod route;
mod socket;

pub use address::Address;
pub use connected::{disconnect_udp, disconnect_udp_at};
pub use error::NetlinkError;
pub use fib::{FibEntry, Rule};
pub use link::{Link, Veth, Vxlan, VxlanState, Xdp};
pub use monitor::{Change, Monitor};
pub use namespace::{apart, within};
pub use nftables::{NftChain, NftFamily, NftRemoval, NftRule, Nftables};
pub use rank::Rank;
pub use route::{Encap, Hop, Route, RouteKind};
pub use socket::Netlink;
