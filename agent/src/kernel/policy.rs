//! What policies say, in the programs' tables: one writer, steps in order.

use std::collections::BTreeMap;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, MapData};
use sluice_abi::{Denial, DenialKey, Endpoint, PolicyMode, RuleSetId, maps};
use sluice_api::EndpointRecord;
use sluice_policy::{Delta, Index, LastNumbers, Limits, PodName, Step, Tables};

use super::error::{Doing, KernelError};
use super::{Kernel, grace, open};

/// What policies say of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Policy {
    pub rule_set: RuleSetId,
    pub mode: PolicyMode,
}

impl Policy {
    /// Of a pod that nothing is known of: it is not to be heard.
    pub const UNKNOWN: Self = Self { rule_set: RuleSetId::CLOSED, mode: PolicyMode::Enforce };
    /// Of an endpoint that is no pod's: no policy can select it.
    const NONE: Self = Self { rule_set: RuleSetId::OPEN, mode: PolicyMode::Enforce };

    /// What is written of an endpoint.
    pub fn of(endpoint: &Endpoint) -> Self {
        Self { rule_set: endpoint.rule_set, mode: endpoint.mode }
    }
}

/// Something that policies have denied, or would have.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Whose policies: the endpoint's record, while there is one.
    pub record: Option<EndpointRecord>,
    /// What was denied.
    pub key: DenialKey,
    /// Packets.
    pub packets: u64,
    /// Seconds since the last one.
    pub idle_seconds: u64,
}

/// Whose an endpoint is, if it is a pod's.
pub(super) fn pod_of(record: &EndpointRecord) -> Option<PodName> {
    record.pod.as_ref().map(|pod| PodName::new(&pod.namespace, &pod.name))
}

impl Kernel {
    /// The greatest numbers in the tables, such as those that an earlier agent has left.
    pub fn numbers(&self) -> LastNumbers {
        let identities = self.addresses.identities().map(|(_, identity)| *identity);
        let rule_sets = self.unclaimed.values().map(|endpoint| endpoint.rule_set);
        LastNumbers::greatest(self.known_rules.iter(), identities, rule_sets)
    }

    /// How much fits into the tables of policies.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Makes the steps of a change. After an error the tables are for [`take_over_policy`](Self::take_over_policy).
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn apply_policy(&mut self, delta: &Delta) -> Result<(), KernelError> {
        delta.steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::AddRule(key, rule) => {
                let result = self.rules.insert(&Key::new(key.length, key.path()), *rule, 0);
                result.doing(|| format!("writing a rule of rule set {}", key.rule_set().number()))?;
                self.known_rules.insert(*key, *rule);
            }
            Step::RemoveRule(key) => {
                let result = self.rules.remove(&Key::new(key.length, key.path()));
                result.doing(|| format!("removing a rule of rule set {}", key.rule_set().number()))?;
                self.known_rules.remove(key);
            }
            Step::SetIdentity(net, identity) => {
                let changed = self.addresses.identify(*net, Some(*identity));
                self.refresh(changed)?;
            }
            Step::RemovePrefix(net) => {
                let changed = self.addresses.identify(*net, None);
                self.refresh(changed)?;
            }
            Step::SetRuleSet(pod, rule_set) => self.govern(pod, |policy| policy.rule_set = *rule_set)?,
            Step::Settle => grace::wait(&self.expedite),
        }
        Ok(())
    }

    /// Sets what becomes of what a pod's policies deny.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_mode(&mut self, pod: &PodName, mode: PolicyMode) -> Result<(), KernelError> {
        self.govern(pod, |policy| policy.mode = mode)
    }

    fn govern(&mut self, pod: &PodName, change: impl FnOnce(&mut Policy)) -> Result<(), KernelError> {
        let policy = self.policies.entry(pod.clone()).or_insert(Policy::UNKNOWN);
        change(policy);
        let now @ Policy { rule_set, mode } = *policy;
        let slots = self.enforced.slots(pod).to_vec();
        if slots.is_empty() && now == Policy::UNKNOWN {
            // As good as nothing said.
            self.policies.remove(pod);
        }
        slots.into_iter().try_for_each(|slot| {
            self.change_endpoint(slot, |endpoint| (endpoint.rule_set, endpoint.mode) = (rule_set, mode))
        })
    }

    /// What policies say of a pod's endpoint, or of one that is no pod's; `None`: nothing yet.
    pub(super) fn policy_of(&self, pod: Option<&PodName>) -> Option<Policy> {
        pod.map_or(Some(Policy::NONE), |pod| self.policies.get(pod).copied())
    }

    /// Makes the tables those of an index, whatever they hold.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn take_over_policy(&mut self, index: &mut Index) -> Result<(), KernelError> {
        // What an attempt before has left.
        self.refresh([])?;
        let mut pods = Vec::new();
        for enforced in self.enforced.iter() {
            let Some(pod) = enforced.pod.clone() else { continue };
            let action = || format!("reading endpoint {}", enforced.slot.0);
            let endpoint = self.endpoints.get(&enforced.slot.0, 0).doing(action)?;
            // What stays as it is, no step tells of.
            self.policies.insert(pod.clone(), Policy::of(&endpoint));
            pods.push((pod, endpoint.rule_set));
        }
        let rules = self.known_rules.iter().map(|(key, rule)| (*key, *rule));
        let identities = self.addresses.identities().map(|(net, identity)| (*net, *identity));
        let left = Tables::of(rules, identities, pods);
        self.apply_policy(&index.take_over(&left))
    }

    /// What policies have denied, or would have, the last one first; at most `limit`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn denials(&self, limit: usize) -> Result<Vec<Denied>, KernelError> {
        let map: HashMap<MapData, DenialKey, Denial> = open(&self.pins, maps::DENIALS)?;
        let now = self.clock()?.now()?;
        let records: BTreeMap<u32, &EndpointRecord> =
            self.enforced.iter().map(|enforced| (enforced.slot.0, &enforced.record)).collect();
        // Entries that come and go meanwhile may be missed or end the listing early: it is a look, not an account.
        let entries = map.iter().map_while(Result::ok);
        let mut list: Vec<Denied> = entries
            .map(|(key, Denial { packets, last_seen, .. })| Denied {
                record: records.get(&key.endpoint.0).map(|record| (*record).clone()),
                key,
                packets,
                idle_seconds: super::flows::seconds(now.wrapping_sub(last_seen)),
            })
            .collect();
        list.sort_by_key(|denied| denied.idle_seconds);
        list.truncate(limit);
        Ok(list)
    }
}
