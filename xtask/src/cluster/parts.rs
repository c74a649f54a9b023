//! What a cluster is made of: Kubernetes and a container runtime, built from their Go modules, and images.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Cluster, Release};
use crate::golang::Go;
use crate::run::{root, run, say};
use crate::setup;

/// Debian packages that nodes and images need.
const PACKAGES: [&str; 16] = [
    "runc",
    "iptables",
    "nftables",
    "conntrack",
    "containernetworking-plugins",
    "busybox-static",
    "netcat-openbsd",
    "bind9-dnsutils",
    "curl",
    "wget",
    "openssl",
    "gcc",
    "libc6-dev",
    "iproute2",
    "procps",
    "util-linux",
];

/// Builds what is missing or older than its sources here, of a release of Kubernetes; quick where nothing is.
///
/// # Errors
/// Where something cannot be installed or built, with what a person can do.
pub fn ready(cluster: &Cluster, release: Release) -> Result<()> {
    setup::install(&PACKAGES)?;
    let sources = root().join("tests/kubernetes");
    let made_of = format!("{:016x}", digest(&sources)?);
    let script = |name: &str, go: &Go| {
        let mut command = Command::new(sources.join(name));
        command.env("CLUSTER", cluster.directory());
        go.lend(&mut command);
        command
    };
    unless_made(&made_of, &cluster.directory().join("made-of"), |go| {
        say("Building Kubernetes, containerd and the upstream tests (some ten minutes at the first time)");
        run(&mut script("build.sh", go))?;
        say("Making the images of the cluster");
        run(&mut script("images.sh", go))
    })?;
    match release {
        Release::Newest => Ok(()),
        Release::Oldest => unless_made(&made_of, &cluster.directory().join("oldest-made-of"), |go| {
            say("Building the oldest Kubernetes that is supported (a quarter of an hour at the first time)");
            run(script("build.sh", go).arg("oldest"))
        }),
    }
}

/// Makes what a stamp does not say to be made of these sources, and has it say so.
fn unless_made(of: &str, stamp: &Path, make: impl FnOnce(&Go) -> Result<()>) -> Result<()> {
    if fs::read_to_string(stamp).is_ok_and(|it| it == of) {
        return Ok(());
    }
    make(&Go::ready("Kubernetes")?)?;
    fs::write(stamp, of).with_context(|| format!("writing {}", stamp.display()))
}

/// A digest of all files below a directory that binaries and images are made from.
fn digest(directory: &Path) -> Result<u64> {
    fn walk(directory: &Path, hasher: &mut DefaultHasher) -> Result<()> {
        let what = || format!("reading {}", directory.display());
        let mut entries =
            fs::read_dir(directory).with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, hasher)?;
            } else if !path.ends_with("cluster.sh") {
                path.file_name().hash(hasher);
                fs::read(&path).with_context(|| format!("reading {}", path.display()))?.hash(hasher);
            }
        }
        Ok(())
    }
    let mut hasher = DefaultHasher::new();
    walk(directory, &mut hasher)?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_oldest_kubernetes_is_the_oldest_that_the_chart_takes() {
        let chart = include_str!("../../../manifests/helm/sluice/Chart.yaml");
        let oldest = chart.lines().find_map(|line| line.strip_prefix("kubeVersion: \">=")).expect("it takes some");
        let minor = oldest.trim_end_matches("0-0\"");
        let module = include_str!("../../../tests/kubernetes/oldest/go.mod");
        assert!(module.contains(&format!("require k8s.io/kubernetes v{minor}")), "v{minor} is not in {module}");
    }
}
