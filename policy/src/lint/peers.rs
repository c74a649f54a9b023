//! Peers of rules that are nobody.

use std::fmt;

use ipnet::IpNet;

use crate::block::Block;
use crate::index::Index;
use crate::object::{Peer, Peers, PodObject, Scope};

/// Whom a peer reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Somebody.
    Somebody,
    /// There is no such pod, node or address.
    NoSuch,
    /// There are such pods or nodes, but none has an address.
    Unaddressed,
    /// Nobody: its excepts leave no address of the block.
    Excepted,
}

impl Reach {
    /// What is wrong with a peer that reaches nobody.
    pub fn complaint(self, peer: &Peer) -> Option<String> {
        let peer = Told(peer);
        match self {
            Self::Somebody => None,
            Self::NoSuch => Some(format!("its peer matches nobody: {peer}")),
            Self::Unaddressed => Some(format!("its peer matches nobody yet, since none has an address: {peer}")),
            Self::Excepted => Some(format!("its peer matches nobody, since all of it is excepted: {peer}")),
        }
    }
}

impl Index {
    /// Whom each of the peers reaches.
    pub(super) fn reaches<'a>(&self, peers: &'a Peers) -> Vec<(&'a Peer, Reach)> {
        match peers {
            Peers::Anyone => Vec::new(),
            Peers::Listed(peers) => peers.iter().map(|peer| (peer, self.reach(peer))).collect(),
        }
    }

    fn reach(&self, peer: &Peer) -> Reach {
        let of = |have_addresses: &mut dyn Iterator<Item = bool>| match have_addresses.max() {
            Some(true) => Reach::Somebody,
            Some(false) => Reach::Unaddressed,
            None => Reach::NoSuch,
        };
        match peer {
            Peer::Block(block) if is_excepted(block) => Reach::Excepted,
            Peer::Block(_) => Reach::Somebody,
            Peer::Pods(..) => {
                let pods = self.pods().filter(|pod| pod.is_selectable() && self.may_be_peer(pod, peer));
                of(&mut pods.map(|pod| !pod.addresses.is_empty()))
            }
            Peer::Nodes(selector) => {
                let nodes = self.nodes().filter(|node| selector.matches(&node.labels));
                of(&mut nodes.map(|node| !node.addresses.is_empty()))
            }
        }
    }

    /// Whether a pod is one of these peers, or will be with an address.
    pub(super) fn may_be(&self, pod: &PodObject, peers: &Peers) -> bool {
        match peers {
            Peers::Anyone => true,
            Peers::Listed(peers) => peers.iter().any(|peer| self.may_be_peer(pod, peer)),
        }
    }

    fn may_be_peer(&self, pod: &PodObject, peer: &Peer) -> bool {
        match peer {
            Peer::Pods(scope, selector) => self.is_in(&pod.name.namespace, scope) && selector.matches(&pod.labels),
            Peer::Block(_) | Peer::Nodes(_) => pod.addresses.iter().any(|address| self.is_peer(*address, peer)),
        }
    }
}

/// Whether the excepts of a block are all of it.
fn is_excepted(block: &Block) -> bool {
    IpNet::aggregate(&block.excepts.to_vec()) == [block.cidr]
}

/// A peer, as it is told of: lists of peers are sorted, so its place in the manifest is not known.
struct Told<'a>(&'a Peer);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Pods(Scope::Named(namespace), pods) => write!(f, "pods with {pods} in namespace {namespace}"),
            Peer::Pods(Scope::Labelled(namespaces), pods) => {
                write!(f, "pods with {pods} in namespaces with {namespaces}")
            }
            Peer::Block(block) => write!(f, "{}", block.cidr),
            Peer::Nodes(nodes) => write!(f, "nodes with {nodes}"),
        }
    }
}
