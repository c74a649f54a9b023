//! `cargo xtask test`: the tiers, one after the other, and a last line that counts.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::run::{cargo, host, say, target};
use crate::score::Score;
use crate::{build, fuzz, kernels, kubernetes, manifests, setup};

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which tests; without, all that need no more than an hour
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    #[command(flatten)]
    kubernetes: kubernetes::Options,
}

/// What can be tested by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Formatting and lints, and whether kubectl applies what the Helm chart says, where there is Go
    Lint,
    /// Pure logic, files, sockets
    Unit,
    /// Compiled programs and native build on the same packets
    Packet,
    /// The real binaries between network namespaces
    Node,
    /// The plugin under containerd and podman, and in chains; runs only by name
    Runtime,
    /// Packet and node on Debian's kernels, emulated; runs only by name
    Kernels,
    /// Sluice in a cluster of real kubelets, and Kubernetes' own tests of it; runs only by name
    Kubernetes,
    /// Manifests, selectors, CIDRs and changes of policies, made of any bytes; runs only by name
    Fuzz,
}

/// Runs the command.
///
/// # Errors
/// Where the tests cannot be run at all; tests that fail are no error, but the exit code says so.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let tiers = if arguments.tiers.is_empty() { &Tier::DEFAULT } else { &arguments.tiers[..] };
    let object = build::all(false)?;
    let mut total = Score::default();
    for tier in tiers {
        let started = Instant::now();
        let score = tier.run(&object, &arguments.kubernetes)?;
        total.add(score);
        let (passed, failed, seconds) = (score.passed, score.failed, started.elapsed().as_secs());
        say(&format!("{}: {passed} passed, {failed} failed, {seconds} s", tier.name()));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Tier {
    /// Those that run without being named.
    const DEFAULT: [Self; 4] = [Self::Lint, Self::Unit, Self::Packet, Self::Node];

    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Packet => "packet",
            Self::Node => "node",
            Self::Runtime => "runtime",
            Self::Kernels => "kernels",
            Self::Kubernetes => "kubernetes",
            Self::Fuzz => "fuzz",
        }
    }

    fn run(self, object: &std::path::Path, options: &kubernetes::Options) -> Result<Score> {
        say(&format!("Tests: {}", self.name()));
        match self {
            Self::Lint => {
                let mut score = Score::default();
                for arguments in [
                    &["fmt", "--check", "--all"][..],
                    &["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"],
                    &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
                ] {
                    let status = cargo().args(arguments).status().context("starting cargo")?;
                    score.add(Score::of(status.success()));
                }
                score.add(kernel_lints()?);
                score.add(manifest_lints());
                Ok(score)
            }
            Self::Unit => {
                count(cargo().args(["test", "--no-fail-fast", "--workspace", "--exclude", "sluice-tests"]), object)
            }
            Self::Packet | Self::Node | Self::Runtime => {
                let name = self.name();
                if self == Self::Runtime {
                    setup::runtimes()?;
                }
                ensure!(nix::unistd::geteuid().is_root(), "the tier {name} loads programs: run it as root");
                count(cargo().args(["test", "--no-fail-fast", "-p", "sluice-tests", "--test", name]), object)
            }
            Self::Kernels => kernels::run(object),
            Self::Kubernetes => kubernetes::run(options, object),
            Self::Fuzz => fuzz::all(),
        }
    }
}

/// Clippy for the kernel programs, as if they were this machine's: their own compiler need not have it.
fn kernel_lints() -> Result<Score> {
    let flags = ["-Cpanic=abort", "--cfg=bpf_target_arch=\"ARCH\""].join("\x1f").replace("ARCH", env::consts::ARCH);
    let status = cargo()
        .args(["clippy", "--manifest-path", "ebpf/Cargo.toml", "--target", &host()?])
        .arg("--target-dir")
        .arg(target().join("ebpf-lint"))
        .args(["--", "-D", "warnings"])
        // Inline assembly for eBPF is an unstable feature.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .status()
        .context("starting cargo")?;
    Ok(Score::of(status.success()))
}

/// Whether kubectl applies what the chart says.
fn manifest_lints() -> Score {
    Score::of(manifests::are_right().unwrap_or_else(|error| {
        println!("Manifests cannot be compared with the chart: {error:#}");
        false
    }))
}

/// Runs tests and counts what they say of themselves. What says nothing and fails is one failure.
///
/// # Errors
/// Where they cannot be started.
pub fn count(command: &mut Command, object: &std::path::Path) -> Result<Score> {
    command.env("SLUICE_BPF_OBJECT", object);
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let mut score = Score::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("reading the tests' output")?;
            score.add(Score::of_line(&line));
            println!("{line}");
        }
    }
    let success = child.wait().context("waiting for the tests")?.success();
    if !success && score.failed == 0 {
        score.failed = 1;
    }
    Ok(score)
}
