//! Ordinary manifests in a directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use sluice_topology::NodeObject;

use super::{Objects, Source};

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
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Objects) -> bool) -> Result<()> {
        let path = &self.path;
        let watch = Inotify::init(InitFlags::IN_CLOEXEC).context("watching for changes of manifests")?;
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        watch
            .add_watch(path, events)
            .with_context(|| format!("watching the directory of manifests {}", path.display()))?;
        let mut before = None;
        loop {
            let objects = read(path)?;
            if before.as_ref() != Some(&objects) {
                if !tell(objects.clone()) {
                    return Ok(());
                }
                before = Some(objects);
            }
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
            match nodes(document) {
                Ok(nodes) => {
                    for node in nodes {
                        if let Some(first) = places.get(&node.name) {
                            let problem =
                                format!("{place}: Node {} is already in {first}; this one is ignored", node.name);
                            objects.problems.push(problem);
                            continue;
                        }
                        places.insert(node.name.clone(), place.clone());
                        objects.nodes.push(node);
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

#[derive(Deserialize)]
struct Typed {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    items: Vec<serde_yaml_ng::Value>,
}

/// The nodes of a document; other kinds are nothing to us. An error comes with its line within the document, from 0.
fn nodes(document: &str) -> Result<Vec<NodeObject>, (usize, String)> {
    let at = |error: serde_yaml_ng::Error| {
        let line = error.location().map_or(0, |location| location.line().saturating_sub(1));
        (line, error.to_string())
    };
    let typed: Typed = serde_yaml_ng::from_str(document).map_err(at)?;
    let object = |node: &Node| NodeObject::try_from(node).map_err(|error| (0, error.to_string()));
    match typed.kind.as_str() {
        "" => Err((0, "an object without kind".into())),
        "Node" => Ok(vec![object(&serde_yaml_ng::from_str(document).map_err(at)?)?]),
        "List" | "NodeList" => typed
            .items
            .into_iter()
            .filter(|item| item.get("kind").is_none_or(|kind| kind == "Node"))
            .map(|item| object(&serde_yaml_ng::from_value(item).map_err(at)?))
            .collect(),
        _ => Ok(Vec::new()),
    }
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
        assert_eq!(objects.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
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
        let json =
            r#"{"kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}},{"kind":"Pod"}]}"#;
        let objects = read_files(&[("all.json", json)]);
        assert_eq!(objects.nodes.len(), 1);
        assert_eq!(objects.problems, [""; 0]);
    }
}
