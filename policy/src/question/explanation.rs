//! Why somebody can talk to somebody, or cannot.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::probe::{Answered, Probe, party};
use crate::evaluator::Evaluator;
use crate::explain::{Match, Part, Reasoning};
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
    /// Whether it is asked at all: not once others have decided, or passed to the next tier.
    pub asked: bool,
    /// Whether it decides.
    pub decides: bool,
}

/// What there is to say of a policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum What {
    /// It selects the pod.
    Selected {
        /// Whether what no rule of such policies allows is denied.
        isolates: bool,
    },
    /// It has a rule.
    Rule {
        /// From 0.
        rule: usize,
        /// Its name; empty: none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// What it says of what it matches: `accept`, `deny` or `pass`.
        action: String,
        /// Whether it matches: `match`, `other peer` or `other traffic`.
        result: String,
    },
}

impl From<Reasoning> for Step {
    fn from(reasoning: Reasoning) -> Self {
        let part = reasoning.part();
        let (policy, what) = match reasoning {
            Reasoning::Policy { policy, isolates, .. } => (policy, What::Selected { isolates }),
            Reasoning::Rule { policy, index, name, action, matches, .. } => {
                let (action, result) = (action.name().into(), matches.name().into());
                (policy, What::Rule { rule: index, name, action, result })
            }
        };
        Self { policy: policy.to_string(), what, asked: part != Part::NotAsked, decides: part == Part::Decides }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, what, asked, decides } = self;
        match what {
            What::Selected { .. } if !asked => write!(f, "{policy} is not asked"),
            What::Selected { isolates: true } if *decides => {
                write!(f, "{policy} isolates the pod and decides: what no rule accepts is denied")
            }
            What::Selected { isolates: true } => write!(f, "{policy} selects and isolates the pod"),
            What::Selected { isolates: false } => write!(f, "{policy} selects the pod"),
            What::Rule { rule, name, action, result } => {
                write!(f, "  rule {rule} ")?;
                if !name.is_empty() {
                    write!(f, "({name}) ")?;
                }
                if !asked {
                    f.write_str("is not asked")
                } else if result == Match::OtherPeer.name() {
                    f.write_str("is about other peers")
                } else if result == Match::OtherTraffic.name() {
                    f.write_str("is about other ports or protocols")
                } else if action == Action::Pass.name() {
                    f.write_str("matches: passes to the next tier")
                } else {
                    let says = if action == Action::Deny.name() { "denies" } else { "accepts" };
                    write!(f, "matches and decides: {says}")
                }
            }
        }
    }
}

/// Explains the answers to a probe, one for each family that both ends have.
///
/// # Errors
/// Where it has no answer.
pub fn explain(index: &Index, probe: &Probe) -> Result<Vec<Explained>, String> {
    let evaluator = Evaluator::new(index);
    let (from, to) = (party(&probe.from)?, party(&probe.to)?);
    let (transport, port) = (probe.traffic.transport, probe.traffic.port);
    let explained = probe.ask(index, &evaluator)?.into_iter().map(|answer| {
        let sides = evaluator.explain(&from, &to, transport, port, answer.family).map_err(|error| error.to_string())?;
        let [egress, ingress] = sides.map(|steps| steps.into_iter().map(Step::from).collect());
        Ok(Explained { answer, reasoning: BothSides { egress, ingress } })
    });
    explained.collect()
}
