//! Which blocks contain which addresses.

use std::collections::HashSet;

use ipnet::IpNet;

use super::atoms::{AtomId, sorted};
use crate::block::Block;
use crate::prefixes::Prefixes;

/// CIDRs and excepts of all blocks. Between them, addresses are alike: the longest of these CIDRs around an address says
/// which blocks it is in.
#[derive(Debug, Default)]
pub(super) struct Regions {
    edges: Prefixes<Vec<Edge>>,
}

/// An edge of a block of an atom, which is known by its number in the atom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Edge {
    block: (AtomId, usize),
    /// An except: here the block ends.
    is_except: bool,
}

impl Regions {
    pub fn insert(&mut self, block: (AtomId, usize), nets: &Block) {
        for (net, edge) in edges(block, nets) {
            match self.edges.get_mut(&net) {
                Some(edges) => edges.push(edge),
                None => {
                    self.edges.insert(net, vec![edge]);
                }
            }
        }
    }

    pub fn remove(&mut self, block: (AtomId, usize), nets: &Block) {
        for (net, edge) in edges(block, nets) {
            if let Some(edges) = self.edges.get_mut(&net) {
                edges.retain(|other| *other != edge);
                if edges.is_empty() {
                    self.edges.remove(&net);
                }
            }
        }
    }

    /// Whether there is an edge at exactly this CIDR.
    pub fn has_edge(&self, net: &IpNet) -> bool {
        self.edges.get(net).is_some()
    }

    /// The CIDRs inside one at which there are edges.
    pub fn edges_inside(&self, net: &IpNet) -> impl Iterator<Item = IpNet> {
        self.edges.inside(net).map(|(net, _)| *net)
    }

    /// The atoms whose blocks contain the addresses of a CIDR, but for those of longer ones; sorted.
    pub fn atoms_at(&self, net: &IpNet) -> Vec<AtomId> {
        let (mut blocks, mut ended) = (Vec::new(), HashSet::new());
        for edge in self.edges.around(net).flat_map(|(_, edges)| edges) {
            if edge.is_except {
                ended.insert(edge.block);
            } else {
                blocks.push(edge.block);
            }
        }
        sorted(blocks.into_iter().filter(|block| !ended.contains(block)).map(|(atom, _)| atom).collect())
    }
}

fn edges(block: (AtomId, usize), nets: &Block) -> impl Iterator<Item = (IpNet, Edge)> {
    let excepts = nets.excepts.iter().map(move |net| (*net, Edge { block, is_except: true }));
    std::iter::once((nets.cidr, Edge { block, is_except: false })).chain(excepts)
}
