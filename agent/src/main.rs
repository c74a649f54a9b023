//! `sluice-agent`.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{CommandFactory, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal};
use sluice_agent::check::Check;
use sluice_agent::config::{self, Config, Flags, LogFormat};
use sluice_agent::install::{self, Install};
use sluice_agent::leftovers::kube_proxy;
use sluice_agent::uninstall::{self, Uninstall};
use sluice_agent::{check, ending, memory, model, refusal};
use sluice_api::RUN_DIR;

/// What the agent itself is called, and what runs before it.
const AGENT: &str = "sluice-agent";
const INSTALL: &str = "sluice-agent install";

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
    /// Put the plugin and sluicectl on the node, out of the image that this runs in
    Install(Install),
    /// Look whether this node has what the agent needs, and what stands in its way; changes nothing
    Check(Check),
    /// Remove everything that agent and plugin have left on this node; its pods lose their network
    Uninstall(Uninstall),
    /// Remove the rules that kube-proxy has left on this node; stop kube-proxy first
    CleanupKubeProxy,
    /// Do nothing until told to end: all that a pod still has to do whose node has been cleaned
    Stay,
}

fn main() -> ExitCode {
    memory::share_one_heap();
    let Arguments { flags, command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => misused(&error),
    };
    match command {
        // In a container that has neither settings nor rights but those to write.
        Some(Command::Install(install)) => {
            let run_dir = flags.run_dir();
            ending::with_any_panic(&run_dir, INSTALL);
            let result = install::run(&install, &run_dir);
            ending::note(&run_dir, INSTALL, &result);
            end(result)
        }
        Some(Command::Check(check)) => end(prepare(flags).and_then(|config| check::run(&config, &check))),
        Some(Command::Uninstall(uninstall)) => {
            end(prepare(flags).and_then(|config| uninstall::run(&config, &uninstall)))
        }
        Some(Command::CleanupKubeProxy) => end(prepare(flags).and_then(|_| kube_proxy::clean_up())),
        Some(Command::Stay) => end(stay()),
        None => {
            let run_dir = flags.run_dir();
            ending::with_any_panic(&run_dir, AGENT);
            match prepare(flags) {
                Ok(config) => run(config),
                Err(error) => {
                    let result = Err(error);
                    ending::note(&run_dir, AGENT, &result);
                    end(result)
                }
            }
        }
    }
}

/// The end where arguments or variables make no sense, as a variable of a pod may.
fn misused(error: &clap::Error) -> ! {
    // Else somebody has asked for help.
    if error.use_stderr() {
        let matches = Arguments::command().ignore_errors(true).try_get_matches();
        let run_dir = matches.ok().and_then(|matches| matches.get_one::<PathBuf>("run_dir").cloned());
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        ending::note(&run_dir.unwrap_or_else(|| RUN_DIR.into()), AGENT, &Err(anyhow!("{what}")));
    }
    error.exit()
}

fn stay() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().and_then(|()| signals.wait()).map(drop).context("waiting for a signal")
}

/// The settings, with logs as they say.
fn prepare(flags: Flags) -> Result<Config> {
    let config = Config::load(flags)?;
    log(&config);
    ensure!(nix::unistd::geteuid().is_root(), "the agent loads programs into the kernel: run it as root");
    Ok(config)
}

/// The agent itself: nobody looks on, so its error goes where its logs go.
fn run(config: Config) -> ExitCode {
    let run_dir = config.run_dir.clone();
    // The file of settings may have named another.
    ending::with_any_panic(&run_dir, AGENT);
    let result = model::run(config);
    ending::note(&run_dir, AGENT, &result);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", refusal::explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// The end of a command that somebody looks on at.
fn end(result: Result<()>) -> ExitCode {
    result.map_or_else(|error| refuse(&error), |()| ExitCode::SUCCESS)
}

fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("sluice-agent: {}", refusal::explained(error));
    ExitCode::FAILURE
}

fn log(config: &Config) {
    let level = tracing::Level::from(config.log.level);
    let logs = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    // Colours are for people's eyes.
    let logs = logs.with_ansi(coloured);
    match config.log.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    for name in config::unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!("the variable {name} of the environment is none of the agent's settings");
    }
}
