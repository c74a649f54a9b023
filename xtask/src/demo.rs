//! `cargo xtask demo`: a cluster on this machine, who can talk to whom in it, by Services too, and what policies change about that.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::build;
use crate::run::{run, target};

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave the cluster running, and say how to look around
    #[arg(long)]
    keep: bool,
    /// End a cluster that was left running
    #[arg(long, conflicts_with = "keep")]
    end: bool,
}

/// Runs the command.
///
/// # Errors
/// Where something cannot be built, or somebody cannot talk.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "the demo makes network namespaces and loads programs: run it as root");
    build::all(true)?;
    let binaries = target().join("release");
    let mut demo = Command::new(binaries.join("sluice-demo"));
    demo.env("SLUICE_BIN_DIR", &binaries);
    if arguments.keep {
        demo.arg("--keep");
    }
    if arguments.end {
        demo.arg("--end");
    }
    run(&mut demo)?;
    Ok(ExitCode::SUCCESS)
}
