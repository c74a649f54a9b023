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
    /// Seconds.
    pub seconds: f64,
}

/// What became of a test.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Passed,
    /// With what was expected, and after how many attempts.
    Failed(String),
    /// With the reason.
    Skipped(String),
}

/// Runs the tests: all that there are reasons to run, or those whose names fit a regular expression.
///
/// # Errors
/// Where they cannot be run; those that fail are no error.
pub fn run(cluster: &Cluster, shape: Shape, focus: Option<&str>) -> Result<Vec<Outcome>> {
    let report = cluster.directory().join("upstream");
    fs::create_dir_all(&report).with_context(|| format!("making {}", report.display()))?;
    let mut ginkgo = cluster.script("outside");
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
    let outcomes = read(&report.join("report.json"), shape)?;
    ensure!(!outcomes.is_empty() || status.success(), "the upstream tests did not run: see {}", log.display());
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
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
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
    let specs = suites.into_iter().flat_map(|suite| suite.spec_reports);
    Ok(specs.filter(|spec| spec.leaf_node_type == "It").filter_map(|spec| outcome(spec, shape)).collect())
}

/// What became of a test, if it ran or should have.
fn outcome(spec: Spec, shape: Shape) -> Option<Outcome> {
    let mut words = spec.container_hierarchy_texts.unwrap_or_default();
    words.push(spec.leaf_node_text);
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
    Some(Outcome { name, state, seconds: Duration::from_nanos(spec.run_time).as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(text: &str, shape: Shape) -> Vec<(String, State)> {
        let directory = std::env::temp_dir().join(format!("sluice-report-{}", std::process::id()));
        fs::write(&directory, text).unwrap();
        let outcomes = read(&directory, shape).unwrap();
        fs::remove_file(&directory).unwrap();
        outcomes.into_iter().map(|it| (it.name, it.state)).collect()
    }

    #[test]
    fn a_report_tells_what_ran_and_why_the_others_did_not() {
        let spec = |texts: &str, state: &str, message: &str| {
            format!(
                r#"{{"ContainerHierarchyTexts": ["{texts}"], "LeafNodeType": "It", "LeafNodeText": "works", "State": "{state}",
                "RunTime": 1500000000, "Failure": {{"Message": "{message}"}}}}"#
            )
        };
        let specs = [
            spec("[sig-network] Services", "passed", ""),
            spec("[sig-network] Services", "failed", "no answer\\nat all"),
            spec("[sig-network] Both [Feature:IPv6DualStack]", "skipped", ""),
            spec("[sig-network] Services", "skipped", "needs two zones"),
            spec("[sig-storage] Disks", "skipped", ""),
        ];
        let text = format!(r#"[{{"SpecReports": [{}]}}]"#, specs.join(","));
        let of = |state| ("[sig-network] Services works".to_owned(), state);
        let both = ("[sig-network] Both [Feature:IPv6DualStack] works".to_owned(), State::Skipped(String::new()));
        let seen = outcomes(&text, Shape::default());
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!(seen[0], of(State::Passed));
        assert_eq!(seen[1], of(State::Failed("failed: no answer".into())));
        assert_eq!(seen[2].0, both.0);
        assert_eq!(seen[3], of(State::Skipped("needs two zones".into())));
        let dual = Shape { dual: true, ..Shape::default() };
        assert_eq!(outcomes(&text, dual).len(), 3, "in a cluster of two families that is no reason");
    }

    #[test]
    fn names_are_taken_as_they_are() {
        assert_eq!(escape("[sig-network] DNS"), r"\[sig\-network\] DNS");
    }
}
