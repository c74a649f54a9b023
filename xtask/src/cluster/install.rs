//! Sluice in a cluster, by the image and the manifests of this work tree.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Cluster, Shape};
use crate::image;
use crate::run::{output, root, run, say};

/// Builds the image, puts it on the nodes and applies the manifests; done when all nodes are Ready.
///
/// # Errors
/// Where something cannot be built, or the cluster does not get ready.
pub fn install(cluster: &Cluster, shape: Shape) -> Result<()> {
    let archive = image::make(&image::Arguments::default())?;
    say("Installing Sluice");
    run(cluster.script("load").arg(archive))?;
    let kustomization = kustomize(cluster, shape)?;
    run(&mut cluster.kubectl(&["apply", "-k", &kustomization]))?;
    run(&mut cluster.kubectl(&["-n", "kube-system", "rollout", "status", "daemonset/sluice", "--timeout=120s"]))?;
    run(&mut cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]))
}

/// Writes what a user would: a kustomization with the address of the API server, and what is different in this cluster.
fn kustomize(cluster: &Cluster, shape: Shape) -> Result<String> {
    let directory = cluster.directory().join("install");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let server = output(&mut cluster.script("server")).context("asking the cluster where its API server is")?;
    let routing = shape.routing().map(|routing| format!("      - SLUICE_ROUTING={routing}\n")).unwrap_or_default();
    let base = relative(&directory, &root().join("manifests/base"))?;
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [{base}]\nconfigMapGenerator:\n  \
         - name: sluice-env\n    namespace: kube-system\n    behavior: merge\n    literals:\n      \
         - SLUICE_API_SERVER={}\n{routing}",
        server.trim()
    );
    let path = directory.join("kustomization.yaml");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(directory.display().to_string())
}

/// A path from a directory to another: kustomize takes no absolute ones.
fn relative(from: &Path, to: &Path) -> Result<String> {
    let absolute = |path: &Path| path.canonicalize().with_context(|| format!("looking for {}", path.display()));
    let (from, to) = (absolute(from)?, absolute(to)?);
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..".as_ref());
    let path = up.chain(to.components().skip(common).map(|it| it.as_os_str())).collect::<std::path::PathBuf>();
    Ok(path.display().to_string())
}
