//! What the kubelet and kubectl do to a pod by way of its network.

use anyhow::{Context, Result};
use sluice_tests::kubernetes::{Cluster, Namespace};
use sluice_tests::lab::until;

#[test]
fn pods_reach_one_another_on_both_nodes() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "reach")?;
    namespace.serve("one", "n1")?;
    namespace.serve("two", "n2")?;
    for (from, to) in [("one", "two"), ("two", "one")] {
        for address in namespace.addresses(to)? {
            let address = sluice_tests::kubernetes::in_url(address);
            assert_eq!(namespace.fetch(from, &format!("http://{address}:8080/hostname"))?, to);
        }
    }
    let seen = namespace.fetch(
        "one",
        &format!("http://{}:8080/clientip", sluice_tests::kubernetes::in_url(namespace.addresses("two")?[0])),
    )?;
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
        .stdout(std::process::Stdio::null())
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
