//! What policy says of a flow, in one direction.
//!
//! Not asked here, because the tables need not say it: a pod always reaches itself.

use sluice_abi::{Identity, PolicyDirection, Port, Protocol, Rule, RuleKey, RuleSetId, RuleVerdict};

/// Where the rules live.
pub trait PolicyTables {
    /// The rule with the longest prefix of a key. One lookup.
    fn rule(&self, key: &RuleKey) -> Option<Rule>;
}

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// As whom policies know its address.
    pub identity: Identity,
    /// Whether it is the node that the pod runs on.
    pub is_own_node: bool,
}

/// Whether a flow may pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It must not.
    Deny,
}

/// What policy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the flow may pass.
    pub verdict: Verdict,
    /// Which policy says so, as [`Rule::policy`]; 0: none that could be named.
    pub policy: u32,
}

impl Decision {
    /// No policy says anything.
    const OPEN: Self = Self { verdict: Verdict::Allow, policy: 0 };
    /// Nothing is known that would allow it.
    const CLOSED: Self = Self { verdict: Verdict::Deny, policy: 0 };
}

/// Asks the policy of one pod about a flow to it (`Ingress`) or from it (`Egress`).
///
/// `peer` is the other end; `protocol` and `port` are what the flow is sent to, behind translation. At most two lookups:
/// what is written for an identity is the whole answer for it, so whoever has one needs no other. None in a direction
/// that the rule set does not rule; in one that it does, whatever has no answer is denied.
///
/// A pod's own node always reaches it. It is reached by it whatever NetworkPolicies say, but not where a
/// ClusterNetworkPolicy says otherwise: those are the policies for traffic to nodes.
#[inline(always)]
pub fn decide<T: PolicyTables>(
    rule_set: RuleSetId,
    direction: PolicyDirection,
    peer: Peer,
    protocol: Protocol,
    port: Port,
    tables: &T,
) -> Decision {
    if !rule_set.rules(direction) || peer.is_own_node && matches!(direction, PolicyDirection::Ingress) {
        return Decision::OPEN;
    }
    if rule_set == RuleSetId::CLOSED {
        return Decision::CLOSED;
    }
    let key = RuleKey::new(rule_set, direction, peer.identity, protocol, port);
    let mut rule = tables.rule(&key);
    if rule.is_none() && peer.identity != Identity::ANYONE {
        rule = tables.rule(&key.of(Identity::ANYONE));
    }
    match rule {
        Some(Rule { verdict: RuleVerdict::Allow, policy }) => Decision { verdict: Verdict::Allow, policy },
        Some(Rule { verdict: RuleVerdict::Isolate, .. }) if peer.is_own_node => Decision::OPEN,
        Some(Rule { verdict: RuleVerdict::Deny | RuleVerdict::Isolate, policy }) => {
            Decision { verdict: Verdict::Deny, policy }
        }
        // Whose rules are gone is judged by others in a moment.
        None => Decision::CLOSED,
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// One rule for one identity, and how often it was asked for any.
    struct Tables(Identity, RuleVerdict, Cell<u32>);

    impl PolicyTables for Tables {
        fn rule(&self, key: &RuleKey) -> Option<Rule> {
            self.2.set(self.2.get() + 1);
            (key.identity() == self.0).then_some(Rule { verdict: self.1, policy: 7 })
        }
    }

    const STRANGER: Peer = Peer { identity: Identity(5), is_own_node: false };
    const NODE: Peer = Peer { identity: Identity(5), is_own_node: true };

    /// What a rule set says of a flow where there is a rule of this kind for an identity, and after how many lookups.
    fn ask(rule_set: RuleSetId, direction: PolicyDirection, peer: Peer, rule: (u32, RuleVerdict)) -> (Decision, u32) {
        let tables = Tables(Identity(rule.0), rule.1, Cell::new(0));
        let decision = decide(rule_set, direction, peer, Protocol::TCP, Port::new(80), &tables);
        (decision, tables.2.get())
    }

    const INGRESS: PolicyDirection = PolicyDirection::Ingress;
    const EGRESS: PolicyDirection = PolicyDirection::Egress;
    const DENIED: Decision = Decision { verdict: Verdict::Deny, policy: 7 };
    const ALLOWED: Decision = Decision { verdict: Verdict::Allow, policy: 7 };

    #[test]
    fn a_direction_without_rules_costs_nothing_and_one_with_rules_fails_closed() {
        let one_way = RuleSetId::new(1, [true, false]);
        let elsewhere = (9, RuleVerdict::Allow);
        assert_eq!(ask(one_way, EGRESS, STRANGER, elsewhere), (Decision::OPEN, 0));
        assert_eq!(ask(one_way, INGRESS, STRANGER, elsewhere), (Decision::CLOSED, 2));
        for direction in PolicyDirection::ALL {
            assert_eq!(ask(RuleSetId::OPEN, direction, STRANGER, elsewhere), (Decision::OPEN, 0));
            assert_eq!(ask(RuleSetId::CLOSED, direction, STRANGER, (5, RuleVerdict::Allow)), (Decision::CLOSED, 0));
        }
    }

    #[test]
    fn who_has_no_rules_is_judged_as_anyone() {
        let both = RuleSetId::new(1, [true; 2]);
        assert_eq!(ask(both, INGRESS, STRANGER, (5, RuleVerdict::Allow)), (ALLOWED, 1));
        assert_eq!(ask(both, EGRESS, STRANGER, (0, RuleVerdict::Isolate)), (DENIED, 2));
        assert_eq!(ask(both, EGRESS, STRANGER, (0, RuleVerdict::Deny)), (DENIED, 2));
    }

    #[test]
    fn a_pods_own_node_reaches_it_and_only_explicit_rules_keep_it_from_being_reached() {
        let both = RuleSetId::new(1, [true; 2]);
        for verdict in [RuleVerdict::Deny, RuleVerdict::Isolate] {
            assert_eq!(ask(both, INGRESS, NODE, (5, verdict)), (Decision::OPEN, 0));
        }
        assert_eq!(ask(both, EGRESS, NODE, (0, RuleVerdict::Isolate)), (Decision::OPEN, 2));
        assert_eq!(ask(both, EGRESS, NODE, (5, RuleVerdict::Deny)), (DENIED, 1));
    }
}
