//! Services: who is served by whom, from where.

use anyhow::Result;
use sluice_abi::{AddressKind, Features, Hook, IpAddress, Ipv4, Ipv6, Port, Protocol, Reason, RevisionSlot, Timeouts};
use sluice_datapath::socket::{self, Talk};
use sluice_tests::packet::addresses::{
    NATIVE_NODE, NATIVE_POD, NODE, OUTSIDE, OVERLAY_POD, POD_A, POD_B, Pair, ROUTER,
};
use sluice_tests::packet::{
    Both, Build, Bytes, Ip, Recipe, Served, Serving, Transport, Verdict, checksums_hold, mac, reversed,
};
use std::net::{Ipv4Addr, Ipv6Addr};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// A cluster IP.
const VIP: Pair = (Ipv4Addr::new(10, 96, 0, 10), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa));
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
/// The port that backends listen at.
const TARGET: u16 = 8080;
/// The only port that the scene's node has for translated sources.
const CLAIMED: u16 = 20_000;

fn packets(from: Pair, to: Pair, transport: &Transport, mac_of: u8) -> [Vec<u8>; 2] {
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac: mac(mac_of), ip, transport: transport.clone(), payload: 33 }.build())
}

fn tcp(from: (Pair, u16), to: (Pair, u16), flags: u8, mac_of: u8) -> [Vec<u8>; 2] {
    packets(from.0, to.0, &Transport::Tcp(from.1, to.1, flags), mac_of)
}

fn udp(from: (Pair, u16), to: (Pair, u16), mac_of: u8) -> [Vec<u8>; 2] {
    packets(from.0, to.0, &Transport::Udp(from.1, to.1), mac_of)
}

/// Both ends of a packet with a transport header right behind the network header: addresses and ports.
fn ends(packet: &[u8]) -> ((Vec<u8>, u16), (Vec<u8>, u16)) {
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[12] == 0x86 {
        ((packet[22..38].to_vec(), port(54)), (packet[38..54].to_vec(), port(56)))
    } else {
        ((packet[26..30].to_vec(), port(34)), (packet[30..34].to_vec(), port(36)))
    }
}

fn end(family: usize, (pair, port): (Pair, u16)) -> (Vec<u8>, u16) {
    (if family == 0 { pair.0.octets().to_vec() } else { pair.1.octets().to_vec() }, port)
}

fn words(family: usize, pair: Pair) -> [u32; 4] {
    if family == 0 { Ipv4::from(pair.0).words() } else { Ipv6::from(pair.1).words() }
}

/// A scene with a cluster IP and a node port, each with these backends, for TCP and UDP.
fn scene(backends: &[(Pair, u16)]) -> Result<Both> {
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    for protocol in [Protocol::TCP, Protocol::UDP] {
        both.serve(&Served::new(VIP, PORT, protocol, backends))?;
        both.serve(&Served::node_port(NODE_PORT, protocol, backends))?;
    }
    both.reject_rest(VIP)?;
    Ok(both)
}

#[test]
fn a_pod_reaches_a_backend_on_its_node_by_the_services_address() -> Result<()> {
    let mut both = scene(&[(POD_B, TARGET)])?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for transport in [Transport::Tcp(4000, PORT, SYN), Transport::Udp(4000, PORT), Transport::UdpUnchecked(4001, PORT)]
    {
        for (family, packet) in packets(POD_A, VIP, &transport, 0xa).iter().enumerate() {
            let sent = both.run(Hook::FromPod, a, packet)?;
            assert_eq!(sent.verdict, Verdict::Pod(b));
            assert_eq!(ends(&sent.data).1, end(family, (POD_B, TARGET)));
            assert!(checksums_hold(&sent.data), "{transport:?} {:02x?}", sent.data);
            let answer = from(0xb, reversed(&sent.data, SYN | ACK));
            let back = both.run(Hook::FromPod, b, &answer)?;
            assert_eq!(back.verdict, Verdict::Pod(a));
            assert_eq!(back.data, from(0xb, reversed(packet, SYN | ACK)), "as if the service had answered");
            assert!(checksums_hold(&back.data));
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

/// The same packet from the pod with this link-layer address.
fn from(mac_of: u8, mut packet: Vec<u8>) -> Vec<u8> {
    packet[6..12].copy_from_slice(&mac(mac_of));
    packet
}

#[test]
fn an_established_connection_to_a_service_costs_one_lookup() -> Result<()> {
    let mut both = scene(&[(POD_B, TARGET)])?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for packet in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa) {
        let sent = both.run(Hook::FromPod, a, &packet)?;
        both.run(Hook::FromPod, b, &from(0xb, reversed(&sent.data, SYN | ACK)))?;
    }
    for packet in tcp((POD_A, 4000), (VIP, PORT), ACK, 0xa) {
        both.run(Hook::FromPod, a, &packet)?;
        let before = both.native.lookups.get();
        let sent = both.run(Hook::FromPod, a, &packet)?;
        assert_eq!(both.native.lookups.get() - before, 1);
        let before = both.native.lookups.get();
        both.run(Hook::FromPod, b, &from(0xb, reversed(&sent.data, ACK)))?;
        assert_eq!(both.native.lookups.get() - before, 1);
    }
    Ok(())
}

#[test]
fn a_pod_reaches_backends_on_other_nodes_with_its_own_address() -> Result<()> {
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa).iter().enumerate() {
        let sent = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(sent.verdict, Verdict::Neighbour(words(family, NATIVE_NODE)));
        assert_eq!(ends(&sent.data), (end(family, (POD_A, 4000)), end(family, (NATIVE_POD, TARGET))));
        let back = both.run(Hook::FromNet, uplink, &reversed(&sent.data, SYN | ACK))?;
        assert_eq!(back.verdict, Verdict::Pod(a));
        assert_eq!(back.data, reversed(packet, SYN | ACK));
    }
    let mut both = scene(&[(OVERLAY_POD, TARGET)])?;
    for packet in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Overlay(2));
    }
    both.compare_flows()
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    let mut both = scene(&[(POD_A, TARGET)])?;
    let a = both.scene.pod_a;
    for (family, packet) in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa).iter().enumerate() {
        let sent = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(sent.verdict, Verdict::Pod(a));
        assert_eq!(ends(&sent.data), (end(family, (NODE, CLAIMED)), end(family, (POD_A, TARGET))));
        assert!(checksums_hold(&sent.data));
        let back = both.run(Hook::FromPod, a, &from(0xa, reversed(&sent.data, SYN | ACK)))?;
        assert_eq!(back.verdict, Verdict::Pod(a));
        assert_eq!(back.data, from(0xa, reversed(packet, SYN | ACK)));
    }
    both.compare_flows()
}

