//! `cargo xtask image`: an OCI image of what a node runs, the same of the same commit wherever it is built.

mod arch;
mod build;
mod commit;
mod components;
mod layer;
mod layout;
mod licences;
mod sbom;
mod twice;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::run::{say, target};
use arch::Arch;
use build::{Compiler, PACKAGES};
use commit::Commit;
use components::Components;
use layer::{FILE, Files, PROGRAM};
use layout::{About, Layout};

/// Where, in an image, it says what it is made of.
const DOCUMENTS: &str = "usr/share/doc/sluice";
/// What an image may weigh, unpacked: every node has it.
const LIMIT: usize = 30 << 20;

/// See the command's help.
#[derive(clap::Args, Default)]
pub struct Arguments {
    /// The machine that it is for; without, this one
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// The image's name with a tag; without, sluice.invalid/sluice and the version
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// A label beside the usual ones; may be given more than once
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Build it a second time, of a clone in another directory, and compare
    #[arg(long)]
    twice: bool,
}

/// Runs the command.
///
/// # Errors
/// Where something cannot be built, or is not the same the second time.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    make(arguments).map(|_| ExitCode::SUCCESS)
}

/// Makes an image; gives where its archive is.
///
/// # Errors
/// Where something cannot be built, or is not the same the second time.
pub fn make(arguments: &Arguments) -> Result<PathBuf> {
    let arch = arguments.arch.map_or_else(Arch::host, Ok)?;
    let commit = Commit::of_tree()?;
    if !commit.is_clean() {
        say("The work tree has changes that are not committed: the image is of no commit, and labelled so");
    }
    ensure!(!arguments.twice || commit.is_clean(), "what is not committed cannot be built again: commit it first");
    let version = env!("CARGO_PKG_VERSION");
    let name = arguments.tag.clone().unwrap_or_else(|| format!("sluice.invalid/sluice:{version}"));

    let compiler = Compiler::find(arch)?;
    let components = components::all(arch, &|| compiler.rustc())?;
    let contents = contents(build::binaries(arch, &compiler, &commit)?, version, &commit, &components)?;
    say("Packing");
    let archive = contents.pack(commit.seconds)?;
    let compressed = layer::compress(&archive)?;
    let size = compressed.len();
    let licences = components::licences(&components);
    let labels = &arguments.labels;
    let about = About { arch, name: &name, version, licences: &licences, labels, commit: &commit };
    let layout = layout::make(&about, &archive, compressed);
    let directory = directory(&target(), arch);
    let archive = write(&directory, &contents, &layout, version, arch, &commit)?;
    if arguments.twice {
        twice::compare(&about, &layout.digest)?;
    }
    println!("layout:     {}", directory.join("layout").display());
    println!("archive:    {}", archive.display());
    println!("image:      {name} ({})", arch.name());
    println!("digest:     {}", layout.digest);
    println!("compressed: {}", mebibytes(size));
    println!("unpacked:   {}", mebibytes(contents.size()));
    ensure!(contents.size() <= LIMIT, "the image is larger than {}", mebibytes(LIMIT));
    Ok(archive)
}

/// All that is in an image.
fn contents(binaries: [Vec<u8>; 3], version: &str, commit: &Commit, components: &Components) -> Result<Files> {
    let [plugin, agent, sluicectl] = binaries;
    let mut files = Files::default();
    files.add("usr/bin/sluice-agent", PROGRAM, agent);
    files.add("opt/cni/bin/sluice", PROGRAM, plugin);
    files.add("usr/bin/sluicectl", PROGRAM, sluicectl);
    let bill = sbom::write("sluice", version, commit, &PACKAGES, components)?;
    files.add(format!("{DOCUMENTS}/sbom.cdx.json"), FILE, bill);
    files.add(format!("{DOCUMENTS}/licences.txt"), FILE, licences::write(components)?);
    Ok(files)
}

/// Reads a label.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Where an image for a machine is, below where cargo builds.
fn directory(target: &Path, arch: Arch) -> PathBuf {
    target.join("image").join(arch.name())
}

/// Writes the layout, the documents beside it, and the layout's archive; gives where that is.
fn write(
    directory: &Path,
    contents: &Files,
    layout: &Layout,
    version: &str,
    arch: Arch,
    commit: &Commit,
) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    layout.files.write(&directory.join("layout"))?;
    contents.below(DOCUMENTS).write(directory)?;
    let archive = directory.join(format!("sluice-{version}-{}.tar", arch.name()));
    fs::write(&archive, layout.files.pack(commit.seconds)?)
        .with_context(|| format!("writing {}", archive.display()))?;
    Ok(archive)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
