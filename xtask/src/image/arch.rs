//! The machines that there are images for.

use std::env;

use anyhow::{Context, Result};
use clap::ValueEnum;

/// A machine, as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    /// x86-64
    Amd64,
    /// 64-bit Arm
    Arm64,
}

impl Arch {
    const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// This machine.
    ///
    /// # Errors
    /// Where there are no images for it.
    pub fn host() -> Result<Self> {
        let host = Self::ALL.into_iter().find(|arch| arch.is_host());
        host.with_context(|| format!("no images for {} are made; name another machine (--arch)", env::consts::ARCH))
    }

    /// Whether this machine is one.
    pub fn is_host(self) -> bool {
        self.rust() == env::consts::ARCH
    }

    /// What images call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What Rust calls it.
    pub fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// What programs for it are compiled for.
    pub fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.rust())
    }

    /// The C compiler for it, which links too.
    pub fn cc(self) -> String {
        if self.is_host() { "cc".into() } else { format!("{}-linux-gnu-gcc", self.rust()) }
    }

    /// Debian packages of a compiler and a C library for it, on other machines.
    pub fn cross_packages(self) -> [&'static str; 2] {
        match self {
            Self::Amd64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Arm64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }
}