#[test]
fn from_outside_a_backend_of_this_node_sees_its_clients_address() -> Result<()> {
    let mut both = scene(&[(POD_A, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for at in [(NODE, NODE_PORT), (VIP, PORT)] {
        for (family, packet) in tcp((OUTSIDE, 4000), at, SYN, 0).iter().enumerate() {
            let came = both.run(Hook::FromNet, uplink, packet)?;
            assert_eq!(came.verdict, Verdict::Pod(a));
            assert_eq!(ends(&came.data), (end(family, (OUTSIDE, 4000)), end(family, (POD_A, TARGET))));
            assert!(checksums_hold(&came.data));
            // Both frontends have the same client, which the backend takes for the same.
            let answer = from(0xa, reversed(&came.data, SYN | ACK));
            let back = both.run(Hook::FromPod, a, &answer)?;
            assert_eq!(back.verdict, Verdict::Neighbour(words(family, ROUTER)));
            assert_eq!(back.data, from(0xa, reversed(packet, SYN | ACK)));
        }
        both.clear()?;
    }
    both.compare_counters()
}

#[test]
fn from_outside_a_backend_elsewhere_sees_this_nodes_address() -> Result<()> {
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let uplink = both.scene.uplink;
    for (family, packet) in tcp((OUTSIDE, 4000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        let came = both.run(Hook::FromNet, uplink, packet)?;
        assert_eq!(came.verdict, Verdict::Neighbour(words(family, NATIVE_NODE)));
        assert_eq!(ends(&came.data), (end(family, (NODE, CLAIMED)), end(family, (NATIVE_POD, TARGET))));
        assert!(checksums_hold(&came.data));
        let back = both.run(Hook::FromNet, uplink, &reversed(&came.data, SYN | ACK))?;
        assert_eq!(back.verdict, Verdict::Neighbour(words(family, ROUTER)));
        assert_eq!(back.data, reversed(packet, SYN | ACK));
        assert!(checksums_hold(&back.data));
    }
    both.compare_flows()?;
    let mut both = scene(&[(OVERLAY_POD, TARGET)])?;
    for (family, packet) in tcp((OUTSIDE, 4000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        let came = both.run(Hook::FromNet, uplink, packet)?;
        assert_eq!(came.verdict, Verdict::Overlay(2));
        assert_eq!(ends(&came.data).0, end(family, (NODE, CLAIMED)));
    }
    both.compare_flows()
}

#[test]
fn other_nodes_reach_node_ports_without_the_overlay() -> Result<()> {
    use sluice_tests::packet::addresses::OVERLAY_NODE;
    let mut both = scene(&[(POD_A, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in tcp((OVERLAY_NODE, 40_000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        let came = both.run(Hook::FromNet, uplink, packet)?;
        assert_eq!(came.verdict, Verdict::Pod(a));
        let back = both.run(Hook::FromPod, a, &from(0xa, reversed(&came.data, SYN | ACK)))?;
        assert_eq!(back.verdict, Verdict::Neighbour(words(family, OVERLAY_NODE)));
    }
    both.compare_flows()
}

#[test]
fn who_asks_for_a_service_without_backends_is_told_so() -> Result<()> {
    let mut both = scene(&[])?;
    for protocol in [Protocol::TCP, Protocol::UDP] {
        for served in [Served::new(VIP, PORT, protocol, &[]), Served::node_port(NODE_PORT, protocol, &[])] {
            both.serve(&Served { inside: Serving::Reject, outside: Serving::Reject, ..served })?;
        }
    }
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (hook, interface, client, at) in
        [(Hook::FromPod, a, POD_A, (VIP, PORT)), (Hook::FromNet, uplink, OUTSIDE, (NODE, NODE_PORT))]
    {
        for (family, packet) in tcp((client, 4000), at, SYN, 0xa).iter().enumerate() {
            let ran = both.run(hook, interface, packet)?;
            assert_eq!(ran.verdict, Verdict::Back);
            assert_eq!(ends(&ran.data), (end(family, at), end(family, (client, 4000))));
            assert!(checksums_hold(&ran.data));
            let segment = &ran.data[if family == 0 { 34 } else { 54 }..];
            assert_eq!(segment[13], RST | ACK);
            let sequence = |packet: &[u8], at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
            let asked = sequence(&packet[if family == 0 { 34 } else { 54 }..], 4);
            // 33 bytes and the SYN.
            assert_eq!((sequence(segment, 4), sequence(segment, 8)), (0, asked.wrapping_add(34)));
            assert_eq!(ran.data[..12], [&packet[6..12], &packet[..6]].concat()[..]);
        }
        for (family, packet) in udp((client, 4000), at, 0xa).iter().enumerate() {
            let ran = both.run(hook, interface, packet)?;
            assert_eq!(ran.verdict, Verdict::Back);
            let (network, quoted, error) = if family == 0 { (20, 28, [3, 3]) } else { (40, 48, [1, 4]) };
            assert_eq!(ran.data.len(), 14 + network + 8 + quoted);
            assert!(checksums_hold(&ran.data), "{:02x?}", ran.data);
            assert_eq!(ran.data[14 + network..16 + network], error);
            assert_eq!(ran.data[14 + network + 8..], packet[14..14 + quoted], "what was refused");
            let ((source, _), (destination, _)) = ends(&ran.data);
            assert_eq!((source, destination), (end(family, at).0, end(family, (client, 0)).0));
        }
    }
    let refused = both.count(Hook::FromPod, Reason::NoBackend);
    assert_eq!(refused, 4);
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn nobody_answers_at_other_ports_of_a_cluster_ip_and_it_leaves_no_node() -> Result<()> {
    let mut both = scene(&[(POD_B, TARGET)])?;
    let a = both.scene.pod_a;
    for packet in tcp((POD_A, 4000), (VIP, 81), SYN, 0xa) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Back);
    }
    for packet in packets(POD_A, VIP, &Transport::Echo(true, 7), 0xa) {
        let ran = both.run(Hook::FromPod, a, &packet)?;
        assert_eq!(ran.verdict, Verdict::Back);
        assert!(checksums_hold(&ran.data));
    }
    // To an answer to itself there is none.
    for packet in tcp((POD_A, 4000), (VIP, 81), RST, 0xa) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Drop(Reason::NoBackend));
    }
    Ok(())
}

#[test]
fn where_only_others_serve_clients_hear_nothing() -> Result<()> {
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let local = Served { outside: Serving::Drop, ..Served::node_port(30_081, Protocol::TCP, &[(NATIVE_POD, TARGET)]) };
    both.serve(&local)?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for packet in tcp((OUTSIDE, 4000), (NODE, 30_081), SYN, 0) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Drop(Reason::NoLocalBackend));
    }
    for (family, packet) in tcp((POD_A, 4000), (NODE, 30_081), SYN, 0xa).iter().enumerate() {
        let sent = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(sent.verdict, Verdict::Neighbour(words(family, NATIVE_NODE)), "pods of the node take the short cut");
    }
    Ok(())
}

#[test]
fn source_ranges_say_who_may() -> Result<()> {
    let mut both = scene(&[(POD_A, TARGET)])?;
    let at: Pair = ([203, 0, 113, 80].into(), "2001:db8:cafe::80".parse()?);
    let ranged =
        Served { source_ranges: vec![(OUTSIDE, (24, 64))], ..Served::new(at, PORT, Protocol::TCP, &[(POD_A, TARGET)]) };
    both.serve(&ranged)?;
    let (a, b, uplink) = (both.scene.pod_a, both.scene.pod_b, both.scene.uplink);
    for packet in tcp((OUTSIDE, 4000), (at, PORT), SYN, 0) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Pod(a));
    }
    for packet in tcp((NATIVE_NODE, 4000), (at, PORT), SYN, 0) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Drop(Reason::SourceRange));
    }
    for packet in tcp((POD_B, 4000), (at, PORT), SYN, 0xb) {
        assert_eq!(both.run(Hook::FromPod, b, &packet)?.verdict, Verdict::Drop(Reason::SourceRange));
    }
    Ok(())
}

