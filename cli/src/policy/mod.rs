//! What policies say of a cluster that is written down, without one.

mod cluster;
mod explain;
mod matrix;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use sluice_api::{Answer, Call};
use sluice_policy::question::{self, Explained, Probe, Traffic};
use sluice_policy::{Index, Problem, Severity};

use crate::table::Table;
use crate::{Output, ask, print};

/// Questions about policies.
#[derive(Subcommand)]
pub enum Question {
    /// Who can talk to whom; exits with 1 where a probe is not answered as it expects, with 2 where one has no answer
    Matrix {
        /// Manifests: Namespaces, Pods with addresses, Nodes, and policies
        directory: PathBuf,
        /// Instead of each port that the receiver declares; may be repeated
        #[arg(long = "port", value_name = "PORT/PROTOCOL", conflicts_with = "probes")]
        ports: Vec<Traffic>,
        /// JSON lines with `from`, `to`, `port`, `protocol`, and perhaps `expect`; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        probes: Option<PathBuf>,
    },
    /// Why somebody can talk to somebody, or cannot: the policies of both ends, rule by rule
    Explain {
        /// Manifests, as of `matrix`; without, the node's agent is asked
        directory: Option<PathBuf>,
        /// Who sends: namespace/name, or an address
        #[arg(long)]
        from: String,
        /// Who receives: namespace/name, or an address
        #[arg(long)]
        to: String,
        /// What is sent
        #[arg(long, value_name = "PORT/PROTOCOL")]
        port: Traffic,
    },
    /// What of the policies is wrong, or has no effect; exits with 1 where there is any
    Lint {
        /// Manifests, as of `matrix`
        directory: PathBuf,
    },
}

/// Answers.
///
/// # Errors
/// Where something cannot be read, or makes no sense.
pub fn run(question: &Question, socket: &Path, output: Output) -> Result<ExitCode> {
    match question {
        Question::Matrix { directory, ports, probes } => {
            let answers = match probes {
                Some(file) => matrix::probes(&warned(cluster::read_for_excerpts(directory)?), file)?,
                None => matrix::every_pair(&warned(cluster::read(directory)?), ports)?,
            };
            match output {
                Output::Table => matrix::table(&answers).print()?,
                Output::Json => print_lines(&answers)?,
            }
            let surprises = matrix::surprises(&answers);
            let errors = matrix::errors(&answers, probes.as_deref().unwrap_or(directory));
            surprises.iter().chain(&errors).for_each(print::warn);
            Ok(match (errors.is_empty(), surprises.is_empty()) {
                (false, _) => ExitCode::from(2),
                (true, false) => ExitCode::FAILURE,
                (true, true) => ExitCode::SUCCESS,
            })
        }
        Question::Explain { directory, from, to, port } => {
            let explained = match directory {
                Some(directory) => {
                    let index = warned(cluster::read_for_excerpts(directory)?);
                    let probe = Probe { from: from.clone(), to: to.clone(), traffic: *port, expect: None };
                    let explained = probe.ends().and_then(|ends| question::explain(&index.excerpt(&ends), &probe));
                    explained.map_err(anyhow::Error::msg)?
                }
                None => explained_by_agent(socket, from, to, *port)?,
            };
            match output {
                Output::Table => print::lines(explained.iter().flat_map(explain::lines))?,
                Output::Json => print_lines(&explained)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Question::Lint { directory } => {
            let findings: Vec<Finding> = cluster::lint(directory)?.iter().map(Finding::from).collect();
            match output {
                Output::Table => table_of(&findings).print()?,
                Output::Json => print_lines(&findings)?,
            }
            Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// The explanations of a node's agent.
fn explained_by_agent(socket: &Path, from: &str, to: &str, port: Traffic) -> Result<Vec<Explained>> {
    let call = Call::Explain { from: from.into(), to: to.into(), port: port.to_string() };
    let Answer::Explained(values) = ask(socket, call)? else { bail!("the agent's answer is none to this question") };
    let explained = values.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
    explained.context("reading the agent's explanation; is it of another version?")
}

/// A problem, as lint tells it.
#[derive(serde::Serialize)]
struct Finding {
    severity: &'static str,
    object: String,
    field: String,
    what: String,
}

impl From<&Problem> for Finding {
    fn from(problem: &Problem) -> Self {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Problem { object, field, what, .. } = problem.clone();
        Self { severity, object: object.to_string(), field, what }
    }
}

fn table_of(findings: &[Finding]) -> Table {
    let mut table = Table::new(&["SEVERITY", "OBJECT", "FIELD", "WHAT"]);
    for Finding { severity, object, field, what } in findings {
        table.row([severity, &**object, field, what]);
    }
    table
}

/// Tells what of the policies is not answered for as it stands there.
fn warned(index: Index) -> Index {
    for problem in index.problems() {
        print::warn(format_args!("sluicectl: {problem}"));
    }
    index
}

fn print_lines<T: serde::Serialize>(items: &[T]) -> Result<()> {
    let lines = items.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    Ok(print::lines(lines)?)
}
