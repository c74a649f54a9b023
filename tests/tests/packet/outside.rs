//! Pods and the world.

use anyhow::Result;
use sluice_abi::{Features, Hook, IpAddress, Ipv4, Ipv6, Reason};
use sluice_tests::packet::addresses::{EXEMPT, NODE, OUTSIDE, POD_A, POD_B, Pair, ROUTER};
use sluice_tests::packet::{Both, Ip, Ran, Recipe, Transport, Verdict, checksums_hold, mac, reversed};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn packets(from: Pair, to: Pair, transport: &Transport) -> [Vec<u8>; 2] {
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac: mac(0xa), ip, transport: transport.clone(), payload: 33 }.build())
}

fn router() -> [[u32; 4]; 2] {
    [Ipv4::from(ROUTER.0).words(), Ipv6::from(ROUTER.1).words()]
}

/// Source and destination address of a packet.
fn ends(packet: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if packet[12] == 0x86 {
        (packet[22..38].to_vec(), packet[38..54].to_vec())
    } else {
        (packet[26..30].to_vec(), packet[30..34].to_vec())
    }
}

fn octets(family: usize, pair: Pair) -> Vec<u8> {
    if family == 0 { pair.0.octets().to_vec() } else { pair.1.octets().to_vec() }
}

#[test]
fn what_leaves_takes_the_nodes_address_and_its_answers_come_back() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for transport in [
        Transport::Tcp(4000, 80, SYN),
        Transport::Udp(4000, 53),
        Transport::UdpUnchecked(4001, 54),
        Transport::Echo(true, 7),
    ] {
        for (family, packet) in packets(POD_A, OUTSIDE, &transport).iter().enumerate() {
            let left = both.run(Hook::FromPod, a, packet)?;
            assert_eq!(left.verdict, Verdict::Neighbour(router()[family]));
            assert_eq!(ends(&left.data), (octets(family, NODE), octets(family, OUTSIDE)));
            assert!(checksums_hold(&left.data), "{transport:?} {:02x?}", left.data);
            let answer = reversed(&left.data, SYN | ACK);
            assert!(checksums_hold(&answer));
            let back = both.run(Hook::FromNet, uplink, &answer)?;
            assert_eq!(back.verdict, Verdict::Pod(a));
            assert_eq!(back.data, reversed(packet, SYN | ACK), "as if nothing had been in between");
            assert!(checksums_hold(&back.data));
            let again = both.run(Hook::FromPod, a, packet)?;
            assert_eq!(again.data, left.data, "the flow keeps its port");
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_port_is_given_to_one_flow_only() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for packet in packets(POD_A, OUTSIDE, &Transport::Udp(4000, 53)) {
        assert!(matches!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Neighbour(_)));
    }
    for packet in packets(POD_A, OUTSIDE, &Transport::Udp(4001, 53)) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Drop(Reason::PortsExhausted));
    }
    for packet in packets(POD_A, OUTSIDE, &Transport::Udp(4001, 54)) {
        assert!(matches!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Neighbour(_)), "another destination");
    }
    both.compare_flows()
}

#[test]
fn connections_that_are_half_open_keep_no_others_out() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    let tcp = |port, flags| packets(POD_A, OUTSIDE, &Transport::Tcp(port, 80, flags));
    for family in [0, 1] {
        let mut asks = |port, flags| both.run(Hook::FromPod, a, &tcp(port, flags)[family]);
        asks(4000, SYN)?;
        let left = asks(4001, SYN)?;
        assert!(matches!(left.verdict, Verdict::Neighbour(_)), "{:?}", left.verdict);
        let back = both.run(Hook::FromNet, uplink, &reversed(&left.data, SYN | ACK))?;
        assert_eq!((back.verdict, back.data), (Verdict::Pod(a), reversed(&tcp(4001, SYN)[family], SYN | ACK)));
        let mut asks = |port, flags| both.run(Hook::FromPod, a, &tcp(port, flags)[family]);
        assert!(matches!(asks(4001, ACK)?.verdict, Verdict::Neighbour(_)));
        for port in [4000, 4002] {
            assert_eq!(asks(port, SYN)?.verdict, Verdict::Drop(Reason::PortsExhausted), "it is a connection by now");
        }
        assert!(matches!(asks(4001, ACK)?.verdict, Verdict::Neighbour(_)), "it goes on");
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_protocol_without_ports_is_masqueraded_once() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for packet in packets(POD_A, OUTSIDE, &Transport::Other(47, vec![0; 8])) {
        assert!(matches!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Neighbour(_)));
    }
    for mut packet in packets(POD_B, OUTSIDE, &Transport::Other(47, vec![0; 8])) {
        packet[6..12].copy_from_slice(&mac(0xb));
        assert_eq!(both.run(Hook::FromPod, b, &packet)?.verdict, Verdict::Drop(Reason::Untranslatable));
    }
    both.compare_flows()
}

