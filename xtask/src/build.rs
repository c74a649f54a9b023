//! `cargo xtask build`: the kernel programs, then everything else.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::run::{cargo, host, root, run, say, target};
use crate::setup;
use crate::toolchain::Toolchain;

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    /// Optimized binaries
    #[arg(long)]
    release: bool,
}

/// Compiles for eBPF: BTF and line information, instructions of kernel 5.1 and later, and everything in one piece: the
/// programs of a hook are to be functions without calls.
const FLAGS: [&str; 6] = [
    "-Clinker=bpf-linker",
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--llvm-args=-inline-threshold=100000",
    "--cfg=bpf_target_arch=\"ARCH\"",
];

/// Runs the command.
///
/// # Errors
/// Where a compiler is missing or fails.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let object = all(arguments.release)?;
    println!("kernel programs: {}", object.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds everything; gives where the kernel programs are.
///
/// # Errors
/// Where a compiler is missing or fails.
pub fn all(release: bool) -> Result<PathBuf> {
    setup::ready()?;
    let object = object()?;
    say("Building the binaries");
    let mut cargo = cargo();
    cargo.args(["build", "--workspace"]).env("SLUICE_BPF_OBJECT", &object);
    if release {
        cargo.args(["--release", "--exclude", "sluice"]);
    }
    run(&mut cargo)?;
    if release {
        plugin()?;
    }
    Ok(object)
}

/// Builds the plugin in one piece: it is started for every pod, and the loading of libraries would be a tenth of its time.
fn plugin() -> Result<()> {
    let host = &host()?;
    let flags = r#"["-Ctarget-feature=+crt-static", "-Crelocation-model=static"]"#;
    run(cargo()
        .args(["build", "--release", "--package", "sluice", "--target", host])
        .arg("--config")
        .arg(format!("target.{host}.rustflags={flags}")))?;
    let (built, place) = (target().join(host).join("release/sluice"), target().join("release/sluice"));
    // Beside it first: one that runs cannot be written to.
    let fresh = place.with_extension("new");
    fs::copy(&built, &fresh).with_context(|| format!("copying {}", built.display()))?;
    fs::rename(&fresh, &place).with_context(|| format!("writing {}", place.display()))
}

/// Builds the kernel programs; gives where they are.
///
/// # Errors
/// Where a compiler is missing or fails.
pub fn object() -> Result<PathBuf> {
    let object = target().join("bpf/sluice.o");
    object_for(env::consts::ARCH, &[], &object)?;
    Ok(object)
}

/// Builds the kernel programs for machines that Rust calls so, with flags beside the usual ones, into a file.
///
/// # Errors
/// Where a compiler is missing or fails.
pub fn object_for(arch: &str, flags: &[String], object: &Path) -> Result<()> {
    let toolchain =
        Toolchain::find().context("no compiler for the kernel programs; `cargo xtask setup` installs one")?;
    say(&format!("Building the kernel programs with {}", toolchain.name()));
    let directory = target().join("ebpf");
    let usual = FLAGS.map(|flag| flag.replace("ARCH", arch));
    let flags = usual.iter().chain(flags).map(String::as_str).collect::<Vec<_>>().join("\x1f");
    run(toolchain
        .cargo()
        .args(["build", "--release", "-Z", "build-std=core", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .current_dir(root().join("ebpf")))?;

    let built = directory.join("bpfel-unknown-none/release/sluice-ebpf");
    let fresh = object.with_extension("new");
    let place = object.parent().context("a directory for the kernel programs")?;
    fs::create_dir_all(place).with_context(|| format!("making {}", place.display()))?;
    match toolchain.objcopy() {
        // BTF stays; DWARF is five times as large as all the rest.
        Some(objcopy) => run(Command::new(objcopy).arg("--strip-debug").arg(&built).arg(&fresh))?,
        None => {
            fs::copy(&built, &fresh).with_context(|| format!("copying {}", built.display()))?;
        }
    }
    // What has not changed keeps its time, so that nothing is built again for its sake.
    if fs::read(&fresh).ok() == fs::read(object).ok() {
        fs::remove_file(&fresh).ok();
    } else {
        fs::rename(&fresh, object).with_context(|| format!("writing {}", object.display()))?;
    }
    Ok(())
}
