//! What must be written, and in which order.
//!
//! A pod that is pointed at another rule set and addresses that get another identity cannot change in one moment. So
//! addresses go first, to identities that mean to old rule sets what the addresses were, and to new ones what they will
//! be; then pods are pointed at their new rule sets. Only then may addresses that the old ones told apart share an
//! identity.
//!
//! In detail: those rule sets that pods leave are called *sources*. An address that moves from one identity to another
//! needs a number under which each source says the same as under the old identity. That is
//! - the old number itself, with a new meaning, where all of its addresses move alike and only by atoms that no rule set
//!   in the tables has yet, or that only sources have;
//! - the number of the new membership, where there is one and all sources treat both alike;
//! - else a new number, with copies of what the sources say of the old one. Where the membership has another number, this
//!   one only *passes*: its addresses go on to the other once no pod is judged by a source any more.
//!
//! A source that other pods stay with, and that would have to say something else of a new number afterwards, is written
//! anew, and all of its pods leave it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use sluice_abi::{Identity, RuleSetId};

use super::atoms::AtomId;
use super::identities::Membership;
use super::population::{PodId, Population};
use super::rule_sets::{Answers, RuleSet, SetKey, count};
use super::settle::Cost;
use super::{Index, Work};
use crate::name::PodName;

/// What must be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub switches: Vec<Switch>,
    /// Rule sets to be written, with all that they say.
    pub new_sets: BTreeMap<RuleSetId, RuleSet>,
    /// Identities that are new or stand for something else.
    pub definitions: Vec<(Identity, Arc<Membership>)>,
    /// What rule sets that stay say of new identities.
    pub extensions: Vec<(RuleSetId, Identity, Answers)>,
    /// What rule sets say of identities that only pass.
    pub passing: Vec<(RuleSetId, Identity, Answers)>,
    pub moves: Vec<Move>,
    /// Identities that no address has any more.
    pub dead_identities: Vec<Identity>,
    /// Rule sets that no pod has any more.
    pub dead_sets: Vec<RuleSetId>,
    /// New rule sets that there is no room for, and how many rules of each were counted until that was seen: they are
    /// without answers.
    pub without_room: BTreeMap<RuleSetId, usize>,
}

/// A pod that is to be pointed at a rule set.
#[derive(Debug)]
pub(super) struct Switch {
    pub pod: PodId,
    pub name: PodName,
    from: Option<RuleSetId>,
    pub to: RuleSetId,
    /// It is gone, or no longer this node's.
    pub is_gone: bool,
}

/// A prefix whose identity changes, that comes or goes.
#[derive(Debug)]
pub(super) struct Move {
    pub net: IpNet,
    /// It is in the tables.
    is_there: bool,
    /// It will be.
    stays: bool,
    from: Identity,
    membership: Arc<Membership>,
    /// The identity that it has while pods are pointed at other rule sets.
    meanwhile: Identity,
    /// The identity that it has in the end.
    finally: Identity,
}

impl Plan {
    /// What it adds to the tables before anything is removed; where there is no room for that, at least so much.
    pub fn cost(&self) -> Cost {
        let answers = self.extensions.iter().chain(&self.passing).map(|(_, _, answers)| count(answers));
        Cost {
            rules: self.new_sets.values().map(RuleSet::len).chain(answers).sum::<usize>()
                + self.without_room.values().sum::<usize>(),
            prefixes: self.moves.iter().filter(|step| step.stays && !step.is_there).count(),
        }
    }

    /// Prefixes to be set before pods are pointed at other rule sets, and to which identity. Longer ones first: an address
    /// then goes from its old identity to its new one without having that of a shorter prefix in between.
    pub fn before(&self) -> Vec<(IpNet, Identity)> {
        let is_due = |step: &&Move| match (step.stays, step.is_there) {
            (true, false) => true,
            (true, true) => step.meanwhile != step.from,
            (false, _) => !self.switches.is_empty() && step.meanwhile != step.from,
        };
        let mut due: Vec<_> = self.moves.iter().filter(is_due).map(|step| (step.net, step.meanwhile)).collect();
        due.sort_by_key(|(net, _)| (Reverse(net.prefix_len()), *net));
        due
    }

    /// Prefixes to be set afterwards.
    pub fn after(&self) -> impl Iterator<Item = (IpNet, Identity)> {
        let is_due = |step: &&Move| step.stays && step.meanwhile != step.finally;
        self.moves.iter().filter(is_due).map(|step| (step.net, step.finally))
    }

    /// Prefixes to be removed in the end. Shorter ones first, for the same reason.
    pub fn removed(&self) -> Vec<IpNet> {
        let mut nets: Vec<_> = self.moves.iter().filter(|step| !step.stays).map(|step| step.net).collect();
        nets.sort_by_key(|net| (net.prefix_len(), *net));
        nets
    }

