//! Text that may be manifests.

use serde::Serialize;
use serde_json::Value;
use sluice_manifest_reader::{Object, parse};
use sluice_policy::{Event, Index, Kind, Limits, View};
use sluice_policy_oracle::generate::cluster;

use crate::draw::{Draws, seeds as any_bytes};

/// An object, and what its manifest said that it is.
struct Read(Event);

impl Object for Read {
    fn read(api_version: &str, kind: &str, object: Value) -> Option<Result<Self, String>> {
        let kind = Kind::of(api_version, kind)?;
        let read = Event::written(kind, object);
        if let Err(error) = &read {
            assert_eq!(error.object.kind, kind, "{error}");
            assert!(!error.what.is_empty(), "{error:?} says nothing");
        }
        read.map(|event| event.map(Self)).map_err(|error| error.to_string()).transpose()
    }
}

/// Reading and compiling any text panics nowhere, and what is wrong in it is named.
pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count().max(1);
    let mut index = Index::new(View::Everything, Limits::NONE);
    for (line, result) in parse(&text) {
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {:?}", result.err());
        match result {
            Ok(Read(event)) => drop(index.apply(event)),
            Err(what) => assert!(!what.is_empty(), "nothing is said of line {line}"),
        }
    }
    for problem in index.problems() {
        assert!(!problem.what.is_empty(), "{problem:?} says nothing");
    }
}

/// Clusters as people write them down, in YAML and in JSON, in documents and in lists.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let written = |(number, bytes): (usize, Vec<u8>)| {
        let cluster = Draws::new(&bytes).any(&cluster());
        let mut objects = Vec::new();
        add("Namespace", &cluster.namespaces, &mut objects);
        add("Node", &cluster.nodes, &mut objects);
        add("Pod", &cluster.pods, &mut objects);
        add("NetworkPolicy", &cluster.network_policies, &mut objects);
        add("ClusterNetworkPolicy", &cluster.cluster_network_policies, &mut objects);
        let list = serde_json::json!({ "kind": "List", "items": objects });
        let text = match number % 3 {
            0 => objects.iter().map(|object| format!("---\n{}", yaml(object))).collect(),
            1 => yaml(&list),
            _ => format!("{list:#}"),
        };
        text.into_bytes()
    };
    any_bytes(4).into_iter().enumerate().map(written).collect()
}

/// Adds objects as their manifests have them.
fn add<T: Serialize>(kind: &str, objects: &[T], to: &mut Vec<Value>) {
    for object in objects {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        value["kind"] = kind.into();
        to.push(value);
    }
}

fn yaml(value: &Value) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_manifests_of_all_kinds() {
        let mut kinds = std::collections::BTreeMap::<_, usize>::new();
        for seed in seeds() {
            for (line, result) in parse(&String::from_utf8(seed).unwrap()) {
                let event = match result {
                    Ok(Read(event)) => event,
                    // Of policies of a version to come.
                    Err(what) if what.contains("there is no such field") => continue,
                    Err(what) => panic!("line {line}: {what}"),
                };
                let kind = match event {
                    Event::Namespace(_) => Kind::Namespace,
                    Event::Pod(_) => Kind::Pod,
                    Event::Node(_) => Kind::Node,
                    Event::Policy(policy) => policy.name.kind,
                    Event::Invalid(error) => panic!("{error}"),
                    Event::Removed(name) => panic!("{name} is removed"),
                };
                *kinds.entry(kind).or_default() += 1;
            }
        }
        assert_eq!(kinds.len(), 5, "{kinds:?}");
    }
}
