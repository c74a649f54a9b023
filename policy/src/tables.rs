//! The tables as they lie in memory.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{Identity, Rule, RuleKey, RuleSetId};
use sluice_datapath::policy::PolicyTables;

use crate::name::PodName;
use crate::prefixes::Prefixes;
use crate::steps::Step;

/// The greatest numbers that stand in tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastNumbers {
    /// Of rule sets.
    pub rule_set: u32,
    /// Of identities.
    pub identity: Identity,
    /// Of reasons.
    pub reason: u32,
}

impl LastNumbers {
    /// Those of rules, of addresses, and of rule sets that pods are pointed at. An agent that dies in the middle of a change
    /// leaves rules of rule sets that no pod has and of identities that no address has.
    pub fn greatest<'a>(
        rules: impl Iterator<Item = (&'a RuleKey, &'a Rule)>,
        identities: impl Iterator<Item = Identity>,
        rule_sets: impl Iterator<Item = RuleSetId>,
    ) -> Self {
        let mut numbers = Self::default();
        identities.for_each(|identity| numbers.identity = numbers.identity.max(identity));
        rule_sets.for_each(|rule_set| numbers.rule_set = numbers.rule_set.max(rule_set.number()));
        for (key, rule) in rules {
            numbers.rule_set = numbers.rule_set.max(key.rule_set().number());
            numbers.identity = numbers.identity.max(key.identity());
            numbers.reason = numbers.reason.max(rule.policy);
        }
        numbers
    }
}

/// The tables in memory: what the kernel has, for answers without one.
#[derive(Clone, Default, Debug)]
pub struct Tables {
    rules: HashMap<RuleKey, Rule>,
    /// Number of rules of each length of key.
    lengths: BTreeMap<u32, usize>,
    identities: Prefixes<Identity>,
    pods: BTreeMap<PodName, RuleSetId>,
}

impl Tables {
    /// Tables of these rules, identities and pods.
    pub fn of(
        rules: impl IntoIterator<Item = (RuleKey, Rule)>,
        identities: impl IntoIterator<Item = (IpNet, Identity)>,
        pods: impl IntoIterator<Item = (PodName, RuleSetId)>,
    ) -> Self {
        let mut tables = Self::default();
        rules.into_iter().for_each(|(key, rule)| tables.apply(&Step::AddRule(key, rule)));
        identities.into_iter().for_each(|(net, identity)| tables.apply(&Step::SetIdentity(net, identity)));
        pods.into_iter().for_each(|(pod, rule_set)| tables.apply(&Step::SetRuleSet(pod, rule_set)));
        tables
    }

    /// The greatest numbers in them.
    pub fn numbers(&self) -> LastNumbers {
        let identities = self.identities.iter().map(|(_, identity)| *identity);
        LastNumbers::greatest(self.rules(), identities, self.pods.values().copied())
    }

    /// Makes a step.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::AddRule(key, rule) => {
                if self.rules.insert(*key, *rule).is_none() {
                    *self.lengths.entry(key.length).or_default() += 1;
                }
            }
            Step::RemoveRule(key) => {
                if self.rules.remove(key).is_some()
                    && let Some(count) = self.lengths.get_mut(&key.length)
                {
                    *count -= 1;
                    if *count == 0 {
                        self.lengths.remove(&key.length);
                    }
                }
            }
            Step::SetIdentity(net, identity) => {
                self.identities.insert(*net, *identity);
            }
            Step::RemovePrefix(net) => {
                self.identities.remove(net);
            }
            Step::SetRuleSet(pod, rule_set) => {
                self.pods.insert(pod.clone(), *rule_set);
            }
            Step::Settle => {}
        }
    }

    /// As whom policies know an address.
    pub fn identity(&self, address: IpAddr) -> Identity {
        self.identity_within(&IpNet::from(address))
    }

    /// The identity of the addresses of a CIDR, but for those of longer ones.
    pub(crate) fn identity_within(&self, net: &IpNet) -> Identity {
        self.identities.longest(net).map_or(Identity::ANYONE, |(_, identity)| *identity)
    }

    /// Whether a prefix is in the tables.
    pub(crate) fn has_prefix(&self, net: &IpNet) -> bool {
        self.identities.get(net).is_some()
    }

    /// The rule set of a pod of this node. One that nothing is known of has no rules that it could be judged by.
    pub fn rule_set(&self, pod: &PodName) -> RuleSetId {
        self.pods.get(pod).copied().unwrap_or(RuleSetId::CLOSED)
    }

    /// All rules, in no order.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, &Rule)> {
        self.rules.iter()
    }

    /// All prefixes, sorted.
    pub fn identities(&self) -> impl Iterator<Item = (&IpNet, &Identity)> {
        self.identities.iter()
    }

    /// The pods of this node and their rule sets, sorted.
    pub fn pods(&self) -> impl Iterator<Item = (&PodName, &RuleSetId)> {
        self.pods.iter()
    }
}

impl PolicyTables for Tables {
    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        let lengths = self.lengths.range(..=key.length).rev();
        lengths.into_iter().find_map(|(length, _)| self.rules.get(&key.prefix(*length)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::{PolicyDirection, Port, Protocol, RuleVerdict};

    #[test]
    fn numbers_are_taken_that_only_a_rule_has() {
        let key = RuleKey::new(RuleSetId(4), PolicyDirection::Egress, Identity(9), Protocol::TCP, Port::new(80));
        let rule = Rule { verdict: RuleVerdict::Allow, policy: 6 };
        let pod = (PodName::new("x", "a"), RuleSetId(3));
        let tables = Tables::of([(key, rule)], [("10.0.0.0/8".parse().unwrap(), Identity(2))], [pod]);
        assert_eq!(tables.numbers(), LastNumbers { rule_set: 4, identity: Identity(9), reason: 6 });
        assert_eq!(Tables::default().numbers(), LastNumbers::default());
    }
}
