//! What is built: a commit.

use std::process::Command;

use anyhow::{Context, Result};

use crate::run::{output, root};

/// A commit of this repository.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its name, with `-dirty` where the work tree has more than it.
    pub revision: String,
    /// When it was made, seconds.
    pub seconds: u64,
    /// The same, as RFC 3339 has it.
    pub time: String,
}

impl Commit {
    /// The one that is checked out.
    ///
    /// # Errors
    /// Where git does not know one.
    pub fn of_tree() -> Result<Self> {
        let shown = |format: &str| git(&["show", "-s", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", format, "HEAD"]);
        let mut revision = shown("--format=%H")?;
        if !git(&["status", "--porcelain"])?.is_empty() {
            revision.push_str("-dirty");
        }
        let seconds = shown("--format=%ct")?.parse().context("reading the commit's time")?;
        Ok(Self { revision, seconds, time: shown("--format=%cd")? })
    }

    /// Whether the work tree has nothing else.
    pub fn is_clean(&self) -> bool {
        !self.revision.ends_with("-dirty")
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let text = output(Command::new("git").args(arguments).env("TZ", "UTC").current_dir(root()));
    let text = text.with_context(|| format!("asking git ({}): images are made of a commit", arguments.join(" ")))?;
    Ok(text.trim().to_owned())
}
