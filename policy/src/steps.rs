//! Steps from one state of the tables to the next, as one writer makes them.

use ipnet::IpNet;
use sluice_abi::{Identity, Rule, RuleKey, RuleSetId};

use crate::name::PodName;

/// A step from one state of the tables to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes a rule, under a key that has none.
    AddRule(RuleKey, Rule),
    /// Says which identity the addresses of a prefix have, but for those of longer prefixes.
    SetIdentity(IpNet, Identity),
    /// Points a pod at its rule set.
    SetRuleSet(PodName, RuleSetId),
    /// Removes a prefix: its addresses have the identity of the next shorter one, or none in particular.
    RemovePrefix(IpNet),
    /// Removes a rule.
    RemoveRule(RuleKey),
    /// Changes nothing, but waits until no packet is being judged any more that began before: for a grace period of RCU.
    Settle,
}

/// What packets read before they read rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Table {
    Identities,
    RuleSets,
}

/// Steps in the making, with [`Step::Settle`] exactly where it is needed.
///
/// A packet that is being judged reads its pod's rule set and its peer's identity, in any order, then the rules. Of a
/// table that changes meanwhile it sees what was or what is. If both may have changed, it could see an old rule set and a
/// new identity, which no rules are made for. So packets settle between changes of one table and changes of the other,
/// and before rules go that they may be about to read.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    steps: Vec<Step>,
    /// The table that has changed since packets last settled.
    unsettled: Option<Table>,
}

impl Steps {
    /// Appends a step.
    pub fn push(&mut self, step: Step) {
        let changed = match &step {
            Step::SetIdentity(..) | Step::RemovePrefix(_) => Some(Table::Identities),
            Step::SetRuleSet(..) => Some(Table::RuleSets),
            Step::RemoveRule(_) => None,
            Step::AddRule(..) | Step::Settle => self.unsettled,
        };
        if self.unsettled.is_some() && self.unsettled != changed {
            self.steps.push(Step::Settle);
        }
        self.unsettled = changed;
        self.steps.push(step);
    }

    /// Appends steps.
    pub fn extend(&mut self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.push(step));
    }

    /// The steps since this was last asked. Those that follow still take into account what has not settled.
    pub fn take(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::{PolicyDirection, Port, Protocol, RuleVerdict};

    #[test]
    fn packets_settle_between_changes_of_what_they_read() {
        let net: IpNet = "10.0.0.0/8".parse().unwrap();
        let pod = PodName::new("x", "a");
        let key = RuleKey::new(RuleSetId(1), PolicyDirection::Ingress, Identity(1), Protocol::TCP, Port::new(80));
        let add = || Step::AddRule(key, Rule { verdict: RuleVerdict::Allow, policy: 1 });
        let remove = || Step::RemoveRule(key);
        let identity = || Step::SetIdentity(net, Identity(1));
        let rule_set = || Step::SetRuleSet(pod.clone(), RuleSetId(1));
        let made = |list: Vec<Step>| {
            let mut steps = Steps::default();
            steps.extend(list);
            steps.take()
        };

        let whole = vec![add(), identity(), identity(), rule_set(), rule_set(), Step::RemovePrefix(net), remove()];
        let mut settling = whole.clone();
        [6, 5, 3].into_iter().for_each(|at| settling.insert(at, Step::Settle));
        assert_eq!(made(whole), settling);

        let alone = vec![add(), rule_set(), add()];
        assert_eq!(made(alone.clone()), alone, "nothing has to settle for one table's sake");
        assert_eq!(made(vec![rule_set(), remove(), remove()]), [rule_set(), Step::Settle, remove(), remove()]);

        let mut steps = Steps::default();
        steps.push(rule_set());
        steps.take();
        steps.push(identity());
        assert_eq!(steps.take(), [Step::Settle, identity()], "packets may outlast a change");
    }
}