#[test]
fn protocols_whose_checksums_cover_addresses_are_not_masqueraded() -> Result<()> {
    const DCCP: u8 = 33;
    const UDP_LITE: u8 = 136;
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for protocol in [DCCP, UDP_LITE] {
        for packet in packets(POD_A, OUTSIDE, &Transport::Other(protocol, vec![0; 16])) {
            assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Drop(Reason::Untranslatable));
        }
        for packet in packets(POD_A, EXEMPT, &Transport::Other(protocol, vec![0; 16])) {
            assert!(matches!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Neighbour(_)));
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn sctp_keeps_its_port_when_it_is_masqueraded() -> Result<()> {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let mut both = Both::set()?;
    let (a, b, uplink) = (both.scene.pod_a, both.scene.pod_b, both.scene.uplink);
    for (family, packet) in packets(POD_A, OUTSIDE, &Transport::Sctp(4000, 9, INIT)).iter().enumerate() {
        let left = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(left.data, packets(NODE, OUTSIDE, &Transport::Sctp(4000, 9, INIT))[family]);
        let answer = &packets(OUTSIDE, NODE, &Transport::Sctp(9, 4000, INIT_ACK))[family];
        let back = both.run(Hook::FromNet, uplink, answer)?;
        assert_eq!(back.verdict, Verdict::Pod(a));
        assert_eq!(back.data, packets(OUTSIDE, POD_A, &Transport::Sctp(9, 4000, INIT_ACK))[family]);
        let mut other = packets(POD_B, OUTSIDE, &Transport::Sctp(4000, 9, INIT))[family].clone();
        other[6..12].copy_from_slice(&mac(0xb));
        assert_eq!(both.run(Hook::FromPod, b, &other)?.verdict, Verdict::Drop(Reason::Untranslatable));
    }
    both.compare_flows()?;
    both.compare_counters()
}

/// The two fragments of a datagram, in both families.
pub fn fragments(from: Pair, to: Pair, ports: (u16, u16)) -> [[Vec<u8>; 2]; 2] {
    let build = |ip| Recipe { mac: mac(0xa), ip, transport: Transport::Udp(ports.0, ports.1), payload: 24 }.build();
    let places = [(0, true), (4, false)];
    let v4 = places.map(|fragment| build(Ip::V4 { source: from.0, destination: to.0, options: vec![], fragment }));
    let v6 = places.map(|(offset, more)| {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let extensions = vec![(44, vec![0, high, low, 0, 0, 0, 9])];
        build(Ip::V6 { source: from.1, destination: to.1, extensions })
    });
    [v4, v6]
}

#[test]
fn fragments_are_masqueraded_with_their_first() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    let there = fragments(POD_A, OUTSIDE, (4000, 53));
    let back = fragments(OUTSIDE, NODE, (53, 20_000));
    for (family, transport) in [14 + 20, 14 + 40 + 8].into_iter().enumerate() {
        for (number, packet) in there[family].iter().enumerate() {
            let left = both.run(Hook::FromPod, a, packet)?;
            assert_eq!(left.verdict, Verdict::Neighbour(router()[family]));
            assert_eq!(ends(&left.data), (octets(family, NODE), octets(family, OUTSIDE)));
            // Only the first has ports and a checksum.
            let port = if number == 0 { 20_000 } else { 4000_u16 };
            assert_eq!(left.data[transport..transport + 2], port.to_be_bytes());
            assert_eq!(left.data[transport + 8..], packet[transport + 8..]);
        }
        for (number, packet) in back[family].iter().enumerate() {
            let arrived = both.run(Hook::FromNet, uplink, packet)?;
            assert_eq!((arrived.verdict, ends(&arrived.data).1), (Verdict::Pod(a), octets(family, POD_A)));
            let port = if number == 0 { 4000 } else { 20_000_u16 };
            assert_eq!(arrived.data[transport + 2..transport + 4], port.to_be_bytes());
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_flow_that_begins_with_too_large_a_packet_is_masqueraded_too() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, ip) in [Ip::v4(POD_A.0, OUTSIDE.0), Ip::v6(POD_A.1, OUTSIDE.1)].into_iter().enumerate() {
        let packet = |payload| Recipe { mac: mac(0xa), ip: ip.clone(), transport: Transport::Udp(4000, 53), payload };
        let large = packet(1600).build();
        assert_eq!(both.run(Hook::FromPod, a, &large)?, Ran { verdict: Verdict::Pass, data: large.clone() });
        let left = both.run(Hook::ToNet, uplink, &large)?;
        assert_eq!((left.verdict, ends(&left.data).0), (Verdict::Pass, octets(family, NODE)));
        let small = both.run(Hook::FromPod, a, &packet(16).build())?;
        assert_eq!((small.verdict, ends(&small.data).0), (Verdict::Neighbour(router()[family]), octets(family, NODE)));
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn nothing_of_a_pod_reaches_a_loopback_address() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let loopback = (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
    for packet in packets(POD_A, loopback, &Transport::Udp(4000, 53)) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.verdict, Verdict::Drop(Reason::NoRoute));
    }
    Ok(())
}

#[test]
fn the_nodes_own_traffic_passes_with_two_lookups_whatever_its_port() -> Result<()> {
    let mut both = Both::set()?;
    let uplink = both.scene.uplink;
    for packet in packets(ROUTER, NODE, &Transport::Udp(4000, 20_000)) {
        let before = both.native.lookups.get();
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Pass);
        assert_eq!(both.native.lookups.get() - before, 2);
    }
    both.compare_flows()
}

