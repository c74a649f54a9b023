//! Everybody is served by every kind of address, however nodes serve.

use anyhow::Result;
use sluice_tests::lab::serving::Means;

use super::stage::{EVERY_WAY, How, PLAIN, Stage, each_way, refused, served};
use super::world::{World, ports, world};

const INSIDERS: &str = "a1 a2 c1 c3 n1 n2 n3";

fn web() -> World {
    let ports = ports("80>8080@30080");
    world().pods("a1 a2", "app: web").service("web", 10, &format!("type: NodePort, selector: {{app: web}}, {ports}"))
}

#[test]
fn everybody_reaches_a_service_by_its_cluster_ip_and_node_ports() -> Result<()> {
    each_way(&EVERY_WAY, |stage| {
        stage.play(&web())?;
        stage.expect([
            served(INSIDERS, "web:80", "a1 a2"),
            served("stranger c1 c3 a1", "n1:30080 n2:30080 n3:30080", "a1 a2"),
            // Sockets of IPv6 that talk IPv4. Whoever asks compares names: getpeername, and whom datagrams come from.
            served("a1 c1 c3 n1 n3", "[::ffff:10.96.0.10]:80", "a1 a2"),
            served("stranger c1 c3", "[::ffff:192.0.2.3]:30080", "a1 a2"),
            refused("c1 c3 n1", "[::ffff:10.96.0.10]:81"),
        ])?;
        Ok(())
    })
}

#[test]
fn a_nodes_first_packet_waits_for_its_neighbour() -> Result<()> {
    let stage = Stage::set(How { sockets: false, ..PLAIN })?;
    stage.play(&web())?;
    for _ in 0..5 {
        // The router, by whom the node's own routes lead to a cluster IP, stays known.
        for neighbour in ["n1", "n2"] {
            for address in stage.addresses(neighbour)? {
                stage.place("n3")?.ip(&format!("neighbour flush to {address} dev eth0"))?;
            }
        }
        stage.expect([served("n3", "web:80", "a1 a2").by(&[Means::Udp])])?;
    }
    Ok(())
}
