//! `sluice`, the CNI plugin: run by the container runtime for each pod that comes or goes.
//!
//! Follows the CNI specification, versions 0.3.1 to 1.1.0. ARCHITECTURE.md, "An endpoint's life", tells what it does.

mod arguments;
mod config;
mod error;
mod ipam;
mod log;
mod name;
mod output;
mod verb;
mod wire;

use std::io::{Read, Write};
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::error::CniError;

fn main() -> ExitCode {
    let mut input = Vec::new();
    let result = std::io::stdin()
        .read_to_end(&mut input)
        .map_err(|source| CniError::io("reading the network configuration from standard input", source))
        .and_then(|_| Arguments::from_environment())
        .and_then(|arguments| verb::run(&arguments, &input));
    let (text, code) = match result {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (error.to_json(config::version_of(&input)), ExitCode::FAILURE),
    };
    // Nobody is left to be told where this fails.
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}
