//! Half-open connections, more than tables hold.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Result, ensure};
use sluice_tests::lab::Raw;
use sluice_tests::lab::serving::Means;
use sluice_tests::packet::Transport;

use super::gone::Connection;
use super::load::Crowd;
use super::stage::{PACKETS, Stage};
use super::world::{ports, world};

const SYN: u8 = 0x02;
/// Entries of each flow table.
const ENTRIES: u32 = 32_768;
/// Who never answers, of each family, and from how many ports each.
const STRANGERS: u8 = 2;
const PORTS: u16 = 12_500;

/// Each of them opens connections to a place, whose answers the stranger gets and takes for nobody's.
fn flood(at: SocketAddr) -> Result<()> {
    for stranger in 1..=STRANGERS {
        let source: IpAddr = match at {
            SocketAddr::V4(_) => Ipv4Addr::new(198, 51, 100, stranger).into(),
            SocketAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, stranger.into()).into(),
        };
        let raw = Raw::here(source)?;
        (1024..1024 + PORTS).try_for_each(|port| raw.send(at.ip(), Transport::Tcp(port, at.port(), SYN)))?;
    }
    Ok(())
}

/// What nodes have opened by what the network sends.
fn opened(stage: &Stage) -> Result<u64> {
    stage.lab.nodes.iter().map(|node| node.counter("from_net", "opened")).sum()
}

#[test]
fn whoever_opens_connections_and_never_answers_is_in_nobodys_way() -> Result<()> {
    let mut stage = Stage::set(PACKETS)?;
    for node in 1..=stage.lab.nodes.len() {
        stage.turn_node(node, &format!("flow_entries: {ENTRIES}"))?;
    }
    for node in &stage.lab.nodes {
        for (net, via) in ["198.51.100.0/24", "2001:db8:bad::/64"].into_iter().zip(stage.lab.stranger_addresses()) {
            node.place.ip(&format!("route replace {net} via {via}"))?;
        }
    }
    let spec = |app, ports| format!("type: NodePort, selector: {{{app}: yes}}, {ports}");
    let web = world().pods("a1", "web: yes, kept: yes").pods("a2", "web: yes");
    let web = web.service("web", 10, &spec("web", ports("80>8080@30080")));
    stage.play(&web.service("kept", 11, &spec("kept", ports("90>9000@30090"))))?;

    let listener = stage.place("a1")?.inside(|| Ok(TcpListener::bind("[::]:9000")?))?;
    let mut kept = Vec::new();
    for (from, at) in [("stranger", "n1:30090"), ("stranger", "n3:30090"), ("c3", "n2:30090")] {
        for at in stage.at(at)? {
            kept.push(Connection::make(&stage, from, at, &listener)?);
        }
    }
    kept.iter().try_for_each(Connection::goes_on)?;

    let before = opened(&stage)?;
    // What is pushed out before it is answered, TCP sends again.
    Crowd::gather(&stage)?.asks_while(&[Means::Tcp], || {
        let at = [stage.at("n1:30080")?, stage.at("n3:30080")?].concat();
        stage.place("stranger")?.inside(|| at.into_iter().try_for_each(flood))
    })?;
    let opened = opened(&stage)? - before;
    ensure!(opened > u64::from(4 * ENTRIES), "only {opened} flows were opened");
    kept.iter().try_for_each(Connection::goes_on)
}
