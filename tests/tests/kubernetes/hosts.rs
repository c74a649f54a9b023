//! Nodes' own network, and what of it leads to pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, datagram_to, hostname_at};
use sluice_tests::lab::until;

#[test]
fn pods_in_the_nodes_network_reach_pods_and_services_and_serve_them() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "hostnetwork")?;
    namespace.pod("host").on("n1").in_the_nodes_network(21080).serve()?;
    for (name, node) in [("here", "n1"), ("there", "n2")] {
        namespace.pod(name).on(node).serve()?;
        namespace.service(name, "")?;
    }
    namespace.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: host}\n\
         spec: {selector: {role: host}, ports: [{port: 80, targetPort: 21080}]}",
    )?;
    let service = |name: &str| namespace.field(&format!("service/{name}"), ".spec.clusterIP");
    for pod in ["here", "there"] {
        let address = namespace.addresses(pod)?[0];
        assert_eq!(namespace.fetch("host", &hostname_at(address, 8080))?, pod, "to a pod");
        let service = hostname_at(service(pod)?.parse()?, 80);
        assert_eq!(until("served", || namespace.fetch("host", &service))?, pod, "to a Service");
    }
    for pod in ["here", "there", "host"] {
        let address = cluster.address("n1")?;
        assert_eq!(namespace.fetch(pod, &hostname_at(address, 21080))?, "n1", "to a node, from {pod}");
        let service = hostname_at(service("host")?.parse()?, 80);
        assert_eq!(
            until("served", || namespace.fetch(pod, &service))?,
            "n1",
            "to a backend that is a node, from {pod}"
        );
    }
    Ok(())
}

#[test]
fn host_ports_lead_to_their_pod_from_everywhere() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "hostport")?;
    let ports =
        "ports: [{containerPort: 8080, hostPort: 22080}, {containerPort: 8081, hostPort: 22081, protocol: UDP}]";
    namespace.pod("served").on("n2").container(ports).serve()?;
    namespace.serve("here", "n2")?;
    namespace.serve("there", "n1")?;
    let node = cluster.address("n2")?;
    let (stream, datagram) = (hostname_at(node, 22080), datagram_to(node, 22081));
    let datagram = datagram.each_ref().map(String::as_str);
    for pod in ["here", "there", "served"] {
        assert_eq!(namespace.fetch(pod, &stream)?, "served", "from {pod}");
        assert_eq!(namespace.exec(pod, &datagram)?, "served", "from {pod}, UDP");
    }
    let curl = ["curl", "-sSfg", "--max-time", "5", &stream];
    assert_eq!(cluster.outside(&curl)?, "served");
    assert_eq!(cluster.outside(&datagram)?, "served");
    for other in ["n1", "n2"] {
        assert_eq!(cluster.on(other, &curl)?, "served", "from {other}");
    }

    namespace.kubectl(&["delete", "pod", "served"])?;
    ensure!(cluster.outside(&["curl", "-sg", "--max-time", "1", &stream]).is_err(), "the port goes with its pod");
    namespace.pod("heir").on("n2").container(ports).serve()?;
    assert_eq!(cluster.outside(&curl)?, "heir", "and comes with the next");
    Ok(())
}

#[test]
fn a_host_port_at_a_loopback_address_is_for_the_node_alone() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "loopback")?;
    let address = cluster.address("n1")?;
    let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { IpAddr::from(Ipv6Addr::LOCALHOST) };
    let ports = format!("ports: [{{containerPort: 8080, hostPort: 22082, hostIP: \"{loopback}\"}}]");
    namespace.pod("served").on("n1").container(&ports).serve()?;
    let (inside, outside) = (hostname_at(loopback, 22082), hostname_at(address, 22082));
    let ask = |url| ["curl", "-sSfg", "--max-time", "5", url];
    assert_eq!(cluster.on("n1", &ask(&inside))?, "served");
    let answer = cluster.outside(&ask(&outside));
    ensure!(answer.is_err(), "nobody else is served: {answer:?}");
    let answer = namespace.exec("served", &ask(&inside));
    ensure!(answer.is_err(), "a pod's own loopback address is not the node's: {answer:?}");
    Ok(())
}
