//! The Helm chart, and what it comes to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::run::{root, run};

/// What the chart needs to be told; nothing of it is in what is made.
const ANY_SERVER: &str = "apiServer=https://192.0.2.1:6443";

/// The chart, and Helm.
pub struct Chart {
    helm: PathBuf,
    path: PathBuf,
}

/// What templates have come to, by their names.
pub struct Rendered(BTreeMap<String, String>);

impl Chart {
    /// The one of this repository, and a Helm to render it.
    pub fn new(helm: PathBuf) -> Self {
        Self { helm, path: root().join("manifests/helm/sluice") }
    }

    /// Has Helm look whether it is as charts should be.
    ///
    /// # Errors
    /// Where it is not, which Helm prints.
    pub fn lint(&self) -> Result<()> {
        run(Command::new(&self.helm).args(["lint", "--strict", "--quiet", "--set", ANY_SERVER]).arg(&self.path))
    }

    /// What it comes to with these values (`KEY=VALUE`).
    ///
    /// # Errors
    /// Where Helm refuses them, with what it says.
    pub fn render(&self, values: &[&str]) -> Result<Rendered> {
        let mut helm = Command::new(&self.helm);
        helm.args(["template", "sluice", "--namespace", "kube-system", "--set", ANY_SERVER]);
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let output = helm.args(sets).arg(&self.path).output().context("starting Helm")?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`helm template` with {values:?} fails: {}", why.trim_end());
        Ok(Rendered::of(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The values that it has by itself.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn values(&self) -> Result<Value> {
        let path = self.path.join("values.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_yaml_ng::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }
}

impl Rendered {
    /// Helm says before each document which template it is from.
    fn of(text: &str) -> Self {
        const SOURCE: &str = "# Source: sluice/templates/";
        let mut parts = BTreeMap::<String, String>::new();
        for document in format!("\n{text}").split("\n---\n").skip(1) {
            let Some((template, text)) = document.strip_prefix(SOURCE).and_then(|rest| rest.split_once('\n')) else {
                continue;
            };
            let part = parts.entry(template.to_owned()).or_default();
            if !part.is_empty() {
                part.push_str("---\n");
            }
            part.push_str(text.trim_end());
            part.push('\n');
        }
        Self(parts)
    }

    /// The documents of a template.
    ///
    /// # Errors
    /// Where it has made none.
    pub fn part(&self, template: &str) -> Result<&str> {
        self.0.get(template).map(String::as_str).with_context(|| format!("the chart makes nothing of its {template}"))
    }

    /// The text of the agent's settings.
    ///
    /// # Errors
    /// Where there are none.
    pub fn settings(&self) -> Result<String> {
        settings(self.part("config.yaml")?).context("finding the settings in the chart's config.yaml")
    }

    /// All objects.
    ///
    /// # Errors
    /// Where something is no YAML.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        for (template, text) in &self.0 {
            for document in serde_yaml_ng::Deserializer::from_str(text) {
                objects.push(Value::deserialize(document).with_context(|| format!("reading what {template} makes"))?);
            }
        }
        Ok(objects)
    }
}

/// The agent's settings in the ConfigMap.
fn settings(config: &str) -> Option<String> {
    let (_, block) = config.split_once("\n  agent.yaml: |\n")?;
    Some(block.lines().map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RENDERED: &str = "---\n# Source: sluice/templates/a.yaml\nkind: A\n\n---\n# Source: sluice/templates/b.yaml\nkind: B\n---\n# Source: sluice/templates/a.yaml\n# why\nkind: C\n";

    #[test]
    fn documents_of_a_template_are_together() {
        let rendered = Rendered::of(RENDERED);
        assert_eq!(rendered.part("a.yaml").expect("is there"), "kind: A\n---\n# why\nkind: C\n");
        assert_eq!(rendered.part("b.yaml").expect("is there"), "kind: B\n");
        assert!(rendered.part("c.yaml").is_err());
        let kinds = rendered.objects().expect("are read").into_iter().map(|mut it| it["kind"].take());
        assert_eq!(kinds.collect::<Vec<_>>(), ["A", "C", "B"]);
    }

    #[test]
    fn settings_are_what_is_in_the_file() {
        let config = "data:\n  agent.yaml: |\n    log:\n      level: info\n    mtu: 0\n---\nkind: ConfigMap\n";
        assert_eq!(settings(config).expect("are there"), "log:\n  level: info\nmtu: 0\n");
        assert_eq!(settings("data: {}\n"), None);
    }
}
