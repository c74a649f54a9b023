//! Objects that the chart makes, and what is to be true of all of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// What an installation consists of.
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// The one of this kind and name.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name)
    }

    /// How many there are of a kind.
    pub fn count(&self, kind: &str) -> usize {
        self.0.iter().filter(|it| it["kind"] == kind).count()
    }

    /// The DaemonSets' pods.
    fn pods(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|it| it["kind"] == "DaemonSet").map(|it| &it["spec"]["template"])
    }

    /// The pod of the only DaemonSet.
    pub fn pod(&self) -> Result<&Value> {
        ensure!(self.count("DaemonSet") == 1, "there are {} DaemonSets", self.count("DaemonSet"));
        self.pods().next().context("there is no DaemonSet")
    }

    /// A container of that pod.
    pub fn container(&self, name: &str) -> Result<&Value> {
        let container = containers(self.pod()?).find(|it| it["name"] == name);
        container.with_context(|| format!("there is no container {name}"))
    }

    /// What a container may do.
    pub fn capabilities(&self, container: &str) -> Result<BTreeSet<&str>> {
        Ok(texts(&self.container(container)?["securityContext"]["capabilities"]["add"]).collect())
    }

    /// The directory of the node that is behind one of a container.
    pub fn mounted(&self, container: &str, at: &str) -> Result<&Value> {
        let mounts = list(&self.container(container)?["volumeMounts"]);
        let mount = mounts.iter().find(|it| it["mountPath"] == at).with_context(|| format!("nothing is at {at}"))?;
        let volume = list(&self.pod()?["spec"]["volumes"]).iter().find(|it| it["name"] == mount["name"]);
        Ok(&volume.with_context(|| format!("there is no volume {}", mount["name"]))?["hostPath"]["path"])
    }

    /// The agent's settings.
    pub fn settings(&self) -> Result<Value> {
        let map = self.get("ConfigMap", "sluice-config").context("there is no ConfigMap sluice-config")?;
        let text = map["data"]["agent.yaml"].as_str().context("it has no agent.yaml")?;
        serde_yaml_ng::from_str(text).context("reading agent.yaml")
    }

    /// Whatever the values are.
    ///
    /// # Errors
    /// Where it is not so.
    pub fn are_sound(&self) -> Result<()> {
        let names = self.0.iter().map(|it| format!("{} {}", it["kind"], it["metadata"]["name"]));
        let distinct: BTreeSet<_> = names.collect();
        ensure!(distinct.len() == self.0.len(), "objects have the same name: there are only {distinct:?}");
        for set in self.0.iter().filter(|it| it["kind"] == "DaemonSet") {
            let selector = map(&set["spec"]["selector"]["matchLabels"])?;
            let labels = map(&set["spec"]["template"]["metadata"]["labels"])?;
            ensure!(!selector.is_empty(), "a DaemonSet selects every pod");
            for (key, value) in selector {
                ensure!(labels.get(key) == Some(value), "the DaemonSet's pods have no label {key}={value}");
            }
        }
        self.pods().try_for_each(is_sound)
    }
}

fn is_sound(pod: &Value) -> Result<()> {
    let mut mounted = BTreeSet::new();
    let mut images = BTreeSet::new();
    for container in containers(pod) {
        let (name, security) = (&container["name"], &container["securityContext"]);
        ensure!(security["privileged"] != true, "{name} is privileged");
        ensure!(security["allowPrivilegeEscalation"] == false, "{name} may gain privileges");
        ensure!(security["readOnlyRootFilesystem"] == true, "{name} may write to its root");
        ensure!(
            texts(&security["capabilities"]["drop"]).eq(["ALL"]),
            "{name} keeps capabilities of the runtime's choice"
        );
        images.insert(container["image"].to_string());
        let mut places = BTreeSet::new();
        for mount in list(&container["volumeMounts"]) {
            let place = mount["mountPath"].as_str().unwrap_or_default();
            ensure!(place.starts_with('/'), "{name} has {} nowhere", mount["name"]);
            ensure!(places.insert(place), "{name} has two volumes at {place}");
            mounted.insert(mount["name"].to_string());
        }
    }
    ensure!(images.len() == 1, "there are several images: {images:?}");
    let volumes: BTreeSet<_> = list(&pod["spec"]["volumes"]).iter().map(|it| it["name"].to_string()).collect();
    ensure!(volumes == mounted, "there are the volumes {volumes:?}, and mounted are {mounted:?}");
    Ok(())
}

/// All containers of a pod.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|of| list(&pod["spec"][of]))
}

/// What is in a list; nothing where there is none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The texts in a list.
pub fn texts(value: &Value) -> impl Iterator<Item = &str> {
    list(value).iter().filter_map(Value::as_str)
}

fn map(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().with_context(|| format!("{value} is to have keys"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> Value {
        let security = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["BPF"] },
        });
        json!({ "kind": "DaemonSet", "metadata": { "name": "a" }, "spec": {
            "selector": { "matchLabels": { "app": "a" } },
            "template": { "metadata": { "labels": { "app": "a" } }, "spec": {
                "containers": [{
                    "name": "agent", "image": "i", "securityContext": security,
                    "volumeMounts": [{ "name": "run", "mountPath": "/run/a" }],
                }],
                "volumes": [{ "name": "run", "hostPath": { "path": "/run/b" } }],
            } },
        } })
    }

    #[test]
    fn what_is_asked_for_is_found() {
        let objects = Objects(vec![set()]);
        assert_eq!(objects.capabilities("agent").expect("is there"), BTreeSet::from(["BPF"]));
        assert_eq!(objects.mounted("agent", "/run/a").expect("is there"), "/run/b");
        assert!(objects.get("DaemonSet", "a").is_some() && objects.get("DaemonSet", "b").is_none());
        assert!(objects.mounted("agent", "/run/b").is_err() && objects.container("install").is_err());
        objects.are_sound().expect("all is well");
    }

    #[test]
    fn what_is_unsound_is_told() {
        let told = |path: &str, value: Value| {
            let mut set = set();
            *set.pointer_mut(path).expect(path) = value;
            Objects(vec![set]).are_sound().expect_err(path).to_string()
        };
        let pod = "/spec/template/spec";
        assert!(told("/spec/selector/matchLabels/app", json!("b")).contains("no label app"));
        assert!(told(&format!("{pod}/volumes"), json!([])).contains("volumes"));
        assert!(told(&format!("{pod}/containers/0/volumeMounts"), json!([])).contains("volumes"));
        assert!(told(&format!("{pod}/containers/0/volumeMounts/0/mountPath"), Value::Null).contains("nowhere"));
        let security = format!("{pod}/containers/0/securityContext");
        assert!(told(&security, json!({ "privileged": true })).contains("privileged"));
        assert!(told(&format!("{security}/capabilities/drop"), json!([])).contains("keeps capabilities"));
        let twice = Objects(vec![set(), set()]).are_sound().expect_err("is there twice").to_string();
        assert!(twice.contains("the same name"), "{twice}");
    }
}
