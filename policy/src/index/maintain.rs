//! Keeps what is derived from objects up to date, as far as it does not lie in the tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use ipnet::IpNet;

use super::atoms::{AtomId, sorted};
use super::identities::Membership;
use super::policies::{Compiled, CompiledRule, VersionId};
use super::population::{Inhabited, PodId, Population};
use super::selections::ListChanges;
use super::settle::Cost;
use super::{Event, Index, Work};
use crate::block::Block;
use crate::labels::Labels;
use crate::name::{Kind, ObjectName, PodName};
use crate::object::{Direction, Peer, Peers, PolicyObject, Tier};
use crate::reason::Reason;
use crate::traffic::{Ports, Traffic};

impl Index {
    /// Takes in what an event says, and notes what must be looked at anew for it.
    pub(super) fn take_in(&mut self, event: Event, work: &mut Work) {
        match event {
            Event::Invalid(error) => {
                self.problems.refuse(error);
            }
            Event::Namespace(object) => {
                let name = object.name.clone();
                self.problems.note(&ObjectName::new(Kind::Namespace, "", &name), &object.notes);
                if self.population.insert_namespace(object) {
                    self.place_namespace(&name, work);
                }
            }
            Event::Pod(pod) => {
                self.problems.note(&ObjectName::new(Kind::Pod, &pod.name.namespace, &pod.name.name), &[]);
                let known = self.population.id(&pod.name).and_then(|id| self.population.pod(id));
                if known != Some(&pod) {
                    self.take_out_pod(&pod.name.clone(), work);
                    let name = pod.name.namespace.clone();
                    let addresses: Vec<IpNet> = pod.addresses.iter().map(|address| IpNet::from(*address)).collect();
                    let is_new_namespace = self.population.namespace(&name).is_none();
                    let id = self.population.insert_pod(pod, &self.view);
                    if is_new_namespace {
                        self.place_namespace(&name, work);
                    }
                    work.subjects.insert(id);
                    work.peers.insert(id);
                    work.prefixes.extend(addresses);
                    self.population.drop_empty(&name);
                }
            }
            Event::Node(node) => {
                self.problems.note(&ObjectName::new(Kind::Node, "", &node.name), &node.notes);
                if self.population.node(&node.name) != Some(&node) {
                    let name = node.name.clone();
                    work.prefixes.extend(node.addresses.iter().map(|address| IpNet::from(*address)));
                    let before = self.population.insert_node(node);
                    let before = before.iter().flat_map(|node| &node.addresses);
                    work.prefixes.extend(before.map(|address| IpNet::from(*address)));
                    work.nodes.insert(name);
                }
            }
            Event::Policy(policy) => {
                self.problems.note(&policy.name, &policy.notes);
                if self.policies.find(&policy.name) != Some(&policy) {
                    self.take_out_policy(&policy.name.clone(), work);
                    self.problems.place(&policy);
                    self.note_subjects(&policy, work);
                    work.new_policies.insert(self.policies.insert(policy));
                }
            }
            Event::Removed(object) => {
                self.problems.note(&object, &[]);
                match object.kind {
                    Kind::Namespace => {
                        if self.population.remove_namespace(&object.name) {
                            self.place_namespace(&object.name, work);
                        }
                        self.population.drop_empty(&object.name);
                    }
                    Kind::Pod => {
                        self.take_out_pod(&PodName::new(&object.namespace, &object.name), work);
                        self.population.drop_empty(&object.namespace);
                    }
                    Kind::Node => {
                        if let Some(node) = self.population.remove_node(&object.name) {
                            work.prefixes.extend(node.addresses.iter().map(|address| IpNet::from(*address)));
                            work.nodes.insert(object.name);
                        }
                    }
                    Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => self.take_out_policy(&object, work),
                    Kind::Service | Kind::EndpointSlice => {}
                }
            }
        }
    }

