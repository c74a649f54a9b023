//! Ordinary manifests in a directory.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use sluice_manifest_reader::is_manifest;

use super::files::{Contents, Files};
use super::watch::{Stirred, Watch};
use super::{Change, Source};

/// A directory of manifests: files ending in `.yaml`, `.yml` or `.json`, each with one or more documents.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The manifests below a path.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Source for Directory {
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> Result<()> {
        let action =
            || format!("watching the directory of manifests {}; make it, or name another", self.path.display());
        let mut watch = Watch::open(&self.path).with_context(action)?;
        fs::read_dir(&self.path).with_context(action)?;
        let mut files = Files::default();
        let mut before: Option<Contents> = None;
        let mut stirred = Stirred::Everything;
        loop {
            let listed =
                read(&self.path, &stirred, &mut watch, &mut files).context("watching for changes of manifests")?;
            let mut contents = files.contents();
            if let Err(error) = listed {
                contents.problems.push(format!(
                    "listing the manifests in {}: {error}; what they said before stays in force",
                    self.path.display()
                ));
            }
            let mut changes = contents.changes_from(before.as_ref().unwrap_or(&Contents::default()));
            if before.is_none() {
                changes.push(Change::Listed);
            }
            if !changes.is_empty() && !tell(changes) {
                return Ok(());
            }
            before = Some(contents);
            stirred = watch.wait().context("watching for changes of manifests")?;
        }
    }
}

/// Reads the manifests that may be others and that nobody is writing; the inner error says that the directory is not there.
fn read(directory: &Path, stirred: &Stirred, watch: &mut Watch, files: &mut Files) -> io::Result<io::Result<()>> {
    watch.follow()?;
    let paths: Vec<PathBuf> = match stirred {
        Stirred::Everything => match list(directory) {
            Ok(paths) => paths,
            Err(error) => return Ok(Err(error)),
        },
        Stirred::Files(names) => names.iter().map(|name| directory.join(name)).collect(),
    };
    let mut contents: Vec<(PathBuf, io::Result<String>)> = paths
        .into_iter()
        .map(|path| {
            let content = fs::read_to_string(&path);
            (path, content)
        })
        .collect();
    // Gone since it was listed.
    contents.retain(|(_, content)| !content.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
    // What was touched while it was read is read again, once it is at rest.
    watch.drain()?;
    files.retain(|path| {
        !stirred.concerns(path) || watch.is_moving(path) || contents.iter().any(|(other, _)| other == path)
    });
    for (path, content) in contents.iter().filter(|(path, _)| !watch.is_moving(path)) {
        files.update(path, content);
    }
    Ok(Ok(()))
}

/// The manifests in a directory.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| is_manifest(path)).collect())
}
