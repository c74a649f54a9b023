//! Makes the tables what they should be, as far as they have room.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use sluice_abi::RuleSetId;

use super::plan::Plan;
use super::policies::VersionId;
use super::population::PodId;
use super::rule_sets::{Answers, RuleSet, count, rules_of};
use super::{Identity, Index, Work};
use crate::steps::Step;

/// Room in the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Cost {
    pub rules: usize,
    pub prefixes: usize,
}

impl Index {
    /// Makes the tables what they should be. What does not fit is closed.
    pub(super) fn settle(&mut self, mut work: Work) {
        let mut needs: BTreeMap<PodId, Cost> = BTreeMap::new();
        loop {
            self.maintain(&mut work);
            let plan = self.plan(&work);
            let cost = plan.cost();
            if self.has_room_for(cost) {
                self.commit(plan);
                break;
            }
            let pods = self.without_room(&plan, cost);
            self.discard(plan);
            for (pods, need) in pods {
                needs.extend(pods.iter().map(|id| (*id, need)));
                self.close(pods, &mut work);
            }
        }
        self.note_needs(needs);
    }

    /// Notes what closed pods need at least, so that they are not tried again for less.
    fn note_needs(&mut self, needs: impl IntoIterator<Item = (PodId, Cost)>) {
        for (id, need) in needs {
            if let Some(place) = self.closed.get_mut(&id) {
                *place = need;
            }
        }
    }

    /// Tries again what does not fit: pods with the same policies together.
    pub(super) fn heal(&mut self, always: bool) {
        let mut groups: BTreeMap<Box<[VersionId]>, BTreeSet<PodId>> = BTreeMap::new();
        for id in self.closed.keys() {
            let pod = self.population.pod(*id);
            if let Some(pod) = pod
                && let Some(namespace) = self.population.namespace(&pod.name.namespace)
            {
                groups.entry(self.policies.selecting(namespace, &pod.labels)).or_default().insert(*id);
            }
        }
        for group in groups.into_values() {
            let need = group.iter().filter_map(|id| self.closed.get(id)).copied().next().unwrap_or_default();
            if always || self.has_room_for(need) {
                self.reopen(&group);
            }
        }
    }

    /// Opens pods that did not fit, or closes them again.
    fn reopen(&mut self, group: &BTreeSet<PodId>) {
        for id in group {
            self.closed.remove(id);
        }
        let mut work = Work { subjects: group.clone(), ..Work::default() };
        self.maintain(&mut work);
        let plan = self.plan(&work);
        let need = plan.cost();
        if self.has_room_for(need) {
            self.commit(plan);
            return;
        }
        self.discard(plan);
        self.close(group.clone(), &mut work);
        self.settle(work);
        self.note_needs(group.iter().map(|id| (*id, need)));
    }

    fn has_room_for(&self, cost: Cost) -> bool {
        self.rule_sets.count_rules().saturating_add(cost.rules) <= self.limits.rules
            && self.identities.prefixes.len().saturating_add(cost.prefixes) <= self.limits.prefixes
    }

    /// The pods that are to do without rules, and what those need at least: those of all rule sets that were given up, or else
    /// of the one that needs most of what there is too little of.
    fn without_room(&self, plan: &Plan, cost: Cost) -> Vec<(BTreeSet<PodId>, Cost)> {
        let given_up =
            plan.without_room.iter().map(|(id, rules)| (self.pods_of(*id, plan), Cost { rules: *rules, prefixes: 0 }));
        let given_up: Vec<_> = given_up.filter(|(pods, _)| !pods.is_empty()).collect();
        if given_up.is_empty() { vec![(self.largest(plan, cost), Cost::default())] } else { given_up }
    }

    /// The pods that a rule set has, or would have.
    fn pods_of(&self, id: RuleSetId, plan: &Plan) -> BTreeSet<PodId> {
        let here = self.rule_sets.get(id).into_iter().flat_map(|set| &set.pods).copied();
        let coming = plan.switches.iter().filter(|switch| switch.to == id).map(|switch| switch.pod);
        here.chain(coming).collect()
    }