    /// Finds the scopes that a namespace is in by its present labels.
    fn place_namespace(&mut self, name: &str, work: &mut Work) {
        let Some(namespace) = self.population.namespace(name) else { return };
        let scopes = self.atoms.scopes_of(namespace);
        work.subjects.extend(&namespace.local);
        if self.population.set_scopes(name, scopes)
            && let Some(namespace) = self.population.namespace(name)
        {
            work.peers.extend(&namespace.pods);
        }
    }

    fn take_out_pod(&mut self, name: &PodName, work: &mut Work) {
        let Some(id) = self.population.id(name) else { return };
        if let Some(pod) = self.population.remove_pod(id) {
            work.prefixes.extend(pod.addresses.iter().map(|address| IpNet::from(*address)));
            work.subjects.insert(id);
            work.peers.insert(id);
        }
    }

    fn take_out_policy(&mut self, name: &ObjectName, work: &mut Work) {
        if let Some(policy) = self.policies.find(name).cloned() {
            self.problems.displace(&policy);
            self.note_subjects(&policy, work);
            if let Some(id) = self.policies.remove(name)
                && !work.new_policies.remove(&id)
            {
                work.gone_policies.insert(id);
            }
        }
    }

    /// Notes the pods of this node that a policy selects.
    fn note_subjects(&self, policy: &PolicyObject, work: &mut Work) {
        let selects = |id: &&PodId| self.population.pod(**id).is_some_and(|pod| policy.pods.matches(&pod.labels));
        match policy.tier {
            Tier::Namespaced => {
                let namespace = self.population.namespace(&policy.name.namespace);
                work.reselected.extend(namespace.into_iter().flat_map(|namespace| &namespace.local).filter(selects));
            }
            Tier::Admin(_) | Tier::Baseline(_) => {
                for namespace in self.population.namespaces().filter(|namespace| namespace.is_in(&policy.scope)) {
                    work.reselected.extend(namespace.local.iter().filter(selects));
                }
            }
        }
    }

    /// Brings everything up to date but the tables. What they then lack is noted in `work`.
    pub(super) fn maintain(&mut self, work: &mut Work) {
        let mut lists = ListChanges::default();
        let subjects = mem::take(&mut work.subjects);
        let reselected = &mem::take(&mut work.reselected) - &subjects;
        work.touched.extend(subjects.iter().chain(&reselected));
        for id in reselected {
            self.select(id, &mut lists, |index, namespace, labels| {
                let before = index.selections.get(id).map(|list| &**list).unwrap_or_default();
                index.policies.reselecting(before, &work.gone_policies, &work.new_policies, namespace, labels)
            });
        }
        for id in subjects {
            self.select(id, &mut lists, |index, namespace, labels| index.policies.selecting(namespace, labels));
        }
        let (mut entering, mut leaving) = (BTreeSet::new(), BTreeSet::new());
        for id in lists.new.iter().flat_map(|list| list.iter()) {
            if let Some(version) = self.policies.version_mut(*id) {
                version.users += 1;
            }
            entering.insert(*id);
        }
        for id in lists.gone.iter().flat_map(|list| list.iter()) {
            if let Some(version) = self.policies.version_mut(*id) {
                version.users -= 1;
            }
            leaving.insert(*id);
        }
        let former = self.policies.compiled_without_users(&leaving);
        // First those that come, so that what they share with those that go stays.
        for version in entering {
            self.enter(version, &former, work);
        }
        for version in leaving {
            self.leave(version, work);
        }
        for id in mem::take(&mut work.peers) {
            self.join_pod(id, work);
        }
        for name in mem::take(&mut work.nodes) {
            self.join_node(&name, work);
        }
        // Once for all that lie in one another: many lists have the whole internet in them.
        let mut around: Option<IpNet> = None;
        for block in mem::take(&mut work.blocks) {
            if !around.is_some_and(|around| around.contains(&block)) {
                work.prefixes.extend(self.regions.edges_inside(&block));
                work.prefixes.extend(self.population.addresses_inside(&block));
                around = Some(block);
            }
        }
    }

