//! What a node must have for the agent, and what stands in its way: looked at before the agent starts, and told in a table.

mod kernel;
mod node;

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::config::{Config, Source};
use crate::refusal::Confinement;
use crate::source::Kubernetes;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// Something may not work.
    Warning,
    /// The agent cannot do its work.
    Failure,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "FAILURE",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What there is, or what is wrong and what to do.
    found: String,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into() }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found)
    }

    /// One for each problem; where there is none, that all is well.
    fn each(check: &'static str, verdict: Verdict, problems: Vec<String>, well: &str) -> Vec<Self> {
        if problems.is_empty() {
            return vec![Self::ok(check, well)];
        }
        problems.into_iter().map(|problem| Self::new(check, verdict, problem)).collect()
    }
}

/// How findings are printed.
#[derive(Args, Debug)]
pub struct Check {
    /// For people or for machines
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// Aligned columns
    Table,
    /// JSON
    Json,
}

/// Makes sure of what an agent cannot do without, before it touches anything.
///
/// # Errors
/// Where something is missing, with what to do.
pub fn essentials() -> Result<()> {
    let failures: Vec<String> = kernel::essentials(&Confinement::own())
        .into_iter()
        .filter(|finding| finding.verdict == Verdict::Failure)
        .map(|finding| finding.found)
        .collect();
    ensure!(failures.is_empty(), "the agent cannot work on this node: {}", failures.join("; "));
    Ok(())
}

/// Looks at all of it and prints what was found; changes nothing.
///
/// # Errors
/// Where something is missing that the agent needs, or nothing can be printed.
pub fn run(config: &Config, check: &Check) -> Result<()> {
    let confinement = Confinement::own();
    let mut findings = kernel::essentials(&confinement);
    findings.extend(kernel::features(config, &confinement));
    findings.extend(node::directories(config));
    findings.extend(node::others(config));
    if let Source::Kubernetes(kubeconfig) = &config.source {
        findings.extend(api(config, kubeconfig.as_deref()));
    }
    let text = match check.output {
        Output::Table => table(&findings),
        Output::Json => format!("{:#}\n", serde_json::to_value(&findings).context("writing findings as JSON")?),
    };
    io::stdout().write_all(text.as_bytes()).context("printing what was found")?;
    let failures = findings.iter().filter(|finding| finding.verdict == Verdict::Failure).count();
    ensure!(failures == 0, "{failures} of {} checks have failed", findings.len());
    Ok(())
}

/// Whether the API server has what the agent reads, and lets it.
fn api(config: &Config, kubeconfig: Option<&std::path::Path>) -> Vec<Finding> {
    const CHECK: &str = "Kubernetes API";
    let server = config.api_server.clone().map(|server| server.0);
    let source = Kubernetes::new(kubeconfig).0.with_services().at(server);
    match source.examine(&config.node_name, !config.pod_cidr_pool.is_empty()) {
        Ok(problems) => {
            Finding::each(CHECK, Verdict::Failure, problems, "every kind is there, and may be read and written to")
        }
        Err(error) => vec![Finding::new(CHECK, Verdict::Failure, format!("{error:#}"))],
    }
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let line = |check: &str, verdict: &str, found: &str| format!("{check:width$}  {verdict:7}  {found}\n");
    let lines = findings.iter().map(|finding| line(finding.check, finding.verdict.name(), &finding.found));
    std::iter::once(line("CHECK", "VERDICT", "FOUND")).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_with_their_verdicts() {
        let findings = [
            Finding::ok("kernel", "Linux 6.1.0"),
            Finding::new("type information", Verdict::Failure, "none; use another kernel"),
        ];
        assert_eq!(
            table(&findings),
            "CHECK             VERDICT  FOUND\n\
             kernel            ok       Linux 6.1.0\n\
             type information  FAILURE  none; use another kernel\n"
        );
        assert_eq!(
            serde_json::to_value(&findings[1]).expect("JSON"),
            serde_json::json!({ "check": "type information", "verdict": "failure", "found": "none; use another kernel" })
        );
    }
}
