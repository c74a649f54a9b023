//! Another image of Sluice than the one that is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Cluster, said};
use crate::lab::binary;

/// Its name.
const NAME: &str = "sluice.invalid/sluice:another";
/// Where an image has what, by the names of the binaries.
const PLACES: [(&str, &str); 3] =
    [("sluice", "opt/cni/bin/sluice"), ("sluice-agent", "usr/bin/sluice-agent"), ("sluicectl", "usr/bin/sluicectl")];

impl Cluster {
    /// Has all nodes know an image of the binaries as they are built for tests, with the libraries that they need; gives its name.
    /// They are other ones than those of `cargo xtask image`, by another profile, as are the kernel programs in the agent.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn load_another_image(&self) -> Result<&'static str> {
        let work = self.place("another");
        let root = work.join("root");
        for (name, place) in PLACES {
            let place = root.join(place);
            fs::create_dir_all(place.parent().context("a directory")?).context("making an image")?;
            said(Command::new("strip").arg("-o").arg(&place).arg(binary(name)))?;
            for library in libraries(&place)? {
                let copy = root.join(library.strip_prefix("/").unwrap_or(&library));
                fs::create_dir_all(copy.parent().context("a directory")?).context("making an image")?;
                fs::copy(&library, &copy).with_context(|| format!("copying {}", library.display()))?;
            }
        }
        let archive = pack(&work)?;
        self.ask("load", &[&archive.display().to_string()])?;
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
        Ok(NAME)
    }
}

/// The libraries that a program needs, and who loads them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = said(Command::new("ldd").arg(program))?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// Makes an archive of an image of one layer, what is below `root`; gives where it is.
fn pack(work: &Path) -> Result<PathBuf> {
    let tar = |directory: &str, archive: &str, what: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "-C", directory, "-cf", archive]).args(what);
        said(tar.current_dir(work)).map(|_| ())
    };
    tar("root", "layer.tar", &["."])?;
    let sum = said(Command::new("sha256sum").arg("layer.tar").current_dir(work))?;
    let digest = format!("sha256:{}", sum.split_whitespace().next().context("a digest")?);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let configuration = json!({
        "architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]);
    for (name, text) in [("config.json", configuration), ("manifest.json", manifest)] {
        fs::write(work.join(name), text.to_string()).with_context(|| format!("writing {name}"))?;
    }
    tar(".", "image.tar", &["manifest.json", "config.json", "layer.tar"])?;
    Ok(work.join("image.tar"))
}