    /// Of a pod that does not fit: what it needs is not known any more, or does not matter.
    fn recall(&mut self, id: PodId) {
        let pod = self.population.pod(id);
        if pod.is_none_or(|pod| !Population::is_local(pod, &self.view)) {
            self.closed.remove(&id);
        } else if let Some(need) = self.closed.get_mut(&id) {
            *need = Cost::default();
        }
    }

    /// Gives a pod the policies that it is to have now: none if it does not fit or is not this node's, else those that
    /// are `selecting` it.
    fn select(
        &mut self,
        id: PodId,
        lists: &mut ListChanges,
        selecting: impl FnOnce(&Self, &Inhabited, &Labels) -> Box<[VersionId]>,
    ) {
        self.recall(id);
        let pod = self.population.pod(id).filter(|pod| Population::is_local(pod, &self.view));
        let pod = pod.filter(|_| !self.closed.contains_key(&id));
        let namespace = pod.and_then(|pod| self.population.namespace(&pod.name.namespace));
        let list = match (pod, namespace) {
            (Some(pod), Some(namespace)) => selecting(self, namespace, &pod.labels),
            (Some(_), None) | (None, _) => Box::default(),
        };
        self.selections.set(id, &list, lists);
    }

    /// Compiles a policy that has come into force. What it said before may be `former`.
    fn enter(&mut self, id: VersionId, former: &HashMap<ObjectName, Arc<Compiled>>, work: &mut Work) {
        let Some(version) = self.policies.version(id) else { return };
        if version.users == 0 || version.compiled.is_some() {
            return;
        }
        let object = Arc::clone(&version.object);
        let former = former.get(&object.name);
        let rules = Direction::ALL.map(|direction| {
            let compile = |(index, rule): (usize, &crate::object::PolicyRule)| {
                let peers = match &rule.peers {
                    Peers::Anyone => None,
                    Peers::Listed(peers) => {
                        let former = former.and_then(|former| former.rules[direction as usize].get(index)?.peers);
                        Some(self.take_atom(peers, former, work))
                    }
                };
                let reason = self.reasons.take(Reason::Rule {
                    policy: object.name.clone(),
                    direction,
                    index: index as u32,
                    name: rule.name.clone(),
                });
                let rule = CompiledRule { action: rule.action, peers, traffic: rule.traffic.clone(), reason };
                for name in names_used(direction, &rule) {
                    if self.atoms.use_name(peers, &name) {
                        self.note_named(&name, work);
                    }
                }
                rule
            };
            object.rules(direction).iter().enumerate().map(compile).collect()
        });
        self.policies.put_in_force(id, Compiled { rules });
    }

    /// Undoes what [`enter`](Self::enter) did for a policy that is no longer in force.
    fn leave(&mut self, id: VersionId, work: &mut Work) {
        if let Some(compiled) = self.policies.take_out_of_force(id) {
            for direction in Direction::ALL {
                for rule in &compiled.rules[direction as usize] {
                    for name in names_used(direction, rule) {
                        if self.atoms.unuse_name(rule.peers, &name) {
                            self.note_named(&name, work);
                        }
                    }
                    self.reasons.release(rule.reason);
                    if let Some(atom) = rule.peers {
                        self.release_atom(atom, work);
                    }
                }
            }
        }
        self.policies.forget(id);
    }

    /// Notes the addresses of pods that have a port of a name.
    fn note_named(&self, name: &str, work: &mut Work) {
        for id in self.population.with_port(name) {
            self.note_addresses(id, work);
        }
    }

    fn note_addresses(&self, id: PodId, work: &mut Work) {
        if let Some(pod) = self.population.pod(id) {
            work.prefixes.extend(pod.addresses.iter().map(|address| IpNet::from(*address)));
        }
    }