    /// The pods of the rule set that needs most of what there is too little of.
    fn largest(&self, plan: &Plan, cost: Cost) -> BTreeSet<PodId> {
        let mut needs: BTreeMap<RuleSetId, usize> = BTreeMap::new();
        if self.rule_sets.count_rules().saturating_add(cost.rules) > self.limits.rules {
            for (id, set) in &plan.new_sets {
                *needs.entry(*id).or_default() += set.len();
            }
            for (id, _, answers) in plan.extensions.iter().chain(&plan.passing) {
                *needs.entry(*id).or_default() += count(answers);
            }
        } else {
            for membership in plan.added() {
                let new = plan.new_sets.iter().filter(|(_, set)| count(&set.answers(membership)) > 0);
                for id in self.rule_sets.about(membership).into_iter().chain(new.map(|(id, _)| *id)) {
                    *needs.entry(id).or_default() += 1;
                }
            }
        }
        let pods_of = |id: RuleSetId| self.pods_of(id, plan);
        let mut needs: Vec<(RuleSetId, usize)> = needs.into_iter().collect();
        needs.sort_by_key(|(_, need)| *need);
        let largest = needs.into_iter().rev().map(|(id, _)| pods_of(id)).find(|pods| !pods.is_empty());
        // Prefixes that are there only to tell apart what no rule has yet: whoever has rules at all.
        let all = || plan.new_sets.keys().copied().chain(self.rule_sets.iter().map(|(id, _)| id));
        largest.or_else(|| all().map(pods_of).find(|pods| !pods.is_empty())).unwrap_or_default()
    }

    /// Closes pods, at once.
    fn close(&mut self, pods: BTreeSet<PodId>, work: &mut Work) {
        for id in pods {
            self.closed.insert(id, Cost::default());
            work.subjects.insert(id);
            let Some((name, rule_set)) = self.assigned.get_mut(&id) else { continue };
            if *rule_set == RuleSetId::CLOSED {
                continue;
            }
            self.steps.push(Step::SetRuleSet(name.clone(), RuleSetId::CLOSED));
            let before = mem::replace(rule_set, RuleSetId::CLOSED);
            if let Some(set) = self.rule_sets.get_mut(before) {
                set.pods.remove(&id);
                if set.pods.is_empty() {
                    self.remove_set(before);
                }
            }
        }
    }

    fn remove_set(&mut self, id: RuleSetId) {
        if let Some(set) = self.rule_sets.remove(id) {
            self.steps.extend(set.rules(id).map(|(key, _)| Step::RemoveRule(key)));
            set.reasons().for_each(|reason| self.reasons.release(reason));
        }
    }

    /// Takes back what a plan has taken.
    fn discard(&mut self, plan: Plan) {
        for set in plan.new_sets.values() {
            set.reasons().for_each(|reason| self.reasons.release(reason));
        }
    }

    /// Makes a plan so, and tells the steps.
    fn commit(&mut self, plan: Plan) {
        let add = |(key, rule)| Step::AddRule(key, rule);
        let rules = |(id, identity, answers): &(RuleSetId, Identity, Answers)| {
            rules_of(*id, *identity, answers).collect::<Vec<_>>()
        };
        self.steps.extend(plan.new_sets.iter().flat_map(|(id, set): (&RuleSetId, &RuleSet)| set.rules(*id)).map(add));
        self.steps.extend(plan.extensions.iter().chain(&plan.passing).flat_map(rules).map(add));
        self.steps.extend(plan.before().into_iter().map(|(net, identity)| Step::SetIdentity(net, identity)));
        self.steps.extend(plan.switches.iter().map(|switch| Step::SetRuleSet(switch.name.clone(), switch.to)));
        self.steps.extend(plan.after().map(|(net, identity)| Step::SetIdentity(net, identity)));
        let removed = plan.removed();
        self.steps.extend(removed.into_iter().map(Step::RemovePrefix));
        self.steps.extend(plan.passing.iter().flat_map(rules).map(|(key, _)| Step::RemoveRule(key)));

        for (identity, membership) in &plan.definitions {
            self.identities.define(*identity, membership.clone());
        }
        for (net, identity) in plan.outcome() {
            match identity {
                Some(identity) => self.identities.set_prefix(net, identity),
                None => self.identities.remove_prefix(&net),
            }
        }
        for (id, set) in plan.new_sets {
            self.rule_sets.insert(id, set);
        }
        for (id, identity, answers) in plan.extensions {
            self.rule_sets.write(id, identity, answers);
        }
        for switch in plan.switches {
            let before = self.assigned.get(&switch.pod).map(|(_, before)| *before);
            if let Some(set) = before.and_then(|before| self.rule_sets.get_mut(before)) {
                set.pods.remove(&switch.pod);
            }
            if switch.is_gone {
                self.assigned.remove(&switch.pod);
                self.population.forget(switch.pod, &switch.name);
                continue;
            }
            if let Some(set) = self.rule_sets.get_mut(switch.to) {
                set.pods.insert(switch.pod);
            }
            self.assigned.insert(switch.pod, (switch.name, switch.to));
        }
        for id in plan.dead_sets {
            self.remove_set(id);
        }
        for identity in plan.dead_identities {
            let membership = self.identities.membership(identity).clone();
            self.identities.undefine(identity);
            for (id, answers) in self.rule_sets.erase(identity, &membership) {
                self.steps.extend(rules_of(id, identity, &answers).map(|(key, _)| Step::RemoveRule(key)));
            }
        }
    }
}
