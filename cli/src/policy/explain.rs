//! Explanations, for people.

use std::collections::BTreeSet;

use anstyle::{AnsiColor, Style};
use sluice_policy::question::{Expected, Explained, SideAnswer, Step, What, family_name};

/// The lines of an explanation.
pub fn lines(explained: &Explained) -> Vec<String> {
    let Explained { answer, reasoning } = explained;
    let traffic = match &*answer.protocol {
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
        lines.extend(told(steps).map(|step| format!("    {step}")));
    }
    lines
}

/// All but the rules of policies that are not asked.
fn told(steps: &[Step]) -> impl Iterator<Item = &Step> {
    let asked: BTreeSet<&str> = steps.iter().filter(|step| step.asked).map(|step| &*step.policy).collect();
    steps.iter().filter(move |step| matches!(step.what, What::Selected { .. }) || asked.contains(&*step.policy))
}

fn coloured(verdict: Expected) -> String {
    let colour = match verdict {
        Expected::Allow => AnsiColor::Green,
        Expected::Deny => AnsiColor::Red,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    format!("{style}{}{style:#}", verdict.name())
}
