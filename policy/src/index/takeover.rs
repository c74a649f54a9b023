//! From the tables that an earlier agent has left to those of an index.
//!
//! What the numbers in the old tables stood for is not known any more, but what each old rule set says of each old
//! identity is, and that is all that pods are judged by. The new tables have other numbers, so an address can have one
//! under which old rule sets say what they said of it and new ones what they are to say:
//! - its new identity, with copies of what old rule sets say of the old one, for the addresses that come from one old
//!   identity; where they come from several, from the most common one;
//! - for the others, a number that only passes, with copies of what both say;
//! - its old identity, where it has no new one: whom new rule sets do not know, they judge as anyone.
//!
//! Addresses go there first. Then pods are pointed at their new rule sets, addresses go on to their new identities, and
//! whatever is left of the old tables is removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use sluice_abi::{Identity, Rule, RuleKey, RuleSetId};

use super::{Delta, Index};
use crate::name::PodName;
use crate::steps::{Step, Steps};
use crate::tables::Tables;

/// A prefix of the old or new tables, and the identities of its addresses, but for those of longer ones.
struct Place {
    net: IpNet,
    from: Identity,
    /// The one that it has while pods are pointed at other rule sets.
    meanwhile: Identity,
    to: Identity,
}

/// What must be written.
struct Takeover<'a> {
    old: &'a Tables,
    new: &'a Tables,
    places: Vec<Place>,
    /// What rule sets say under numbers that are not theirs.
    copies: Vec<(RuleKey, Rule)>,
}

impl Index {
    /// The way from the tables that an earlier agent has left, in whatever state, to the present ones. The index must have
    /// been [`numbered_after`](Self::numbered_after) those; what it has told so far counts as not made. Pods that it does
    /// not know are denied everything.
    ///
    /// Where there is no room for both tables and what is needed in between, all pods with rules are closed meanwhile.
    pub fn take_over(&mut self, old: &Tables) -> Delta {
        self.steps = Steps::default();
        let new = self.tables();
        let mut next_number = || self.identities.next_number();
        let takeover = Takeover::new(old, &new, &mut next_number);
        if takeover.rules() <= self.limits.rules && takeover.places.len() <= self.limits.prefixes {
            takeover.write(&mut self.steps);
        } else {
            let closed = close(old, &mut self.steps);
            Takeover::new(&closed, &new, &mut next_number).write(&mut self.steps);
        }
        Delta { steps: self.steps.take() }
    }
}

/// Closes all pods with rules, and empties the tables. What is left.
fn close(old: &Tables, steps: &mut Steps) -> Tables {
    let has_rules = |(_, rule_set): &(&PodName, &RuleSetId)| rule_set.number() > 0;
    steps.extend(old.pods().filter(has_rules).map(|(pod, _)| Step::SetRuleSet(pod.clone(), RuleSetId::CLOSED)));
    steps.extend(old.identities().map(|(net, _)| Step::RemovePrefix(*net)));
    steps.extend(old.rules().map(|(key, _)| Step::RemoveRule(*key)));
    let mut closed = Tables::default();
    for (pod, rule_set) in old.pods().filter(|pod| !has_rules(pod)) {
        closed.apply(&Step::SetRuleSet(pod.clone(), *rule_set));
    }
    closed
}

impl<'a> Takeover<'a> {
    fn new(old: &'a Tables, new: &'a Tables, next_number: &mut impl FnMut() -> Identity) -> Self {
        let places = places(old, new, next_number);
        let in_use: BTreeSet<RuleSetId> = old.pods().map(|(_, rule_set)| *rule_set).collect();
        let old_answers = by_identity(old.rules().filter(|(key, _)| in_use.contains(&key.rule_set())));
        let new_answers = by_identity(new.rules());
        let ways: BTreeSet<_> = places.iter().map(|place| (place.from, place.meanwhile, place.to)).collect();
        let mut copies = Vec::new();
        for (from, meanwhile, to) in ways {
            for (answers, identity) in [(&old_answers, from), (&new_answers, to)] {
                if identity != meanwhile && identity != Identity::ANYONE {
                    let answers = answers.get(&identity).into_iter().flatten();
                    copies.extend(answers.map(|(key, rule)| (key.of(meanwhile), *rule)));
                }
            }
        }
        Self { old, new, places, copies }
    }

    /// How many rules there are at most at a time.
    fn rules(&self) -> usize {
        self.old.rules().count() + self.new.rules().count() + self.copies.len()
    }

    fn write(&self, steps: &mut Steps) {
        let (old, new) = (self.old, self.new);
        let added = new.rules().map(|(key, rule)| (*key, *rule)).chain(self.copies.iter().copied());
        steps.extend(added.map(|(key, rule)| Step::AddRule(key, rule)));
        let is_due = |place: &&Place| !old.has_prefix(&place.net) || place.meanwhile != place.from;
        // In any order: addresses of a prefix that is to come have the old identity of those around it.
        let before = self.places.iter().filter(is_due);
        steps.extend(before.map(|place| Step::SetIdentity(place.net, place.meanwhile)));

        let pods: BTreeSet<&PodName> = old.pods().chain(new.pods()).map(|(pod, _)| pod).collect();
        let switches = pods.into_iter().filter(|pod| old.rule_set(pod) != new.rule_set(pod));
        steps.extend(switches.map(|pod| Step::SetRuleSet(pod.clone(), new.rule_set(pod))));

        for Place { net, meanwhile, to, .. } in &self.places {
            if !new.has_prefix(net) {
                steps.push(Step::RemovePrefix(*net));
            } else if meanwhile != to {
                steps.push(Step::SetIdentity(*net, *to));
            }
        }
        let removed = old.rules().map(|(key, _)| key).chain(self.copies.iter().map(|(key, _)| key));
        steps.extend(removed.map(|key| Step::RemoveRule(*key)));
    }
}

fn places(old: &Tables, new: &Tables, next_number: &mut impl FnMut() -> Identity) -> Vec<Place> {
    let nets: BTreeSet<IpNet> = old.identities().chain(new.identities()).map(|(net, _)| *net).collect();
    let mut places: Vec<Place> = Vec::with_capacity(nets.len());
    let mut ways: BTreeMap<(Identity, Identity), usize> = BTreeMap::new();
    for net in nets {
        let (from, to) = (old.identity_within(&net), new.identity_within(&net));
        *ways.entry((from, to)).or_default() += 1;
        places.push(Place { net, from, meanwhile: to, to });
    }
    let mut most_common: HashMap<Identity, (usize, Identity)> = HashMap::new();
    for ((from, to), count) in &ways {
        let most = most_common.entry(*to).or_default();
        *most = (*most).max((*count, *from));
    }
    let mut number = |from: Identity, to: Identity| match most_common.get(&to) {
        _ if to == Identity::ANYONE => from,
        Some((_, most)) if *most == from => to,
        Some(_) | None => next_number(),
    };
    let numbers: BTreeMap<(Identity, Identity), Identity> =
        ways.into_keys().map(|(from, to)| ((from, to), number(from, to))).collect();
    for place in &mut places {
        place.meanwhile = numbers[&(place.from, place.to)];
    }
    places
}

fn by_identity<'a>(rules: impl Iterator<Item = (&'a RuleKey, &'a Rule)>) -> HashMap<Identity, Vec<(RuleKey, Rule)>> {
    let mut answers: HashMap<Identity, Vec<(RuleKey, Rule)>> = HashMap::new();
    for (key, rule) in rules {
        answers.entry(key.identity()).or_default().push((*key, *rule));
    }
    answers
}
