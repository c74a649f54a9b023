//! Files of manifests, and the objects that they hold together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Change, Objects};

/// The files of a directory, by name, with what is in force of each.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<PathBuf, File>);

#[derive(Debug, Default)]
struct File {
    objects: Vec<Placed>,
    problems: Vec<(usize, String)>,
}

/// An object, and the line that it is on.
#[derive(Clone, Debug)]
struct Placed {
    line: usize,
    name: String,
    change: Change,
}

impl Files {
    /// Takes what a file says now, or why it cannot be read. What it said before of objects that it does not name now stays
    /// in force while something is wrong with it: a slip of the pen is no reason to cut a node off.
    pub fn update(&mut self, path: &Path, content: &io::Result<String>) {
        let before = self.0.remove(path).unwrap_or_default().objects;
        let mut file = File::default();
        match content {
            Ok(text) => {
                for (line, result) in sluice_manifest_reader::parse(text) {
                    match result {
                        Ok(change) => {
                            file.objects.extend(name(&change).map(|name| Placed { line, name, change }));
                        }
                        Err(what) => file.problems.push((line, what)),
                    }
                }
                if file.objects.is_empty() && file.problems.is_empty() && !before.is_empty() {
                    file.problems.push((1, "the file is empty; remove it if it is to say nothing".into()));
                }
            }
            Err(error) => file.problems.push((1, format!("reading it: {error}"))),
        }
        if !file.problems.is_empty() {
            let missing = |old: &Placed| !file.objects.iter().any(|new| new.name == old.name);
            let kept: Vec<Placed> = before.into_iter().filter(missing).collect();
            file.objects.extend(kept);
        }
        self.0.insert(path.to_owned(), file);
    }

    /// Forgets all files but these.
    pub fn retain(&mut self, stays: impl Fn(&Path) -> bool) {
        self.0.retain(|path, _| stays(path));
    }

    /// All objects; of those that are named twice, the first.
    pub fn objects(&self) -> Objects {
        let mut objects = Objects::default();
        let mut places: BTreeMap<&str, String> = BTreeMap::new();
        for (path, file) in &self.0 {
            let place = |line: usize| format!("{}:{line}", path.display());
            for Placed { line, name, change } in &file.objects {
                if let Some(first) = places.get(name.as_str()) {
                    let twin = format!("{}: {name} is already in {first}; this one is ignored", place(*line));
                    objects.problems.push(twin);
                    continue;
                }
                places.insert(name, place(*line));
                objects.apply(change.clone());
            }
            for (line, what) in &file.problems {
                objects.problems.push(format!(
                    "{}: {what}; this is ignored, and what the file said of it before stays in force",
                    place(*line)
                ));
            }
        }
        objects
    }
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

    fn node(name: &str) -> String {
        NODE.replace("NAME", name)
    }

    fn files(list: &[(&str, &str)]) -> Files {
        let mut files = Files::default();
        for (path, text) in list {
            files.update(Path::new(path), &Ok((*text).into()));
        }
        files
    }

    fn names(files: &Files) -> Vec<String> {
        files.objects().nodes.into_keys().collect()
    }

    #[test]
    fn an_error_is_named_with_its_line_and_the_rest_applied() {
        let text = format!("{}---\n# a comment\nkind: Node\nmetadata: [\n---\n{}", node("a"), node("b"));
        let files = files(&[("nodes.yaml", &text)]);
        assert_eq!(names(&files), ["a", "b"]);
        let problems = files.objects().problems;
        assert_eq!(problems.len(), 1);
        let line: usize = problems[0].split(':').nth(1).and_then(|line| line.parse().ok()).expect("a line");
        assert!((8..=11).contains(&line), "{}", problems[0]);
    }

    #[test]
    fn wrong_values_and_twins_are_problems() {
        let files = files(&[
            ("1.yaml", &node("a").replace("10.1.0.0/24", "10.1.0.0/240")),
            ("2.yaml", &node("b")),
            ("3.yml", &node("b")),
            ("4.yaml", "kind: ConfigMap\nmetadata: {name: x}\n"),
        ]);
        assert_eq!(names(&files), ["b"]);
        let problems = files.objects().problems;
        assert!(problems[0].contains("1.yaml:1") && problems[0].contains("10.1.0.0/240"), "{}", problems[0]);
        assert!(problems[1].contains("3.yml:1") && problems[1].contains("2.yaml:1"), "{}", problems[1]);
    }

    #[test]
    fn lists_and_json_are_manifests_too() {
        let json = r#"{"kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}},{"kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"a","containers":[]},"status":{"podIP":"10.1.0.5"}},{"kind":"Service"}]}"#;
        let objects = files(&[("all.json", json)]).objects();
        assert_eq!((objects.nodes.len(), objects.pods.len()), (1, 1));
        assert_eq!(objects.problems, [""; 0]);
    }

    #[test]
    fn what_was_good_stays_until_something_good_takes_its_place() {
        let path = Path::new("nodes.yaml");
        let mut files = files(&[("nodes.yaml", &format!("{}---\n{}", node("a"), node("b")))]);
        let mut say = |content: io::Result<&str>| {
            files.update(path, &content.map(str::to_owned));
            (names(&files), files.objects().problems.len())
        };
        let both = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(say(Ok("")), (both.clone(), 1), "empty: somebody is about to write it");
        assert_eq!(say(Ok("kind: Node\nmetadata: [")), (both.clone(), 1));
        assert_eq!(say(Err(io::ErrorKind::PermissionDenied.into())), (both.clone(), 1));
        let other = format!("{}---\nkind: Node\nmetadata: {{name: b}}\nspec: {{podCIDRs: 7}}\n", node("c"));
        assert_eq!(say(Ok(&other)).0, ["a", "b", "c"]);
        assert_eq!(say(Ok(&node("c"))), (vec!["c".to_owned()], 0));
        files.retain(|_| false);
        assert!(names(&files).is_empty());
    }
}