#[test]
fn datagrams_leave_a_backend_that_is_gone_and_connections_do_not() -> Result<()> {
    let mut both = Both::set()?;
    let backends = [(POD_B, TARGET), (NATIVE_POD, TARGET)];
    let services = [Protocol::TCP, Protocol::UDP].map(|protocol| Served::new(VIP, PORT, protocol, &backends));
    for served in &services {
        both.serve(&Served { inside: Serving::Among(vec![0]), ..served.clone() })?;
    }
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let sent = |ran: &Verdict, to: Verdict| assert_eq!(*ran, to);
    for (tcp, udp) in tcp((POD_A, 4000), (VIP, PORT), ACK, 0xa).iter().zip(&udp((POD_A, 4000), (VIP, PORT), 0xa)) {
        sent(&both.run(Hook::FromPod, a, tcp)?.verdict, Verdict::Pod(b));
        sent(&both.run(Hook::FromPod, a, udp)?.verdict, Verdict::Pod(b));
    }
    for served in &services {
        both.unserve(served)?;
        both.serve(&Served { inside: Serving::Among(vec![1]), backends: vec![backends[1]; 2], ..served.clone() })?;
    }
    for (family, (tcp, udp)) in
        tcp((POD_A, 4000), (VIP, PORT), ACK, 0xa).iter().zip(&udp((POD_A, 4000), (VIP, PORT), 0xa)).enumerate()
    {
        sent(&both.run(Hook::FromPod, a, tcp)?.verdict, Verdict::Pod(b));
        let moved = both.run(Hook::FromPod, a, udp)?;
        sent(&moved.verdict, Verdict::Neighbour(words(family, NATIVE_NODE)));
        assert_eq!(ends(&moved.data).1, end(family, (NATIVE_POD, TARGET)));
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn datagrams_that_were_sent_before_the_service_was_there_find_it() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let packets = udp((POD_A, 4000), (VIP, PORT), 0xa);
    for (family, packet) in packets.iter().enumerate() {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Neighbour(words(family, ROUTER)));
    }
    let served = Served::new(VIP, PORT, Protocol::UDP, &[(POD_B, TARGET)]);
    both.serve(&served)?;
    for packet in &packets {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Pod(b));
    }
    both.unserve(&served)?;
    for (family, packet) in packets.iter().enumerate() {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Neighbour(words(family, ROUTER)));
    }
    both.compare_flows()
}

