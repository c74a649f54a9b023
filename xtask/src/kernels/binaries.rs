//! Binaries that need nothing of the machine that they run on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::{cargo, say, target};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: [&str; 4] = ["sluice", "sluice-agent", "sluicectl", "sluice-tests"];
/// What is run, and the tests that run it.
const BINARIES: [&str; 3] = ["sluice", "sluice-agent", "sluicectl"];
/// The tests, in the order in which they are run.
pub const TIERS: [&str; 2] = ["packet", "node"];

/// Builds them into a directory of their own; gives that, with each under its name.
///
/// # Errors
/// Where one cannot be built.
pub fn build(object: &Path) -> Result<PathBuf> {
    say("Building static binaries");
    let directory = target().join("kernels/static");
    let mut cargo = cargo();
    cargo.args(["build", "--target", TARGET, "--message-format", "json-render-diagnostics", "--target-dir"]);
    cargo.arg(&directory);
    for (option, names) in [("--package", &PACKAGES[..]), ("--bin", &BINARIES), ("--test", &TIERS)] {
        for name in names {
            cargo.args([option, name]);
        }
    }
    // Emulated, unoptimized code is slow, and machines have it all in memory.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env("SLUICE_BPF_OBJECT", object);
    let output = cargo.stderr(Stdio::inherit()).output().context("starting cargo")?;
    ensure!(output.status.success(), "static binaries cannot be built ({})", output.status);

    let built = String::from_utf8_lossy(&output.stdout);
    let finished = directory.join("finished");
    fs::create_dir_all(&finished).with_context(|| format!("making {}", finished.display()))?;
    for name in BINARIES.into_iter().chain(TIERS) {
        let of_name = |message: &Value| message["target"]["name"] == name && message["executable"].is_string();
        let mut messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let message = messages.find(of_name).with_context(|| format!("cargo says nothing of {name}"))?;
        let executable = message["executable"].as_str().unwrap_or_default();
        fs::copy(executable, finished.join(name)).with_context(|| format!("copying {executable}"))?;
    }
    Ok(finished)
}
