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
/// what is written for an identity is the whole answer for it, so whoever has one needs no other.
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
    if rule_set == RuleSetId::OPEN || peer.is_own_node && matches!(direction, PolicyDirection::Ingress) {
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
        // Not isolated in this direction.
        None => Decision::OPEN,
    }
}
