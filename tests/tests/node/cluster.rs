//! Who reaches whom.

use std::net::IpAddr;

use anyhow::Result;
use sluice_tests::lab::traffic::{is_refused, ping, tcp, udp};
use sluice_tests::lab::{Families, Lab, Place, Plan, Pod};

/// A megabyte: large segments on every path that has them.
const MUCH: usize = 1 << 20;

fn talk(client: &Place, server: &Place, address: IpAddr, seen_as: &[IpAddr]) -> Result<()> {
    ping(client, address)?;
    for seen in [tcp(client, server, address, MUCH)?, udp(client, server, address, 1000)?] {
        assert!(seen_as.contains(&seen), "{} is seen as {seen} by {}", client.name, server.name);
    }
    Ok(())
}

/// Each line of what a cluster promises.
fn everybody_talks(plan: Plan) -> Result<()> {
    let lab = Lab::start(plan)?;
    let (first, last) = (&lab.nodes[0], &lab.nodes[lab.nodes.len() - 1]);
    let a: Pod = lab.pod(1, "a")?;
    let b = lab.pod(1, "b")?;
    let c = lab.pod(lab.nodes.len(), "c")?;
    for pod in [&b, &c] {
        for address in &pod.addresses {
            talk(&a.place, &pod.place, *address, &a.addresses)?;
        }
        for address in &a.addresses {
            talk(&pod.place, &a.place, *address, &pod.addresses)?;
        }
    }
    for node in [first, last] {
        for address in &node.addresses {
            talk(&a.place, &node.place, *address, &a.addresses)?;
        }
        for address in &a.addresses {
            talk(&node.place, &a.place, *address, &node.addresses)?;
        }
    }
    for address in lab.stranger_addresses() {
        talk(&a.place, &lab.stranger, address, &first.addresses)?;
        is_refused(&a.place, address)?;
        udp(&a.place, &lab.stranger, address, 4000)?;
    }
    for address in &c.addresses {
        // Its pieces may be too large for the overlay, of which each side learns by a datagram that is lost.
        let large = || udp(&a.place, &c.place, *address, 4000);
        large().or_else(|_| large()).or_else(|_| large())?;
        is_refused(&a.place, *address)?;
    }
    for own in ["127.0.0.1", "::1"] {
        tcp(&a.place, &a.place, own.parse()?, 100)?;
    }
    for address in &a.addresses {
        tcp(&a.place, &a.place, *address, 100)?;
    }
    Ok(())
}

#[test]
fn natively_over_both_families() -> Result<()> {
    everybody_talks(Plan { routing: "native", ..Plan::default() })
}

#[test]
fn through_the_overlay_over_both_families() -> Result<()> {
    everybody_talks(Plan { routing: "vxlan", ..Plan::default() })
}

#[test]
fn natively_over_ipv4() -> Result<()> {
    everybody_talks(Plan { routing: "native", families: Families::V4, ..Plan::default() })
}

#[test]
fn natively_over_ipv6() -> Result<()> {
    everybody_talks(Plan { routing: "native", families: Families::V6, ..Plan::default() })
}

#[test]
fn through_the_overlay_over_ipv4() -> Result<()> {
    everybody_talks(Plan { routing: "vxlan", families: Families::V4, ..Plan::default() })
}

#[test]
fn through_the_overlay_over_ipv6() -> Result<()> {
    everybody_talks(Plan { routing: "vxlan", families: Families::V6, ..Plan::default() })
}

#[test]
fn automatically_across_a_router() -> Result<()> {
    everybody_talks(Plan { nodes: 3, routed: true, ..Plan::default() })
}

#[test]
fn a_narrow_way_out_makes_pods_send_smaller_packets() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 2, routed: true, routing: "vxlan", stranger_mtu: 1400, ..Plan::default() })?;
    let a = lab.pod(1, "a")?;
    for address in lab.stranger_addresses() {
        tcp(&a.place, &lab.stranger, address, MUCH)?;
    }
    Ok(())
}
