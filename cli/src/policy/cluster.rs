//! The objects of a directory of manifests.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use serde_json::Value;
use sluice_manifest_reader::{Object, is_manifest, parse};
use sluice_policy::{Event, Index, Kind, Limits, Problem, View, ignored_sections};

/// An object that policies are about, and what of it is ignored.
struct Read(Event, Vec<Problem>);

impl Object for Read {
    fn read(api_version: &str, kind: &str, object: Value) -> Option<Result<Self, String>> {
        let kind = Kind::of(api_version, kind)?;
        let ignored = match kind {
            // What it cannot be read for, is told below.
            Kind::NetworkPolicy => NetworkPolicy::deserialize(&object).map(|policy| ignored_sections(&policy)),
            Kind::Namespace | Kind::Node | Kind::Pod | Kind::ClusterNetworkPolicy => Ok(Vec::new()),
        };
        let event = Event::written(kind, object).map_err(|error| error.to_string());
        Some(event.map(|event| Self(event, ignored.unwrap_or_default())))
    }
}

/// Reads the manifests of a directory.
///
/// # Errors
/// Where it cannot be read, or anything in it makes no sense: all of that, with file and line.
pub fn read(directory: &Path) -> Result<Index> {
    Ok(read_all(directory, View::Everything)?.0)
}

/// The same, to take excerpts from: it has no answers itself, and costs less.
///
/// # Errors
/// As of [`read`].
pub fn read_for_excerpts(directory: &Path) -> Result<Index> {
    Ok(read_all(directory, View::Nothing)?.0)
}

/// What of the policies of a directory is wrong, or has no effect.
///
/// # Errors
/// As of [`read`].
pub fn lint(directory: &Path) -> Result<Vec<Problem>> {
    let (index, ignored) = read_all(directory, View::Everything)?;
    let mut problems = [index.lint(), ignored].concat();
    problems.sort();
    Ok(problems)
}

/// The objects, and what of them is ignored.
fn read_all(directory: &Path, view: View) -> Result<(Index, Vec<Problem>)> {
    let action = || format!("reading the manifests in {}", directory.display());
    let listing = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).with_context(action)?;
    let mut paths: Vec<PathBuf> = listing.into_iter().map(|entry| entry.path()).filter(|it| is_manifest(it)).collect();
    paths.sort();
    let (mut events, mut ignored, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for (line, result) in parse(&text) {
            match result {
                Ok(Read(event, of_it)) => {
                    events.push(event);
                    ignored.extend(of_it);
                }
                Err(what) => wrong.push(format!("{}:{line}: {what}", path.display())),
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    let mut index = Index::new(view, Limits::NONE);
    index.apply_all(events);
    Ok((index, ignored))
}