    /// All prefixes with their identity in the end; `None`: without.
    pub fn outcome(&self) -> impl Iterator<Item = (IpNet, Option<Identity>)> {
        self.moves.iter().map(|step| (step.net, step.stays.then_some(step.finally)))
    }

    /// The memberships that prefixes come for.
    pub fn added(&self) -> impl Iterator<Item = &Membership> {
        self.moves.iter().filter(|step| step.stays && !step.is_there).map(|step| &*step.membership)
    }
}

/// A number that is new in this plan.
struct NewIdentity {
    /// Sources say of it what they say of this one.
    like: Identity,
    membership: Arc<Membership>,
    /// Another number stands for the membership in the end.
    passes: bool,
}

/// The identities of a plan.
#[derive(Default)]
struct Numbers {
    redefined: BTreeMap<Identity, Arc<Membership>>,
    new: BTreeMap<Identity, NewIdentity>,
    /// The numbers that stand for memberships in the end, where that is new.
    standing: HashMap<Arc<Membership>, Identity>,
}

impl Numbers {
    /// The number in the tables that sources say the same of.
    fn like(&self, identity: Identity) -> Identity {
        self.new.get(&identity).map_or(identity, |new| new.like)
    }

    /// Those with a meaning that the tables do not know yet.
    fn meanings(&self) -> impl Iterator<Item = (Identity, &Arc<Membership>)> {
        let redefined = self.redefined.iter().map(|(identity, membership)| (*identity, membership));
        redefined.chain(self.new.iter().map(|(identity, new)| (*identity, &new.membership)))
    }
}

impl Index {
    /// Finds what must be written.
    pub(super) fn plan(&mut self, work: &Work) -> Plan {
        let mut plan = Plan::default();
        self.find_switches(work, &mut plan);
        let mut sources: BTreeMap<RuleSetId, BTreeSet<PodId>> = BTreeMap::new();
        for switch in &plan.switches {
            if let Some(from) = switch.from.filter(|from| from.number() > 0) {
                sources.entry(from).or_default().insert(switch.pod);
            }
        }
        plan.moves = self.find_moves(work);
        let numbers = self.number(&mut plan, &sources, work);
        self.replace_sources(&mut plan, &mut sources, &numbers);

        let mut is_left: BTreeMap<Identity, usize> = BTreeMap::new();
        for step in plan.moves.iter().filter(|step| step.is_there) {
            *is_left.entry(step.from).or_default() += 1;
        }
        let is_joined: BTreeSet<Identity> =
            plan.moves.iter().filter(|step| step.stays).map(|step| step.finally).collect();
        for (identity, leaving) in is_left {
            let is_dead = leaving == self.identities.prefixes_of(identity) && !is_joined.contains(&identity);
            if is_dead && identity != Identity::ANYONE {
                plan.dead_identities.push(identity);
            }
        }
        self.extend_sets(&mut plan, &sources, &numbers);
        self.fill_new_sets(&mut plan, &numbers);

        plan.definitions.extend(numbers.redefined);
        let standing = numbers.new.into_iter().filter(|(_, new)| !new.passes);
        plan.definitions.extend(standing.map(|(identity, new)| (identity, new.membership)));
        for (id, leaving) in &sources {
            let stays = self.rule_sets.get(*id).is_some_and(|set| set.pods.difference(leaving).next().is_some());
            if !stays && plan.switches.iter().all(|switch| switch.to != *id) {
                plan.dead_sets.push(*id);
            }
        }
        plan
    }

    /// Finds the pods that are to be pointed at other rule sets, and makes those rule sets that there are not.
    fn find_switches(&mut self, work: &Work, plan: &mut Plan) {
        let mut made: HashMap<Arc<SetKey>, RuleSetId> = HashMap::new();
        for id in &work.touched {
            let assigned = self.assigned.get(id);
            let from = assigned.map(|(_, rule_set)| *rule_set);
            let pod = self.population.pod(*id).filter(|pod| Population::is_local(pod, &self.view));
            let Some(name) = pod.map(|pod| &pod.name).or(assigned.map(|(name, _)| name)).cloned() else { continue };
            let to = match (pod, self.selections.get(*id)) {
                (None, _) => RuleSetId::CLOSED,
                (Some(_), _) if self.closed.contains_key(id) => RuleSetId::CLOSED,
                (Some(_), None) => RuleSetId::OPEN,
                (Some(pod), Some(versions)) => {
                    let key = Arc::new(SetKey::of(versions, pod, &self.policies));
                    match self.rule_sets.find(&key).or_else(|| made.get(&key).copied()) {
                        Some(known) => known,
                        None => {
                            let set = RuleSet::new(Arc::clone(&key), &self.policies, &mut self.reasons);
                            let new = self.rule_sets.next_id(set.directions());
                            plan.new_sets.insert(new, set);
                            made.insert(key, new);
                            new
                        }
                    }
                }
            };
            if from != Some(to) || pod.is_none() {
                plan.switches.push(Switch { pod: *id, name, from, to, is_gone: pod.is_none() });
            }
        }
    }

