//! Services, by the real API.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

#[test]
fn a_client_of_a_service_with_affinity_stays_with_its_backend() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "affinity")?;
    for (name, node) in [("one", "n1"), ("two", "n2"), ("three", "n2")] {
        namespace.pod(name).on(node).role("sticky").serve()?;
    }
    namespace.serve("client", "n1")?;
    namespace.service("sticky", "sessionAffinity: ClientIP")?;
    let service = hostname_at(namespace.field("service/sticky", ".spec.clusterIP")?.parse()?, 80);
    let asked = || -> Result<BTreeSet<String>> {
        let script = format!("for i in $(seq 24); do curl -sSfg --max-time 5 {service} || exit 1; echo; done");
        Ok(namespace.exec("client", &["sh", "-c", &script])?.lines().map(str::to_owned).collect())
    };
    let only = until("one backend answers always", || {
        let answers = asked()?;
        ensure!(answers.len() == 1, "{answers:?}");
        Ok(answers)
    })?;
    assert_eq!(asked()?, only);
    namespace.kubectl(&["patch", "service", "sticky", "-p", r#"{"spec": {"sessionAffinity": "None"}}"#])?;
    until("all answer", || {
        let answers = asked()?;
        ensure!(answers.len() == 3, "{answers:?}");
        Ok(())
    })
}

#[test]
fn node_ports_are_served_by_every_node_to_clients_outside() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "nodeport")?;
    namespace.pod("served").on("n2").role("port").serve()?;
    namespace.service("port", "type: NodePort")?;
    let port = namespace.field("service/port", ".spec.ports[0].nodePort")?.parse()?;
    for node in ["n1", "n2"] {
        let url = hostname_at(cluster.address(node)?, port);
        let answer = until("the port is served", || cluster.fetch(&url))?;
        assert_eq!(answer, "served", "by {node}");
    }
    Ok(())
}

#[test]
fn local_traffic_keeps_clients_addresses_and_stays_on_the_node() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "local")?;
    namespace.pod("served").on("n2").role("local").serve()?;
    namespace.service("local", "type: NodePort\nexternalTrafficPolicy: Local")?;
    let port = namespace.field("service/local", ".spec.ports[0].nodePort")?.parse()?;
    let ask = |node: &str| -> Result<String> {
        let url = hostname_at(cluster.address(node)?, port).replace("hostname", "clientip");
        cluster.fetch(&url)
    };
    let seen = until("the port is served", || ask("n2"))?;
    ensure!(seen.contains(&cluster.outsider()?.to_string()), "it sees who asks: {seen}");
    let elsewhere = ask("n1");
    ensure!(elsewhere.is_err(), "there is no backend on n1: {elsewhere:?}");
    Ok(())
}

#[test]
fn a_service_refuses_until_somebody_serves() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "refuse")?;
    namespace.serve("client", "n1")?;
    namespace.service("late", "")?;
    let service = hostname_at(namespace.field("service/late", ".spec.clusterIP")?.parse()?, 80);
    until("it is refused", || {
        let answer = namespace.exec("client", &["curl", "-sSfg", "--max-time", "5", &service]);
        ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("exit code 7")), "{answer:?}");
        Ok(())
    })?;
    namespace.pod("backend").on("n2").role("late").serve()?;
    assert_eq!(until("it is served", || namespace.fetch("client", &service))?, "backend");
    namespace.kubectl(&["delete", "pod", "backend"])?;
    until("it is refused again", || {
        let answer = namespace.exec("client", &["curl", "-sSfg", "--max-time", "5", &service]);
        ensure!(answer.is_err(), "{answer:?}");
        Ok(())
    })
}
