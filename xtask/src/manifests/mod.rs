//! `cargo xtask manifests`: what kubectl applies, made of the Helm chart, so that both say the same.

mod chart;
mod objects;
mod switches;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::golang::Go;
use crate::run::{root, run, say, target};
use chart::Chart;

/// The first line of all that is made.
const HEAD: &str = "# Made of manifests/helm/sluice by `cargo xtask manifests`: change it there.\n";

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write nothing; fail where anything would be written, or where a value of the chart does not do what it is for
    #[arg(long)]
    check: bool,
}

/// Runs the command.
///
/// # Errors
/// Where Helm cannot be built, or the chart is wrong.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        return Ok(if are_right()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    make(&Chart::new(helm()?), true)?.iter().for_each(|path| println!("written {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Whether what kubectl applies is what the chart says, and the chart does with each value what that is for; tells what is not.
///
/// # Errors
/// As [`main`].
pub fn are_right() -> Result<bool> {
    let chart = Chart::new(helm()?);
    let stale = make(&chart, false)?;
    let stale =
        stale.iter().map(|it| format!("{} is not what the chart makes: run `cargo xtask manifests`", it.display()));
    let problems: Vec<_> = stale.chain(switches::problems(&chart)?).collect();
    problems.iter().for_each(|problem| println!("{problem}"));
    Ok(problems.is_empty())
}

/// Helm, built from its Go module; what is there already costs Go's own comparison.
///
/// # Errors
/// Where it cannot be built.
pub fn helm() -> Result<PathBuf> {
    let program = target().join("helm/helm");
    let go = Go::ready("Helm")?;
    if !program.exists() {
        say("Building Helm (some minutes)");
    }
    let mut go = go.command();
    go.args(["build", "-mod=readonly", "-ldflags=-s -w", "-o"]).arg(&program).arg("helm.sh/helm/v4/cmd/helm");
    run(go.current_dir(root().join("tests/kubernetes/helm")).env("CGO_ENABLED", "0"))?;
    Ok(program)
}

/// Makes all of it; gives what is not as the chart has it, or was not until this has written it.
fn make(chart: &Chart, write: bool) -> Result<Vec<PathBuf>> {
    chart.lint()?;
    let install = chart.render(&[])?;
    let uninstall = chart.render(&["uninstall=true"])?;
    let pool = chart.render(&["config.pod_cidr_pool[0].cidr=10.244.0.0/16", "config.pod_cidr_pool[0].block=24"])?;
    let metrics = chart.render(&["metricsService.enabled=true", "config.metrics_address=0.0.0.0:9921"])?;
    let files = [
        ("base/rbac.yaml", install.part("rbac.yaml")?),
        ("base/admission.yaml", install.part("admission.yaml")?),
        ("base/daemonset.yaml", install.part("daemonset.yaml")?),
        ("base/agent.yaml", &install.settings()?),
        ("components/metrics/service.yaml", metrics.part("metrics.yaml")?),
        ("overlays/pool/rbac.yaml", pool.part("pool.yaml")?),
        ("overlays/pool/admission.yaml", pool.part("pool-admission.yaml")?),
        ("overlays/pool/agent.yaml", &pool.settings()?),
        ("overlays/uninstall/daemonset.yaml", uninstall.part("uninstall.yaml")?),
    ];
    let mut stale = Vec::new();
    for (name, text) in files {
        let path = root().join("manifests").join(name);
        let text = format!("{HEAD}{text}");
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            continue;
        }
        if write {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        stale.push(path);
    }
    Ok(stale)
}
