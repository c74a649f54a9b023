//! The objects of a directory of manifests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use serde_json::Value;
use sluice_manifest_reader::{Object, is_manifest, parse};
use sluice_policy::{Event, Index, Kind, Limits, ObjectName, Problem, View, ignored_sections};

use crate::print;

/// An object that policies are about, and what of it is ignored.
struct Read {
    name: ObjectName,
    object: Event,
    ignored: Vec<Problem>,
}

impl Object for Read {
    fn read(api_version: &str, kind: &str, object: Value) -> Option<Result<Self, String>> {
        let kind = Kind::of(api_version, kind)?;
        let ignored = match kind {
            // What it cannot be read for, is told below.
            Kind::NetworkPolicy => NetworkPolicy::deserialize(&object).map(|policy| ignored_sections(&policy)),
            Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::ClusterNetworkPolicy
            | Kind::Service
            | Kind::EndpointSlice => Ok(Vec::new()),
        };
        let ignored = ignored.unwrap_or_default();
        let read = Event::written(kind, object).transpose()?;
        let read = read.map(|object| Self { name: object.object(), object, ignored });
        Some(read.map_err(|error| error.to_string()))
    }
}

/// What is in a directory of manifests.
#[derive(Debug, Default)]
pub struct Contents {
    /// The objects.
    pub objects: Vec<Event>,
    /// What of them is ignored.
    ignored: Vec<Problem>,
    /// Where other objects have names of these.
    pub warnings: Vec<String>,
}

/// Reads the manifests of a directory; warns of what is in it and does not count.
///
/// # Errors
/// See [`contents`].
pub fn read(directory: &Path) -> Result<Index> {
    Ok(index(directory, View::Everything)?.0)
}

/// The same, to take excerpts from: it has no answers itself, and costs less.
///
/// # Errors
/// See [`contents`].
pub fn read_for_excerpts(directory: &Path) -> Result<Index> {
    Ok(index(directory, View::Nothing)?.0)
}

/// What of the policies of a directory is wrong, or has no effect.
///
/// # Errors
/// See [`contents`].
pub fn lint(directory: &Path) -> Result<Vec<Problem>> {
    let (index, ignored) = index(directory, View::Everything)?;
    let mut problems = [index.lint(), ignored].concat();
    problems.sort();
    Ok(problems)
}

fn index(directory: &Path, view: View) -> Result<(Index, Vec<Problem>)> {
    let Contents { objects, ignored, warnings } = contents(directory)?;
    for warning in warnings {
        print::warn(format_args!("sluicectl: {warning}"));
    }
    let mut index = Index::new(view, Limits::NONE);
    index.apply_all(objects);
    Ok((index, ignored))
}

/// What is in the manifests of a directory. Of different objects that have one name the first counts, as for the agent; of
/// the others it is told.
///
/// # Errors
/// Where it cannot be read, or anything in it makes no sense: all of that, with file and line.
pub fn contents(directory: &Path) -> Result<Contents> {
    let action = || format!("reading the manifests in {}", directory.display());
    let listing = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).with_context(action)?;
    let mut paths: Vec<PathBuf> = listing.into_iter().map(|entry| entry.path()).filter(|it| is_manifest(it)).collect();
    paths.sort();
    let (mut contents, mut wrong) = (Contents::default(), Vec::new());
    let mut places: BTreeMap<ObjectName, (usize, String)> = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for (line, result) in parse(&text) {
            let place = format!("{}:{line}", path.display());
            match result {
                Ok(Read { name, object, ignored }) => match places.get(&name) {
                    None => {
                        places.insert(name, (contents.objects.len(), place));
                        contents.objects.push(object);
                        contents.ignored.extend(ignored);
                    }
                    Some((first, _)) if contents.objects[*first] == object => {}
                    Some((_, first)) => {
                        let warning = format!("{place}: {name} is already in {first}; this one is ignored");
                        contents.warnings.push(warning);
                    }
                },
                Err(what) => wrong.push(format!("{place}: {what}")),
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(contents)
}
