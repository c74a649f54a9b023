//! What policies say of a cluster that is written down, without one.

mod cluster;
mod matrix;
mod probe;
#[cfg(test)]
mod tests;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::Output;
use traffic::Traffic;

/// Questions about the policies in a directory of manifests.
#[derive(Subcommand)]
pub enum Question {
    /// Who can talk to whom; exits with 1 where a probe is not answered as it expects
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
}

/// Answers.
///
/// # Errors
/// Where something cannot be read, or makes no sense.
pub fn run(question: &Question, output: Output) -> Result<ExitCode> {
    match question {
        Question::Matrix { directory, ports, probes } => {
            let index = cluster::read(directory)?;
            warn(&index);
            let answers = match probes {
                Some(file) => matrix::probes(&index, file)?,
                None => matrix::every_pair(&index, ports)?,
            };
            match output {
                Output::Table => matrix::table(&answers).print(),
                Output::Json => print_lines(&answers)?,
            }
            let surprises = matrix::surprises(&answers);
            for surprise in &surprises {
                eprintln!("{surprise}");
            }
            Ok(if surprises.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// Tells what of the policies is not answered for as it stands there.
fn warn(index: &sluice_policy::Index) {
    for problem in index.problems() {
        eprintln!("sluicectl: {problem}");
    }
}

fn print_lines<T: serde::Serialize>(items: &[T]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for item in items {
        serde_json::to_writer(&mut out, item)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
