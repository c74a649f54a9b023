//! Explanations, for people.

use anstyle::{AnsiColor, Style};
use sluice_policy::question::{Expected, Explained, SideAnswer, family_name};

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
        lines.extend(steps.iter().map(|step| format!("    {step}")));
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
