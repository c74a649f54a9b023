//! Sluice in a cluster, by the image and the manifests of this work tree.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Cluster, Shape};
use crate::run::{output, root, run, say};

/// Builds the image, puts it on the nodes and applies the manifests; done when all nodes are Ready.
///
/// # Errors
/// Where something cannot be built, or the cluster does not get ready.
pub fn install(cluster: &Cluster, shape: Shape) -> Result<()> {
    let archive = image()?;
    say("Installing Sluice");
    run(cluster.script("load").arg(archive))?;
    let directory = cluster.directory().join("install");
    kustomization(cluster, shape, &directory)?;
    run(&mut cluster.kubectl(&["apply", "-k", &directory.display().to_string()]))?;
    run(&mut cluster.kubectl(&["-n", "kube-system", "rollout", "status", "daemonset/sluice", "--timeout=120s"]))?;
    run(&mut cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"]))
}
