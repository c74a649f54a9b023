//! What a pod may claim to be, and what packets may look like.

use std::net::Ipv6Addr;

use anyhow::Result;
use sluice_abi::{Hook, Reason};
use sluice_tests::packet::addresses::{GROUP, NATIVE_POD, NODE, OUTSIDE, POD_A, POD_B, Pair, ROUTER};
use sluice_tests::packet::{Both, Ip, Recipe, Transport, Verdict, mac};

fn packets(from: Pair, to: Pair, mac: [u8; 6]) -> [Vec<u8>; 2] {
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac, ip, transport: Transport::Udp(1000, 53), payload: 8 }.build())
}

fn dropped(both: &mut Both, interface: u32, packet: &[u8]) -> Result<Reason> {
    match both.run(Hook::FromPod, interface, packet)?.verdict {
        Verdict::Drop(reason) => Ok(reason),
        other => anyhow::bail!("not dropped but {other:?}: {packet:02x?}"),
    }
}

#[test]
fn a_pod_sends_only_from_its_own_addresses() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for source in [POD_B, OUTSIDE, NODE] {
        for packet in packets(source, OUTSIDE, mac(0xa)) {
            assert_eq!(dropped(&mut both, a, &packet)?, Reason::ForgedSource);
        }
    }
    for packet in packets(POD_A, OUTSIDE, mac(0xb)) {
        assert_eq!(dropped(&mut both, a, &packet)?, Reason::ForgedMac);
    }
    for packet in packets(POD_A, GROUP, mac(0xa)) {
        assert_eq!(dropped(&mut both, a, &packet)?, Reason::Multicast);
    }
    // Not even on a flow of the pod whose address it is.
    for packet in packets(POD_A, POD_B, mac(0xa)) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Pod(b));
        assert_eq!(dropped(&mut both, b, &packet)?, Reason::ForgedSource);
        let mut forged = packet.clone();
        forged[6..12].copy_from_slice(&mac(0xb));
        assert_eq!(dropped(&mut both, a, &forged)?, Reason::ForgedMac);
    }
    both.compare_flows()?;
    both.compare_counters()
}

fn arp(ethernet: [u8; 6], sender: [u8; 6], address: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut packet = [[0xff; 6], ethernet].concat();
    packet.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    packet.extend(sender);
    packet.extend(address);
    packet.extend([0; 6]);
    packet.extend(target);
    packet
}

#[test]
fn a_pod_speaks_arp_only_of_itself() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let (own, other) = (POD_A.0.octets(), POD_B.0.octets());
    let gateway = [169, 254, 1, 1];
    for good in [arp(mac(0xa), mac(0xa), own, gateway), arp(mac(0xa), mac(0xa), [0; 4], own)] {
        assert_eq!(both.run(Hook::FromPod, a, &good)?.verdict, Verdict::Pass);
    }
    for bad in [
        arp(mac(0xa), mac(0xa), other, gateway),
        arp(mac(0xa), mac(0xb), own, gateway),
        arp(mac(0xb), mac(0xa), own, gateway),
        arp(mac(0xa), mac(0xa), [0; 4], other),
        arp(mac(0xa), mac(0xa), gateway, own),
    ] {
        assert_eq!(dropped(&mut both, a, &bad)?, Reason::ForgedArp);
    }
    let truncated = &arp(mac(0xa), mac(0xa), own, gateway)[..30];
    assert_eq!(dropped(&mut both, a, truncated)?, Reason::Truncated);
    Ok(())
}

/// The address that all pods know as their gateway's.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn neighbour(kind: u8, from: Ipv6Addr, target: Ipv6Addr, link: Option<[u8; 6]>) -> Vec<u8> {
    neighbour_to(GATEWAY, kind, from, target, link)
}

fn neighbour_to(to: Ipv6Addr, kind: u8, from: Ipv6Addr, target: Ipv6Addr, link: Option<[u8; 6]>) -> Vec<u8> {
    let mut rest = vec![0x60, 0, 0, 0];
    rest.extend(target.octets());
    if let Some(link) = link {
        rest.extend([2, 1]);
        rest.extend(link);
    }
    Recipe { mac: mac(0xa), ip: Ip::v6(from, to), transport: Transport::Icmp(kind, 0, rest), payload: 0 }.build()
}

