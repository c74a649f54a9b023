//! Numbers of nodes: the same for the same node as long as it is there, also over a restart of the agent.

use std::collections::{BTreeMap, BTreeSet};

use sluice_abi::{MAX_NODES, Node};

/// Which node has which slot in the kernel's table.
#[derive(Clone, Debug)]
pub struct Slots {
    by_name: BTreeMap<String, u32>,
    /// What the table held before: slots that nodes with the same addresses had.
    before: BTreeMap<u32, Node>,
    /// All others.
    free: BTreeSet<u32>,
}

impl Default for Slots {
    fn default() -> Self {
        Self::seeded(BTreeMap::new())
    }
}

impl Slots {
    /// Slots of nodes that a table already holds.
    pub fn seeded(before: BTreeMap<u32, Node>) -> Self {
        let free = (1..MAX_NODES).filter(|slot| !before.contains_key(slot)).collect();
        Self { by_name: BTreeMap::new(), before, free }
    }

    /// The slot of a node; `None` where all are taken.
    pub fn of(&mut self, name: &str, node: &Node) -> Option<u32> {
        if let Some(slot) = self.by_name.get(name) {
            return Some(*slot);
        }
        let same = |(_, other): &(&u32, &Node)| other.ipv4 == node.ipv4 && other.ipv6 == node.ipv6;
        let had = self.before.iter().find(same).map(|(slot, _)| *slot);
        let slot = had.or_else(|| self.free.first().copied())?;
        self.before.remove(&slot);
        self.free.remove(&slot);
        self.by_name.insert(name.to_owned(), slot);
        Some(slot)
    }

    /// All nodes that there are have their slots: what the table held of others is free.
    pub fn settle(&mut self) {
        self.free.extend(std::mem::take(&mut self.before).into_keys());
    }

    /// Frees the slots of all but these nodes.
    pub fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        let gone = self.by_name.extract_if(.., |name, _| !stays(name)).map(|(_, slot)| slot);
        self.free.extend(gone);
    }
}
