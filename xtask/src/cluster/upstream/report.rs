//! What ginkgo reports of the tests.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::comparisons::Comparisons;
use super::scope::{is_in_scope, skipped, with_remedy};
use crate::cluster::Shape;

/// A test and what became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Its full name.
    pub name: String,
    pub state: State,
    /// Of policies, if it is about those.
    pub comparisons: Comparisons,
    /// Seconds.
    pub seconds: f64,
}

/// What became of a test.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Passed,
    /// With what was expected.
    Failed(String),
    /// With the reason.
    Skipped(String),
}

impl State {
    /// Whether it is one of those that are to be looked at.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    special_suite_failure_reasons: Option<Vec<String>>,
    pre_run_stats: Plan,
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Plan {
    specs_that_will_run: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    num_attempts: u32,
    /// Nanoseconds.
    run_time: u64,
    #[serde(default)]
    failure: Option<Failure>,
    /// What it logs.
    #[serde(default)]
    captured_ginkgo_writer_output: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

/// Reads what ginkgo reports.
///
/// # Errors
/// Where there is nothing of the kind.
pub fn read(report: &Path, shape: Shape) -> Result<Vec<Outcome>> {
    let text = fs::read(report).with_context(|| format!("reading {}", report.display()))?;
    let suites: Vec<Suite> =
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", report.display()))?;
    Ok(suites.into_iter().flat_map(|suite| of_suite(suite, shape)).collect())
}

/// What became of the tests, and of the run as a whole where that failed.
fn of_suite(suite: Suite, shape: Shape) -> Vec<Outcome> {
    let mut reasons = suite.special_suite_failure_reasons.unwrap_or_default();
    let begun = suite.spec_reports.iter().filter(|spec| spec.is_test() && spec.num_attempts > 0).count();
    let planned = suite.pre_run_stats.specs_that_will_run;
    if begun < planned {
        reasons.push(format!("{begun} of {planned} tests were begun"));
    }
    let whole = reasons.into_iter().map(|reason| Outcome {
        name: "the run as a whole".into(),
        state: State::Failed(reason),
        comparisons: Comparisons::default(),
        seconds: 0.0,
    });
    let mut outcomes = whole.collect::<Vec<_>>();
    outcomes.extend(suite.spec_reports.into_iter().filter_map(|spec| outcome(spec, shape)));
    outcomes
}

impl Spec {
    /// Whether it is a test, and nothing that is done before, between and after those.
    fn is_test(&self) -> bool {
        self.leaf_node_type == "It"
    }
}

/// What became of a test, if it ran or should have; of anything else, if it failed.
fn outcome(spec: Spec, shape: Shape) -> Option<Outcome> {
    let is_test = spec.is_test();
    let mut words = spec.container_hierarchy_texts.unwrap_or_default();
    words.push(if is_test { spec.leaf_node_text } else { spec.leaf_node_type });
    let name = words.join(" ");
    let message = spec.failure.unwrap_or_default().message;
    let comparisons = Comparisons::of_log(&spec.captured_ginkgo_writer_output);
    let state = match spec.state.as_str() {
        // Policies have to hold from the moment that they are there, and those who run these tests in earnest are not that patient.
        "passed" if comparisons.again > 0 => {
            State::Failed(format!("passed, but only after asking again ({} times)", comparisons.again))
        }
        "passed" => State::Passed,
        // It found out for itself that it is not for this cluster.
        "skipped" | "pending" if !message.is_empty() => State::Skipped(with_remedy(message)),
        "skipped" | "pending" => {
            let (_, reason) = skipped(shape).find(|(part, _)| name.contains(part)).filter(|_| is_in_scope(&name))?;
            State::Skipped(reason.to_owned())
        }
        other => State::Failed(format!("{other}: {}", message.lines().next().unwrap_or_default())),
    };
    let seconds = Duration::from_nanos(spec.run_time).as_secs_f64();
    (is_test || state.is_failed()).then_some(Outcome { name, state, comparisons, seconds })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a report comes to of tests and whatever else there was.
    fn outcomes(specs: &[Value], planned: usize, reasons: &[&str], shape: Shape) -> Vec<(String, State)> {
        let suite = json!({
            "SpecialSuiteFailureReasons": reasons, "PreRunStats": {"SpecsThatWillRun": planned}, "SpecReports": specs,
        });
        let suite = serde_json::from_value(suite).expect("a report");
        of_suite(suite, shape).into_iter().map(|it| (it.name, it.state)).collect()
    }

    fn spec(texts: &str, state: &str, message: &str) -> Value {
        let attempts = u8::from(state != "skipped" || !message.is_empty());
        json!({
            "ContainerHierarchyTexts": [texts], "LeafNodeType": "It", "LeafNodeText": "works", "State": state,
            "NumAttempts": attempts, "RunTime": 1_500_000_000, "Failure": {"Message": message},
        })
    }

    fn failed(why: &str) -> State {
        State::Failed(why.into())
    }

    #[test]
    fn a_report_tells_what_ran_and_why_the_others_did_not() {
        let specs = [
            spec("[sig-network] Services", "passed", ""),
            spec("[sig-network] Services", "failed", "no answer\nat all"),
            spec("[sig-network] Both [Feature:IPv6DualStack]", "skipped", ""),
            spec("[sig-network] Services", "skipped", "needs two zones"),
            spec("[sig-storage] Disks", "skipped", ""),
        ];
        let of = |state| ("[sig-network] Services works".to_owned(), state);
        let seen = outcomes(&specs, 3, &[], Shape::default());
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(seen[0], of(State::Passed));
        assert_eq!(seen[1], of(failed("failed: no answer")));
        let both = "[sig-network] Both [Feature:IPv6DualStack] works".to_owned();
        assert_eq!(seen[2], (both, State::Skipped("needs a cluster of two families (`--dual`)".into())));
        assert_eq!(seen[3], of(State::Skipped("needs two zones".into())));
        let dual = Shape { dual: true, ..Shape::default() };
        assert_eq!(outcomes(&specs, 3, &[], dual).len(), 3, "in a cluster of two families that is no reason");
    }

    #[test]
    fn a_run_that_does_not_come_to_its_end_fails_though_no_test_did() {
        let passed = [spec("[sig-network] Services", "passed", "")];
        let whole = |why: &str| ("the run as a whole".to_owned(), failed(why));
        assert_eq!(outcomes(&passed, 2, &[], Shape::default())[0], whole("1 of 2 tests were begun"));
        assert_eq!(outcomes(&passed, 1, &["Timeout"], Shape::default())[0], whole("Timeout"));
        let mut before = spec("", "failed", "no nodes");
        before["LeafNodeType"] = "SynchronizedBeforeSuite".into();
        before["ContainerHierarchyTexts"] = Value::Null;
        before["NumAttempts"] = 0.into();
        let seen = outcomes(&[before.clone()], 0, &[], Shape::default());
        assert_eq!(seen, [("SynchronizedBeforeSuite".to_owned(), failed("failed: no nodes"))]);
        before["State"] = "passed".into();
        assert!(outcomes(&[before], 0, &[], Shape::default()).is_empty());
    }

    #[test]
    fn a_policy_that_came_late_is_a_failure() {
        let mut late = spec("[sig-network] Netpol", "passed", "");
        late["CapturedGinkgoWriterOutput"] =
            "] probe #1 :: connectivity expected :: x/a -> 10.0.0.1\n] VALIDATION SUCCESSFUL\n".into();
        let seen = outcomes(&[late.clone()], 1, &[], Shape::default());
        assert_eq!(seen[0].1, failed("passed, but only after asking again (1 times)"));
        late["CapturedGinkgoWriterOutput"] = "] VALIDATION SUCCESSFUL\n".into();
        assert_eq!(outcomes(&[late], 1, &[], Shape::default())[0].1, State::Passed);
    }

    #[test]
    fn a_test_that_finds_out_for_itself_what_is_not_there_is_told_what_it_takes() {
        let zones = "need at least 3 zones, with at least 2 schedulable nodes each";
        let seen = outcomes(&[spec("[sig-network] Traffic", "skipped", zones)], 1, &[], Shape::default());
        assert_eq!(seen[0].1, State::Skipped(format!("{zones} (`--nodes 6`)")));
    }
}
