//! `cargo xtask`: everything that is done to this repository, one file for each command.

mod bench;
mod build;
mod cluster;
mod conformance;
mod demo;
mod fuzz;
mod golang;
mod image;
mod kernels;
mod kubernetes;
mod manifests;
mod run;
mod score;
mod setup;
mod test;
mod toolchain;

use clap::{Parser, Subcommand};

/// Setup, build, demo and test of Sluice.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing to build and test
    Setup(setup::Arguments),
    /// Build the kernel programs and the binaries
    Build(build::Arguments),
    /// Show a cluster on this machine, and who can talk to whom in it
    Demo(demo::Arguments),
    /// Run the tests
    Test(test::Arguments),
    /// Build an OCI image of what a node runs
    Image(image::Arguments),
    /// Make what kubectl applies of the Helm chart
    Manifests(manifests::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// A Kubernetes cluster of real kubelets on this machine, with Sluice in it
    Cluster(cluster::Arguments),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    match Arguments::parse().command {
        Command::Setup(arguments) => setup::main(&arguments),
        Command::Build(arguments) => build::main(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Image(arguments) => image::main(&arguments),
        Command::Manifests(arguments) => manifests::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Cluster(arguments) => cluster::main(&arguments),
    }
}
