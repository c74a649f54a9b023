//! What both kinds of policies have in common.

use std::sync::Arc;

use crate::block::Block;
use crate::name::{ObjectError, ObjectName};
use crate::reading::Strictness;
use crate::selector::Selector;
use crate::traffic::Traffic;

pub use sluice_abi::PolicyDirection as Direction;

/// A policy of either kind, as it is written.
pub trait Policy {
    /// What matters of it.
    ///
    /// # Errors
    /// Where it makes no sense, or is not written strictly enough.
    fn read(&self, strictness: Strictness) -> Result<PolicyObject, ObjectError>;
}

/// What matters of a NetworkPolicy or ClusterNetworkPolicy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyObject {
    /// Its kind, namespace and name.
    pub name: ObjectName,
    /// Where it stands among the others.
    pub tier: Tier,
    /// The namespaces of the pods that it applies to.
    pub scope: Scope,
    /// The pods there that it applies to.
    pub pods: Selector,
    /// Whether what none of its rules allows is denied, for each direction. Only NetworkPolicies do that.
    pub isolates: [bool; 2],
    /// Its rules, for each direction.
    pub rules: [Vec<PolicyRule>; 2],
    /// What is not supported in it or not written as it should be, and what becomes of that.
    pub notes: Vec<Note>,
}

impl PolicyObject {
    /// Its rules for a direction.
    pub fn rules(&self, direction: Direction) -> &[PolicyRule] {
        &self.rules[direction as usize]
    }

    /// Whether it isolates its pods in a direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        self.isolates[direction as usize]
    }
}

/// Where a policy stands among the others: the order in which they are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// A ClusterNetworkPolicy above all NetworkPolicies, by its priority; lower ones first.
    Admin(u16),
    /// A NetworkPolicy.
    Namespaced,
    /// A ClusterNetworkPolicy below all NetworkPolicies, by its priority; lower ones first.
    Baseline(u16),
}

/// A rule of a policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRule {
    /// What it says of what it matches.
    pub action: Action,
    /// Who is at the other end.
    pub peers: Peers,
    /// What is sent.
    pub traffic: Traffic,
    /// Its name; empty: none.
    pub name: String,
}

/// What a rule says of what it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Action {
    /// Let it pass. All rules of NetworkPolicies say this.
    Accept,
    /// Drop it.
    Deny,
    /// Ask the next tier.
    Pass,
}

impl Action {
    /// Its name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Deny => "deny",
            Self::Pass => "pass",
        }
    }
}

/// Who a rule is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peers {
    /// Everybody: pods, nodes and the world outside.
    Anyone,
    /// Any of these, sorted; of none, nobody.
    Listed(Arc<[Peer]>),
}

impl Peers {
    /// Any of these.
    pub(crate) fn listed(mut peers: Vec<Peer>) -> Self {
        peers.sort_unstable();
        peers.dedup();
        Self::Listed(peers.into())
    }
}

/// Somebody at the other end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Pods of some namespaces.
    Pods(Scope, Selector),
    /// Addresses, those of pods and nodes among them.
    Block(Block),
    /// Nodes, by their addresses.
    Nodes(Selector),
}

/// Some namespaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// One, by its name.
    Named(Box<str>),
    /// By their labels.
    Labelled(Selector),
}

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Something is not enforced as it stands in the object.
    Error,
    /// It is enforced, but perhaps not as it was meant.
    Warning,
}

/// Something in an object is not supported, or not written as it should be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Note {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub field: String,
    /// What it is, and what becomes of it.
    pub what: String,
}
