//! The upstream project's own end-to-end tests: which of them run, and what became of them.

mod balancers;
mod comparisons;
mod report;
mod scope;

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{Cluster, Shape};
use crate::run::say;
pub use comparisons::Comparisons;
pub use report::{Outcome, State};
use scope::{escape, everything, skipped};

/// How long everything may take.
const LIMIT: &str = "90m";
/// Tests at once: they mostly wait.
const AT_ONCE: &str = "--procs=4";

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
    balancers::install(cluster)?;
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
    let outcomes = report::read(&report.join("report.json"), shape)
        .with_context(|| format!("the upstream tests have told nothing ({status}): see {}", log.display()))?;
    let is_told = status.success() || outcomes.iter().any(|it| it.state.is_failed());
    ensure!(is_told, "the upstream tests ended with {status}, though none failed: see {}", log.display());
    Ok(outcomes)
}
