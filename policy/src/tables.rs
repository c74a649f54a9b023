//! The tables as they lie in memory.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{Identity, Rule, RuleKey, RuleSetId};
use sluice_datapath::policy::PolicyTables;

use crate::name::PodName;
use crate::prefixes::Prefixes;
use crate::steps::Step;

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
