//! The upstream project's own end-to-end tests: which of them run, and what became of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Cluster, Shape};
use crate::run::say;

/// The group of which all tests run.
const NETWORK: &str = "[sig-network]";
/// The group of which those run in which something talks to a pod, and what these are called.
const NODE: &str = "[sig-node]";
const TALKING: [&str; 8] = [
    "Probing container",
    "Container Lifecycle Hook",
    "PreStop",
    "KubeletManagedEtcHosts",
    "Pods should support remote command",
    "Pods should support retrieving logs",
    "Pods should contain environment variables for services",
    "InitContainer",
];

/// Why tests of these names do not run, by the first that fits.
const SKIPPED: [(&str, &str); 13] = [
    ("[Feature:OffByDefault]", "feature gates that are off by default"),
    ("[Feature:SCTPConnectivity]", "this kernel has no SCTP"),
    ("[Feature:LoadBalancer]", "a cloud's load balancers"),
    (DUAL, "a cluster of two families (`--dual`)"),
    ("[Feature:Networking-", "the Internet, or a measurement"),
    ("[Feature:PerformanceDNS]", "a measurement of the DNS server"),
    ("[Feature:KubeProxyNFAcct]", "kube-proxy's own counters"),
    ("[sig-network] KubeProxy", "kube-proxy's own settings of connection tracking"),
    ("kube-proxy urls", "kube-proxy's own ports"),
    ("after restarting kube-proxy", "kube-proxy, and a login on nodes"),
    ("after restarting apiserver", "a login on the control plane"),
    ("[Provider:", "another provider of machines"),
    ("DNS configMap", "the add-on manager's DNS server, which these reconfigure"),
];

const DUAL: &str = "[Feature:IPv6DualStack]";

/// How long everything may take.
const LIMIT: &str = "90m";
/// Tests at once: they mostly wait.
const AT_ONCE: &str = "--procs=4";

/// A test and what became of it.
#[derive(Debug)]
pub struct Outcome {
    /// Its full name.
    pub name: String,
    pub state: State,
    /// How often it was begun.
    pub attempts: u32,
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

/// Runs the tests: all that there are reasons to run, or those whose names fit a regular expression.
///
/// # Errors
/// Where they cannot be run; those that fail are no error.
pub fn run(cluster: &Cluster, shape: Shape, focus: Option<&str>) -> Result<Vec<Outcome>> {
    let report = cluster.directory().join("upstream");
    // A run that reports nothing must not have an earlier one's results.
    if report.exists() {
        fs::remove_dir_all(&report).with_context(|| format!("removing {}", report.display()))?;
    }
    fs::create_dir_all(&report).with_context(|| format!("making {}", report.display()))?;
    let mut ginkgo = cluster.script("beside");
    ginkgo.arg(cluster.directory().join("bin/ginkgo")).args(["run", AT_ONCE, "--no-color", "--keep-going"]);
    ginkgo.args(["--silence-skips", "--json-report=report.json", &format!("--timeout={LIMIT}")]).current_dir(&report);
    ginkgo.arg(format!("--output-dir={}", report.display()));
    ginkgo.args(focus.map_or_else(everything, |it| vec![it.to_owned()]).iter().map(|it| format!("--focus={it}")));
    for (skipped, _) in skipped(shape) {
        ginkgo.arg(format!("--skip={}", escape(skipped)));
    }
    ginkgo.arg(cluster.directory().join("bin/e2e.test")).arg("--").args([
        "--provider=skeleton",
        "--disable-log-dump",
        "--dump-logs-on-failure=false",
        "--delete-namespace-on-failure",
    ]);
    ginkgo.arg(format!("--num-nodes={}", shape.nodes));
    ginkgo.arg(format!("--kubeconfig={}", cluster.directory().join("run/admin.conf").display()));
    ginkgo.arg(format!("--kubectl-path={}", cluster.directory().join("bin/kubectl").display()));
    let log = report.join("log");
    say(&format!("Running the upstream tests (their log: {})", log.display()));
    let output = fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let errors = output.try_clone().context("writing the log")?;
    let status = ginkgo.stdout(output).stderr(errors).status().context("starting ginkgo")?;
    let outcomes = read(&report.join("report.json"), shape)
        .with_context(|| format!("the upstream tests have told nothing ({status}): see {}", log.display()))?;
    let is_told = status.success() || outcomes.iter().any(|it| it.state.is_failed());
    ensure!(is_told, "the upstream tests ended with {status}, though none failed: see {}", log.display());
    Ok(outcomes)
}

/// Regular expressions of all that is in scope.
fn everything() -> Vec<String> {
    vec![escape(NETWORK), format!("{}.*({})", escape(NODE), TALKING.map(escape).join("|"))]
}

/// Whether a test is among those that a full run is about.
fn is_in_scope(name: &str) -> bool {
    name.contains(NETWORK) || name.contains(NODE) && TALKING.iter().any(|it| name.contains(it))
}

/// Names of tests that do not run in such a cluster, with the reasons.
fn skipped(shape: Shape) -> impl Iterator<Item = (&'static str, &'static str)> {
    SKIPPED.into_iter().filter(move |(name, _)| !(shape.dual && *name == DUAL))
}

/// A regular expression of a text as it is.
fn escape(text: &str) -> String {
    text.chars().flat_map(|it| (!it.is_alphanumeric() && it != ' ').then_some('\\').into_iter().chain([it])).collect()
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
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Failure {
    message: String,
}

/// Reads what ginkgo reports.
fn read(report: &Path, shape: Shape) -> Result<Vec<Outcome>> {
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
        attempts: 1,
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
    let state = match spec.state.as_str() {
        "passed" => State::Passed,
        // It found out for itself that it is not for this cluster.
        "skipped" | "pending" if !message.is_empty() => State::Skipped(message),
        "skipped" | "pending" => {
            let (_, reason) = skipped(shape).find(|(part, _)| name.contains(part)).filter(|_| is_in_scope(&name))?;
            State::Skipped(format!("needs, or is about, what is not here: {reason}"))
        }
        other => State::Failed(format!("{other}: {}", message.lines().next().unwrap_or_default())),
    };
    let seconds = Duration::from_nanos(spec.run_time).as_secs_f64();
    (is_test || state.is_failed()).then_some(Outcome { name, state, attempts: spec.num_attempts, seconds })
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
        let both = ("[sig-network] Both [Feature:IPv6DualStack] works".to_owned(), State::Skipped(String::new()));
        let seen = outcomes(&specs, 3, &[], Shape::default());
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(seen[0], of(State::Passed));
        assert_eq!(seen[1], of(failed("failed: no answer")));
        assert_eq!(seen[2].0, both.0);
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
    fn names_are_taken_as_they_are() {
        assert_eq!(escape("[sig-network] DNS"), r"\[sig\-network\] DNS");
    }
}
