//! Peer lists of rules, each once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::population::Inhabited;
use crate::block::Block;
use crate::labels::Labels;
use crate::matchers::Matchers;
use crate::object::{Peer, Scope};
use crate::selector::Selector;

/// Stands for a peer list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct AtomId(u32);

/// Stands for a scope that peers have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct ScopeId(u32);

/// A peer of an atom, by its number there.
type PeerId = (AtomId, usize);

/// The peer lists of all policies in force.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    ids: HashMap<Arc<[Peer]>, AtomId>,
    atoms: BTreeMap<AtomId, Atom>,
    last: u32,
    scope_ids: HashMap<Scope, ScopeId>,
    scopes: BTreeMap<ScopeId, ScopeOf>,
    last_scope: u32,
    nodes: Matchers<PeerId>,
    /// Names of ports that egress rules use, and for which peers; `None`: for anyone.
    names: BTreeMap<(Option<AtomId>, Arc<str>), usize>,
    name_users: HashMap<Arc<str>, usize>,
}

/// A peer list.
#[derive(Debug)]
pub(super) struct Atom {
    peers: Arc<[Peer]>,
    /// Those of the peers, each in the place of its peer. A peer keeps its number while others come and go.
    numbers: Vec<usize>,
    next_number: usize,
    users: usize,
}

/// Blocks of an atom, by their numbers, that come and go.
#[derive(Debug, Default)]
pub(super) struct Amendment {
    pub new: Vec<(usize, Block)>,
    pub gone: Vec<(usize, Block)>,
}

impl Atom {
    fn new(peers: &Arc<[Peer]>) -> Self {
        Self { peers: Arc::clone(peers), numbers: (0..peers.len()).collect(), next_number: peers.len(), users: 1 }
    }

    /// The peers and their numbers.
    pub fn peers(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.numbers.iter().copied().zip(&*self.peers)
    }

    /// Becomes another list, if that differs by blocks only.
    fn amend(&mut self, peers: &Arc<[Peer]>) -> Option<Amendment> {
        let mut amendment = Amendment::default();
        let mut before: HashMap<&Peer, usize> = HashMap::with_capacity(self.peers.len());
        for (number, peer) in self.peers() {
            if let Some(twin) = before.insert(peer, number) {
                amendment.gone.push((twin, block(peer)?));
            }
        }
        let mut next_number = self.next_number;
        let mut numbers = Vec::with_capacity(peers.len());
        for peer in &**peers {
            let number = match before.remove(peer) {
                Some(number) => number,
                None => {
                    amendment.new.push((next_number, block(peer)?));
                    next_number += 1;
                    next_number - 1
                }
            };
            numbers.push(number);
        }
        for (peer, number) in before {
            amendment.gone.push((number, block(peer)?));
        }
        (self.peers, self.numbers, self.next_number) = (Arc::clone(peers), numbers, next_number);
        Some(amendment)
    }
}

fn block(peer: &Peer) -> Option<Block> {
    match peer {
        Peer::Block(block) => Some(block.clone()),
        Peer::Pods(..) | Peer::Nodes(_) => None,
    }
}

#[derive(Debug)]
struct ScopeOf {
    scope: Scope,
    peers: Matchers<PeerId>,
}

impl Atoms {
    pub fn len(&self) -> usize {
        self.atoms.len()
    }

    /// The atom of a peer list, for one more user. `true`: it is new, and its selectors must be put in.
    pub fn take(&mut self, peers: &Arc<[Peer]>) -> (AtomId, bool) {
        if let Some(id) = self.ids.get(peers) {
            if let Some(atom) = self.atoms.get_mut(id) {
                atom.users += 1;
            }
            return (*id, false);
        }
        self.last += 1;
        let id = AtomId(self.last);
        self.ids.insert(Arc::clone(peers), id);
        self.atoms.insert(id, Atom::new(peers));
        (id, true)
    }

    /// Has an atom become another peer list, for one more user. `None`: it cannot, because it has other users than the one
    /// that is about to go, or because the lists differ by more than blocks, or because the other has an atom already.
    pub fn amend(&mut self, id: AtomId, peers: &Arc<[Peer]>) -> Option<Amendment> {
        if self.ids.contains_key(peers) {
            return None;
        }
        let atom = self.atoms.get_mut(&id).filter(|atom| atom.users == 1)?;
        let before = Arc::clone(&atom.peers);
        let amendment = atom.amend(peers)?;
        atom.users += 1;
        self.ids.remove(&before);
        self.ids.insert(Arc::clone(peers), id);
        Some(amendment)
    }

