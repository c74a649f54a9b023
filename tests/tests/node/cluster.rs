//! Who reaches whom.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::{Context, Result};
use sluice_tests::lab::traffic::{fits, is_refused, ping, tcp, udp};
use sluice_tests::lab::{Families, Lab, Place, Plan, Pod, until_so};

/// A megabyte: large segments on every path that has them.
const MUCH: usize = 1 << 20;
/// What takes longer than any window, queue or turn of a CPU.
const VERY_MUCH: usize = 64 << 20;

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
    for (pod, node) in [(&a, first), (&c, last)] {
        for address in lab.stranger_addresses() {
            talk(&pod.place, &lab.stranger, address, &node.addresses)?;
            is_refused(&pod.place, address)?;
            udp(&pod.place, &lab.stranger, address, 4000)?;
        }
    }
    for address in &c.addresses {
        tcp(&a.place, &c.place, *address, VERY_MUCH)?;
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

/// Pods' packets are as large as the way to other nodes has room for, and smaller where the way out is narrower.
fn a_narrow_way_out_makes_pods_send_smaller_packets(routing: &'static str, sizes: [(Families, u32); 3]) -> Result<()> {
    for (families, mtu) in sizes {
        let lab =
            Lab::start(Plan { nodes: 1, routing, families, routed: true, stranger_mtu: 1400, ..Plan::default() })?;
        let a = lab.pod(1, "a")?;
        assert_eq!(a.result["interfaces"][1]["mtu"], mtu, "{families:?}");
        for address in &lab.nodes[0].addresses {
            assert!(fits(&a.place, *address, mtu)?, "{mtu} to {address}");
            assert!(!fits(&a.place, *address, mtu + 1)?, "{mtu} and one more to {address}");
        }
        for address in lab.stranger_addresses() {
            tcp(&a.place, &lab.stranger, address, MUCH)?;
            assert!(!fits(&a.place, address, mtu)?, "{mtu} to {address}");
            assert!(fits(&a.place, address, 1400)?, "1400 to {address}");
            assert!(!fits(&a.place, address, 1401)?, "1401 to {address}");
        }
    }
    Ok(())
}

#[test]
fn a_narrow_way_out_makes_pods_send_smaller_packets_natively() -> Result<()> {
    let sizes = [(Families::V4, 1500), (Families::V6, 1500), (Families::Dual, 1500)];
    a_narrow_way_out_makes_pods_send_smaller_packets("native", sizes)
}

#[test]
fn a_narrow_way_out_makes_pods_send_smaller_packets_in_the_overlay() -> Result<()> {
    // Its header has 50 bytes over IPv4, which it goes over where there is a choice, and 70 over IPv6.
    let sizes = [(Families::V4, 1450), (Families::V6, 1430), (Families::Dual, 1450)];
    a_narrow_way_out_makes_pods_send_smaller_packets("vxlan", sizes)
}

#[test]
fn some_see_pods_with_their_own_addresses() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let a = lab.pod(1, "a")?;
    let node = lab.nodes[0].addresses.clone();
    // The stranger knows the way back to pods.
    for (cidr, via) in lab.nodes[0].pod_cidrs.iter().zip(&node) {
        lab.stranger.ip(&format!("route add {cidr} via {via}"))?;
    }
    let (v4, v6) = ("192.0.2.100", "2001:db8::64");
    assert_eq!(lab.stranger_addresses(), [v4, v6].map(|address| address.parse::<IpAddr>().unwrap()));
    let cases = [
        (String::new(), false, false),
        (format!("exempt: [{v4}/32, '2001:db8::65/128']"), true, false),
        (format!("exempt: [192.0.2.101/32, '{v6}/128']"), false, true),
        ("exempt: [192.0.2.0/24, '2001:db8::/32']".into(), true, true),
        ("ipv4: false".into(), true, false),
        ("ipv6: false".into(), false, true),
    ];
    for (settings, own4, own6) in cases {
        lab.nodes[0].restart_with(&format!("masquerade: {{{settings}}}\n"))?;
        for address in lab.stranger_addresses() {
            let as_own = if address.is_ipv4() { own4 } else { own6 };
            let seen_as = if as_own { &a.addresses } else { &node };
            talk(&a.place, &lab.stranger, address, seen_as).with_context(|| settings.clone())?;
        }
        for address in &a.addresses {
            talk(&lab.stranger, &a.place, *address, &lab.stranger_addresses()).with_context(|| settings.clone())?;
        }
    }
    Ok(())
}

#[test]
fn source_ports_that_run_out_are_told_of() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let a = lab.pod(1, "a")?;
    lab.nodes[0].restart_with("masquerade: {port_first: 1024, port_last: 1025}\n")?;
    let is_told = || {
        let named = |problem: &String| problem.contains("none of the ports 1024 to 1025");
        Ok(lab.nodes[0].status()?.problems.iter().any(named))
    };
    let sockets = a.place.inside(|| {
        let bind = |_| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?);
        (0..3).map(bind).collect::<Result<Vec<_>>>()
    })?;
    let send = |sockets: &[UdpSocket]| {
        sockets.iter().try_for_each(|socket| socket.send_to(b"?", (lab.stranger_addresses()[0], 9)).map(drop))
    };
    send(&sockets[..2])?;
    assert!(!is_told()?, "there are two");
    until_so("that there is no third is told", || {
        send(&sockets)?;
        is_told()
    })
}
