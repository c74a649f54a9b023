//! Why somebody can talk to somebody, or cannot.

use std::fmt;

use serde::{Deserialize, Serialize};
use sluice_abi::PolicyDirection;

use super::probe::{Answered, Probe, party};
use crate::evaluator::{Evaluator, Party};
use crate::explain::{Match, Reasoning};
use crate::index::Index;
use crate::object::Action;

/// An answer, and how it comes about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// The answer.
    #[serde(flatten)]
    pub answer: Answered,
    /// The policies of both ends, in the order in which they are asked.
    pub reasoning: BothSides,
}

/// The reasoning at both ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BothSides {
    /// At the sender's.
    pub egress: Vec<Step>,
    /// At the receiver's.
    pub ingress: Vec<Step>,
}

/// A step of the reasoning.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The policy that it is about.
    pub policy: String,
    /// What there is to say of it.
    #[serde(flatten)]
    pub what: What,
}

/// What there is to say of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// It selects the pod.
    Selected {
        /// Whether what none of its rules allows is denied.
        isolates: bool,
    },
    /// It has a rule.
    Rule {
        /// From 0.
        rule: usize,
        /// What it says of what it matches: `accept`, `deny` or `pass`.
        action: String,
        /// Whether it matches: `match`, `other peer` or `other traffic`.
        result: String,
    },
}

impl From<Reasoning> for Step {
    fn from(reasoning: Reasoning) -> Self {
        match reasoning {
            Reasoning::Policy { policy, isolates } => {
                Self { policy: policy.to_string(), what: What::Selected { isolates } }
            }
            Reasoning::Rule { policy, index, action, matches } => {
                let (action, result) = (action.name().into(), matches.name().into());
                Self { policy: policy.to_string(), what: What::Rule { rule: index, action, result } }
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, what } = self;
        match what {
            What::Selected { isolates: true } => write!(f, "{policy} selects and isolates the pod"),
            What::Selected { isolates: false } => write!(f, "{policy} selects the pod"),
            What::Rule { rule, action, result } if result == Match::Yes.name() => {
                let says =
                    [(Action::Accept, "accepts"), (Action::Deny, "denies"), (Action::Pass, "passes to the next tier")];
                let says =
                    says.into_iter().find(|(named, _)| named.name() == action).map_or(&**action, |(_, says)| says);
                write!(f, "  rule {rule} matches: {says}")
            }
            What::Rule { rule, result, .. } if result == Match::OtherPeer.name() => {
                write!(f, "  rule {rule} is about other peers")
            }
            What::Rule { rule, .. } => write!(f, "  rule {rule} is about other ports or protocols"),
        }
    }
}

/// Explains the answers to a probe, one for each family that both ends have.
///
/// # Errors
/// Where it has no answer.
pub fn explain(index: &Index, probe: &Probe) -> Result<Vec<Explained>, String> {
    let steps = |subject: &str, peer: &str, direction, answer: &Answered| -> Result<Vec<Step>, String> {
        let peer = Probe::address(index, peer, answer.family)?;
        let subject = match party(subject)? {
            Party::Pod(name) => index.pod(&name).filter(|pod| pod.is_selectable()),
            Party::Address(address) => index.pod_at(address),
        };
        let (Some(subject), Some(peer)) = (subject, peer) else { return Ok(Vec::new()) };
        let (transport, port) = (probe.traffic.transport, probe.traffic.port);
        Ok(index.explain(&subject.name, direction, peer, transport, port).into_iter().map(Step::from).collect())
    };
    let answers = probe.ask(index, &Evaluator::new(index))?;
    let explained = answers.into_iter().map(|answer| {
        let egress = steps(&probe.from, &probe.to, PolicyDirection::Egress, &answer)?;
        let ingress = steps(&probe.to, &probe.from, PolicyDirection::Ingress, &answer)?;
        Ok(Explained { answer, reasoning: BothSides { egress, ingress } })
    });
    explained.collect()
}
