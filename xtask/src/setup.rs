//! `cargo xtask setup`: what this machine lacks, and its installation.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::golang::Go;
use crate::run::{output, run, say, target};
use crate::toolchain::{self, Toolchain};

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only say what is missing
    #[arg(long)]
    check: bool,
}

/// Debian packages that the tests need.
const TOOLS: [&str; 6] = ["iproute2", "bpftool", "iputils-ping", "ethtool", "iptables", "nftables"];
/// Debian packages that bring a compiler for the kernel programs.
const COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "cargo-web"];
/// Debian packages that bpf-linker is built with, beside those of LLVM.
const LINKER: [&str; 3] = ["pkg-config", "zlib1g-dev", "libzstd-dev"];

/// Runs the command.
///
/// # Errors
/// Where something is missing and cannot be installed.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        let missing = missing();
        for what in &missing {
            println!("missing: {what}");
        }
        if missing.is_empty() {
            println!("nothing is missing");
        }
        return Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    ready()?;
    println!("ready: kernel programs are built by {}", Toolchain::find().map_or_else(String::new, |it| it.name()));
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; quick where nothing is.
///
/// # Errors
/// Where that is not possible, with what a person can do.
pub fn ready() -> Result<()> {
    install(&TOOLS)?;
    if Toolchain::find().is_none() {
        say("No rustup nightly with rust-src here: taking Debian's compiler instead");
        install(&COMPILER)?;
    }
    let Some(toolchain) = Toolchain::find() else {
        bail!("no compiler for the kernel programs; install one with `rustup toolchain add nightly -c rust-src`");
    };
    if !toolchain::has_linker() {
        if let Toolchain::Debian(llvm) = &toolchain {
            let llvm = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")];
            install(&LINKER.into_iter().chain(llvm.iter().map(String::as_str)).collect::<Vec<_>>())?;
        }
        say("Installing bpf-linker (about a minute)");
        run(&mut toolchain.install_linker())?;
    }
    mount_bpffs()
}

fn missing() -> Vec<String> {
    let mut missing = lacking(&TOOLS).into_iter().map(|name| format!("package {name}")).collect::<Vec<_>>();
    if Toolchain::find().is_none() {
        missing.push(
            "a compiler: rustup's nightly with rust-src, or the packages rustc-web, rust-web-src, cargo-web".into(),
        );
    }
    if !toolchain::has_linker() {
        missing.push("bpf-linker".into());
    }
    if !is_bpffs() {
        missing.push("a BPF file system at /sys/fs/bpf".into());
    }
    missing
}

/// Those packages that are not installed. Where this is no Debian, none is known to lack.
fn lacking<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    if !is_debian() {
        return Vec::new();
    }
    let installed = |name: &&str| {
        output(Command::new("dpkg-query").args(["-W", "-f", "${Status}", name]))
            .is_some_and(|status| status.ends_with(" installed"))
    };
    packages.iter().filter(|name| !installed(name)).copied().collect()
}

fn is_debian() -> bool {
    Path::new("/usr/bin/dpkg-query").exists()
}

/// Installs those Debian packages that are missing.
///
/// # Errors
/// Where that is not possible, with what a person can do.
pub fn install(packages: &[&str]) -> Result<()> {
    let packages = lacking(packages);
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    ensure!(nix::unistd::geteuid().is_root(), "missing packages; run as root: apt-get install {list}");
    say(&format!("Installing {list}"));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        apt
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "-y", "--no-install-recommends"]).args(&packages))
}

/// Installs container runtimes, and what tests have them do.
///
/// # Errors
/// Where that is not possible, with what a person can do.
pub fn runtimes() -> Result<()> {
    install(&["containerd", "runc", "podman", "containernetworking-plugins", "busybox-static"])?;
    if output(Command::new("crictl").arg("--version")).is_some() {
        return Ok(());
    }
    // Debian 12 has no package of it.
    const MODULE: &str = "sigs.k8s.io/cri-tools";
    const VERSION: &str = "v1.34.0";
    say("Building crictl (a minute)");
    let directory = target().join("crictl");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("go.mod"), format!("module tools\n\ngo 1.24\n\nrequire {MODULE} {VERSION}\n"))?;
    fs::write(
        directory.join("tools.go"),
        format!("//go:build tools\n\npackage tools\n\nimport _ \"{MODULE}/cmd/crictl\"\n"),
    )?;
    let mut go = Go::ready("crictl")?.command();
    go.args(["build", "-o", "/usr/local/bin/crictl", &format!("{MODULE}/cmd/crictl")]).current_dir(&directory);
    go.env("GOFLAGS", "-mod=mod");
    run(&mut go).context("crictl is missing and cannot be built; install it")
}

fn is_bpffs() -> bool {
    /// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
    const MAGIC: i64 = 0xcafe_4a11;
    nix::sys::statfs::statfs("/sys/fs/bpf").is_ok_and(|stat| stat.filesystem_type().0 == MAGIC)
}

fn mount_bpffs() -> Result<()> {
    if is_bpffs() || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    say("Mounting a BPF file system at /sys/fs/bpf");
    run(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}
