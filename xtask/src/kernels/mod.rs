//! The tier `kernels`: the packet and the node tier on other kernels, each in an emulated machine of its own.

mod binaries;
mod image;
mod modules;
mod package;
mod vm;

use std::path::Path;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::run::{say, target};
use crate::score::Score;
use crate::setup;

/// A kernel of Debian's.
struct Kernel {
    /// What it is called here.
    name: &'static str,
    /// The suite that has it.
    suite: &'static str,
}

const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye" },
    Kernel { name: "6.1", suite: "bookworm" },
    Kernel { name: "6.12", suite: "trixie" },
    Kernel { name: "newest", suite: "sid" },
];

/// Debian packages that the tier needs.
const TOOLS: [&str; 4] = ["qemu-system-x86", "busybox-static", "kmod", "xz-utils"];

/// Runs the tier, on all kernels or on the one that `SLUICE_KERNEL` names.
///
/// # Errors
/// Where machines cannot be made. Tests that fail, and machines that do not live to the end, are counted.
pub fn run(object: &Path) -> Result<Score> {
    ensure!(env::consts::ARCH == "x86_64", "the tier kernels emulates x86-64 machines with binaries of this one");
    let only = env::var("SLUICE_KERNEL").ok();
    let kernels: Vec<_> =
        KERNELS.iter().filter(|kernel| only.as_ref().is_none_or(|name| name == kernel.name)).collect();
    ensure!(!kernels.is_empty(), "SLUICE_KERNEL is to be one of {}", KERNELS.map(|kernel| kernel.name).join(", "));
    setup::install(&TOOLS)?;
    let binaries = binaries::build(object)?;
    let mut total = Score::default();
    for Kernel { name, suite } in kernels {
        let directory = target().join("kernels").join(name);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let package = package::get(suite, &directory.join("package"))?;
        let image = image::make(&package, &binaries, object, &directory)?;
        let log = directory.with_file_name(format!("{name}.log"));
        say(&format!("Kernel {} (its log: {})", package.release, log.display()));
        let started = Instant::now();
        let score = vm::run(&package.image, &image, &log)?;
        let (passed, failed, seconds) = (score.passed, score.failed, started.elapsed().as_secs());
        say(&format!("kernel {}: {passed} passed, {failed} failed, {seconds} s", package.release));
        if failed > 0 {
            say(&format!("what it said is in {}", log.display()));
        }
        total.add(score);
    }
    Ok(total)
}
