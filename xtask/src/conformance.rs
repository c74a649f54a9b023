//! docs/conformance: what the upstream tests said, a file for each shape of cluster in which they ran.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cluster::upstream::{Comparisons, Outcome, State};
use crate::cluster::{Cluster, Shape};
use crate::run::{output, root, say};

/// Where the results are.
const DIRECTORY: &str = "docs/conformance";

/// Results that are going to be written down, of a commit.
pub struct Record {
    commit: String,
}

impl Record {
    /// Begins one: what is tested is what is committed now.
    ///
    /// # Errors
    /// Where the work tree has anything else.
    pub fn begin() -> Result<Self> {
        let git = |arguments: &[&str]| {
            let text = output(Command::new("git").args(arguments).current_dir(root()));
            let text =
                text.with_context(|| format!("asking git ({}): results are of a commit", arguments.join(" ")))?;
            Ok::<_, anyhow::Error>(text.trim_end().to_owned())
        };
        // Other results do not change what is tested.
        let changed = git(&["status", "--porcelain", "--", ".", &format!(":!{DIRECTORY}")])?;
        ensure!(
            changed.is_empty(),
            "--record: results are of a commit, and these are not in it; commit them first:\n{changed}"
        );
        Ok(Self { commit: git(&["describe", "--always", "--exclude=*"])? })
    }

    /// Writes the document of a shape of cluster, and leaves the others alone.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, cluster: &Cluster, shape: Shape, outcomes: &[Outcome]) -> Result<()> {
        let directory = root().join(DIRECTORY);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let path = directory.join(format!("{}.md", shape.slug()));
        let text = document(&self.versions(cluster), &shape.to_string(), outcomes);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        say(&format!("{} has the results", path.display()));
        Ok(())
    }

    /// What took part, and its versions.
    fn versions(&self, cluster: &Cluster) -> Vec<(&'static str, String)> {
        let word = |text: Option<String>, place: usize| {
            text.and_then(|text| text.split_whitespace().nth(place).map(str::to_owned)).unwrap_or_default()
        };
        let said = |program: &str, arguments: &[&str]| {
            output(Command::new(cluster.directory().join("bin").join(program)).args(arguments))
        };
        vec![
            ("Sluice", format!("{} ({})", env!("CARGO_PKG_VERSION"), self.commit)),
            ("Kubernetes and its tests", word(said("kubelet", &["--version"]), 1)),
            ("containerd", word(said("containerd", &["--version"]), 2)),
            ("Linux", word(output(Command::new("uname").arg("-r")), 0)),
        ]
    }
}

fn document(versions: &[(&str, String)], shape: &str, outcomes: &[Outcome]) -> String {
    let count = |wanted: fn(&State) -> bool| outcomes.iter().filter(|it| wanted(&it.state)).count();
    let passed = count(|state| *state == State::Passed);
    let failed = count(State::is_failed);
    let minutes = outcomes.iter().map(|it| it.seconds).sum::<f64>() / 60.0;
    let mut text = format!(
        "# Conformance: {shape}\n\n\
         Written by `cargo xtask test kubernetes --record`; [conformance.md](../conformance.md) says what ran, and on what.\n\n"
    );
    let _ = writeln!(text, "| what | version |\n|---|---|");
    for (what, version) in versions {
        let _ = writeln!(text, "| {what} | {version} |");
    }
    let _ = writeln!(text, "\n**{passed} passed, {failed} failed**; {minutes:.0} minutes one after another.\n");
    let Comparisons { right, again } = outcomes.iter().fold(Comparisons::default(), |sum, it| sum.and(it.comparisons));
    let again = match again {
        0 => "nothing had to be asked again".into(),
        1 => "once something had to be asked again".into(),
        times => format!("{times} times something had to be asked again"),
    };
    let _ = writeln!(
        text,
        "The tests of policies compared {right} times who reaches whom with what the policies say: {again}.\n"
    );
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
        let outcome = |name: &str, state, right, again| Outcome {
            name: name.into(),
            state,
            comparisons: Comparisons { right, again },
            seconds: 30.0,
        };
        let of_policies = |again| {
            let outcomes = [outcome("a", State::Passed, 2, 0), outcome("b", State::Passed, 1, again)];
            document(&[], "2 nodes", &outcomes)
        };
        let text = document(
            &[("Kubernetes", "v1".into())],
            "2 nodes",
            &[
                outcome("[sig-network] DNS works", State::Passed, 0, 0),
                outcome("[sig-network] DNS is quick", State::Failed("failed: too slow".into()), 0, 0),
                outcome("[sig-network] Services by SCTP", State::Skipped("no SCTP".into()), 0, 0),
            ],
        );
        assert!(text.starts_with("# Conformance: 2 nodes\n"), "{text}");
        assert!(text.contains("**1 passed, 1 failed**"), "{text}");
        assert!(text.contains("| [sig-network] DNS | 1 | 1 | 0 |"), "{text}");
        assert!(text.contains("failed: too slow:\n\n- [sig-network] DNS is quick"), "{text}");
        assert!(text.contains("no SCTP:\n\n- [sig-network] Services by SCTP"), "{text}");
        assert!(of_policies(0).contains("compared 3 times who reaches whom"), "{}", of_policies(0));
        assert!(of_policies(0).contains("nothing had to be asked again"), "{}", of_policies(0));
        assert!(of_policies(4).contains("4 times something had to be asked again"), "{}", of_policies(4));
    }
}
