//! Files of manifests, and the objects that they hold together.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sluice_policy::ObjectName;

use super::{Change, Object};

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
    name: ObjectName,
    object: Object,
}

/// All that files say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// What is in force.
    pub objects: BTreeMap<ObjectName, Object>,
    /// What could not be used: where it is, what is wrong, what to do.
    pub problems: Vec<String>,
}

impl Contents {
    /// The changes that make these contents of others.
    pub fn changes_from(&self, before: &Self) -> Vec<Change> {
        let gone = before.objects.keys().filter(|name| !self.objects.contains_key(*name));
        let fresh = self.objects.iter().filter(|(name, object)| before.objects.get(*name) != Some(*object));
        let mut changes: Vec<Change> = gone.map(|name| Change::Gone(name.clone(), String::new())).collect();
        changes.extend(fresh.map(|(_, object)| Change::Is(object.clone())));
        if before.problems != self.problems {
            changes.push(Change::Problems(self.problems.clone()));
        }
        changes
    }
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
                        Ok(object) => {
                            let object = without_uid(object);
                            file.objects.push(Placed { line, name: object.name(), object });
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

    /// All that they say; of objects that are named twice, the first.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let mut places: BTreeMap<&ObjectName, String> = BTreeMap::new();
        for (path, file) in &self.0 {
            let place = |line: usize| format!("{}:{line}", path.display());
            for Placed { line, name, object } in &file.objects {
                if let Some(first) = places.get(name) {
                    let twin = format!("{}: {name} is already in {first}; this one is ignored", place(*line));
                    contents.problems.push(twin);
                    continue;
                }
                places.insert(name, place(*line));
                contents.objects.insert(name.clone(), object.clone());
            }
            for (line, what) in &file.problems {
                contents.problems.push(format!(
                    "{}: {what}; this is ignored, and what the file said of it before stays in force",
                    place(*line)
                ));
            }
        }
        contents
    }
}

/// A manifest is about whichever pod has its name: who makes the pod gives it a UID of its own.
fn without_uid(object: Object) -> Object {
    match object {
        Object::Pod(mut pod) => {
            pod.pod.uid = String::new();
            Object::Pod(pod)
        }
        Object::Namespace(_) | Object::Node(..) | Object::Policy(_) | Object::Service(_) | Object::Slice(_) => object,
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
        files.contents().objects.into_keys().map(|object| object.name).collect()
    }

    #[test]
    fn an_error_is_named_with_its_line_and_the_rest_applied() {
        let text = format!("{}---\n# a comment\nkind: Node\nmetadata: [\n---\n{}", node("a"), node("b"));
        let files = files(&[("nodes.yaml", &text)]);
        assert_eq!(names(&files), ["a", "b"]);
        let problems = files.contents().problems;
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
        let problems = files.contents().problems;
        assert!(problems[0].contains("1.yaml:1") && problems[0].contains("10.1.0.0/240"), "{}", problems[0]);
        assert!(problems[1].contains("3.yml:1") && problems[1].contains("2.yaml:1"), "{}", problems[1]);
    }

    #[test]
    fn lists_and_json_are_manifests_too() {
        let json = r#"{"kind":"List","items":[{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}},{"kind":"Pod","metadata":{"name":"p"},"spec":{"nodeName":"a","containers":[]},"status":{"podIP":"10.1.0.5"}},{"kind":"Secret"}]}"#;
        let contents = files(&[("all.json", json)]).contents();
        let names: Vec<String> = contents.objects.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["Pod default/p", "Node a"]);
        assert_eq!(contents.problems, [""; 0]);
    }

    #[test]
    fn what_was_good_stays_until_something_good_takes_its_place() {
        let path = Path::new("nodes.yaml");
        let mut files = files(&[("nodes.yaml", &format!("{}---\n{}", node("a"), node("b")))]);
        let mut say = |content: io::Result<&str>| {
            files.update(path, &content.map(str::to_owned));
            (names(&files), files.contents().problems.len())
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
    const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: x}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
";

    const CLUSTER_POLICY: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: all}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}
";

    #[test]
    fn a_policy_that_the_api_server_would_refuse_is_a_problem_and_the_last_good_one_stays() {
        let mut files = files(&[("policies.yaml", &format!("{POLICY}---\n{CLUSTER_POLICY}"))]);
        let good = files.contents();
        let objects: Vec<String> = good.objects.keys().map(ToString::to_string).collect();
        assert_eq!(objects, ["NetworkPolicy x/db", "ClusterNetworkPolicy all"]);
        let slip = format!("{}---\n{}", POLICY.replace("/8", "/80"), CLUSTER_POLICY.replace("Admin", "Root"));
        files.update(Path::new("policies.yaml"), &Ok(slip));
        let bad = files.contents();
        assert_eq!(bad.objects, good.objects);
        let starts = [
            "policies.yaml:1: NetworkPolicy x/db: spec.ingress[0].from[0].ipBlock.cidr: ",
            "policies.yaml:6: ClusterNetworkPolicy all: spec.tier: ",
        ];
        assert_eq!(bad.problems.len(), starts.len());
        for (problem, start) in bad.problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }

    #[test]
    fn services_are_read_and_a_field_that_there_is_not_is_found() {
        let service = "kind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
        let slice = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: '', port: 8080}]
";
        let good = files(&[("web.yaml", &format!("{service}---\n{slice}"))]).contents();
        let objects: Vec<String> = good.objects.keys().map(ToString::to_string).collect();
        assert_eq!(
            (objects, good.problems),
            (vec!["Service default/web".into(), "EndpointSlice default/web-1".into()], vec![])
        );
        let slips = [service.replace("port:", "prot:"), slice.replace("addresses", "address")];
        for (slip, field) in slips.iter().zip(["spec.ports[0]", "endpoints[0]"]) {
            let problems = files(&[("web.yaml", slip)]).contents().problems;
            assert!(problems.len() == 1 && problems[0].contains(field), "{problems:?}");
        }
    }

    #[test]
    fn changes_lead_from_what_was_said_to_what_is_said() {
        let before = files(&[("1.yaml", &node("a")), ("2.yaml", &node("b"))]).contents();
        let other = node("b").replace("192.0.2.1", "192.0.2.2");
        let after = files(&[("2.yaml", &other), ("3.yaml", "kind: Node\n"), ("4.yaml", POLICY)]).contents();
        let told: Vec<String> = after
            .changes_from(&before)
            .into_iter()
            .map(|change| match change {
                Change::Is(object) => format!("{} is", object.name()),
                Change::Gone(name, _) => format!("{name} gone"),
                Change::Wrong(error) => error.to_string(),
                Change::Problems(problems) => format!("{} problem", problems.len()),
                Change::Notes(_) | Change::Listed => panic!("files do not know whether they are all"),
            })
            .collect();
        assert_eq!(told, ["Node a gone", "Node b is", "NetworkPolicy x/db is", "1 problem"]);
        assert_eq!(after.changes_from(&after), []);
    }

    #[test]
    fn a_manifest_is_about_whichever_pod_has_its_name() {
        let pod = "kind: Pod\nmetadata: {name: p, uid: u1}\nspec: {containers: []}\n";
        let contents = files(&[("pod.yaml", pod)]).contents();
        let object = contents.objects.into_values().next();
        assert!(matches!(object, Some(Object::Pod(pod)) if pod.pod.is("u2")));
    }
}
