//! Everybody is served by every kind of address, however nodes serve.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use sluice_tests::lab::serving::{Means, PATIENCE};
use sluice_tests::lab::{Families, Raw};
use sluice_tests::packet::Transport;

use super::stage::{EVERY_WAY, EXPRESS, OVERLAY, PACKETS, PLAIN, Stage, each_way, refused, served};
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
fn a_cluster_may_have_one_family_only() -> Result<()> {
    for (families, mut way) in [(Families::V4, PLAIN), (Families::V6, EXPRESS)] {
        way.families = families;
        each_way(&[way], |stage| {
            stage.play(&web())?;
            stage.expect([
                served(INSIDERS, "web:80", "a1 a2"),
                served("stranger c1", "n1:30080 n3:30080", "a1 a2"),
                refused("c1 c3 n1", "web:81"),
                refused("stranger", "n3:30081"),
            ])
        })?;
    }
    Ok(())
}

/// A datagram that is made by hand is answered by whom it was sent to. No socket was told whom to talk to.
fn is_answered(own: IpAddr, at: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Raw::here(own)?.send(at.ip(), Transport::Udp(socket.local_addr()?.port(), at.port()))?;
    let (_, sender) = socket.recv_from(&mut [0; 64]).with_context(|| format!("{own} sends a packet to {at}"))?;
    ensure!(sender == at, "{own} has sent a packet to {at}, and {sender} answers");
    Ok(())
}

#[test]
fn packets_are_served_that_no_socket_was_asked_about() -> Result<()> {
    each_way(&[PLAIN, OVERLAY], |stage| {
        stage.play(&web())?;
        for from in ["c1", "c3", "n1", "n3"] {
            for at in ["web:80", "n2:30080"].map(|at| stage.at(at)).into_iter().collect::<Result<Vec<_>>>()?.concat() {
                let own = stage.addresses(from)?.into_iter().find(|own| own.is_ipv4() == at.is_ipv4());
                stage.place(from)?.inside(|| is_answered(own.context("an address of each family")?, at))?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_nodes_first_packet_waits_for_its_neighbour() -> Result<()> {
    let stage = Stage::set(PACKETS)?;
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
