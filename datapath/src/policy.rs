//! What policy says of a flow, in one direction.
//!
//! Not asked here, because the tables need not say it: a pod's own node always reaches it and is reached by it, and a pod
//! always reaches itself.

use sluice_abi::{Identity, PolicyDirection, Port, Protocol, Rule, RuleKey, RuleSetId, RuleVerdict};

/// Where the rules live.
pub trait PolicyTables {
    /// The rule with the longest prefix of a key. One lookup.
    fn rule(&self, key: &RuleKey) -> Option<Rule>;
}

/// What policy says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the flow may pass.
    pub verdict: RuleVerdict,
    /// Which policy says so, as [`Rule::policy`]; 0: none that could be named.
    pub policy: u32,
}

/// Asks the policy of one pod about a flow to it (`Ingress`) or from it (`Egress`).
///
/// `identity` is the other end's; `protocol` and `port` are what the flow is sent to, behind translation. At most two
/// lookups: what is written for an identity is the whole answer for it, so whoever has one needs no other.
#[inline(always)]
pub fn decide<T: PolicyTables>(
    rule_set: RuleSetId,
    direction: PolicyDirection,
    identity: Identity,
    protocol: Protocol,
    port: Port,
    tables: &T,
) -> Decision {
    if rule_set == RuleSetId::OPEN {
        return Decision { verdict: RuleVerdict::Allow, policy: 0 };
    }
    if rule_set == RuleSetId::CLOSED {
        return Decision { verdict: RuleVerdict::Deny, policy: 0 };
    }
    let key = RuleKey::new(rule_set, direction, identity, protocol, port);
    let mut rule = tables.rule(&key);
    if rule.is_none() && identity != Identity::ANYONE {
        rule = tables.rule(&key.of(Identity::ANYONE));
    }
    match rule {
        Some(Rule { verdict, policy }) => Decision { verdict, policy },
        // Not isolated in this direction.
        None => Decision { verdict: RuleVerdict::Allow, policy: 0 },
    }
}
