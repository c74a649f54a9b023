//! Machines that start anew, join the cluster and are taken away. These tests are alone.

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::{until, until_so};

/// Longest wait for a machine, as kubectl has it: containerd, kubelet and pods start one after the other.
const PATIENCE: &str = "--timeout=180s";

/// The addresses that a node keeps for its pods are those of its endpoints.
fn addresses_are_of_pods(cluster: &Cluster, node: &str) -> Result<()> {
    until("every address that is kept is a pod's", || {
        let endpoints = cluster.on(node, &["/usr/local/bin/sluicectl", "-o", "json", "endpoints"])?;
        let kept = cluster.on(node, &["ls", "/var/lib/sluice/addresses"])?;
        let strays: Vec<_> = kept.lines().filter(|address| !endpoints.contains(&format!("\"{address}\""))).collect();
        ensure!(!kept.is_empty() && strays.is_empty(), "{strays:?} of {kept:?}, and {endpoints}");
        Ok(())
    })
}

#[test]
fn a_machine_that_starts_anew_has_its_pods_and_policies_back() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "reboot")?;
    let port = "ports: [{containerPort: 8080, hostPort: 22090}]";
    namespace.pod("old").on("n2").container(port).start()?;
    namespace.pod("gone").on("n2").start()?;
    namespace.pod("peer").on("n1").start()?;
    namespace.pod("stranger").on("n1").start()?;
    namespace.service("old", "")?;
    namespace.all_ready()?;
    let outsider = IpNet::from(cluster.outsider()?);
    namespace.policy(
        "peer",
        &format!(
            "podSelector: {{matchLabels: {{role: old}}}}\n\
             ingress: [{{from: [{{podSelector: {{matchLabels: {{role: peer}}}}}}, {{ipBlock: {{cidr: \"{outsider}\"}}}}]}}]"
        ),
    )?;
    let service = hostname_at(namespace.field("service/old", ".spec.clusterIP")?.parse()?, 80);
    let host_port = hostname_at(cluster.address("n2")?, 22090);
    let all_is_well = || -> Result<()> {
        let old = hostname_at(namespace.addresses("old")?[0], 8080);
        assert_eq!(until("the peer is let in", || namespace.fetch("peer", &old))?, "old");
        assert_eq!(namespace.fetch("old", &hostname_at(namespace.addresses("peer")?[0], 8080))?, "peer");
        assert_eq!(until("the Service is served", || namespace.fetch("peer", &service))?, "old");
        let by_port = || cluster.outside(&["curl", "-sSfg", "--max-time", "5", &host_port]);
        assert_eq!(until("the host port is served", by_port)?, "old");
        namespace.is_cut_off("stranger", &old)
    };
    all_is_well()?;

    // What the machine runs ends at once, and nobody tells Sluice of the pods' end.
    namespace.kubectl(&["delete", "pod", "gone", "--wait=false", "--grace-period=0", "--force"])?;
    let boot = || cluster.kubectl(&["get", "node", "n2", "-o", "jsonpath={.status.nodeInfo.bootID}"]);
    let before = boot()?;
    cluster.ask("reboot", &["n2"])?;
    let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    namespace.kubectl(&["wait", again, PATIENCE, "pod/old"]).context("the pod runs again")?;
    namespace.ready("pod/old")?;
    cluster.nodes_ready()?;
    cluster.rolled_out("sluice")?;
    assert_ne!(boot()?, before, "it is another boot");
    all_is_well()?;
    addresses_are_of_pods(&cluster, "n2")?;
    namespace.serve("new", "n2")?;
    assert_eq!(namespace.fetch("peer", &hostname_at(namespace.addresses("new")?[0], 8080))?, "new");
    Ok(())
}

/// A machine more, until this goes.
struct Joined<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Joined<'a> {
    /// With the next number; nobody prepares it.
    fn next(cluster: &'a Cluster) -> Result<Self> {
        let it = Self { cluster, name: format!("n{}", cluster.nodes()?.len() + 1) };
        cluster.ask("join", &[&it.name])?;
        Ok(it)
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.ask("leave", &[&self.name]);
    }
}

#[test]
fn a_machine_that_joins_is_one_of_the_cluster_until_it_is_taken_away() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "join")?;
    namespace.serve("old", "n1")?;
    namespace.serve("server", "n2")?;
    namespace.service("server", "")?;
    namespace.policy(
        "server",
        "podSelector: {matchLabels: {role: server}}\ningress: [{from: [{podSelector: {matchLabels: {role: new}}}]}]",
    )?;
    let joined = Joined::next(&cluster)?;
    let name = joined.name.as_str();
    cluster.kubectl(&["wait", "--for=condition=Ready", PATIENCE, &format!("node/{name}")])?;
    namespace.serve("new", name)?;
    namespace.pod("stranger").on(name).serve()?;
    for (from, to) in [("old", "new"), ("new", "old")] {
        let there = hostname_at(namespace.addresses(to)?[0], 8080);
        assert_eq!(until("the way is known", || namespace.fetch(from, &there))?, to);
    }
    let service = hostname_at(namespace.field("service/server", ".spec.clusterIP")?.parse()?, 80);
    assert_eq!(until("policies know its pods", || namespace.fetch("new", &service))?, "server");
    namespace.is_cut_off("stranger", &hostname_at(namespace.addresses("server")?[0], 8080))?;

    let knows = || Ok::<_, anyhow::Error>(cluster.on("n1", &["/usr/local/bin/sluicectl", "nodes"])?.contains(name));
    ensure!(knows()?, "n1 knows {name}");
    cluster.kubectl(&["delete", "node", name])?;
    until_so("n1 forgets it", || Ok(!knows()?))?;
    drop(joined);
    cluster.rolled_out("sluice")?;
    for pod in ["new", "stranger"] {
        namespace.kubectl(&["wait", "--for=delete", PATIENCE, &format!("pod/{pod}")])?;
    }
    namespace.pod("new").on("n1").serve()?;
    assert_eq!(until("another may have its name", || namespace.fetch("new", &service))?, "server");
    Ok(())
}
