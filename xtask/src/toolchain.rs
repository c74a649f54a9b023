//! The compiler of the kernel programs: one that can build `core`, and a linker for its LLVM.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{clean, output};

/// Debian's compiler for the web's sake, which comes with its sources.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library/core";

/// A compiler that can build the kernel programs.
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// rustup's nightly with the component rust-src.
    Nightly,
    /// Debian's packages rustc-web, rust-web-src and cargo-web, and the major version of their LLVM.
    Debian(String),
}

impl Toolchain {
    /// The best that is there.
    pub fn find() -> Option<Self> {
        let sysroot = output(clean("rustc").args(["+nightly", "--print", "sysroot"]));
        if sysroot.is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists()) {
            return Some(Self::Nightly);
        }
        if !(Path::new(DEBIAN_SOURCES).exists() && Path::new(DEBIAN_CARGO).exists()) {
            return None;
        }
        let version = output(clean(DEBIAN_RUSTC).arg("-vV"))?;
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
        Some(Self::Debian(llvm.split('.').next()?.to_owned()))
    }

    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Nightly => "rustup's nightly with rust-src".into(),
            Self::Debian(llvm) => format!("Debian's rustc-web (LLVM {llvm})"),
        }
    }

    /// Its cargo.
    pub fn cargo(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut cargo = clean("cargo");
                cargo.arg("+nightly");
                cargo
            }
            Self::Debian(llvm) => {
                let mut cargo = clean(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").env("PATH", path(llvm));
                cargo
            }
        }
    }

    /// Its compiler.
    pub fn rustc(&self) -> Command {
        match self {
            Self::Nightly => {
                let mut rustc = clean("rustc");
                rustc.arg("+nightly");
                rustc
            }
            Self::Debian(_) => clean(DEBIAN_RUSTC),
        }
    }

    /// Installs bpf-linker for its LLVM.
    pub fn install_linker(&self) -> Command {
        let mut cargo = clean("cargo");
        cargo.args(["install", "bpf-linker", "--locked"]);
        if let Self::Debian(llvm) = self {
            cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]).env("PATH", path(llvm));
        }
        cargo
    }

    /// A program that removes debug information, where there is one.
    pub fn objcopy(&self) -> Option<PathBuf> {
        match self {
            Self::Nightly => None,
            Self::Debian(llvm) => {
                Some(PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-objcopy"))).filter(|path| path.exists())
            }
        }
    }
}

/// Whether bpf-linker runs.
pub fn has_linker() -> bool {
    output(clean("bpf-linker").arg("--version").env("PATH", path(""))).is_some()
}

/// The search path with LLVM's and cargo's programs in it.
fn path(llvm: &str) -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from(format!("/usr/lib/llvm-{llvm}/bin:"));
    if let Some(home) = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
    {
        path.push(home.join("bin"));
        path.push(":");
    }
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}
