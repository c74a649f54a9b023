//! The other nodes of the cluster.

use crate::ip::{Ipv4, Ipv6};

/// How pods of another node are reached.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Routing {
    /// The slot is free.
    #[default]
    Unknown = 0,
    /// With their own addresses, by the network's routes.
    Native = 1,
    /// Through VXLAN over IPv4.
    Overlay4 = 2,
    /// Through VXLAN over IPv6.
    Overlay6 = 3,
}

/// Another node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its underlay IPv4 address; 0.0.0.0: none.
    pub ipv4: Ipv4,
    /// Its underlay IPv6 address; ::: none.
    pub ipv6: Ipv6,
    /// How its pods are reached.
    pub routing: Routing,
}

const _: () = assert!(size_of::<Node>() == 24);