    /// A user needs it no more. Where it was the last, what it was: its selectors must be taken out.
    pub fn release(&mut self, id: AtomId) -> Option<Atom> {
        let atom = self.atoms.get_mut(&id)?;
        atom.users -= 1;
        if atom.users > 0 {
            return None;
        }
        let atom = self.atoms.remove(&id)?;
        self.ids.remove(&atom.peers);
        Some(atom)
    }

    /// Puts pods of a scope into an atom. Where the scope is new, its id: namespaces must be asked whether they are in
    /// it.
    pub fn insert_pods(&mut self, peer: PeerId, scope: &Scope, selector: &Selector) -> (ScopeId, bool) {
        let (id, is_new) = match self.scope_ids.get(scope) {
            Some(id) => (*id, false),
            None => {
                self.last_scope += 1;
                let id = ScopeId(self.last_scope);
                self.scope_ids.insert(scope.clone(), id);
                self.scopes.insert(id, ScopeOf { scope: scope.clone(), peers: Matchers::default() });
                (id, true)
            }
        };
        if let Some(scope) = self.scopes.get_mut(&id) {
            scope.peers.insert(peer, selector);
        }
        (id, is_new)
    }

    /// Takes pods of a scope out of an atom. `true`: the scope is no longer needed.
    pub fn remove_pods(&mut self, peer: PeerId, scope: &Scope, selector: &Selector) -> Option<(ScopeId, bool)> {
        let id = *self.scope_ids.get(scope)?;
        let peers = &mut self.scopes.get_mut(&id)?.peers;
        peers.remove(peer, selector);
        let is_gone = peers.is_empty();
        if is_gone {
            self.scopes.remove(&id);
            self.scope_ids.remove(scope);
        }
        Some((id, is_gone))
    }

    pub fn insert_nodes(&mut self, peer: PeerId, selector: &Selector) {
        self.nodes.insert(peer, selector);
    }

    pub fn remove_nodes(&mut self, peer: PeerId, selector: &Selector) {
        self.nodes.remove(peer, selector);
    }

    /// The scopes that a namespace is in.
    pub fn scopes_of(&self, namespace: &Inhabited) -> BTreeSet<ScopeId> {
        self.scopes.iter().filter(|(_, scope)| namespace.is_in(&scope.scope)).map(|(id, _)| *id).collect()
    }

    /// The atoms that match a pod of a namespace in these scopes; sorted.
    pub fn of_pod(&self, scopes: &BTreeSet<ScopeId>, labels: &Labels) -> Vec<AtomId> {
        let peers = scopes.iter().filter_map(|id| self.scopes.get(id)).flat_map(|scope| scope.peers.matching(labels));
        sorted(peers.map(|(atom, _)| atom).collect())
    }

    /// The atoms that match a node; sorted.
    pub fn of_node(&self, labels: &Labels) -> Vec<AtomId> {
        sorted(self.nodes.matching(labels).map(|(atom, _)| atom).collect())
    }

    /// An egress rule uses a name for some peers. `true`: none did before.
    pub fn use_name(&mut self, peers: Option<AtomId>, name: &Arc<str>) -> bool {
        *self.name_users.entry(Arc::clone(name)).or_default() += 1;
        let users = self.names.entry((peers, Arc::clone(name))).or_default();
        *users += 1;
        *users == 1
    }

    /// The reverse. `true`: none does any more.
    pub fn unuse_name(&mut self, peers: Option<AtomId>, name: &Arc<str>) -> bool {
        if let Some(users) = self.name_users.get_mut(name) {
            *users -= 1;
            if *users == 0 {
                self.name_users.remove(name);
            }
        }
        let key = (peers, Arc::clone(name));
        let Some(users) = self.names.get_mut(&key) else { return false };
        *users -= 1;
        let is_gone = *users == 0;
        if is_gone {
            self.names.remove(&key);
        }
        is_gone
    }

    /// Whether an egress rule uses a name for somebody whom these atoms match.
    pub fn uses_name(&self, atoms: &[AtomId], name: &Arc<str>) -> bool {
        let uses = |peers| self.names.contains_key(&(peers, Arc::clone(name)));
        self.name_users.contains_key(name) && (uses(None) || atoms.iter().any(|atom| uses(Some(*atom))))
    }
}

pub(super) fn sorted(mut atoms: Vec<AtomId>) -> Vec<AtomId> {
    atoms.sort_unstable();
    atoms.dedup();
    atoms
}
