//! The tier `kubernetes`: a real cluster, Sluice installed in it as a user would, our own tests of it, then the upstream ones.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::cluster::upstream::{self, Outcome, State};
use crate::cluster::{Cluster, Network, Running, Shape};
use crate::conformance::Record;
use crate::manifests;
use crate::run::{cargo, say};
use crate::score::Score;
use crate::test::count;

/// What only this tier knows.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    shape: Shape,
    /// kubernetes: leave the cluster up
    #[arg(long)]
    keep: bool,
    /// kubernetes: only tests of these names; of the upstream ones, a regular expression
    #[arg(long, value_name = "NAMES")]
    focus: Option<String>,
    /// kubernetes: only one of both
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// kubernetes: the plugins of the CNI project and kube-proxy instead of Sluice, upstream tests only, to compare with
    #[arg(long, conflicts_with_all = ["helm", "pool", "oldest"])]
    reference: bool,
    /// kubernetes: write the upstream tests' results into docs/conformance, in the file of such a cluster; needs a clean work tree
    #[arg(long, conflicts_with_all = ["focus", "reference", "oldest"])]
    record: bool,
}

/// Which tests.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Those of this repository
    Own,
    /// Kubernetes' own
    Upstream,
}

/// Runs the tier.
///
/// # Errors
/// Where the tests cannot be run.
pub fn run(options: &Options, object: &Path) -> Result<Score> {
    ensure!(nix::unistd::geteuid().is_root(), "the cluster's nodes are namespaces: run this as root");
    ensure!(
        !options.shape.helm || options.only == Some(Part::Upstream),
        "our own tests remove and install Sluice by kubectl, and one of them by Helm: with --helm, run --only upstream"
    );
    ensure!(
        !options.record || options.only != Some(Part::Own),
        "--record writes the upstream tests' results, and --only own runs none of those: leave one of both out"
    );
    ensure!(
        !options.shape.oldest || options.only != Some(Part::Upstream),
        "the upstream tests are of the newest Kubernetes, and ask for what the oldest does not have: leave --oldest or \
         --only upstream out"
    );
    let record = if options.record { Some(Record::begin()?) } else { None };
    let cluster = Cluster::default();
    let network = if options.reference { Network::Reference } else { Network::Sluice };
    let _running = Running::start(&cluster, options.shape, network, options.keep)?;
    let mut score = Score::default();
    if options.only != Some(Part::Upstream) && !options.reference {
        if options.focus.is_none() {
            score.add(Score::of(manifests::are_right()?));
        }
        let mut tests = cargo();
        tests.args(["test", "--no-fail-fast", "-p", "sluice-tests", "--test", "kubernetes"]);
        tests.env("SLUICE_CLUSTER", cluster.directory()).env("SLUICE_HELM", manifests::helm()?);
        tests.args(options.focus.iter());
        if options.shape.pool {
            // Those of a pool, which others have no use for.
            tests.args(["--", "--include-ignored"]);
        }
        score.add(count(&mut tests, object)?);
    }
    if options.shape.oldest && options.only.is_none() {
        say("Upstream: not run, for those tests are of the newest Kubernetes");
    } else if options.only != Some(Part::Own) {
        let outcomes = upstream::run(&cluster, options.shape, options.focus.as_deref())?;
        score.add(tell(&outcomes));
        if let Some(record) = record {
            record.write(&cluster, options.shape, &outcomes)?;
        }
    }
    let focus = options.focus.as_deref().unwrap_or_default();
    ensure!(score.passed + score.failed > 0, "no test that runs here fits `--focus {focus}`");
    Ok(score)
}

/// Says what became of the tests, those that failed by name.
fn tell(outcomes: &[Outcome]) -> Score {
    let mut score = Score::default();
    for outcome in outcomes {
        match &outcome.state {
            State::Passed => score.passed += 1,
            State::Failed(why) => {
                score.failed += 1;
                println!("failed: {}\n        {why}", outcome.name);
            }
            State::Skipped(_) => {}
        }
    }
    let skipped = outcomes.iter().filter(|it| matches!(it.state, State::Skipped(_))).count();
    say(&format!("Upstream: {} passed, {} failed, {skipped} not run", score.passed, score.failed));
    score
}