    /// The atom of a rule's peer list. Where only blocks have changed in a list, the `former` atom becomes this one, and
    /// only they are looked at.
    fn take_atom(&mut self, peers: &Arc<[Peer]>, former: Option<AtomId>, work: &mut Work) -> AtomId {
        if let Some(id) = former
            && let Some(amendment) = self.atoms.amend(id, peers)
        {
            for (number, block) in amendment.new {
                self.insert_block((id, number), &block, work);
            }
            for (number, block) in amendment.gone {
                self.remove_block((id, number), &block, work);
            }
            return id;
        }
        let (id, is_new) = self.atoms.take(peers);
        if !is_new {
            return id;
        }
        work.newborn.insert(id);
        for (number, peer) in peers.iter().enumerate() {
            match peer {
                Peer::Pods(scope, selector) => {
                    let (scope_id, is_new) = self.atoms.insert_pods((id, number), scope, selector);
                    if is_new {
                        for namespace in self.population.namespaces_mut() {
                            if namespace.is_in(scope) {
                                namespace.scopes.insert(scope_id);
                            }
                        }
                    }
                    for namespace in
                        self.population.namespaces().filter(|namespace| namespace.scopes.contains(&scope_id))
                    {
                        for pod in self.population.selected(namespace, selector) {
                            insert_sorted(self.memberships.pods.entry(pod).or_default(), id);
                            self.note_addresses(pod, work);
                        }
                    }
                }
                Peer::Block(block) => self.insert_block((id, number), block, work),
                Peer::Nodes(selector) => {
                    self.atoms.insert_nodes((id, number), selector);
                    for node in self.population.nodes().filter(|node| selector.matches(&node.labels)) {
                        insert_sorted(self.memberships.nodes.entry(node.name.clone()).or_default(), id);
                        work.prefixes.extend(node.addresses.iter().map(|address| IpNet::from(*address)));
                    }
                }
            }
        }
        id
    }

    fn release_atom(&mut self, id: AtomId, work: &mut Work) {
        let Some(atom) = self.atoms.release(id) else { return };
        if !work.newborn.remove(&id) {
            work.dying.insert(id);
        }
        for (number, peer) in atom.peers() {
            match peer {
                Peer::Pods(scope, selector) => {
                    let Some((scope_id, is_gone)) = self.atoms.remove_pods((id, number), scope, selector) else {
                        continue;
                    };
                    for namespace in
                        self.population.namespaces().filter(|namespace| namespace.scopes.contains(&scope_id))
                    {
                        for pod in self.population.selected(namespace, selector) {
                            remove_sorted(&mut self.memberships.pods, &pod, id);
                            self.note_addresses(pod, work);
                        }
                    }
                    if is_gone {
                        for namespace in self.population.namespaces_mut() {
                            namespace.scopes.remove(&scope_id);
                        }
                    }
                }
                Peer::Block(block) => self.remove_block((id, number), block, work),
                Peer::Nodes(selector) => {
                    self.atoms.remove_nodes((id, number), selector);
                    for node in self.population.nodes().filter(|node| selector.matches(&node.labels)) {
                        remove_sorted(&mut self.memberships.nodes, &node.name, id);
                        work.prefixes.extend(node.addresses.iter().map(|address| IpNet::from(*address)));
                    }
                }
            }
        }
    }

    fn insert_block(&mut self, id: (AtomId, usize), block: &Block, work: &mut Work) {
        self.regions.insert(id, block);
        work.blocks.insert(block.cidr);
    }

    fn remove_block(&mut self, id: (AtomId, usize), block: &Block, work: &mut Work) {
        // Edges that nobody else has are gone by the time that those inside are looked at.
        work.prefixes.insert(block.cidr);
        work.prefixes.extend(&block.excepts);
        work.blocks.insert(block.cidr);
        self.regions.remove(id, block);
    }