#[test]
fn a_pod_advertises_only_itself_and_no_router() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let own = POD_A.1;
    for good in
        [neighbour(136, own, own, Some(mac(0xa))), neighbour(136, own, own, None), neighbour(135, own, POD_B.1, None)]
    {
        assert_eq!(both.run(Hook::FromPod, a, &good)?.verdict, Verdict::Pass);
    }
    for bad in [
        neighbour(136, own, POD_B.1, Some(mac(0xa))),
        neighbour(136, own, own, Some(mac(0xb))),
        neighbour(134, own, own, None),
        neighbour(137, own, own, None),
        neighbour(136, POD_B.1, own, Some(mac(0xa))),
    ] {
        assert_eq!(dropped(&mut both, a, &bad)?, Reason::ForgedNeighbour);
    }
    assert_eq!(dropped(&mut both, a, &redirect(POD_A, POD_B))?, Reason::ForgedNeighbour);
    Ok(())
}

/// An IPv4 redirect.
fn redirect(from: Pair, to: Pair) -> Vec<u8> {
    let transport = Transport::Icmp(5, 1, vec![0; 32]);
    Recipe { mac: mac(0xa), ip: Ip::v4(from.0, to.0), transport, payload: 0 }.build()
}

#[test]
fn neighbours_talk_to_neighbours_only() -> Result<()> {
    let mut both = Both::set()?;
    let (a, own) = (both.scene.pod_a, POD_A.1);
    let solicited = "ff02::1:ff00:3".parse()?;
    for near in [GATEWAY, solicited, NODE.1] {
        for packet in [neighbour_to(near, 135, own, near, None), neighbour_to(near, 136, own, own, None)] {
            assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Pass);
        }
    }
    for far in [POD_B.1, OUTSIDE.1, NATIVE_POD.1] {
        for packet in [neighbour_to(far, 135, own, far, None), neighbour_to(far, 136, own, own, None)] {
            assert_eq!(dropped(&mut both, a, &packet)?, Reason::ForgedNeighbour);
        }
    }
    let to_a = |kind, from| neighbour_to(own, kind, from, from, None);
    for packet in [to_a(135, NODE.1), to_a(136, GATEWAY)] {
        assert_eq!(both.run(Hook::ToPod, a, &packet)?.verdict, Verdict::Pass);
    }
    let forged = [to_a(134, OUTSIDE.1), to_a(136, NATIVE_POD.1), to_a(137, POD_B.1), redirect(OUTSIDE, POD_A)];
    for packet in &forged {
        for (hook, interface) in [(Hook::ToPod, a), (Hook::FromNet, both.scene.uplink)] {
            assert_eq!(both.run(hook, interface, packet)?.verdict, Verdict::Drop(Reason::ForgedNeighbour));
        }
    }
    let router = neighbour_to(NODE.1, 134, ROUTER.1, ROUTER.1, None);
    assert_eq!(both.run(Hook::FromNet, both.scene.uplink, &router)?.verdict, Verdict::Pass, "the node's own");
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn headers_that_lie_are_dropped_with_the_reason() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let good = packets(POD_A, POD_B, mac(0xa));
    let mut broken = |family: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good[family].clone();
        change(&mut packet);
        dropped(&mut both, a, &packet)
    };
    assert_eq!(broken(0, &|p| p[14] = 0x55)?, Reason::Malformed, "version 5");
    assert_eq!(broken(0, &|p| p[14] = 0x44)?, Reason::Malformed, "a header of 16 bytes");
    assert_eq!(broken(0, &|p| p[17] = 10)?, Reason::Malformed, "shorter than its header");
    assert_eq!(broken(0, &|p| p[17] = 27)?, Reason::Truncated, "the UDP header ends behind it");
    assert_eq!(broken(0, &|p| p[17] = 0)?, Reason::Truncated, "only large segments may claim nothing");
    assert_eq!(broken(1, &|p| p[19] = 7)?, Reason::Truncated);
    assert_eq!(broken(1, &|p| p[19] = 0)?, Reason::Truncated);
    assert_eq!(broken(0, &|p| p.truncate(40))?, Reason::Truncated);
    assert_eq!(broken(1, &|p| p.truncate(60))?, Reason::Truncated);
    assert_eq!(broken(1, &|p| p[14] = 0x50)?, Reason::Malformed, "version 5");
    assert_eq!(broken(0, &|p| p[12] = 0x88)?, Reason::UnknownEtherType);

    let with_options = |options: &[u8]| {
        let ip = Ip::V4 { source: POD_A.0, destination: POD_B.0, options: options.to_vec(), fragment: (0, false) };
        Recipe { mac: mac(0xa), ip, transport: Transport::Udp(1, 2), payload: 4 }.build()
    };
    assert_eq!(dropped(&mut both, a, &with_options(&[131, 7, 4, 1, 2, 3, 4, 0]))?, Reason::SourceRouted);
    assert_eq!(dropped(&mut both, a, &with_options(&[1, 137, 7, 4, 1, 2, 3, 4]))?, Reason::SourceRouted);
    assert_eq!(dropped(&mut both, a, &with_options(&[7, 1, 4, 0]))?, Reason::Malformed);
    assert_eq!(dropped(&mut both, a, &with_options(&[1; 12]))?, Reason::TooManyHeaders);
    let recorded = with_options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    assert_eq!(both.run(Hook::FromPod, a, &recorded)?.verdict, Verdict::Pod(both.scene.pod_b));

    let with_extensions = |extensions: Vec<(u8, Vec<u8>)>| {
        let ip = Ip::V6 { source: POD_A.1, destination: POD_B.1, extensions };
        Recipe { mac: mac(0xa), ip, transport: Transport::Udp(1, 2), payload: 4 }.build()
    };
    let hop = (0, vec![0, 1, 4, 0, 0, 0, 0]);
    let destination = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let routed = (43, vec![0, 0, 1, 0, 0, 0, 0]);
    let good = with_extensions(vec![hop, destination.clone()]);
    assert_eq!(both.run(Hook::FromPod, a, &good)?.verdict, Verdict::Pod(both.scene.pod_b));
    assert_eq!(dropped(&mut both, a, &with_extensions(vec![routed]))?, Reason::SourceRouted);
    assert_eq!(dropped(&mut both, a, &with_extensions(vec![destination; 9]))?, Reason::TooManyHeaders);
    // Eight long ones would lead beyond what is looked at, and back to its start where offsets wrap.
    let long = (60, [vec![63], vec![0; 6 + 63 * 8]].concat());
    assert_eq!(dropped(&mut both, a, &with_extensions(vec![long; 2]))?, Reason::TooManyHeaders);
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn fragments_follow_their_first() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let piece4 = |offset, more| {
        let ip = Ip::V4 { source: POD_A.0, destination: POD_B.0, options: vec![], fragment: (offset, more) };
        Recipe { mac: mac(0xa), ip, transport: Transport::Udp(7, 8), payload: 24 }.build()
    };
    let piece6 = |offset: u16, more: bool| {
        let place = (offset << 3 | u16::from(more)).to_be_bytes();
        let ip = Ip::V6 {
            source: POD_A.1,
            destination: POD_B.1,
            extensions: vec![(44, vec![0, place[0], place[1], 0, 0, 0, 9])],
        };
        Recipe { mac: mac(0xa), ip, transport: Transport::Udp(7, 8), payload: 24 }.build()
    };
    for (first, later) in [(piece4(0, true), piece4(4, false)), (piece6(0, true), piece6(4, false))] {
        assert_eq!(dropped(&mut both, a, &later)?, Reason::OrphanFragment);
        assert_eq!(both.run(Hook::FromPod, a, &first)?.verdict, Verdict::Pod(b));
        assert_eq!(both.run(Hook::FromPod, a, &later)?.verdict, Verdict::Pod(b));
    }
    both.compare_flows()?;
    both.compare_counters()
}
