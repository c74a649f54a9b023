//! `cargo xtask bench`: measurements, beside something else in the same run.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::cluster::{Cluster, Network, Release, Running, Shape};
use crate::run::{run, say, target};
use crate::{build, setup};

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which; without, all but footprint-served and delays
    #[arg(value_enum)]
    benches: Vec<Bench>,
}

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// What the kernel programs cost
    Datapath,
    /// What iperf3 carries between pods
    Throughput,
    /// How long ADD and DEL take
    Cni,
    /// What flows lose while agents come and go
    Restart,
    /// What compiling policies takes
    Policy,
    /// What services cost: packets, connections, tables
    Services,
    /// What a large cluster takes of an agent
    Footprint,
    /// The same through a real API server; only by name, for it builds Kubernetes (cargo xtask cluster), and takes 12 GiB of
    /// memory and ten minutes (SLUICE_NODES=1000: a fifth of that)
    FootprintServed,
    /// From new pods, labels and policies to all nodes of a real cluster, and what idle agents take; only by name, for it
    /// builds and starts a cluster where none is up (cargo xtask cluster)
    Delays,
}

impl Bench {
    /// Those that need nothing but this machine.
    fn usual() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|bench| !bench.needs_kubernetes()).collect()
    }

    fn needs_kubernetes(self) -> bool {
        matches!(self, Self::FootprintServed | Self::Delays)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Throughput => "throughput",
            Self::Cni => "cni",
            Self::Restart => "restart",
            Self::Policy => "policy",
            Self::Services => "services",
            Self::Footprint => "footprint",
            Self::FootprintServed => "footprint-served",
            Self::Delays => "delays",
        }
    }

    /// Debian packages that it compares with or needs.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Datapath | Self::Restart | Self::Policy | Self::Footprint | Self::FootprintServed | Self::Delays => {
                &[]
            }
            Self::Throughput => &["iperf3", "containernetworking-plugins"],
            Self::Cni => &["containernetworking-plugins"],
            Self::Services => &["iptables", "nftables"],
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Where something cannot be built or run.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "benches make network namespaces and load programs: run them as root");
    let benches = if arguments.benches.is_empty() { Bench::usual() } else { arguments.benches.clone() };
    let object = build::all(true)?;
    let binaries = target().join("release");
    for bench in &benches {
        setup::install(bench.packages())?;
    }
    let cluster = Cluster::default();
    if benches.contains(&Bench::FootprintServed) {
        cluster.build(Release::Newest)?;
    }
    let is_needed = benches.contains(&Bench::Delays) && !cluster.is_up()?;
    let _running = is_needed.then(|| Running::start(&cluster, Shape::default(), Network::Sluice, false)).transpose()?;
    let names: Vec<&str> = benches.iter().map(|bench| bench.name()).collect();
    say(&format!("Measuring: {}", names.join(", ")));
    run(Command::new(binaries.join("sluice-bench"))
        .args(names)
        .env("SLUICE_BIN_DIR", &binaries)
        .env("SLUICE_BPF_OBJECT", &object)
        .env("SLUICE_CLUSTER", cluster.directory())
        .env("SLUICE_BENCH_DIR", target().join("bench")))?;
    Ok(ExitCode::SUCCESS)
}