/// Where a client outside is served that comes by this port: as many as there are families.
fn served_by(both: &mut Both, port: u16) -> Result<Vec<Verdict>> {
    let uplink = both.scene.uplink;
    let packets = tcp((OUTSIDE, port), (NODE, NODE_PORT), SYN, 0);
    packets.iter().map(|packet| Ok(both.run(Hook::FromNet, uplink, packet)?.verdict)).collect()
}

#[test]
fn clients_stay_with_their_backend_as_long_as_it_serves_and_they_come_back_in_time() -> Result<()> {
    const STAY: u32 = 100;
    // Far from it, for time goes on meanwhile.
    const IN_TIME: u32 = STAY - 40;
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    let backends = [(POD_A, TARGET), (POD_B, TARGET)];
    let served = Served { affinity: STAY, maglev: true, ..Served::node_port(NODE_PORT, Protocol::TCP, &backends) };
    both.serve(&served)?;
    let first = served_by(&mut both, 4000)?;
    for port in 4001..4020 {
        both.away(IN_TIME)?;
        assert_eq!(served_by(&mut both, port)?, first, "whoever comes back stays as long again");
    }
    // Once they were away for longer, their next connection is for anyone, and those after it for the same.
    let mut moved = [false; 2];
    for port in (4020..4100).step_by(2) {
        both.away(STAY + 1)?;
        let next = served_by(&mut both, port)?;
        assert_eq!(served_by(&mut both, port + 1)?, next);
        (0..2).for_each(|family| moved[family] |= next[family] != first[family]);
    }
    assert_eq!(moved, [true; 2], "who was away for too long is chosen for anew");
    both.compare_flows()
}

#[test]
fn a_source_port_that_is_taken_at_a_backend_is_translated() -> Result<()> {
    let mut both = scene(&[(POD_B, TARGET)])?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let direct = tcp((POD_A, 4000), (POD_B, TARGET), SYN, 0xa);
    let by_service = tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa);
    for (family, (direct, by_service)) in direct.iter().zip(&by_service).enumerate() {
        assert_eq!(both.run(Hook::FromPod, a, direct)?.data, *direct);
        let sent = both.run(Hook::FromPod, a, by_service)?;
        assert_eq!(ends(&sent.data), (end(family, (POD_A, CLAIMED)), end(family, (POD_B, TARGET))));
        let back = both.run(Hook::FromPod, b, &from(0xb, reversed(&sent.data, SYN | ACK)))?;
        assert_eq!(back.data, from(0xb, reversed(by_service, SYN | ACK)));
        let back = both.run(Hook::FromPod, b, &from(0xb, reversed(direct, SYN | ACK)))?;
        assert_eq!(back.data, from(0xb, reversed(direct, SYN | ACK)), "the direct connection is as it was");
    }
    both.compare_flows()
}

