//! Sluice in a cluster, by the image and the manifests, or the chart, of this work tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{Cluster, Shape};
use crate::run::{root, run, say};
use crate::{image, manifests};

/// Builds the image, puts it on the nodes and installs it; done when all nodes are Ready.
///
/// # Errors
/// Where something cannot be built, or the cluster does not get ready.
pub fn install(cluster: &Cluster, shape: Shape) -> Result<()> {
    let archive = image::make(&image::Arguments::default())?;
    say("Installing Sluice");
    run(cluster.script("load").arg(archive))?;
    let wishes = Wishes::of(cluster, shape)?;
    // Both, for our tests go the other way too.
    let (values, kustomization) = (values(cluster, &wishes)?, kustomization(cluster, &wishes)?);
    run(&mut if shape.helm { by_helm(cluster, &values)? } else { by_kubectl(cluster, &kustomization) })?;
    run(&mut cluster.kubectl(&["-n", "kube-system", "rollout", "status", "daemonset/sluice", "--timeout=120s"]))?;
    run(&mut cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]))
}

/// What is different in this cluster from what the manifests have.
struct Wishes {
    /// Where the API server is.
    server: String,
    routing: Option<&'static str>,
    /// Of which addresses nodes take pod CIDRs.
    pool: Option<Value>,
}

impl Wishes {
    fn of(cluster: &Cluster, shape: Shape) -> Result<Self> {
        let pool = if shape.pool { Some(pool(&cluster.asked("pods")?)) } else { None };
        Ok(Self { server: cluster.asked("server")?, routing: shape.routing(), pool })
    }
}

/// A pool of ranges, one of each family, of which nodes take blocks as large as they are given otherwise.
fn pool(ranges: &str) -> Value {
    let block = |range: &str| if range.contains(':') { 64 } else { 24 };
    ranges.split(',').map(|range| json!({"cidr": range, "block": block(range)})).collect()
}

/// Writes what a user would: a kustomization of what is different.
fn kustomization(cluster: &Cluster, wishes: &Wishes) -> Result<PathBuf> {
    let directory = directory(cluster)?;
    let routing = wishes.routing.map(|routing| format!("      - SLUICE_ROUTING={routing}\n")).unwrap_or_default();
    let base = root().join(if wishes.pool.is_some() { "manifests/overlays/pool" } else { "manifests/base" });
    let mut text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{}]\nconfigMapGenerator:\n  \
         - name: sluice-env\n    namespace: kube-system\n    behavior: merge\n    literals:\n      \
         - SLUICE_API_SERVER={}\n{routing}",
        relative(&directory, &base)?,
        wishes.server,
    );
    if let Some(pool) = &wishes.pool {
        text.push_str("  - {name: sluice-config, namespace: kube-system, behavior: merge, files: [agent.yaml]}\n");
        write(&directory.join("agent.yaml"), &with_pool(&base.join("agent.yaml"), pool)?)?;
    }
    write(&directory.join("kustomization.yaml"), &text)?;
    Ok(directory)
}

/// The settings of an overlay, with the ranges of this cluster in place of its own.
fn with_pool(settings: &Path, pool: &Value) -> Result<String> {
    let text = fs::read_to_string(settings).with_context(|| format!("reading {}", settings.display()))?;
    let mut settings: Map<String, Value> =
        serde_yaml_ng::from_str(&text).with_context(|| format!("understanding {}", settings.display()))?;
    settings.insert("pod_cidr_pool".into(), pool.clone());
    Ok(Value::from(settings).to_string())
}

fn by_kubectl(cluster: &Cluster, kustomization: &Path) -> Command {
    cluster.kubectl(&["apply", "-k", &kustomization.display().to_string()])
}

/// Writes the same as values of the chart.
fn values(cluster: &Cluster, wishes: &Wishes) -> Result<PathBuf> {
    let routing = wishes.routing.map(|routing| ("routing", json!(routing)));
    let pool = wishes.pool.as_ref().map(|pool| ("pod_cidr_pool", pool.clone()));
    let config = routing.into_iter().chain(pool).map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>();
    let values = directory(cluster)?.join("values.yaml");
    write(&values, &json!({"apiServer": wishes.server, "config": config}).to_string())?;
    Ok(values)
}

fn by_helm(cluster: &Cluster, values: &Path) -> Result<Command> {
    let mut helm = cluster.script("outside");
    helm.arg(manifests::helm()?).arg("--kubeconfig").arg(cluster.directory().join("run/admin.conf"));
    helm.args(["upgrade", "--install", "--namespace", "kube-system", "sluice"])
        .arg(root().join("manifests/helm/sluice"));
    helm.arg("--values").arg(values);
    Ok(helm)
}

/// Where the installation is written down.
fn directory(cluster: &Cluster) -> Result<PathBuf> {
    let directory = cluster.directory().join("install");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A path from a directory to another: kustomize takes no absolute ones.
fn relative(from: &Path, to: &Path) -> Result<String> {
    let absolute = |path: &Path| path.canonicalize().with_context(|| format!("looking for {}", path.display()));
    let (from, to) = (absolute(from)?, absolute(to)?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..".as_ref());
    let path = up.chain(to.components().skip(common).map(|it| it.as_os_str())).collect::<PathBuf>();
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_a_range_of_each_family() {
        let of_both = json!([{"cidr": "10.78.0.0/16", "block": 24}, {"cidr": "fd00:78::/48", "block": 64}]);
        assert_eq!(pool("10.78.0.0/16,fd00:78::/48"), of_both);
    }

    #[test]
    fn settings_are_those_of_the_overlay_but_for_the_ranges() {
        let ranges = pool("10.78.0.0/16");
        let text = with_pool(&root().join("manifests/overlays/pool/agent.yaml"), &ranges).expect("is understood");
        let settings: Value = serde_json::from_str(&text).expect("is JSON");
        assert_eq!((&settings["pod_cidr_pool"], &settings["source"]), (&ranges, &json!("kubernetes")));
        assert_eq!(settings["masquerade"]["port_last"], json!(29999));
    }
}
