//! What the kubelet and kubectl do to a pod by way of its network.

use std::process::Stdio;

use anyhow::{Context, Result};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::{until, until_so};

#[test]
fn pods_reach_one_another_on_both_nodes() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "reach")?;
    namespace.serve("one", "n1")?;
    namespace.serve("two", "n2")?;
    for (from, to) in [("one", "two"), ("two", "one")] {
        for address in namespace.addresses(to)? {
            assert_eq!(namespace.fetch(from, &hostname_at(address, 8080))?, to);
        }
    }
    let two = hostname_at(namespace.addresses("two")?[0], 8080).replace("hostname", "clientip");
    let seen = namespace.fetch("one", &two)?;
    assert!(seen.contains(&namespace.addresses("one")?[0].to_string()), "pods see each other's addresses: {seen}");
    Ok(())
}

#[test]
fn kubectl_gets_logs_runs_commands_and_forwards_ports() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "kubectl")?;
    namespace.serve("served", "n2")?;
    assert_eq!(namespace.exec("served", &["hostname"])?.trim(), "served");
    let logs = namespace.kubectl(&["logs", "served"])?;
    assert!(logs.contains("8080"), "{logs}");
    let mut forward = cluster
        .kubectl_beside(&["-n", &namespace.name, "port-forward", "pod/served", "18080:8080"])
        .stdout(Stdio::null())
        .spawn()
        .context("starting kubectl port-forward")?;
    let answer = until("the forwarded port answers", || {
        cluster.outside(&["curl", "-sSf", "--max-time", "2", "http://127.0.0.1:18080/hostname"])
    });
    forward.kill().context("ending kubectl port-forward")?;
    forward.wait().context("ending kubectl port-forward")?;
    assert_eq!(answer?, "served");
    Ok(())
}

#[test]
fn the_kubelet_probes_pods_that_policies_cut_off() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "probes")?;
    namespace.deny_everything()?;
    for node in ["n1", "n2"] {
        namespace.apply(&probed(node))?;
    }
    for node in ["n1", "n2"] {
        namespace.ready(&format!("pod/on-{node}"))?;
        let answers = |how: &str| {
            let url = format!("http://localhost:8085/make-{how}");
            namespace.exec(&format!("on-{node}"), &["curl", "-sSf", &url])
        };
        answers("not-serving")?;
        namespace.kubectl(&["wait", "--for=condition=Ready=false", "--timeout=60s", &format!("pod/on-{node}")])?;
        answers("serving")?;
        namespace.ready(&format!("pod/on-{node}"))?;
    }
    namespace.is_cut_off("on-n1", &hostname_at(namespace.addresses("on-n2")?[0], 8080))
}

/// A pod with every kind of probe.
fn probed(node: &str) -> String {
    let probes = |check: &str| {
        ["startup", "liveness", "readiness"]
            .map(|it| {
                format!("    {it}Probe: {{{check}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 20}}\n")
            })
            .concat()
    };
    let readiness =
        "    readinessProbe: {grpc: {port: 5000}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1}\n";
    let containers = [
        ("http", "netexec", probes("httpGet: {path: /, port: 8080}")),
        ("tcp", "netexec, --http-port=8090, --udp-port=8091", probes("tcpSocket: {port: 8090}")),
        ("grpc", "grpc-health-checking, --http-port=8085", readiness.into()),
        ("exec", "pause", probes("exec: {command: [curl, -sSf, \"http://localhost:8080/\"]}")),
    ];
    let containers = containers.map(|(name, arguments, probes)| {
        format!("  - name: {name}\n    image: \"agnhost:lab\"\n    args: [{arguments}]\n{probes}")
    });
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n{}",
        containers.concat()
    )
}

/// A container's id, which is another when it was started anew.
const CONTAINER: &str = ".status.containerStatuses[0].containerID";

#[test]
fn a_container_that_ends_finds_its_pods_network_again() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "restart")?;
    namespace.serve("mortal", "n1")?;
    namespace.serve("peer", "n2")?;
    let before = (namespace.addresses("mortal")?, namespace.field("pod/mortal", CONTAINER)?);
    // The answer may be lost with the server.
    let _ = namespace.exec("mortal", &["curl", "-s", "http://localhost:8080/exit?code=1"]);
    until_so("it runs again", || Ok(namespace.field("pod/mortal", CONTAINER)? != before.1))?;
    namespace.ready("pod/mortal")?;
    assert_eq!(namespace.addresses("mortal")?, before.0);
    for (from, to) in [("peer", "mortal"), ("mortal", "peer")] {
        assert_eq!(namespace.fetch(from, &hostname_at(namespace.addresses(to)?[0], 8080))?, to);
    }
    Ok(())
}

#[test]
fn a_pod_whose_sandbox_is_killed_gets_another_under_the_same_policies() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "sandbox")?;
    namespace.serve("mortal", "n1")?;
    namespace.serve("friend", "n2")?;
    namespace.serve("stranger", "n2")?;
    namespace.service("mortal", "")?;
    namespace.policy(
        "friends",
        "podSelector: {matchLabels: {role: mortal}}\ningress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]",
    )?;
    let identity = |field: &str| namespace.field("pod/mortal", field);
    let (uid, container, address) =
        (identity(".metadata.uid")?, identity(CONTAINER)?, namespace.addresses("mortal")?[0]);

    let filter = format!("labels.\"io.kubernetes.pod.uid\"=={uid},labels.\"io.cri-containerd.kind\"==sandbox");
    let sandbox = cluster.containerd("n1", &["containers", "ls", "-q", &filter])?;
    cluster.containerd("n1", &["tasks", "kill", "-s", "KILL", sandbox.trim()])?;
    until_so("it runs again", || Ok(identity(CONTAINER)? != container))?;
    namespace.ready("pod/mortal")?;

    assert_eq!(identity(".metadata.uid")?, uid, "it is the same pod");
    let now = namespace.addresses("mortal")?[0];
    assert_ne!(now, address, "the kubelet has it made anew");
    let kept = format!("/var/lib/sluice/addresses/{address}");
    until_so("its old address is given back", || Ok(cluster.on("n1", &["test", "-e", &kept]).is_err()))?;
    assert_eq!(namespace.fetch("friend", &hostname_at(now, 8080))?, "mortal");
    let service = namespace.field("service/mortal", ".spec.clusterIP")?.parse()?;
    until("its Service knows", || namespace.fetch("friend", &hostname_at(service, 80)))?;
    namespace.is_cut_off("stranger", &hostname_at(now, 8080))
}
