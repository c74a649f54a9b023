//! `sluice`, the CNI plugin: run by the container runtime for each pod that comes or goes.
//!
//! Follows the CNI specification, versions 0.3.1 to 1.1.0. ARCHITECTURE.md, "An endpoint's life", tells what it does.
//! Called by the name `loopback` it is that plugin.

mod arguments;
mod config;
mod error;
mod handover;
mod ipam;
mod log;
mod loopback;
mod name;
mod output;
mod port;
mod verb;
mod wire;

use std::env;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::error::CniError;

fn main() -> ExitCode {
    // Who runs it by hand, or as the agent does: runtimes give no arguments.
    if env::args().nth(1).is_some_and(|argument| argument == "--version") {
        let said = print(concat!("sluice ", env!("CARGO_PKG_VERSION"), "\n"));
        return if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut input = Vec::new();
    let result = io::stdin()
        .read_to_end(&mut input)
        .map_err(|source| CniError::io("reading the network configuration from standard input", source))
        .and_then(|_| Arguments::from_environment())
        .and_then(|arguments| {
            if loopback::is_meant(env::args_os().next().as_deref(), &input) {
                loopback::run(&arguments, &input, print)
            } else {
                verb::run(&arguments, &input, print)
            }
        });
    let Err(error) = result else { return ExitCode::SUCCESS };
    if print(&error.to_json(config::version_of(&input))).is_err() {
        eprintln!("sluice: {error}");
    }
    ExitCode::FAILURE
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
