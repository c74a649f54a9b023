//! Fuzzing: each target of `sluice-fuzz` for a while, led by the code that its inputs reach.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result};

use crate::run::{cargo, host, run, say, target};
use crate::score::Score;
use crate::setup;

const TARGETS: [&str; 5] = ["manifests", "selectors", "blocks", "compiler", "services"];
/// How long all targets take together, where `SLUICE_FUZZ_SECONDS` does not say.
const SECONDS: u64 = 60;

/// What makes programs tell libFuzzer where they have been: `-fsanitize-coverage` of clang, for which stable rustc has no name.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Fuzzes all targets, from their seeds on: libFuzzer tries a corpus to its end whatever time it has, and one that grew with each run
/// would leave none for anything new. What failed is kept, and tried again at the next run.
///
/// # Errors
/// Where the fuzzer cannot be built or started.
pub fn all() -> Result<Score> {
    setup::install(&["g++"])?;
    let fuzzer = build()?;
    let seconds = match env::var("SLUICE_FUZZ_SECONDS") {
        Ok(text) => text.parse().with_context(|| format!("reading SLUICE_FUZZ_SECONDS, which is {text:?}"))?,
        Err(_) => SECONDS,
    };
    let each = (seconds / TARGETS.len() as u64).max(1);
    let mut score = Score::default();
    for name in TARGETS {
        let directory = target().join("fuzzing").join(name);
        let [corpus, failures] = ["corpus", "failures"].map(|name| directory.join(name));
        fs::remove_dir_all(&corpus).or_else(absent).with_context(|| format!("removing {}", corpus.display()))?;
        for directory in [&corpus, &failures] {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        say(&format!("Fuzzing: {name}, {each} s"));
        let status = Command::new(&fuzzer)
            .args([&corpus, &failures])
            .args([
                &format!("-max_total_time={each}"),
                "-timeout=20",
                "-verbosity=0",
                "-print_funcs=0",
                "-print_final_stats=1",
            ])
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .env("SLUICE_FUZZ_TARGET", name)
            .env("SLUICE_FUZZ_SEEDS", &corpus)
            .status()
            .with_context(|| format!("starting {}", fuzzer.display()))?;
        if !status.success() {
            let (failures, fuzzer) = (failures.display(), fuzzer.display());
            say(&format!("The input is in {failures}; try it again: SLUICE_FUZZ_TARGET={name} {fuzzer} FILE"));
        }
        score.add(Score::of(status.success()));
    }
    Ok(score)
}

/// What is not there need not be removed.
fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Builds the fuzzer. Flags for a named target do not concern what runs while it is built.
fn build() -> Result<PathBuf> {
    let host = host()?;
    run(cargo()
        .args(["build", "--profile", "fuzz", "-p", "sluice-fuzz", "--features", "libfuzzer", "--target", &host])
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f")))?;
    Ok(target().join(host).join("fuzz/sluice-fuzz"))
}
