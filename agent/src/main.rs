//! `sluice-agent`.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use sluice_agent::config::{Config, Flags, LogFormat};
use sluice_agent::{model, uninstall};

/// The node daemon of Sluice: fills the tables that the kernel programs carry packets by.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Remove everything that agent and plugin have left on this node; its pods lose their network
    Uninstall,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.flags)?;
    let level = config.log.level.parse::<tracing_subscriber::filter::EnvFilter>();
    let filter = level.with_context(|| format!("log.level {:?} is no level", config.log.level))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match config.log.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "the agent loads programs into the kernel: run it as root");
    match arguments.command {
        Some(Command::Uninstall) => uninstall::run(&config),
        None => model::run(config),
    }
}
