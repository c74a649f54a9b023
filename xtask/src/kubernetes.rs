//! The tier `kubernetes`: a real cluster, Sluice installed in it as a user would, our own tests of it, then the upstream ones.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::cluster::upstream::{self, Outcome, State};
use crate::cluster::{Cluster, Network, Shape};
use crate::run::{cargo, say};
use crate::score::Score;
use crate::test::count;
use crate::{conformance, manifests};

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
    #[arg(long)]
    reference: bool,
    /// kubernetes: write docs/conformance.md by the upstream tests' results
    #[arg(long, conflicts_with_all = ["focus", "reference"])]
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
    let cluster = Cluster::default();
    let network = if options.reference { Network::Reference } else { Network::Sluice };
    let running = Running { cluster: &cluster, keep: options.keep };
    running.cluster.up(options.shape, network)?;
    let mut score = Score::default();
    if options.only != Some(Part::Upstream) && !options.reference {
        score.add(Score::of(manifests::are_fresh()?));
        let mut tests = cargo();
        tests.args(["test", "-p", "sluice-tests", "--test", "kubernetes"]);
        tests.env("SLUICE_CLUSTER", cluster.directory());
        tests.env("SLUICE_HELM", manifests::helm()?);
        score.add(count(tests.args(options.focus.iter()), object)?);
    }
    if options.only != Some(Part::Own) {
        let outcomes = upstream::run(&cluster, options.shape, options.focus.as_deref())?;
        score.add(tell(&outcomes));
        if options.record {
            conformance::write(&cluster, options.shape, &outcomes)?;
        }
    }
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

/// A cluster that ends with the tests, however they end.
struct Running<'a> {
    cluster: &'a Cluster,
    keep: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.keep {
            say("The cluster stays up: cargo xtask cluster status, kubectl, exec; down ends it");
        } else if let Err(error) = self.cluster.down() {
            say(&format!("The cluster is not down: {error:#}"));
        }
    }
}
