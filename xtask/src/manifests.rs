//! `cargo xtask manifests`: what kubectl applies, made of the Helm chart, so that both say the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::run::{output, root, run, say, target};
use crate::setup;

/// The first line of all that is made.
const HEAD: &str = "# Made of manifests/helm/sluice by `cargo xtask manifests`: change it there.\n";
/// What the chart needs to be told; nothing of it is in what is made.
const ANY_SERVER: &str = "apiServer=https://192.0.2.1:6443";

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Write nothing, and fail where anything would be written
    #[arg(long)]
    check: bool,
}

/// Runs the command.
///
/// # Errors
/// Where Helm cannot be built, or the chart is wrong.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        return Ok(if are_fresh()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    make(true)?.iter().for_each(|path| println!("written {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Whether what kubectl applies is what the chart says; tells what is not.
///
/// # Errors
/// As [`main`].
pub fn are_fresh() -> Result<bool> {
    let stale = make(false)?;
    stale
        .iter()
        .for_each(|path| println!("{} is not what the chart makes: run `cargo xtask manifests`", path.display()));
    Ok(stale.is_empty())
}

/// Makes all of it; gives what is not as the chart has it, or was not until this has written it.
fn make(write: bool) -> Result<Vec<PathBuf>> {
    let helm = helm()?;
    let chart = root().join("manifests/helm/sluice");
    run(Command::new(&helm).args(["lint", "--strict", "--quiet", "--set", ANY_SERVER]).arg(&chart))?;
    let install = render(&helm, &chart, ANY_SERVER)?;
    let uninstall = render(&helm, &chart, "uninstall=true")?;
    let settings =
        settings(part(&install, "config.yaml")?).context("finding the settings in the chart's config.yaml")?;
    let files = [
        ("base/rbac.yaml", part(&install, "rbac.yaml")?),
        ("base/daemonset.yaml", part(&install, "daemonset.yaml")?),
        ("base/agent.yaml", &settings),
        ("overlays/uninstall/daemonset.yaml", part(&uninstall, "uninstall.yaml")?),
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

/// Helm, built from its Go module; what is there already costs Go's own comparison.
///
/// # Errors
/// Where it cannot be built.
pub fn helm() -> Result<PathBuf> {
    let program = target().join("helm/helm");
    setup::go("Helm")?;
    if !program.exists() {
        say("Building Helm (some minutes)");
    }
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-ldflags=-s -w", "-o"]).arg(&program).arg("helm.sh/helm/v4/cmd/helm");
    run(go.current_dir(root().join("tests/kubernetes/helm")).env("CGO_ENABLED", "0"))?;
    Ok(program)
}

/// What the chart comes to, by templates.
fn render(helm: &Path, chart: &Path, set: &str) -> Result<BTreeMap<String, String>> {
    let mut helm = Command::new(helm);
    helm.args(["template", "sluice", "--namespace", "kube-system", "--set", set]).arg(chart);
    Ok(parts(&output(&mut helm).context("`helm template` fails; run it by hand to see why")?))
}

/// The documents that each template has made. Helm says before each where it is from.
fn parts(rendered: &str) -> BTreeMap<String, String> {
    const SOURCE: &str = "# Source: sluice/templates/";
    let mut parts = BTreeMap::<String, String>::new();
    for document in format!("\n{rendered}").split("\n---\n").skip(1) {
        let Some((template, text)) = document.strip_prefix(SOURCE).and_then(|rest| rest.split_once('\n')) else {
            continue;
        };
        let part = parts.entry(template.to_owned()).or_default();
        if !part.is_empty() {
            part.push_str("---\n");
        }
        part.push_str(text.trim_end());
        part.push('\n');
    }
    parts
}

fn part<'a>(parts: &'a BTreeMap<String, String>, template: &str) -> Result<&'a str> {
    match parts.get(template) {
        Some(part) => Ok(part),
        None => bail!("the chart makes nothing of its template {template}"),
    }
}

/// The agent's settings in the ConfigMap.
fn settings(config: &str) -> Option<String> {
    let (_, block) = config.split_once("\n  agent.yaml: |\n")?;
    Some(block.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENDERED: &str = "---\n# Source: sluice/templates/a.yaml\nkind: A\n\n---\n# Source: sluice/templates/b.yaml\nkind: B\n---\n# Source: sluice/templates/a.yaml\n# why\nkind: C\n";

    #[test]
    fn documents_of_a_template_are_together() {
        let parts = parts(RENDERED);
        assert_eq!(part(&parts, "a.yaml").expect("is there"), "kind: A\n---\n# why\nkind: C\n");
        assert_eq!(part(&parts, "b.yaml").expect("is there"), "kind: B\n");
        assert!(part(&parts, "c.yaml").is_err());
    }

    #[test]
    fn settings_are_what_is_in_the_file() {
        let config = "data:\n  agent.yaml: |\n    log:\n      level: info\n    mtu: 0\n---\nkind: ConfigMap\n";
        assert_eq!(settings(config).expect("are there"), "log:\n  level: info\nmtu: 0\n");
        assert_eq!(settings("data: {}\n"), None);
    }
}