    /// Finds the prefixes whose identity changes.
    fn find_moves(&self, work: &Work) -> Vec<Move> {
        let mut shared: BTreeSet<Arc<Membership>> = BTreeSet::new();
        let mut moves = Vec::new();
        for net in &work.prefixes {
            let is_there = self.identities.prefixes.get(net).is_some();
            if !is_there && !self.may_be_needed(net) {
                continue;
            }
            let (membership, stays) = self.membership(net);
            let from = self.identities.of(net);
            if !stays && !is_there || stays && is_there && **self.identities.membership(from) == membership {
                continue;
            }
            let membership = match shared.get(&membership) {
                Some(shared) => Arc::clone(shared),
                None => {
                    let new = Arc::new(membership);
                    shared.insert(Arc::clone(&new));
                    new
                }
            };
            moves.push(Move { net: *net, is_there, stays, from, membership, meanwhile: from, finally: from });
        }
        moves
    }

    /// Numbers the identities that prefixes move to.
    fn number(&mut self, plan: &mut Plan, sources: &BTreeMap<RuleSetId, BTreeSet<PodId>>, work: &Work) -> Numbers {
        let mut numbers = Numbers::default();
        self.redefine(plan, work, &mut numbers);
        let mut found: HashMap<(Identity, Arc<Membership>), (Identity, Identity)> = HashMap::new();
        for step in &mut plan.moves {
            let key = (step.from, Arc::clone(&step.membership));
            let (meanwhile, finally) = match found.get(&key) {
                Some(known) => *known,
                None => {
                    let new = self.number_one(step.from, &step.membership, sources, &mut numbers);
                    found.insert(key, new);
                    new
                }
            };
            step.meanwhile = meanwhile;
            step.finally = finally;
        }
        numbers
    }

    /// Finds the numbers that can stay, with another meaning.
    fn redefine(&self, plan: &Plan, work: &Work, numbers: &mut Numbers) {
        let mut groups: BTreeMap<Identity, (usize, BTreeMap<&Arc<Membership>, usize>)> = BTreeMap::new();
        for step in plan.moves.iter().filter(|step| step.is_there && step.from != Identity::ANYONE) {
            let (moving, to) = groups.entry(step.from).or_default();
            *moving += 1;
            if step.stays {
                *to.entry(&step.membership).or_default() += 1;
            }
        }
        for (identity, (moving, to)) in groups {
            if moving < self.identities.prefixes_of(identity) {
                continue;
            }
            let before = self.identities.membership(identity);
            let may_become = |after: &Membership| {
                let changed = before.atoms.iter().filter(|atom| after.atoms.binary_search(atom).is_err());
                let changed =
                    changed.chain(after.atoms.iter().filter(|atom| before.atoms.binary_search(atom).is_err()));
                let is_unknown = |atom: &AtomId| work.newborn.contains(atom) || work.dying.contains(atom);
                after.ports == before.ports && !after.is_nobody() && changed.into_iter().all(is_unknown)
            };
            let is_free = |after: &Arc<Membership>| {
                self.identities.find(after).is_none() && !numbers.standing.contains_key(after)
            };
            let best = to.into_iter().filter(|(after, _)| may_become(after) && is_free(after));
            if let Some((after, _)) = best.max_by_key(|(after, count)| (*count, Reverse(Arc::clone(after)))) {
                numbers.standing.insert(Arc::clone(after), identity);
                numbers.redefined.insert(identity, Arc::clone(after));
            }
        }
    }

    /// The numbers, meanwhile and finally, of addresses that move from an identity to a membership.
    fn number_one(
        &mut self,
        from: Identity,
        to: &Arc<Membership>,
        sources: &BTreeMap<RuleSetId, BTreeSet<PodId>>,
        numbers: &mut Numbers,
    ) -> (Identity, Identity) {
        let in_tables = || self.identities.find(to).filter(|identity| !numbers.redefined.contains_key(identity));
        let standing = numbers.standing.get(to).copied().or_else(in_tables);
        if let Some(standing) = standing {
            let (a, b) = (numbers.like(standing), from);
            let is_alike =
                |id: &RuleSetId| self.rule_sets.get(*id).is_none_or(|source| source.written(a) == source.written(b));
            if a == b || sources.keys().all(is_alike) {
                return (standing, standing);
            }
        }
        let number = self.identities.next_number();
        let membership = Arc::clone(to);
        numbers.new.insert(number, NewIdentity { like: from, membership, passes: standing.is_some() });
        if standing.is_none() {
            numbers.standing.insert(Arc::clone(to), number);
        }
        (number, standing.unwrap_or(number))
    }

