//! Ordinary manifests in a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use serde_yaml_ng::{Deserializer, Value};

use super::{Change, Objects, Source};

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
        let path = &self.path;
        let watch = Inotify::init(InitFlags::IN_CLOEXEC).context("watching for changes of manifests")?;
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        watch
            .add_watch(path, events)
            .with_context(|| format!("watching the directory of manifests {}", path.display()))?;
        let mut before: Option<Objects> = None;
        loop {
            let objects = read(path)?;
            let changes = objects.changes_from(before.as_ref().unwrap_or(&Objects::default()));
            // An empty directory has been listed too.
            if (before.is_none() || !changes.is_empty()) && !tell(changes) {
                return Ok(());
            }
            before = Some(objects);
            // Watched before it was read: what changes in between is told of here.
            watch.read_events().context("watching for changes of manifests")?;
        }
    }
}

/// Reads all manifests.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn read(directory: &Path) -> Result<Objects> {
    let listing =
        fs::read_dir(directory).with_context(|| format!("listing the manifests in {}", directory.display()))?;
    let mut paths: Vec<PathBuf> =
        listing.flatten().map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
    paths.sort();
    let mut objects = Objects::default();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for path in paths {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Gone since it was listed: its end is told of.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                objects.problems.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        for (line, document) in documents(&text) {
            let place = format!("{}:{line}", path.display());
            match parse(document) {
                Ok(changes) => {
                    for change in changes {
                        let Some(name) = name(&change) else { continue };
                        if let Some(first) = places.get(&name) {
                            objects
                                .problems
                                .push(format!("{place}: {name} is already in {first}; this one is ignored"));
                            continue;
                        }
                        places.insert(name, place.clone());
                        objects.apply(change);
                    }
                }
                Err((inner, what)) => {
                    objects.problems.push(format!(
                        "{}:{}: {what}; this document is ignored",
                        path.display(),
                        line + inner
                    ));
                }
            }
        }
    }
    Ok(objects)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// The documents of a file, each with the number of its first line.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            documents.push((first, &text[start..at]));
            start = at + line.len();
            first = number + 2;
        }
        at += line.len();
    }
    documents.push((first, &text[start..]));
    documents.retain(|(_, document)| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

/// What messages call the object of a change.
fn name(change: &Change) -> Option<String> {
    match change {
        Change::Node(name, _) => Some(format!("Node {name}")),
        Change::Pod(name, _) => Some(format!("Pod {name}")),
        Change::Namespace(name, _) => Some(format!("Namespace {name}")),
        Change::Problems(_) => None,
    }
}

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<Value>,
}

/// The objects of a document; kinds that are nothing to us are passed over. An error comes with its line within the
/// document, from 0.
fn parse(document: &str) -> Result<Vec<Change>, (usize, String)> {
    let typed = Typed::deserialize(Deserializer::from_str(document)).map_err(located)?;
    match typed.kind.as_str() {
        "" => Err((0, "an object without kind".into())),
        "List" | "NodeList" | "PodList" | "NamespaceList" => {
            let of_list = typed.kind.trim_end_matches("List");
            let mut changes = Vec::new();
            for item in typed.items {
                // Items of a typed list need not say what they are.
                let kind = item.get("kind").and_then(Value::as_str).unwrap_or(of_list).to_owned();
                changes.extend(object(&kind, item)?);
            }
            Ok(changes)
        }
        kind => Ok(object(kind, Deserializer::from_str(document))?.into_iter().collect()),
    }
}

fn object<'de, D>(kind: &str, from: D) -> Result<Option<Change>, (usize, String)>
where
    D: serde::Deserializer<'de, Error = serde_yaml_ng::Error>,
{
    let change = match kind {
        "Node" => Change::try_from(&Node::deserialize(from).map_err(located)?),
        "Pod" => Change::try_from(&Pod::deserialize(from).map_err(located)?),
        "Namespace" => Change::try_from(&Namespace::deserialize(from).map_err(located)?),
        _ => return Ok(None),
    };
    change.map(Some).map_err(|error| (0, error.to_string()))
}

fn located(error: serde_yaml_ng::Error) -> (usize, String) {
    (error.location().map_or(0, |location| location.line().saturating_sub(1)), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "\
apiVersion: v1
kind: Node
metadata: {name: NAME}
spec: {podCIDRs: [10.1.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

    fn read_files(files: &[(&str, &str)]) -> Objects {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("writes");
        }
        let mut objects = read(directory.path()).expect("reads");
        let prefix = format!("{}/", directory.path().display());
        for problem in &mut objects.problems {
            *problem = problem.replace(&prefix, "");
        }
        objects
    }

    #[test]
    fn an_error_is_named_with_its_line_and_the_rest_applied() {
        let file = format!(
            "{}---\n# a comment\nkind: Node\nmetadata: [\n---\n{}",
            NODE.replace("NAME", "a"),
            NODE.replace("NAME", "b")
        );
        let objects = read_files(&[("nodes.yaml", &file), ("notes.txt", "not: [ours")]);
        assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(objects.problems.len(), 1);
        let line: usize = objects.problems[0].split(':').nth(1).and_then(|line| line.parse().ok()).expect("a line");
        assert!((7..=11).contains(&line), "{}", objects.problems[0]);
    }

    #[test]
    fn wrong_values_and_twins_are_problems() {
        let wrong = NODE.replace("NAME", "a").replace("10.1.0.0/24", "10.1.0.0/240");
        let objects = read_files(&[
            ("1.yaml", &wrong),
            ("2.yaml", &NODE.replace("NAME", "b")),
            ("3.yml", &NODE.replace("NAME", "b")),
            ("4.yaml", "kind: ConfigMap\nmetadata: {name: x}\n"),
        ]);
        assert_eq!(objects.nodes.len(), 1);
        assert!(objects.problems[0].contains("1.yaml:1") && objects.problems[0].contains("10.1.0.0/240"));
        assert!(objects.problems[1].contains("3.yml:1") && objects.problems[1].contains("2.yaml:1"));
    }

    #[test]
    fn lists_and_json_are_manifests_too() {
        let json = r#"{"kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}},{"kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"a","containers":[]},"status":{"podIP":"10.1.0.5"}},{"kind":"Service"}]}"#;
        let objects = read_files(&[("all.json", json)]);
        assert_eq!((objects.nodes.len(), objects.pods.len()), (1, 1));
        assert_eq!(objects.problems, [""; 0]);
    }
}
