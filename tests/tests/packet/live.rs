//! The programs at real devices: what the kernel does with packets before and after them, which test runs do not show.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_abi::{Hook, Node, Reason, Routing, RuleSetId};
use sluice_policy::{PodName, Step};
use sluice_tests::packet::addresses::{NATIVE_POD, NODE, OUTSIDE, OVERLAY_NODE, OVERLAY_POD, POD_A, Pair};
use sluice_tests::packet::{Both, Build, Ip, Recipe, Transport, Wire, checksums_hold, mac};

/// The link-layer address of a neighbour of the scene, by the last byte of its address.
const fn neighbour(last: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, last]
}

fn packets(from: Pair, to: Pair) -> [Vec<u8>; 2] {
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac: mac(0xa), ip, transport: Transport::Udp(4000, 53), payload: 33 }.build())
}

/// The same frame in a VLAN.
fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &vlan.to_be_bytes(), &frame[12..]].concat()
}

fn await_count(both: &Both, hook: Hook, reason: Reason, count: u64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let counted = both.kernel.counter(reason.index(hook))?;
        if counted == count {
            return Ok(());
        }
        ensure!(
            counted < count && Instant::now() < deadline,
            "{hook:?}: {reason:?} counted {counted} times, not {count}"
        );
        std::thread::yield_now();
    }
}

/// Source address of a packet.
fn source(packet: &[u8]) -> &[u8] {
    if packet[12] == 0x86 { &packet[22..38] } else { &packet[26..30] }
}

fn octets(family: usize, pair: Pair) -> Vec<u8> {
    if family == 0 { pair.0.octets().to_vec() } else { pair.1.octets().to_vec() }
}

#[test]
fn what_leaves_goes_to_the_next_hop_by_the_uplink() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_pod", "sla")?;
    let (pod, far) = (Wire::of("pa")?, Wire::of("far")?);
    for (to, hop, own) in [(OUTSIDE, neighbour(0xfe), NODE), (NATIVE_POD, neighbour(2), POD_A)] {
        for (family, packet) in packets(POD_A, to).iter().enumerate() {
            pod.send(packet)?;
            let left = far.receive(|frame| frame[..6] == hop)?;
            assert_eq!(source(&left), octets(family, own));
            assert_eq!(left.len(), packet.len());
            assert!(checksums_hold(&left));
        }
    }
    Ok(())
}

/// Where in a frame of the overlay the VXLAN header is, by the family of its outer header.
fn vxlan(frame: &[u8]) -> Option<usize> {
    let udp = match (&frame[12..14], frame[23], frame[20]) {
        ([0x08, 0x00], 17, _) => 14 + 20,
        ([0x86, 0xdd], _, 17) => 14 + 40,
        _ => return None,
    };
    (frame[udp + 2..udp + 4] == 8472_u16.to_be_bytes()).then_some(udp + 8)
}

#[test]
fn the_overlay_takes_a_packet_to_the_node_of_its_pod() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_pod", "sla")?;
    let (pod, far) = (Wire::of("pa")?, Wire::of("far")?);
    for (outer, routing) in [Routing::Overlay4, Routing::Overlay6].into_iter().enumerate() {
        both.node(2, Node { ipv4: OVERLAY_NODE.0.into(), ipv6: OVERLAY_NODE.1.into(), routing })?;
        for packet in packets(POD_A, OVERLAY_POD) {
            pod.send(&packet)?;
            let left = far.receive(|frame| vxlan(frame).is_some())?;
            let at = vxlan(&left).unwrap();
            assert_eq!(left[..6], neighbour(3));
            let remote = if outer == 0 { left[30..34].to_vec() } else { left[38..54].to_vec() };
            assert_eq!(remote, octets(outer, OVERLAY_NODE));
            assert_eq!(left[at..at + 8], [8, 0, 0, 0, 0, 0, 7, 0], "no flag but the one of the identifier, which is 7");
            assert_eq!(left[at + 8..], packet);
        }
    }
    Ok(())
}

