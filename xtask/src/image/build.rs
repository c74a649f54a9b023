//! The binaries of an image: they need nothing of where they run, and say nothing of where they were built.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::arch::Arch;
use super::commit::Commit;
use crate::run::{cargo, clean, output, root, run, say, target};
use crate::toolchain::Toolchain;
use crate::{build, setup};

/// What is in an image: the plugin, the agent and the command for people.
pub const PACKAGES: [&str; 3] = ["sluice", "sluice-agent", "sluicectl"];
/// The profile in Cargo.toml.
const PROFILE: &str = "image";

/// Who compiles for a machine.
pub enum Compiler {
    /// The compiler that runs here; it has Rust's own library for the machine.
    Installed,
    /// One that builds this library from its sources.
    FromSources(Toolchain),
}

impl Compiler {
    /// Finds one, and the C compiler that it links with; installs that where this is a Debian.
    ///
    /// # Errors
    /// Where there is none, with what to install.
    pub fn find(arch: Arch) -> Result<Self> {
        let packages = arch.cross_packages();
        if !arch.is_host() {
            setup::install(&packages)?;
        }
        let cc = arch.cc();
        ensure!(
            output(Command::new(&cc).arg("--version")).is_some(),
            "no C compiler for {} ({cc}); install one, on Debian: apt-get install {}",
            arch.name(),
            packages.join(" ")
        );
        let target = arch.target();
        let library = output(clean("rustc").args(["--print", "target-libdir", "--target", &target]));
        if library.is_some_and(|directory| Path::new(directory.trim()).exists()) {
            return Ok(Self::Installed);
        }
        if let Some(toolchain) = Toolchain::find() {
            return Ok(Self::FromSources(toolchain));
        }
        bail!(
            "no Rust compiler for {target}: install its library with `rustup target add {target}`, or the sources of \
             them all with `cargo xtask setup`"
        )
    }

    /// Its cargo, at the repository.
    fn cargo(&self) -> Command {
        match self {
            Self::Installed => cargo(),
            Self::FromSources(toolchain) => {
                let mut cargo = toolchain.cargo();
                cargo.current_dir(root());
                cargo
            }
        }
    }

    /// Its rustc.
    pub fn rustc(&self) -> Command {
        match self {
            Self::Installed => clean("rustc"),
            Self::FromSources(toolchain) => toolchain.rustc(),
        }
    }
}

/// Builds them, of an object of kernel programs that it builds first; gives each one's bytes, in the order of [`PACKAGES`].
///
/// # Errors
/// Where something cannot be built, or a binary names a directory of this machine.
pub fn binaries(arch: Arch, compiler: &Compiler, commit: &Commit) -> Result<[Vec<u8>; 3]> {
    setup::ready()?;
    let names = Renamed::here(compiler)?;
    let object = target().join(format!("bpf/image-{}.o", arch.name()));
    build::object_for(arch.rust(), &names.flags(), &object)?;

    say(&format!("Building static binaries for {}", arch.name()));
    // The plugin is started for every pod: it stands where it is linked to, so that nothing is to be moved first.
    let [plugin, others @ ..] = &PACKAGES;
    let places = [(std::slice::from_ref(plugin), "-Crelocation-model=static"), (others, "-Crelocation-model=pic")];
    let mut binaries = Vec::new();
    for (packages, relocation) in places {
        // Each has a directory of its own: cargo keeps only what was built with the same flags.
        let directory = target().join("static").join(packages[0]);
        let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned(), relocation.to_owned()];
        flags.extend(names.flags());
        let mut cargo = compiler.cargo();
        cargo.args(["build", "--locked", "--bins", "--profile", PROFILE, "--target", &arch.target(), "--target-dir"]);
        cargo.arg(&directory);
        packages.iter().for_each(|package| {
            cargo.args(["--package", package]);
        });
        if let Compiler::FromSources(_) = compiler {
            cargo.args(["-Z", "build-std=std,panic_unwind"]);
        }
        if !arch.is_host() {
            let target = arch.target().to_uppercase().replace('-', "_");
            cargo.env(format!("CARGO_TARGET_{target}_LINKER"), arch.cc());
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        cargo.env("SLUICE_BPF_OBJECT", &object).env("SOURCE_DATE_EPOCH", commit.seconds.to_string());
        run(&mut cargo)?;
        let built = directory.join(arch.target()).join(PROFILE);
        for package in packages {
            binaries.push(names.binary(&built.join(package))?);
        }
    }
    binaries.try_into().ok().context("there are three packages")
}

/// Directories of this machine, and what compilers are to call them.
struct Renamed(Vec<(PathBuf, &'static str)>);

impl Renamed {
    fn here(compiler: &Compiler) -> Result<Self> {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).context("finding cargo's home")?;
        let sources = |rustc: &mut Command| {
            let sysroot = output(rustc.args(["--print", "sysroot"])).context("asking rustc for its directory")?;
            Ok::<_, anyhow::Error>(PathBuf::from(sysroot.trim()).join("lib/rustlib/src/rust"))
        };
        let kernel = Toolchain::find().context("finding the compiler of the kernel programs")?;
        // Of several that fit, compilers take the last one.
        Ok(Self(vec![
            (sources(&mut compiler.rustc())?, "/rust"),
            (sources(&mut kernel.rustc())?, "/rust"),
            (home, "/cargo"),
            (root(), "/sluice"),
            (target(), "/sluice/target"),
        ]))
    }

    fn flags(&self) -> Vec<String> {
        self.0.iter().map(|(directory, name)| format!("--remap-path-prefix={}={name}", directory.display())).collect()
    }

    /// Reads a binary, in which no directory of this machine is to be named.
    fn binary(&self, path: &Path) -> Result<Vec<u8>> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        if let Some(directory) = self.found_in(&bytes) {
            bail!(
                "{} names a directory of this machine, {directory}: another machine would not build the same",
                path.display()
            );
        }
        Ok(bytes)
    }

    /// A directory that is named all the same.
    fn found_in(&self, bytes: &[u8]) -> Option<String> {
        let directories = self.0.iter().map(|(directory, _)| directory.display().to_string());
        directories
            .into_iter()
            .find(|directory| bytes.windows(directory.len()).any(|window| window == directory.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_this_machine_is_found_in_a_binary() {
        let names = Renamed(vec![
            ("/home/me/sluice".into(), "/sluice"),
            ("/home/me/.cargo".into(), "/cargo"),
            ("/x/rust".into(), "/rust"),
            ("/t".into(), "/t"),
        ]);
        assert_eq!(names.found_in(b"\0/sluice/agent/src/main.rs\0"), None);
        assert_eq!(names.found_in(b"\0/home/me/.cargo/registry\0").as_deref(), Some("/home/me/.cargo"));
        assert_eq!(names.flags()[0], "--remap-path-prefix=/home/me/sluice=/sluice");
    }
}
