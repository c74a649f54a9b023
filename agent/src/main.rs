//! `sluice-agent`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluice_agent::check::Check;
use sluice_agent::config::{self, Config, Flags, LogFormat};
use sluice_agent::leftovers::kube_proxy;
use sluice_agent::{check, memory, model, refusal, uninstall};

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
    /// Look whether this node has what the agent needs, and what stands in its way; changes nothing
    Check(Check),
    /// Remove everything that agent and plugin have left on this node; its pods lose their network
    Uninstall,
    /// Remove the rules that kube-proxy has left on this node; stop kube-proxy first
    CleanupKubeProxy,
}

fn main() -> ExitCode {
    memory::share_one_heap();
    let arguments = Arguments::parse();
    let config = match Config::load(arguments.flags) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    log(&config);
    let result = match arguments.command {
        _ if !nix::unistd::geteuid().is_root() => {
            Err(anyhow::anyhow!("the agent loads programs into the kernel: run it as root"))
        }
        // Somebody looks on.
        Some(Command::Check(check)) => {
            return check::run(&config, &check).map_or_else(|error| refuse(&error), |()| ExitCode::SUCCESS);
        }
        Some(Command::Uninstall) => {
            return uninstall::run(&config).map_or_else(|error| refuse(&error), |()| ExitCode::SUCCESS);
        }
        Some(Command::CleanupKubeProxy) => {
            return kube_proxy::clean_up().map_or_else(|error| refuse(&error), |()| ExitCode::SUCCESS);
        }
        None => model::run(config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", refusal::explained(&error));
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("sluice-agent: {}", refusal::explained(error));
    ExitCode::FAILURE
}

fn log(config: &Config) {
    let level = tracing::Level::from(config.log.level);
    let logs = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    match config.log.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    for name in config::unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!("the variable {name} of the environment is none of the agent's settings");
    }
}