/// A packet in the overlay, from a node to the uplink with this address, by IPv4 (0) or IPv6 (1).
fn tunnelled(node: Pair, uplink: [u8; 6], outer: usize, inner: &[u8]) -> Vec<u8> {
    let ip = [Ip::v4(node.0, NODE.0), Ip::v6(node.1, NODE.1)][outer].clone();
    let rest = [&[8, 0, 0, 0, 0, 0, 7, 0], inner].concat();
    let transport = Transport::UdpWith(4000, 8472, rest);
    let mut frame = Recipe { mac: neighbour(3), ip, transport, payload: 0 }.build();
    frame[..6].copy_from_slice(&uplink);
    frame
}

#[test]
fn the_overlay_brings_what_the_senders_node_may_send() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_overlay", "sluice_vxlan")?;
    let (far, uplink) = (Wire::of("far")?, Wire::of("eth0")?.mac());
    let from = |node, outer: usize, inner: &[u8]| tunnelled(node, uplink, outer, inner);
    let mut expected = (0, 0, 0);
    for outer in 0..2 {
        for (inner, forged) in packets(OVERLAY_POD, POD_A).iter().zip(packets(NATIVE_POD, POD_A)) {
            both.clear()?;
            far.send(&from(OVERLAY_NODE, outer, inner))?;
            expected.0 += 1;
            await_count(&both, Hook::FromOverlay, Reason::Opened, expected.0)?;
            far.send(&from(OVERLAY_NODE, outer, &forged))?;
            expected.1 += 1;
            await_count(&both, Hook::FromOverlay, Reason::UnknownTunnel, expected.1)?;
            far.send(&from(OVERLAY_NODE, outer, &tagged(inner, 100)))?;
            expected.2 += 1;
            await_count(&both, Hook::FromOverlay, Reason::UnknownEtherType, expected.2)?;
        }
    }
    Ok(())
}

#[test]
fn what_the_overlay_brings_is_judged_by_the_receivers_policies() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_overlay", "sluice_vxlan")?;
    let (far, uplink) = (Wire::of("far")?, Wire::of("eth0")?.mac());
    let pod = PodName::new("x", "a");
    both.enforce(&pod, 1)?;
    for (count, inner) in (1..).zip(packets(OVERLAY_POD, POD_A)) {
        far.send(&tunnelled(OVERLAY_NODE, uplink, 0, &inner))?;
        await_count(&both, Hook::FromOverlay, Reason::Policy, count)?;
    }
    both.make(&[Step::SetRuleSet(pod, RuleSetId::OPEN)])?;
    for (count, inner) in (1..).zip(packets(OVERLAY_POD, POD_A)) {
        far.send(&tunnelled(OVERLAY_NODE, uplink, 0, &inner))?;
        await_count(&both, Hook::FromOverlay, Reason::Opened, count)?;
    }
    Ok(())
}

#[test]
fn pods_do_not_reach_into_vlans() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_pod", "sla")?;
    let (pod, far) = (Wire::of("pa")?, Wire::of("far")?);
    for (sent, packet) in packets(POD_A, OUTSIDE).iter().enumerate() {
        pod.send(&tagged(packet, 100))?;
        await_count(&both, Hook::FromPod, Reason::UnknownEtherType, sent as u64 + 1)?;
        // The next that leaves is one without a tag.
        pod.send(packet)?;
        let left = far.receive(|frame| frame[12..14] == [0x81, 0x00] || frame[..6] == neighbour(0xfe))?;
        assert_eq!(left[12..14], packet[12..14]);
    }
    Ok(())
}

#[test]
fn what_comes_in_for_a_vlans_own_device_is_left_to_it() -> Result<()> {
    let mut both = Both::set()?;
    both.kernel.attach("from_net", "eth0")?;
    let (far, uplink) = (Wire::of("far")?, Wire::of("eth0")?.mac());
    for (family, mut packet) in packets(NATIVE_POD, POD_A).into_iter().enumerate() {
        let opened = 2 * family as u64;
        packet[..6].copy_from_slice(&uplink);
        let mut other = packet.clone();
        let port = if other[12] == 0x86 { 14 + 40 } else { 14 + 20 };
        other[port + 1] += 1;
        far.send(&tagged(&packet, 100))?;
        // A tag with a priority alone names no other device.
        far.send(&tagged(&other, 7 << 13))?;
        await_count(&both, Hook::FromNet, Reason::Opened, opened + 1)?;
        far.send(&packet)?;
        await_count(&both, Hook::FromNet, Reason::Opened, opened + 2)?;
    }
    Ok(())
}
