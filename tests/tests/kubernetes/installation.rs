//! What becomes of nodes and pods when Sluice is upgraded, removed and installed again.

use std::env;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

/// What cleans nodes.
const UNINSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/overlays/uninstall");

/// Waits until each node has its pod of a DaemonSet, and that is ready.
fn rolled_out(cluster: &Cluster, name: &str) -> Result<()> {
    let set = format!("daemonset/{name}");
    cluster.kubectl(&["-n", "kube-system", "rollout", "status", &set, "--timeout=180s"]).map(|_| ())
}

/// The kustomization that Sluice was installed by.
fn installation() -> Result<String> {
    let directory = env::var("SLUICE_CLUSTER").context("SLUICE_CLUSTER is not set")?;
    Ok(Path::new(&directory).join("install").display().to_string())
}

#[test]
fn an_upgrade_costs_no_packet() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "upgrade")?;
    namespace.serve("one", "n1")?;
    namespace.serve("two", "n2")?;
    let to = namespace.addresses("two")?[0];
    let ping = cluster
        .kubectl_beside(&["-n", &namespace.name, "exec", "one", "--", "ping", "-i", "0.05", &to.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting kubectl exec")?;
    until("ping has started", || namespace.exec("one", &["pidof", "ping"]))?;
    cluster.kubectl(&["-n", "kube-system", "rollout", "restart", "daemonset/sluice"])?;
    rolled_out(&cluster, "sluice")?;
    // It says how many were answered, and ends.
    namespace.exec("one", &["sh", "-c", "kill -INT $(pidof ping)"])?;
    let counted = ping.wait_with_output().context("waiting for ping")?.stdout;
    let counted = String::from_utf8_lossy(&counted);
    assert!(counted.contains(" 0% packet loss"), "{counted}");
    Ok(())
}

#[test]
fn removal_leaves_nodes_clean_and_sluice_can_be_installed_again() -> Result<()> {
    let cluster = Cluster::alone()?;
    let installation = installation()?;
    cluster.kubectl(&["delete", "-k", &installation])?;
    cluster.kubectl(&["apply", "-k", UNINSTALL])?;
    rolled_out(&cluster, "sluice-uninstall")?;
    let left = "ls -d /sys/fs/bpf/sluice /run/sluice /var/lib/sluice/* /etc/cni/net.d/*sluice* /opt/cni/bin/* \
                /usr/local/bin/sluice* 2>/dev/null; ip -o link | grep -oE 'sl[0-9a-f]{12}|sluice_vxlan'; ip route | grep sluice; true";
    for node in cluster.nodes()? {
        assert_eq!(cluster.on(&node, &["sh", "-c", left])?, "", "{node}");
    }
    cluster.kubectl(&["delete", "-k", UNINSTALL])?;

    cluster.kubectl(&["apply", "-k", &installation])?;
    rolled_out(&cluster, "sluice")?;
    cluster.kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"])?;
    // Pods from before have no interface any more.
    cluster.kubectl(&["-n", "kube-system", "delete", "pod", "-l", "k8s-app=kube-dns"])?;
    let namespace = Namespace::new(&cluster, "again")?;
    namespace.serve("one", "n1")?;
    namespace.serve("two", "n2")?;
    assert_eq!(namespace.fetch("one", &hostname_at(namespace.addresses("two")?[0], 8080))?, "two");
    Ok(())
}
