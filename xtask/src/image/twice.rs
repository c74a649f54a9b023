//! Building an image again, where nothing is the same but the commit.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::directory;
use super::layout::About;
use crate::run::{clean, root, run, say, target};

/// Builds a commit in a clone of the repository, and compares the image's digest with another.
///
/// # Errors
/// Where it cannot be built there, or is another.
pub fn compare(about: &About, digest: &str) -> Result<()> {
    let About { arch, name, labels, commit, .. } = about;
    let place = target().join("image/again");
    fs::remove_dir_all(&place).ok();
    let (clone, built) = (place.join("sluice"), place.join("target"));
    say(&format!("Building it again in {}", clone.display()));
    run(Command::new("git").args(["clone", "--quiet", "--no-checkout"]).arg(root()).arg(&clone))?;
    run(Command::new("git").args(["checkout", "--quiet", &commit.revision]).current_dir(&clone))?;
    let mut cargo = clean(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--package", "xtask", "--", "image", "--arch", arch.name(), "--tag", name]);
    cargo.args(labels.iter().map(|(label, value)| format!("--label={label}={value}")));
    run(cargo.env("CARGO_TARGET_DIR", &built).current_dir(&clone))?;

    let index = directory(&built, *arch).join("layout/index.json");
    let text = fs::read(&index).with_context(|| format!("reading {}", index.display()))?;
    let index: Value = serde_json::from_slice(&text).with_context(|| format!("reading {}", index.display()))?;
    let again = index["manifests"][0]["digest"].as_str().context("the digest of the image that was built again")?;
    ensure!(
        again == digest,
        "built again it is another image, {again} instead of {digest}: compare {}",
        place.display()
    );
    say("It is the same image");
    fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))
}