#[test]
fn the_nodes_own_packets_to_a_service_are_sent_to_its_backend() -> Result<()> {
    let mut both = scene(&[(POD_A, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in tcp((NODE, 40_000), (VIP, PORT), SYN, 0).iter().enumerate() {
        let sent = both.run(Hook::ToNet, uplink, packet)?;
        assert_eq!(sent.verdict, Verdict::Neighbour(words(family, POD_A)), "by the pod's device");
        assert_eq!(ends(&sent.data), (end(family, (NODE, CLAIMED)), end(family, (POD_A, TARGET))));
        assert!(checksums_hold(&sent.data));
        let marked = Bytes { mark: sluice_datapath::MARK, ..Bytes::new(sent.data.clone(), a) };
        assert_eq!(both.run_as(Hook::ToPod, marked)?.verdict, Verdict::Pass);
        let back = both.run(Hook::FromPod, a, &from(0xa, reversed(&sent.data, SYN | ACK)))?;
        assert_eq!(back.verdict, Verdict::Pass, "to the node's stack");
        assert_eq!(back.data, from(0xa, reversed(packet, SYN | ACK)));
    }
    both.compare_flows()
}

#[test]
fn a_backend_that_is_the_node_itself_answers_as_the_service() -> Result<()> {
    let mut both = scene(&[(NODE, TARGET)])?;
    both.hosts_backend(TARGET, Protocol::TCP)?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in tcp((OUTSIDE, 4000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        let came = both.run(Hook::FromNet, uplink, packet)?;
        assert_eq!(came.verdict, Verdict::Pass, "to the node's stack");
        assert_eq!(ends(&came.data), (end(family, (OUTSIDE, 4000)), end(family, (NODE, TARGET))));
        let back = both.run(Hook::ToNet, uplink, &reversed(&came.data, SYN | ACK))?;
        assert_eq!(back.data, reversed(packet, SYN | ACK));
    }
    for (family, packet) in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa).iter().enumerate() {
        let sent = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(sent.verdict, Verdict::Pass, "to the node's stack");
        assert_eq!(ends(&sent.data).1, end(family, (NODE, TARGET)));
        let back = both.run(Hook::ToPod, a, &reversed(&sent.data, SYN | ACK))?;
        assert_eq!(back.verdict, Verdict::Pass, "on its way into the pod");
        assert_eq!(back.data, reversed(packet, SYN | ACK));
    }
    // Its other clients are left alone.
    for packet in tcp((NODE, TARGET), (OUTSIDE, 4001), ACK, 0) {
        let ran = both.run(Hook::ToNet, uplink, &packet)?;
        assert_eq!((ran.verdict, ran.data), (Verdict::Pass, packet));
    }
    both.compare_flows()
}

#[test]
fn established_flows_to_backends_elsewhere_pass_the_stack_by() -> Result<()> {
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let uplink = both.scene.uplink;
    for (family, packet) in tcp((OUTSIDE, 4000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        assert_eq!(both.express(packet)?, (false, packet.clone()), "what opens a flow is the slow path's");
        let came = both.run(Hook::FromNet, uplink, packet)?;
        let answer = reversed(&came.data, SYN | ACK);
        assert!(!both.express(&answer)?.0, "it has not been answered yet");
        both.run(Hook::FromNet, uplink, &answer)?;
        let more = &tcp((OUTSIDE, 4000), (NODE, NODE_PORT), ACK, 0)[family];
        let by_stack = both.run(Hook::FromNet, uplink, more)?;
        for _ in 0..2 {
            let (leaves, data) = both.express(more)?;
            assert!(leaves && checksums_hold(&data));
            assert_eq!(data[12..], by_stack.data[12..], "as the stack's way does it");
            assert_eq!(data[..12], [0x02, 0, 0, 0, 0x02, 0x02, 0x02, 0, 0, 0, 0x02, 0x01], "to the backend's node");
            let (leaves, back) = both.express(&reversed(&data, ACK))?;
            assert!(leaves && checksums_hold(&back));
            assert_eq!(back[12..], reversed(more, ACK)[12..]);
            assert_eq!(back[..12], [0x02, 0, 0, 0, 0x02, 0xfe, 0x02, 0, 0, 0, 0x02, 0x01], "to the client's router");
        }
    }
    both.compare_flows()
}

#[test]
fn frames_whose_checksum_a_device_is_to_finish_are_left_to_the_stack() -> Result<()> {
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let uplink = both.scene.uplink;
    for (family, packet) in tcp((OUTSIDE, 4000), (NODE, NODE_PORT), SYN, 0).iter().enumerate() {
        let came = both.run(Hook::FromNet, uplink, packet)?;
        both.run(Hook::FromNet, uplink, &reversed(&came.data, SYN | ACK))?;
        let more = &tcp((OUTSIDE, 4000), (NODE, NODE_PORT), ACK, 0)[family];
        both.run(Hook::FromNet, uplink, more)?;
        assert!(both.express(more)?.0);
        let mut partial = more.clone();
        let (addresses, transport) = [(26..34, 34), (22..54, 54)][family].clone();
        let length = (partial.len() - transport) as u32 + Protocol::TCP.0;
        let words = partial[addresses].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>() + length;
        let pseudo = ((sum & 0xffff) + (sum >> 16)) as u16;
        partial[transport + 16..transport + 18].copy_from_slice(&pseudo.to_be_bytes());
        assert_eq!(both.express(&partial)?, (false, partial));
    }
    Ok(())
}

#[test]
fn all_other_packets_are_left_to_the_stack() -> Result<()> {
    let mut both = scene(&[(POD_A, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    // Of a backend here, of a pod's own connection, and of the node itself.
    let served = tcp((OUTSIDE, 4000), (NODE, NODE_PORT), ACK, 0);
    let pods = tcp((POD_A, 4000), (OUTSIDE, 80), SYN, 0xa);
    for (served, pods) in served.iter().zip(&pods) {
        let came = both.run(Hook::FromNet, uplink, served)?;
        both.run(Hook::FromPod, a, &from(0xa, reversed(&came.data, ACK)))?;
        both.run(Hook::FromNet, uplink, served)?;
        assert!(!both.express(served)?.0);
        let left = both.run(Hook::FromPod, a, pods)?;
        let answer = reversed(&left.data, SYN | ACK);
        both.run(Hook::FromNet, uplink, &answer)?;
        assert!(!both.express(&answer)?.0);
    }
    for packet in tcp((OUTSIDE, 4000), (NODE, 22), ACK, 0) {
        assert!(!both.express(&packet)?.0);
    }
    both.compare_flows()
}

#[test]
fn sctp_is_served_at_another_port_and_its_checksum_is_right() -> Result<()> {
    let mut both = Both::set()?;
    both.serve(&Served::new(VIP, PORT, Protocol::SCTP, &[(POD_B, TARGET)]))?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    /// INIT, INIT ACK, DATA.
    const CHUNKS: [(bool, u8); 4] = [(true, 1), (false, 2), (true, 0), (false, 0)];
    for family in 0..2 {
        for (is_clients, chunk) in CHUNKS {
            let sent = if is_clients {
                packets(POD_A, VIP, &Transport::Sctp(4000, PORT, chunk), 0xa)[family].clone()
            } else {
                packets(POD_B, POD_A, &Transport::Sctp(TARGET, 4000, chunk), 0xb)[family].clone()
            };
            let ran = both.run(Hook::FromPod, if is_clients { a } else { b }, &sent)?;
            assert_eq!(ran.verdict, Verdict::Pod(if is_clients { b } else { a }));
            let expected = if is_clients {
                packets(POD_A, POD_B, &Transport::Sctp(4000, TARGET, chunk), 0xa)[family].clone()
            } else {
                packets(VIP, POD_A, &Transport::Sctp(PORT, 4000, chunk), 0xb)[family].clone()
            };
            assert_eq!(ran.data, expected);
        }
    }
    both.compare_flows()
}

/// A scene whose node sends packets for backends elsewhere on as they are.
fn direct_scene(backend: (Pair, u16)) -> Result<Both> {
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    both.configure(|config| config.features = Features(config.features.0 | Features::DIRECT_RETURN.0))?;
    for protocol in [Protocol::TCP, Protocol::UDP] {
        both.serve(&Served { maglev: true, ..Served::node_port(NODE_PORT, protocol, &[backend]) })?;
        both.serve(&Served { maglev: true, ..Served::new(VIP, PORT, protocol, &[backend]) })?;
    }
    Ok(both)
}

/// A packet as another node sends it on.
fn sent_on(from: Pair, packet: &[u8]) -> Vec<u8> {
    let inner = packet[14..].to_vec();
    let (ip, protocol) = if packet[12] == 0x86 { (Ip::v6(from.1, NODE.1), 41) } else { (Ip::v4(from.0, NODE.0), 4) };
    Recipe { mac: mac(0), ip, transport: Transport::Other(protocol, inner), payload: 0 }.build()
}

#[test]
fn with_direct_return_a_backends_node_is_sent_packets_as_they_are() -> Result<()> {
    for (backend, node) in [(NATIVE_POD, 1), (OVERLAY_POD, 2)] {
        let mut both = direct_scene((backend, TARGET))?;
        let uplink = both.scene.uplink;
        for at in [(NODE, NODE_PORT), (VIP, PORT)] {
            for packet in tcp((OUTSIDE, 4000), at, SYN, 0).iter().chain(&udp((OUTSIDE, 4000), at, 0)) {
                for _ in 0..2 {
                    let came = both.run(Hook::FromNet, uplink, packet)?;
                    assert_eq!(came.verdict, Verdict::Direct(node));
                    let outer = if packet[12] == 0x86 { 40 } else { 20 };
                    assert_eq!(came.data[14 + outer..], packet[14..], "as it came");
                }
            }
        }
        both.compare_flows()?;
        both.compare_counters()?;
    }
    Ok(())
}

#[test]
fn answers_to_what_was_sent_on_are_judged_again_as_such() -> Result<()> {
    let mut both = direct_scene((POD_A, TARGET))?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for at in [(NATIVE_NODE, NODE_PORT), (VIP, PORT)] {
        for (family, packet) in udp((OUTSIDE, 4000), at, 0).iter().enumerate() {
            let came = both.run(Hook::FromNet, uplink, &sent_on(NATIVE_NODE, packet))?;
            assert_eq!(came.verdict, Verdict::Pod(a));
            both.revise(RevisionSlot::ROUTES)?;
            let back = both.run(Hook::FromPod, a, &from(0xa, reversed(&came.data, 0)))?;
            assert_eq!(back.verdict, Verdict::Neighbour(words(family, ROUTER)));
            assert_eq!(ends(&back.data).0, end(family, at));
        }
    }
    both.compare_flows()
}

#[test]
fn whoever_is_in_the_cluster_is_not_answered_directly() -> Result<()> {
    for client in [NATIVE_POD, NATIVE_NODE] {
        let mut both = direct_scene((OVERLAY_POD, TARGET))?;
        let uplink = both.scene.uplink;
        for packet in tcp((client, 4000), (NODE, NODE_PORT), SYN, 0) {
            assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Overlay(2));
        }
        both.compare_flows()?;
    }
    Ok(())
}

#[test]
fn what_is_sent_on_directly_goes_on_so_when_it_is_judged_again() -> Result<()> {
    let mut both = direct_scene((NATIVE_POD, TARGET))?;
    let uplink = both.scene.uplink;
    for flags in [SYN, ACK, ACK] {
        for packet in
            tcp((OUTSIDE, 4000), (NODE, NODE_PORT), flags, 0).iter().chain(&udp((OUTSIDE, 4000), (VIP, PORT), 0))
        {
            assert_eq!(both.run(Hook::FromNet, uplink, packet)?.verdict, Verdict::Direct(1));
        }
        both.revise(RevisionSlot::ROUTES)?;
    }
    both.compare_flows()
}

#[test]
fn a_connection_that_is_sent_on_directly_may_rest() -> Result<()> {
    const TRANSIENT: u32 = 10_000;
    let mut both = direct_scene((NATIVE_POD, TARGET))?;
    both.configure(|config| config.timeouts = Timeouts::new([TRANSIENT, u32::MAX / 2, 1000, 1000, 1000]))?;
    let uplink = both.scene.uplink;
    let packets = |flags| tcp((OUTSIDE, 4000), (NODE, NODE_PORT), flags, 0);
    for packet in [packets(SYN), packets(ACK)].concat() {
        both.run(Hook::FromNet, uplink, &packet)?;
    }
    both.age(2 * TRANSIENT)?;
    // Whoever came now would be served by another.
    for protocol in [Protocol::TCP, Protocol::UDP] {
        both.serve(&Served { maglev: true, ..Served::node_port(NODE_PORT, protocol, &[(OVERLAY_POD, TARGET)]) })?;
    }
    for packet in packets(ACK) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Direct(1));
    }
    both.compare_flows()
}

#[test]
fn host_ports_are_at_all_addresses_of_the_node_and_node_ports_at_some() -> Result<()> {
    const HOST_PORT: u16 = 8081;
    let mut both = scene(&[(POD_A, TARGET)])?;
    let backends = [(POD_A, TARGET)];
    both.serve(&Served { host_port: true, ..Served::node_port(HOST_PORT, Protocol::TCP, &backends) })?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for serves_node_ports in [1, 0] {
        both.addresses(NODE, (32, 128), AddressKind::Host, serves_node_ports)?;
        for (port, is_served) in [(HOST_PORT, true), (NODE_PORT, serves_node_ports == 1)] {
            for packet in tcp((OUTSIDE, 4000 + serves_node_ports as u16), (NODE, port), SYN, 0) {
                let expected = if is_served { Verdict::Pod(a) } else { Verdict::Pass };
                assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, expected, "{port}");
            }
        }
    }
    both.compare_flows()
}

#[test]
fn loopback_addresses_are_the_nodes_own_sockets_only() -> Result<()> {
    const LOOPBACK: Pair = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    let mut both = scene(&[(POD_A, TARGET)])?;
    both.serve(&Served { host_port: true, ..Served::new(LOOPBACK, 8081, Protocol::TCP, &[(POD_A, TARGET)]) })?;
    let uplink = both.scene.uplink;
    for packet in tcp((OUTSIDE, 4000), (LOOPBACK, 8081), SYN, 0) {
        assert_ne!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Pod(both.scene.pod_a));
    }
    for (port, serves_loopback, is_served) in
        [(8081, true, true), (8081, false, true), (NODE_PORT, true, true), (NODE_PORT, false, false)]
    {
        for is_host in [true, false] {
            let talk = Talk {
                socket: 1,
                namespace: 1,
                is_host,
                serves_loopback,
                protocol: Protocol::TCP,
                address: Ipv4::from(LOOPBACK.0),
                port: Port::new(port),
            };
            let target = socket::connect(&talk, &both.native);
            assert_eq!(target.is_some(), is_host && is_served, "{port} {is_host} {serves_loopback}");
        }
    }
    Ok(())
}

#[test]
fn a_socket_hears_its_services_name_once_however_many_programs_tell_it() -> Result<()> {
    let both = scene(&[(POD_A, TARGET)])?;
    let tables = &both.native;
    let talk = Talk {
        socket: 1,
        namespace: 2,
        is_host: false,
        serves_loopback: true,
        protocol: Protocol::UDP,
        address: Ipv4::from(VIP.0),
        port: Port::new(PORT),
    };
    let backend = socket::send(&talk, tables).expect("it is served");
    assert_eq!((backend.address, backend.port), (Ipv4::from(POD_A.0), Port::new(TARGET)));
    assert_eq!(socket::send(&Talk { address: backend.address, port: backend.port, ..talk }, tables), None);
    assert_eq!(socket::name(1, backend.address, backend.port, tables), Some((talk.address, talk.port)));
    assert_eq!(socket::name(1, talk.address, talk.port, tables), None, "the backend is none of a service's");
    Ok(())
}

#[test]
fn what_another_node_has_sent_on_is_served_here_and_answered_directly() -> Result<()> {
    let mut both = direct_scene((POD_A, TARGET))?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for at in [(NATIVE_NODE, NODE_PORT), (VIP, PORT)] {
        for (family, packet) in tcp((OUTSIDE, 4000), at, SYN, 0).iter().enumerate() {
            let came = both.run(Hook::FromNet, uplink, &sent_on(NATIVE_NODE, packet))?;
            assert_eq!(came.verdict, Verdict::Pod(a));
            assert_eq!(ends(&came.data), (end(family, (OUTSIDE, 4000)), end(family, (POD_A, TARGET))));
            assert!(checksums_hold(&came.data));
            let back = both.run(Hook::FromPod, a, &from(0xa, reversed(&came.data, SYN | ACK)))?;
            assert_eq!(back.verdict, Verdict::Neighbour(words(family, ROUTER)));
            assert_eq!(ends(&back.data).0, end(family, at), "as whom the client has asked");
        }
        both.clear()?;
    }
    // From nobody but a node, and nothing but what is for a service.
    for packet in tcp((OUTSIDE, 4000), (VIP, PORT), SYN, 0) {
        let forged = sent_on(OUTSIDE, &packet);
        assert_eq!(both.run(Hook::FromNet, uplink, &forged)?.verdict, Verdict::Pass, "to the stack, as it is");
    }
    for packet in tcp((OUTSIDE, 4000), (NATIVE_NODE, 22), SYN, 0) {
        assert_eq!(
            both.run(Hook::FromNet, uplink, &sent_on(NATIVE_NODE, &packet))?.verdict,
            Verdict::Drop(Reason::NoFlow)
        );
    }
    both.compare_flows()
}

#[test]
fn who_sends_more_than_can_be_sent_on_is_told_how_much() -> Result<()> {
    let mut both = direct_scene((NATIVE_POD, TARGET))?;
    let uplink = both.scene.uplink;
    let large = |ip| Recipe { mac: mac(0), ip, transport: Transport::Tcp(4000, NODE_PORT, ACK), payload: 1430 }.build();
    for (family, ip) in [Ip::v4(OUTSIDE.0, NODE.0), Ip::v6(OUTSIDE.1, NODE.1)].into_iter().enumerate() {
        let ran = both.run(Hook::FromNet, uplink, &large(ip))?;
        // Plain IPv4 fits, with 20 bytes more; IPv6 is as large as the uplink's packets may be.
        let fits = family == 0 && 1430 + 40 <= 1480;
        if fits {
            assert_eq!(ran.verdict, Verdict::Direct(1));
        } else {
            assert_eq!(ran.verdict, Verdict::Back);
            assert!(checksums_hold(&ran.data));
            let icmp = &ran.data[54..];
            assert_eq!((icmp[0], u32::from_be_bytes(icmp[4..8].try_into()?)), (2, 1460));
        }
    }
    let larger = Recipe {
        mac: mac(0),
        ip: Ip::v4(OUTSIDE.0, NODE.0),
        transport: Transport::Tcp(4000, NODE_PORT, ACK),
        payload: 1450,
    };
    let ran = both.run(Hook::FromNet, uplink, &larger.build())?;
    assert_eq!(ran.verdict, Verdict::Back);
    let icmp = &ran.data[34..];
    assert_eq!((icmp[0], icmp[1], u32::from_be_bytes(icmp[4..8].try_into()?)), (3, 4, 1480));
    both.compare_counters()
}

#[test]
fn what_is_too_large_for_the_way_to_a_backend_is_answered_by_whom_was_asked() -> Result<()> {
    too_large_for(OVERLAY_POD, 1450, |_| Verdict::Overlay(2))?;
    too_large_for(NATIVE_POD, 1500, |family| Verdict::Neighbour(words(family, NATIVE_NODE)))
}

/// The way to this backend takes packets of so many bytes.
fn too_large_for(backend: Pair, mtu: u16, goes: impl Fn(usize) -> Verdict) -> Result<()> {
    let mut both = scene(&[(backend, TARGET)])?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (hook, interface, client, at) in
        [(Hook::FromPod, a, POD_A, (VIP, PORT)), (Hook::FromNet, uplink, OUTSIDE, (NODE, NODE_PORT))]
    {
        let (pair, port) = at;
        for (family, ip) in [Ip::v4(client.0, pair.0), Ip::v6(client.1, pair.1)].into_iter().enumerate() {
            let header = [20, 40][family];
            let most = usize::from(mtu) - header - 20;
            let of_size = |payload: usize, flags| {
                let mac = mac(if hook == Hook::FromPod { 0xa } else { 0 });
                Recipe { mac, ip: ip.clone(), transport: Transport::Tcp(4000, port, flags), payload }.build()
            };
            for (size, flags) in [(0, SYN), (most, ACK)] {
                assert_eq!(both.run(hook, interface, &of_size(size, flags))?.verdict, goes(family));
            }
            let told = both.run(hook, interface, &of_size(most + 1, ACK))?;
            assert_eq!(told.verdict, Verdict::Back);
            assert!(checksums_hold(&told.data));
            let icmp = &told.data[14 + header..];
            assert_eq!(icmp[..2], [[3, 4], [2, 0]][family]);
            assert_eq!(u32::from_be_bytes(icmp[4..8].try_into()?), u32::from(mtu));
            assert_eq!(ends(&[&told.data[..14], &icmp[8..]].concat()), (end(family, (client, 4000)), end(family, at)));
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn an_address_of_services_that_none_has_is_nobodys() -> Result<()> {
    let mut both = scene(&[(POD_B, TARGET)])?;
    both.addresses(VIP, (24, 112), sluice_abi::AddressKind::Services, 0)?;
    let free: Pair = (Ipv4Addr::new(10, 96, 0, 99), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x99));
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for packet in tcp((POD_A, 4000), (free, PORT), SYN, 0xa) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Drop(Reason::NoRoute));
    }
    for packet in tcp((POD_A, 4000), (VIP, PORT), SYN, 0xa) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Pod(b));
    }
    for packet in tcp((OUTSIDE, 4000), (VIP, PORT), SYN, 0) {
        assert_eq!(both.run(Hook::FromNet, both.scene.uplink, &packet)?.verdict, Verdict::Pod(b));
    }
    Ok(())
}