    /// Asks all atoms about a pod.
    fn join_pod(&mut self, id: PodId, work: &mut Work) {
        let pod = self.population.pod(id).filter(|pod| pod.is_selectable());
        let namespace = pod.and_then(|pod| self.population.namespace(&pod.name.namespace));
        let atoms = match (pod, namespace) {
            (Some(pod), Some(namespace)) => self.atoms.of_pod(&namespace.scopes, &pod.labels),
            _ => Vec::new(),
        };
        self.note_addresses(id, work);
        if atoms.is_empty() {
            self.memberships.pods.remove(&id);
        } else {
            self.memberships.pods.insert(id, atoms);
        }
    }

    /// Asks all atoms about a node.
    fn join_node(&mut self, name: &str, work: &mut Work) {
        let node = self.population.node(name);
        let atoms = node.map(|node| self.atoms.of_node(&node.labels)).unwrap_or_default();
        work.prefixes.extend(node.iter().flat_map(|node| &node.addresses).map(|address| IpNet::from(*address)));
        if atoms.is_empty() {
            self.memberships.nodes.remove(name);
        } else {
            self.memberships.nodes.insert(name.to_owned(), atoms);
        }
    }

    /// Whether a prefix may be needed to tell its addresses apart: a quick look, before the whole membership is found.
    pub(super) fn may_be_needed(&self, net: &IpNet) -> bool {
        if self.regions.has_edge(net) {
            return true;
        }
        if net.prefix_len() < net.max_prefix_len() {
            return false;
        }
        let is_matched = |owner: PodId| {
            let named = || self.population.pod(owner).is_some_and(|pod| !pod.named_ports.is_empty());
            self.memberships.pods.contains_key(&owner) || named()
        };
        self.population.owner(net).is_some_and(is_matched)
            || self.population.nodes_at(net).any(|node| self.memberships.nodes.contains_key(node))
    }

    /// What the addresses of a prefix are members of, but for those of longer ones; and whether the prefix is needed at
    /// all to tell them apart.
    pub(super) fn membership(&self, net: &IpNet) -> (Membership, bool) {
        let mut atoms = self.regions.atoms_at(net);
        let mut is_needed = self.regions.has_edge(net);
        let mut ports = Vec::new();
        if net.prefix_len() == net.max_prefix_len() {
            let owner = self.population.owner(net);
            let before = atoms.len();
            atoms.extend(owner.and_then(|id| self.memberships.pods.get(&id)).into_iter().flatten());
            for node in self.population.nodes_at(net) {
                atoms.extend(self.memberships.nodes.get(node).into_iter().flatten());
            }
            is_needed |= atoms.len() > before;
            atoms = sorted(atoms);
            if let Some(pod) = owner.and_then(|id| self.population.pod(id)) {
                ports.extend(pod.named_ports.iter().filter(|port| self.atoms.uses_name(&atoms, &port.name)).cloned());
            }
            is_needed |= !ports.is_empty();
        }
        (Membership { atoms: atoms.into(), ports: ports.into() }, is_needed)
    }
}

/// The names of ports that an egress rule uses; those of an ingress rule mean the policy's own pods.
fn names_used(direction: Direction, rule: &CompiledRule) -> BTreeSet<Arc<str>> {
    let listed = match (&rule.traffic, direction) {
        (Traffic::Listed(ports), Direction::Egress) => &ports[..],
        (Traffic::Listed(_), Direction::Ingress) | (Traffic::Any, _) => &[],
    };
    let name = |ports: &Ports| match ports {
        Ports::Named(_, name) => Some(Arc::clone(name)),
        Ports::Range(..) => None,
    };
    listed.iter().filter_map(name).collect()
}

fn insert_sorted(atoms: &mut Vec<AtomId>, atom: AtomId) {
    if let Err(at) = atoms.binary_search(&atom) {
        atoms.insert(at, atom);
    }
}

fn remove_sorted<K: Ord>(memberships: &mut BTreeMap<K, Vec<AtomId>>, member: &K, atom: AtomId) {
    if let Some(atoms) = memberships.get_mut(member) {
        atoms.retain(|other| *other != atom);
        if atoms.is_empty() {
            memberships.remove(member);
        }
    }
}
