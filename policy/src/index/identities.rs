//! Who is whom to policies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use sluice_abi::Identity;

use super::atoms::AtomId;
use crate::prefixes::Prefixes;
use crate::traffic::NamedPort;

/// What makes addresses alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Membership {
    /// The atoms that match, sorted.
    pub atoms: Box<[AtomId]>,
    /// Of a pod, the ports behind names that egress rules use for these atoms or for anyone, sorted.
    pub ports: Box<[NamedPort]>,
}

impl Membership {
    /// Of somebody whom no policy knows.
    pub fn is_nobody(&self) -> bool {
        self.atoms.is_empty() && self.ports.is_empty()
    }
}

/// The identities and prefixes in the tables.
#[derive(Debug, Default)]
pub(super) struct Identities {
    known: BTreeMap<Identity, Known>,
    by_membership: HashMap<Arc<Membership>, Identity>,
    by_atom: HashMap<AtomId, BTreeSet<Identity>>,
    with_ports: BTreeSet<Identity>,
    pub prefixes: Prefixes<Identity>,
    nobody: Arc<Membership>,
    last: u32,
}

#[derive(Debug)]
struct Known {
    membership: Arc<Membership>,
    /// How many prefixes have it.
    prefixes: usize,
}

impl Identities {
    pub fn number_after(&mut self, identity: Identity) {
        self.last = identity.0;
    }

    /// A number that no identity has. Numbers are not used again soon.
    pub fn next_number(&mut self) -> Identity {
        loop {
            self.last = if self.last >= Identity::MAX.0 { 1 } else { self.last + 1 };
            if !self.known.contains_key(&Identity(self.last)) {
                return Identity(self.last);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// What an identity stands for.
    pub fn membership(&self, identity: Identity) -> &Arc<Membership> {
        self.known.get(&identity).map_or(&self.nobody, |known| &known.membership)
    }

    /// The identity that stands for a membership.
    pub fn find(&self, membership: &Membership) -> Option<Identity> {
        if membership.is_nobody() { Some(Identity::ANYONE) } else { self.by_membership.get(membership).copied() }
    }

    /// How many prefixes have an identity.
    pub fn prefixes_of(&self, identity: Identity) -> usize {
        self.known.get(&identity).map_or(0, |known| known.prefixes)
    }

    /// The identity of the addresses of a CIDR, but for those of longer ones.
    pub fn of(&self, net: &IpNet) -> Identity {
        self.prefixes.longest(net).map_or(Identity::ANYONE, |(_, identity)| *identity)
    }

    /// The identities that an atom matches.
    pub fn with_atom(&self, atom: AtomId) -> impl Iterator<Item = Identity> {
        self.by_atom.get(&atom).into_iter().flatten().copied()
    }

    /// How many these are.
    pub fn count_with_atom(&self, atom: AtomId) -> usize {
        self.by_atom.get(&atom).map_or(0, BTreeSet::len)
    }

    /// The identities with named ports.
    pub fn with_ports(&self) -> impl Iterator<Item = Identity> {
        self.with_ports.iter().copied()
    }

    /// Says what an identity stands for from now on.
    pub fn define(&mut self, identity: Identity, membership: Arc<Membership>) {
        let prefixes = self.prefixes_of(identity);
        self.undefine(identity);
        for atom in &membership.atoms {
            self.by_atom.entry(*atom).or_default().insert(identity);
        }
        if !membership.ports.is_empty() {
            self.with_ports.insert(identity);
        }
        self.by_membership.insert(Arc::clone(&membership), identity);
        self.known.insert(identity, Known { membership, prefixes });
    }

    /// Forgets an identity.
    pub fn undefine(&mut self, identity: Identity) {
        let Some(known) = self.known.remove(&identity) else { return };
        for atom in &known.membership.atoms {
            if let Some(identities) = self.by_atom.get_mut(atom) {
                identities.remove(&identity);
                if identities.is_empty() {
                    self.by_atom.remove(atom);
                }
            }
        }
        self.with_ports.remove(&identity);
        if self.by_membership.get(&known.membership) == Some(&identity) {
            self.by_membership.remove(&known.membership);
        }
    }

    pub fn set_prefix(&mut self, net: IpNet, identity: Identity) {
        let before = self.prefixes.insert(net, identity);
        self.count(before, Some(identity));
    }

    pub fn remove_prefix(&mut self, net: &IpNet) {
        let before = self.prefixes.remove(net);
        self.count(before, None);
    }

    fn count(&mut self, before: Option<Identity>, after: Option<Identity>) {
        if let Some(known) = before.and_then(|identity| self.known.get_mut(&identity)) {
            known.prefixes -= 1;
        }
        if let Some(known) = after.and_then(|identity| self.known.get_mut(&identity)) {
            known.prefixes += 1;
        }
    }
}
