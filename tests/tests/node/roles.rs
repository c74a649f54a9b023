//! Pods that are known by their roles, and a policy about these.

use std::fs;

use anyhow::{Context, Result};
use sluice_tests::lab::{Lab, Node, Pod};

/// Declares a pod of a node with a label, as the cluster would.
pub fn declare(lab: &Lab, node: &Node, pod: &Pod, name: &str) -> Result<()> {
    let addresses: Vec<String> = pod.addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
    write(
        lab,
        name,
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{role: {name}}}}}\n\
             spec: {{nodeName: {}, containers: []}}\nstatus: {{podIPs: [{}]}}\n",
            node.name,
            addresses.join(", ")
        ),
    )
}

/// Writes a manifest, all of it at once.
pub fn write(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let (unfinished, path) = (lab.manifests().join(format!(".{name}")), lab.manifests().join(format!("{name}.yaml")));
    fs::write(&unfinished, text).context("writing a manifest")?;
    fs::rename(unfinished, path).context("putting a manifest in its place")
}

/// A policy that has `db` hear only from these.
pub fn only_from(roles: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db}}\n\
         spec: {{podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: \
         [{{key: role, operator: In, values: [{roles}]}}]}}}}]}}]}}\n"
    )
}
