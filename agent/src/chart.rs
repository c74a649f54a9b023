//! What the Helm chart and the documentation say of the settings is what they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};
use serde_json::Value;

use crate::config::{Config, Flags, Log, Masquerade, Vxlan};

/// Settings that are each node's own, and those that the chart has a value of its own for.
const ELSEWHERE: [&str; 5] = ["addresses", "api_server", "cni_bin_dir", "node_name", "pod_cidrs"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("is in the repository").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect(name)
}

fn yaml(name: &str) -> Value {
    serde_yaml_ng::from_str(&text(name)).expect(name)
}

/// Notes which fields a struct is read from, and reads none.
struct Fields(BTreeSet<String>);

impl<'de> Deserializer<'de> for &mut Fields {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("it is no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0.extend(fields.iter().map(|&field| field.to_owned()));
        Err(Error::custom("they are noted"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de>>() -> BTreeSet<String> {
    let mut fields = Fields(BTreeSet::new());
    assert!(T::deserialize(&mut fields).is_err() && !fields.0.is_empty());
    fields.0
}

/// The settings that there are, those of a section by the section's name; without a name, the sections themselves.
fn settings() -> [(&'static str, BTreeSet<String>); 4] {
    let mut all = fields::<Config>();
    for key in ELSEWHERE {
        assert!(all.remove(key), "{key} is no setting any more");
    }
    [("", all), ("vxlan", fields::<Vxlan>()), ("masquerade", fields::<Masquerade>()), ("log", fields::<Log>())]
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("has keys").keys().cloned().collect()
}

#[test]
fn the_chart_has_every_setting_and_no_other() {
    let values = yaml("manifests/helm/sluice/values.yaml");
    let schema = yaml("manifests/helm/sluice/values.schema.json");
    for (section, settings) in settings() {
        let values = if section.is_empty() { &values["config"] } else { &values["config"][section] };
        assert_eq!(keys(values), settings, "values.yaml, {section}");
        let config = &schema["properties"]["config"];
        let schema = if section.is_empty() { config } else { &config["properties"][section] };
        assert_eq!(keys(&schema["properties"]), settings, "values.schema.json, {section}");
        assert_eq!(schema["additionalProperties"], false, "values.schema.json, {section}");
    }
}

#[test]
fn the_chart_sets_what_is_the_default_anyway() {
    let config = yaml("manifests/helm/sluice/values.yaml")["config"].take();
    let set: Config = serde_json::from_value(config).expect("is read");
    let default = Config::default();
    let set = Config { source: default.source.clone(), ..set };
    assert_eq!(format!("{set:#?}"), format!("{default:#?}"));
}

#[test]
fn what_kubectl_applies_is_what_the_chart_says() {
    let values = yaml("manifests/helm/sluice/values.yaml")["config"].take();
    assert_eq!(yaml("manifests/base/agent.yaml"), values, "run `cargo xtask manifests`");
}

#[test]
fn the_agent_takes_what_kubectl_applies() {
    for name in ["manifests/base/agent.yaml", "manifests/overlays/pool/agent.yaml"] {
        let mut flags = Flags::default();
        flags.config = Some(file(name));
        let config = Config::load(flags).expect(name);
        assert_eq!(config.pod_cidr_pool.is_empty(), !name.contains("pool"), "{name}");
    }
}

#[test]
fn the_chart_is_of_the_same_version() {
    let chart = yaml("manifests/helm/sluice/Chart.yaml");
    assert_eq!([&chart["version"], &chart["appVersion"]], [env!("CARGO_PKG_VERSION"); 2]);
    for overlay in ["example", "uninstall"] {
        let kustomization = yaml(&format!("manifests/overlays/{overlay}/kustomization.yaml"));
        assert_eq!(kustomization["images"][0]["newTag"], env!("CARGO_PKG_VERSION"), "{overlay}");
    }
}

#[test]
fn the_oldest_kubernetes_is_the_same_everywhere() {
    let chart = yaml("manifests/helm/sluice/Chart.yaml");
    let oldest = chart["kubeVersion"].as_str().and_then(|it| it.strip_prefix(">=")?.strip_suffix(".0-0"));
    let said = format!("Kubernetes {} or later", oldest.expect("is a version"));
    for name in ["README.md", "docs/install.md", "docs/configure.md", "CHANGELOG.md"] {
        let text = text(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&said), "{name} does not say: {said}");
    }
}

#[test]
fn containers_have_what_they_are_told_of_from_the_node() {
    let pod = yaml("manifests/base/daemonset.yaml")["spec"]["template"]["spec"].take();
    let [install, agent] = [&pod["initContainers"][0], &pod["containers"][0]];
    let is_mounted = |container: &Value, volume: &str, path: &str| {
        let mounts = container["volumeMounts"].as_array().expect("has mounts");
        mounts.iter().any(|mount| mount["name"] == volume && mount["mountPath"] == path)
    };
    let told = |flag: &str| {
        let command = install["command"].as_array().expect("has arguments");
        let path = command.iter().find_map(|word| word.as_str()?.strip_prefix(flag)?.strip_prefix('='));
        path.expect(flag).to_owned()
    };
    for (flag, volume) in [("--run-dir", "run"), ("--cni-bin-dir", "plugins"), ("--bin-dir", "bin")] {
        assert!(is_mounted(install, volume, &told(flag)), "{flag}");
    }
    // The image has plugins of its own, which nobody calls.
    let variables = agent["env"].as_array().expect("has variables");
    let plugins = variables.iter().find(|variable| variable["name"] == "SLUICE_CNI_BIN_DIR").expect("is set");
    assert!(is_mounted(agent, "plugins", plugins["value"].as_str().expect("is a path")));
    assert!(is_mounted(agent, "run", &told("--run-dir")));
}

#[test]
fn every_setting_is_documented() {
    let documented = text("docs/configure.md");
    let documented: BTreeSet<_> = documented.split('`').skip(1).step_by(2).collect();
    let sections: BTreeSet<_> = settings().iter().map(|(section, _)| *section).collect();
    for (section, settings) in settings() {
        for setting in settings.iter().filter(|setting| !sections.contains(setting.as_str())) {
            let name = if section.is_empty() { setting.clone() } else { format!("{section}.{setting}") };
            assert!(documented.contains(name.as_str()), "{name} is not in docs/configure.md");
        }
    }
}
