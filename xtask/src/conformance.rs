//! docs/conformance.md: what the upstream tests said, of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::upstream::{Outcome, State};
use crate::cluster::{Cluster, Shape};
use crate::run::{output, root, say};

/// Writes the document.
///
/// # Errors
/// Where it cannot be written.
pub fn write(cluster: &Cluster, shape: Shape, outcomes: &[Outcome]) -> Result<()> {
    let path = root().join("docs/conformance.md");
    let text = document(&versions(cluster), &shape.to_string(), outcomes);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    say(&format!("{} has the results", path.display()));
    Ok(())
}

/// What took part, and its versions.
fn versions(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let word = |text: Option<String>, place: usize| {
        text.and_then(|text| text.split_whitespace().nth(place).map(str::to_owned)).unwrap_or_default()
    };
    let said = |program: &str, arguments: &[&str]| {
        output(Command::new(cluster.directory().join("bin").join(program)).args(arguments))
    };
    let describe = ["describe", "--always", "--exclude=*", "--dirty"];
    let commit = output(Command::new("git").args(describe).current_dir(root()));
    vec![
        ("Sluice", format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.unwrap_or_default().trim())),
        ("Kubernetes and its tests", word(said("kubelet", &["--version"]), 1)),
        ("containerd", word(said("containerd", &["--version"]), 2)),
        ("Linux", word(output(Command::new("uname").arg("-r")), 0)),
    ]
}

fn document(versions: &[(&str, String)], shape: &str, outcomes: &[Outcome]) -> String {
    let count = |wanted: fn(&State) -> bool| outcomes.iter().filter(|it| wanted(&it.state)).count();
    let passed = count(|state| *state == State::Passed);
    let failed = count(State::is_failed);
    let again = outcomes.iter().filter(|it| it.attempts > 1).count();
    let attempts = if again == 0 {
        "each at its only attempt".into()
    } else {
        format!("{again} of them after more than one attempt")
    };
    let minutes = outcomes.iter().map(|it| it.seconds).sum::<f64>() / 60.0;
    let mut text = String::from(
        "# Conformance\n\n\
         Kubernetes' own end-to-end tests on a cluster of real kubelets, installed by the manifests, without kube-proxy: all of the group\n\
         sig-network, and those of sig-node in which something talks to a pod. Written by `cargo xtask test kubernetes --record`.\n\n",
    );
    let _ = writeln!(text, "| what | version |\n|---|---|");
    for (what, version) in versions {
        let _ = writeln!(text, "| {what} | {version} |");
    }
    let _ = writeln!(text, "| cluster | {shape} |\n");
    let _ =
        writeln!(text, "**{passed} passed, {failed} failed**, {attempts}; {minutes:.0} minutes one after another.\n");
    let _ = writeln!(text, "| tests of | passed | failed | not run |\n|---|---|---|---|");
    for (group, [passed, failed, skipped]) in groups(outcomes) {
        let _ = writeln!(text, "| {group} | {passed} | {failed} | {skipped} |");
    }
    section(&mut text, "Failed", outcomes, |state| match state {
        State::Failed(why) => Some(why),
        State::Passed | State::Skipped(_) => None,
    });
    section(&mut text, "Not run", outcomes, |state| match state {
        State::Skipped(why) => Some(why),
        State::Passed | State::Failed(_) => None,
    });
    let _ = writeln!(text, "\n## Passed\n");
    for name in sorted(outcomes.iter().filter(|it| it.state == State::Passed)) {
        let _ = writeln!(text, "- {name}");
    }
    text
}

/// Tests that did not pass, by the reason.
fn section(text: &mut String, title: &str, outcomes: &[Outcome], why: fn(&State) -> Option<&String>) {
    let mut reasons = BTreeMap::<&str, Vec<&Outcome>>::new();
    for outcome in outcomes {
        if let Some(reason) = why(&outcome.state) {
            reasons.entry(reason).or_default().push(outcome);
        }
    }
    if reasons.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## {title}");
    for (reason, outcomes) in reasons {
        let _ = writeln!(text, "\n{reason}:\n");
        for name in sorted(outcomes.into_iter()) {
            let _ = writeln!(text, "- {name}");
        }
    }
}

fn sorted<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Vec<&'a str> {
    let mut names = outcomes.map(|it| it.name.as_str()).collect::<Vec<_>>();
    names.sort_unstable();
    names
}

/// How many passed, failed and did not run, by what the tests are about: the first words of their names.
fn groups(outcomes: &[Outcome]) -> BTreeMap<String, [usize; 3]> {
    let mut groups = BTreeMap::<String, [usize; 3]>::new();
    for outcome in outcomes {
        let name = outcome.name.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let place = match outcome.state {
            State::Passed => 0,
            State::Failed(_) => 1,
            State::Skipped(_) => 2,
        };
        groups.entry(name).or_default()[place] += 1;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_counts_and_says_why() {
        let outcome = |name: &str, state| Outcome { name: name.into(), state, attempts: 1, seconds: 30.0 };
        let text = document(
            &[("Kubernetes", "v1".into())],
            "2 nodes",
            &[
                outcome("[sig-network] DNS works", State::Passed),
                outcome("[sig-network] DNS is quick", State::Failed("failed: too slow".into())),
                outcome("[sig-network] Services by SCTP", State::Skipped("no SCTP".into())),
            ],
        );
        assert!(text.contains("**1 passed, 1 failed**, each at its only attempt"), "{text}");
        assert!(text.contains("| [sig-network] DNS | 1 | 1 | 0 |"), "{text}");
        assert!(text.contains("failed: too slow:\n\n- [sig-network] DNS is quick"), "{text}");
        assert!(text.contains("no SCTP:\n\n- [sig-network] Services by SCTP"), "{text}");
    }
}
