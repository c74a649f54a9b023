//! What the cluster is told, as manifests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::{Lab, Pod};

/// Writes a manifest, all of it at once: nobody reads half of it.
///
/// # Errors
/// Where it cannot be written.
pub fn write(directory: &Path, file: &str, text: &str) -> Result<()> {
    let (unfinished, path) = (directory.join(format!(".{file}")), directory.join(file));
    fs::write(&unfinished, text).with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, &path).with_context(|| format!("putting {} in its place", path.display()))
}

impl Lab {
    /// Tells of something, or of what it is now.
    ///
    /// # Errors
    /// As [`write`].
    pub fn tell(&self, file: &str, text: &str) -> Result<()> {
        write(&self.manifests(), file, text)
    }

    /// Takes back what was told in a file.
    ///
    /// # Errors
    /// Where nothing was.
    pub fn take_back(&self, file: &str) -> Result<()> {
        let path = self.manifests().join(file);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// Tells of a pod with such labels, which listens on these TCP ports.
    ///
    /// # Errors
    /// As [`write`].
    pub fn declare(&self, pod: &Pod, labels: &[(&str, &str)], ports: &[u16]) -> Result<()> {
        self.declare_as(pod, labels, ports, true)
    }

    /// As [`declare`](Lab::declare), of a pod that is not ready to serve.
    ///
    /// # Errors
    /// As [`write`].
    pub fn declare_unready(&self, pod: &Pod, labels: &[(&str, &str)], ports: &[u16]) -> Result<()> {
        self.declare_as(pod, labels, ports, false)
    }

    fn declare_as(&self, pod: &Pod, labels: &[(&str, &str)], ports: &[u16], is_ready: bool) -> Result<()> {
        let ips: Vec<_> = pod.addresses.iter().map(|address| json!({ "ip": address })).collect();
        let ports: Vec<_> = ports.iter().map(|port| json!({ "containerPort": port })).collect();
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "namespace": pod.namespace,
                "name": pod.name,
                "labels": labels.iter().copied().collect::<BTreeMap<_, _>>(),
            },
            "spec": { "nodeName": pod.node, "containers": [{ "name": "main", "ports": ports }] },
            "status": {
                "podIPs": ips,
                "conditions": [{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }],
            },
        });
        self.tell(&manifest_of(pod), &format!("{manifest:#}\n"))
    }

    /// Tells no longer of a pod.
    ///
    /// # Errors
    /// Where nothing was told of it.
    pub fn take_back_pod(&self, pod: &Pod) -> Result<()> {
        self.take_back(&manifest_of(pod))
    }
}

/// The file that tells of a pod.
fn manifest_of(pod: &Pod) -> String {
    format!("{}-{}.json", pod.namespace, pod.name)
}