    /// Has sources written anew that other pods stay with, or come to, but that cannot stay as they are.
    fn replace_sources(
        &mut self,
        plan: &mut Plan,
        sources: &mut BTreeMap<RuleSetId, BTreeSet<PodId>>,
        numbers: &Numbers,
    ) {
        for (id, leaving) in sources {
            let Some(set) = self.rule_sets.get(*id) else { continue };
            let staying: Vec<PodId> = set.pods.difference(leaving).copied().collect();
            if staying.is_empty() && plan.switches.iter().all(|switch| switch.to != *id) {
                continue;
            }
            let changes = |new: &NewIdentity| {
                let answers = set.answers(&new.membership);
                set.written(new.like).map_or(count(&answers) > 0, |written| *written != answers)
            };
            if !numbers.new.values().any(changes) {
                continue;
            }
            let set = RuleSet::new(Arc::clone(set.key()), &self.policies, &mut self.reasons);
            let new = self.rule_sets.next_id(set.directions());
            plan.new_sets.insert(new, set);
            for switch in plan.switches.iter_mut().filter(|switch| switch.to == *id) {
                switch.to = new;
            }
            for pod in staying {
                if let Some((name, _)) = self.assigned.get(&pod) {
                    let name = name.clone();
                    plan.switches.push(Switch { pod, name, from: Some(*id), to: new, is_gone: false });
                }
                leaving.insert(pod);
            }
        }
    }

    /// Finds what the rule sets in the tables must say of new numbers.
    fn extend_sets(&self, plan: &mut Plan, sources: &BTreeMap<RuleSetId, BTreeSet<PodId>>, numbers: &Numbers) {
        for (identity, new) in &numbers.new {
            let list = if new.passes { &mut plan.passing } else { &mut plan.extensions };
            for id in sources.keys() {
                if let Some(written) = self.rule_sets.get(*id).and_then(|source| source.written(new.like)) {
                    list.push((*id, *identity, written.clone()));
                }
            }
            for id in self.rule_sets.about(&new.membership) {
                if let Some(set) = self.rule_sets.get(id).filter(|_| !sources.contains_key(&id)) {
                    let answers = set.answers(&new.membership);
                    if count(&answers) > 0 {
                        list.push((id, *identity, answers));
                    }
                }
            }
        }
    }

    /// Finds what new rule sets say of all identities, of small ones first, as far as there is room: what does not fit need
    /// not be known, and could be a thousand times what does.
    fn fill_new_sets(&self, plan: &mut Plan, numbers: &Numbers) {
        let mut room = self.limits.rules.saturating_sub(self.rule_sets.count_rules() + plan.cost().rules);
        let dead: BTreeSet<Identity> = plan.dead_identities.iter().copied().collect();
        let mut by_atom: HashMap<AtomId, Vec<Identity>> = HashMap::new();
        let mut with_ports: Vec<Identity> = Vec::new();
        for (identity, membership) in numbers.meanings() {
            for atom in &membership.atoms {
                by_atom.entry(*atom).or_default().push(identity);
            }
            if !membership.ports.is_empty() {
                with_ports.push(identity);
            }
        }
        let new = |atom: &AtomId| by_atom.get(atom).map_or(0, Vec::len);
        let size = |set: &RuleSet| set.atoms().map(|atom| self.identities.count_with_atom(atom) + new(&atom)).sum();
        let mut in_order: Vec<(usize, RuleSetId)> = plan.new_sets.iter().map(|(id, set)| (size(set), *id)).collect();
        in_order.sort_unstable();
        for (_, id) in in_order {
            let Some(set) = plan.new_sets.get_mut(&id) else { continue };
            let (mut taken, passing) = (0, plan.passing.len());
            let mut concerned: BTreeSet<Identity> = BTreeSet::new();
            for atom in set.atoms() {
                concerned.extend(self.identities.with_atom(atom));
                concerned.extend(by_atom.get(&atom).into_iter().flatten());
            }
            if set.uses_names() {
                concerned.extend(self.identities.with_ports());
                concerned.extend(&with_ports);
            }
            for identity in concerned.difference(&dead) {
                let new = numbers.new.get(identity);
                let membership = new.map(|new| &new.membership).or_else(|| numbers.redefined.get(identity));
                let answers = set.answers(membership.unwrap_or_else(|| self.identities.membership(*identity)));
                taken += count(&answers);
                if taken > room {
                    set.unwrite();
                    plan.passing.truncate(passing);
                    plan.without_room.insert(id, taken);
                    taken = 0;
                    break;
                }
                if new.is_some_and(|new| new.passes) {
                    plan.passing.push((id, *identity, answers));
                } else {
                    set.write(*identity, answers);
                }
            }
            room -= taken;
        }
    }
}
