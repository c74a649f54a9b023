//! Who an address belongs to: the longest-prefix tables `addresses4` and `addresses6`.

use crate::endpoint::Slot;
use crate::policy::Identity;

/// Key of a longest-prefix trie as the kernel lays it out (`struct bpf_lpm_trie_key`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix<A> {
    /// Number of leading bits that count.
    pub length: u32,
    /// The address; bits beyond `length` are 0.
    pub address: A,
}

/// What is known of the addresses below a prefix. No entry: somebody outside the cluster.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressEntry {
    /// Where such an address lives.
    pub kind: AddressKind,
    /// Of [`AddressKind::Endpoint`], the slot in `endpoints`; of `RemotePods` and `Node`, the slot in `nodes`; of
    /// `Host`, 1 where node ports are served at it; else 0.
    pub slot: Slot,
    /// As whom policies know it; of [`AddressKind::Endpoint`], see [`Endpoint`](crate::Endpoint).
    pub identity: Identity,
}

impl AddressEntry {
    /// Of an address that no entry says anything of.
    pub const UNKNOWN: Self = Self { kind: AddressKind::Outside, slot: Slot::NONE, identity: Identity::ANYONE };

    /// Whether node ports are served at it.
    #[inline(always)]
    pub fn serves_node_ports(self) -> bool {
        matches!(self.kind, AddressKind::Host) && self.slot != Slot::NONE
    }

    /// The endpoint's slot, where it is one's address.
    #[inline(always)]
    pub fn endpoint(self) -> Option<Slot> {
        if matches!(self.kind, AddressKind::Endpoint) { Some(self.slot) } else { None }
    }
}

/// Where an address lives.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressKind {
    /// Outside the cluster. An entry of this kind exists only to carry an identity.
    Outside = 0,
    /// Outside the cluster, but reached with the pod's own address: exempt from masquerading.
    Unmasqueraded = 1,
    /// A pod on this node.
    Endpoint = 2,
    /// This node's pool of pod addresses: below it, what is not an endpoint is nobody.
    LocalPods = 3,
    /// This node itself.
    Host = 4,
    /// Pods of another node.
    RemotePods = 5,
    /// Another node itself.
    Node = 6,
    /// Cluster IPs: those that no frontend has are nobody's.
    Services = 7,
}

const _: () = assert!(size_of::<AddressEntry>() == 12);
