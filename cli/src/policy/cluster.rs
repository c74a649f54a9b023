//! The objects of a directory of manifests.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Deserialize;
use serde::de::Error;
use sluice_manifest_reader::{Object, is_manifest, parse};
use sluice_policy::cluster_policy::ClusterNetworkPolicy;
use sluice_policy::object::Policy;
use sluice_policy::{Event, Index, Limits, Problem, Strictness, View, ignored_sections};

/// An object that policies are about, and what of it is ignored.
struct Read(Event, Vec<Problem>);

impl Object for Read {
    fn read<'de, D: serde::Deserializer<'de>>(kind: &str, from: D) -> Result<Option<Self>, D::Error> {
        let mut ignored = Vec::new();
        let event = match kind {
            "Namespace" => Event::from(&Namespace::deserialize(from)?),
            "Node" => Event::from(&Node::deserialize(from)?),
            "Pod" => Event::from(&Pod::deserialize(from)?),
            "NetworkPolicy" => {
                let policy = NetworkPolicy::deserialize(from)?;
                ignored = ignored_sections(&policy);
                strictly(&policy)
            }
            "ClusterNetworkPolicy" => strictly(&ClusterNetworkPolicy::deserialize(from)?),
            _ => return Ok(None),
        };
        match event {
            Event::Invalid(error) => Err(D::Error::custom(error)),
            event => Ok(Some(Self(event, ignored))),
        }
    }
}

fn strictly(policy: &impl Policy) -> Event {
    policy.read(Strictness::Strict).map_or_else(Event::Invalid, Event::Policy)
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