#[test]
fn the_exempt_keep_their_address() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for packet in packets(POD_A, EXEMPT, &Transport::Udp(4000, 53)) {
        assert_eq!(both.run(Hook::FromPod, a, &packet)?.data, packet);
    }
    both.configure(|config| config.features = Features(0))?;
    for packet in packets(POD_A, OUTSIDE, &Transport::Udp(4000, 53)) {
        let ran = both.run(Hook::FromPod, a, &packet)?;
        assert!(matches!(ran.verdict, Verdict::Neighbour(_)));
        assert_eq!(ran.data, packet, "masquerading is switched off");
    }
    both.compare_flows()
}

#[test]
fn pods_leave_a_side_uplink_with_their_own_addresses() -> Result<()> {
    let mut both = Both::set()?;
    both.change_uplink(|uplink| uplink.is_side = 1)?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in packets(POD_A, OUTSIDE, &Transport::Udp(4000, 53)).iter().enumerate() {
        let left = both.run(Hook::FromPod, a, packet)?;
        assert_eq!(left.verdict, Verdict::Neighbour(router()[family]));
        assert_eq!(ends(&left.data), (octets(family, POD_A), octets(family, OUTSIDE)));
        assert_eq!(both.run(Hook::FromNet, uplink, &reversed(&left.data, 0))?.verdict, Verdict::Pod(a));
    }
    both.compare_flows()
}

#[test]
fn errors_about_masqueraded_packets_reach_the_pod_in_its_own_terms() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for transport in [Transport::Udp(4000, 53), Transport::Tcp(4000, 80, SYN), Transport::Echo(true, 9)] {
        for (family, packet) in packets(POD_A, OUTSIDE, &transport).iter().enumerate() {
            let left = both.run(Hook::FromPod, a, packet)?.data;
            let error = |quoted: &[u8], to: Pair| {
                let (kind, ip) = if family == 0 { (3, Ip::v4(ROUTER.0, to.0)) } else { (1, Ip::v6(ROUTER.1, to.1)) };
                let rest = [&[0; 4], &quoted[14..]].concat();
                Recipe { mac: mac(1), ip, transport: Transport::Icmp(kind, 3, rest), payload: 0 }.build()
            };
            let back = both.run(Hook::FromNet, uplink, &error(&left, NODE))?;
            assert_eq!(back.verdict, Verdict::Pod(a));
            assert!(checksums_hold(&back.data));
            let mut expected = error(packet, POD_A);
            // The quoted transport checksum stays as it left; the error's own differs by as much.
            let at = if family == 0 { 14 + 20 + 8 + 20 } else { 14 + 40 + 8 + 40 };
            let sum = at
                + match transport {
                    Transport::Udp(..) => 6,
                    Transport::Tcp(..) => 16,
                    _ => 2,
                };
            expected[sum..sum + 2].copy_from_slice(&back.data[sum..sum + 2]);
            let own = if family == 0 { 14 + 20 + 2 } else { 14 + 40 + 2 };
            expected[own..own + 2].copy_from_slice(&back.data[own..own + 2]);
            assert_eq!(back.data, expected);
        }
    }
    for (family, packet) in packets(POD_A, OUTSIDE, &Transport::Udp(1, 1)).iter().enumerate() {
        let (kind, ip) = if family == 0 { (3, Ip::v4(ROUTER.0, POD_A.0)) } else { (1, Ip::v6(ROUTER.1, POD_A.1)) };
        let rest = [&[0; 4], &packet[14..]].concat();
        let unrelated = Recipe { mac: mac(1), ip, transport: Transport::Icmp(kind, 3, rest), payload: 0 }.build();
        assert_eq!(both.run(Hook::FromNet, uplink, &unrelated)?.verdict, Verdict::Drop(Reason::UnrelatedIcmp));
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn packets_of_pods_that_took_the_stack_are_translated_on_their_way_out() -> Result<()> {
    let mut both = Both::set()?;
    let uplink = both.scene.uplink;
    for (family, packet) in packets(POD_A, OUTSIDE, &Transport::Udp(4000, 53)).iter().enumerate() {
        let left = both.run(Hook::ToNet, uplink, packet)?;
        assert_eq!(left.verdict, Verdict::Pass);
        assert_eq!(ends(&left.data).0, octets(family, NODE));
        assert!(checksums_hold(&left.data));
    }
    for packet in packets(NODE, OUTSIDE, &Transport::Udp(4000, 53)) {
        let left = both.run(Hook::ToNet, uplink, &packet)?;
        assert_eq!((left.verdict, left.data), (Verdict::Pass, packet), "the node's own");
    }
    both.compare_flows()
}
