//! Why somebody can talk to somebody, or cannot.

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use sluice_policy::object::Action;
use sluice_policy::{Evaluator, Index, Party, PolicyDirection, Reasoning};

use super::probe::{Answered, Expected, Probe, SideAnswer, family_name, party};

/// An answer, and how it comes about.
#[derive(Serialize)]
pub struct Explained {
    #[serde(flatten)]
    answer: Answered,
    reasoning: BothSides,
}

#[derive(Serialize)]
struct BothSides {
    egress: Vec<Step>,
    ingress: Vec<Step>,
}

/// A step of the reasoning.
#[derive(Serialize)]
struct Step {
    policy: String,
    #[serde(flatten)]
    what: What,
    #[serde(skip)]
    text: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Selected { isolates: bool },
    Rule { rule: usize, action: &'static str, result: &'static str },
}

impl From<Reasoning> for Step {
    fn from(reasoning: Reasoning) -> Self {
        let text = reasoning.to_string();
        let (policy, what) = match reasoning {
            Reasoning::Policy { policy, isolates } => (policy, What::Selected { isolates }),
            Reasoning::Rule { policy, index, action, matches } => {
                let action = match action {
                    Action::Accept => "accept",
                    Action::Deny => "deny",
                    Action::Pass => "pass",
                };
                (policy, What::Rule { rule: index, action, result: matches.name() })
            }
        };
        Self { policy: policy.to_string(), what, text }
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

/// An explanation for people.
pub fn lines(explained: &Explained) -> Vec<String> {
    let Explained { answer, reasoning } = explained;
    let traffic = match answer.protocol {
        "ICMP" => "ICMP".to_owned(),
        protocol => format!("{}/{protocol}", answer.port),
    };
    let mut lines = vec![format!(
        "{} -> {} {traffic} over {}: {}",
        answer.from,
        answer.to,
        family_name(answer.family),
        coloured(answer.verdict)
    )];
    let sides = [("egress", &answer.egress, &reasoning.egress), ("ingress", &answer.ingress, &reasoning.ingress)];
    for (name, SideAnswer { verdict, reason, .. }, steps) in sides {
        lines.push(format!("  {name}: {}: {reason}", coloured(*verdict)));
        lines.extend(steps.iter().map(|step| format!("    {}", step.text)));
    }
    lines
}

fn coloured(verdict: Expected) -> String {
    let colour = match verdict {
        Expected::Allow => AnsiColor::Green,
        Expected::Deny => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", verdict.name())
}
