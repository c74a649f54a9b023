//! Pods among themselves and with the nodes.

use anyhow::Result;
use sluice_abi::{AddressKind, Hook, IpAddress, Ipv4, Ipv6, Reason, RevisionSlot, Slot};
use sluice_tests::packet::addresses::{
    NATIVE_NODE, NATIVE_POD, NOBODY, NODE, OVERLAY_NODE, OVERLAY_POD, POD_A, POD_B, Pair, ROUTER,
};
use sluice_tests::packet::{Both, Build, Bytes, Ip, Recipe, Transport, Verdict, mac, reversed};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// A packet of the first pod, in both families.
fn from_a(to: Pair, transport: &Transport) -> [Vec<u8>; 2] {
    between(POD_A, to, mac(0xa), transport)
}

fn between(from: Pair, to: Pair, mac: [u8; 6], transport: &Transport) -> [Vec<u8>; 2] {
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac, ip, transport: transport.clone(), payload: 32 }.build())
}

fn hops(pair: Pair) -> [[u32; 4]; 2] {
    [Ipv4::from(pair.0).words(), Ipv6::from(pair.1).words()]
}

#[test]
fn pods_of_one_node_meet_without_the_stack() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for transport in
        [Transport::Tcp(4000, 80, SYN), Transport::Udp(4000, 53), Transport::Sctp(4000, 9, 1), Transport::Echo(true, 7)]
    {
        for packet in from_a(POD_B, &transport) {
            let there = both.run(Hook::FromPod, a, &packet)?;
            assert_eq!(there.verdict, Verdict::Pod(b));
            assert_eq!(there.data, packet, "nothing is rewritten");
            let mut answer = reversed(&packet, SYN | ACK);
            answer[6..12].copy_from_slice(&mac(0xb));
            let back = both.run(Hook::FromPod, b, &answer)?;
            assert_eq!(back.verdict, Verdict::Pod(a));
            assert_eq!(back.data, answer);
        }
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_connection_is_established_by_its_third_packet() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for (family, syn) in from_a(POD_B, &Transport::Tcp(4000, 80, SYN)).into_iter().enumerate() {
        let mut answer = reversed(&syn, SYN | ACK);
        answer[6..12].copy_from_slice(&mac(0xb));
        let ack = &from_a(POD_B, &Transport::Tcp(4000, 80, ACK))[family];
        both.run(Hook::FromPod, a, &syn)?;
        both.run(Hook::FromPod, b, &answer)?;
        let flows = |both: &Both| {
            if family == 0 { both.native.v4.flows.borrow().len() } else { both.native.v6.flows.borrow().len() }
        };
        assert_eq!(flows(&both), 0, "an answer alone could have been called forth by a forged source");
        both.run(Hook::FromPod, a, ack)?;
        assert_eq!(flows(&both), 2);
        let rejudged = both.native.counters.borrow()[Reason::Opened.index(Hook::FromPod) as usize];
        for _ in 0..5 {
            both.run(Hook::FromPod, a, ack)?;
        }
        assert_eq!(both.native.counters.borrow()[Reason::Opened.index(Hook::FromPod) as usize], rejudged);
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_connection_that_was_reset_makes_room_for_the_next() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for flags in [SYN, RST | ACK, SYN] {
        for packet in from_a(POD_B, &Transport::Tcp(4000, 80, flags)) {
            both.run(Hook::FromPod, a, &packet)?;
        }
    }
    let opened = both.native.counters.borrow()[Reason::Opened.index(Hook::FromPod) as usize];
    assert_eq!(opened, 4, "two of each family");
    both.compare_flows()
}

#[test]
fn an_association_that_was_shut_down_makes_room_for_the_next() -> Result<()> {
    const INIT: u8 = 1;
    const SHUTDOWN: u8 = 7;
    const SHUTDOWN_ACK: u8 = 8;
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let chunk =
        |from, to, mac, ports: (u16, u16), kind| between(from, to, mac, &Transport::Sctp(ports.0, ports.1, kind));
    let there = |kind| chunk(POD_A, POD_B, mac(0xa), (4000, 9), kind);
    let back = |kind| chunk(POD_B, POD_A, mac(0xb), (9, 4000), kind);
    for (opened, packets) in [(2, there(INIT)), (2, there(SHUTDOWN)), (2, there(INIT)), (2, there(SHUTDOWN))] {
        for packet in packets {
            both.run(Hook::FromPod, a, &packet)?;
        }
        assert_eq!(both.count(Hook::FromPod, Reason::Opened), opened, "half closed, it goes on");
    }
    for packet in back(SHUTDOWN_ACK) {
        both.run(Hook::FromPod, b, &packet)?;
    }
    for packet in there(INIT) {
        both.run(Hook::FromPod, a, &packet)?;
    }
    assert_eq!(both.count(Hook::FromPod, Reason::Opened), 4);
    both.compare_flows()
}

#[test]
fn a_reset_that_is_followed_by_more_was_none() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for flags in [SYN, RST | ACK, ACK, SYN] {
        for packet in from_a(POD_B, &Transport::Tcp(4000, 80, flags)) {
            both.run(Hook::FromPod, a, &packet)?;
        }
    }
    assert_eq!(both.count(Hook::FromPod, Reason::Opened), 2, "one of each family");
    both.compare_flows()
}

#[test]
fn other_nodes_are_reached_natively_or_through_the_overlay() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let udp = Transport::Udp(4000, 53);
    for (to, hop) in [(NATIVE_POD, NATIVE_NODE), (NATIVE_NODE, NATIVE_NODE)] {
        for (packet, hop) in from_a(to, &udp).iter().zip(hops(hop)) {
            let ran = both.run(Hook::FromPod, a, packet)?;
            assert_eq!((ran.verdict, &ran.data), (Verdict::Neighbour(hop), packet), "with its own address");
        }
    }
    for packet in from_a(OVERLAY_POD, &udp) {
        let ran = both.run(Hook::FromPod, a, &packet)?;
        assert_eq!((ran.verdict, &ran.data), (Verdict::Overlay(2), &packet));
    }
    both.compare_flows()
}

#[test]
fn what_is_too_large_for_the_overlay_goes_to_the_stack_to_be_answered() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for ip in [Ip::v4(POD_A.0, OVERLAY_POD.0), Ip::v6(POD_A.1, OVERLAY_POD.1)] {
        let large = Recipe { mac: mac(0xa), ip, transport: Transport::Udp(1, 2), payload: 1444 }.build();
        assert_eq!(both.run(Hook::FromPod, a, &large)?.verdict, Verdict::Pass);
    }
    both.compare_flows()
}

#[test]
fn what_is_too_large_for_the_way_to_a_node_through_the_overlay_is_answered_here() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for (ip, kind) in [(Ip::v4(POD_A.0, OVERLAY_NODE.0), [3, 4]), (Ip::v6(POD_A.1, OVERLAY_NODE.1), [2, 0])] {
        let large = Recipe { mac: mac(0xa), ip, transport: Transport::Udp(1, 2), payload: 1444 }.build();
        let told = both.run(Hook::FromPod, a, &large)?;
        // The stack has a way there that is not the overlay's.
        assert_eq!(told.verdict, Verdict::Back);
        assert_eq!(told.data[if kind[0] == 3 { 34 } else { 54 }..][..2], kind);
    }
    both.compare_flows()
}

#[test]
fn large_segments_are_too_large_where_what_they_are_cut_into_is() -> Result<()> {
    /// Largest packet of the scene's overlay.
    const MTU: u32 = 1450;
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for (network, ip) in [(20, Ip::v4(POD_A.0, OVERLAY_POD.0)), (40, Ip::v6(POD_A.1, OVERLAY_POD.1))] {
        for (header, transport) in [(20, Transport::Tcp(1, 2, ACK)), (8, Transport::Udp(1, 2))] {
            let data = Recipe { mac: mac(0xa), ip: ip.clone(), transport, payload: 3000 }.build();
            let most = MTU - network - header;
            for (segment, verdict) in [(most, Verdict::Overlay(2)), (most + 1, Verdict::Pass)] {
                let segments = Bytes { segment, ..Bytes::new(data.clone(), a) };
                assert_eq!(both.run_as(Hook::FromPod, segments)?.verdict, verdict, "{segment} bytes of payload");
            }
        }
    }
    // The sender has put the pieces together for its way's MTU (GSO_BY_FRAGS, include/linux/skbuff.h).
    for ip in [Ip::v4(POD_A.0, OVERLAY_POD.0), Ip::v6(POD_A.1, OVERLAY_POD.1)] {
        let data = Recipe { mac: mac(0xa), ip, transport: Transport::Sctp(1, 2, 0), payload: 3000 }.build();
        let segments = Bytes { segment: 0xffff, ..Bytes::new(data, a) };
        assert_eq!(both.run_as(Hook::FromPod, segments)?.verdict, Verdict::Overlay(2));
    }
    both.compare_flows()
}

#[test]
fn the_node_and_its_pods_talk_through_the_stack() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    for request in from_a(NODE, &Transport::Tcp(4000, 80, SYN)) {
        assert_eq!(both.run(Hook::FromPod, a, &request)?.verdict, Verdict::Pass);
        let answer = reversed(&request, SYN | ACK);
        assert_eq!(both.run(Hook::ToPod, a, &answer)?.verdict, Verdict::Pass);
    }
    for probe in between(NODE, POD_A, mac(0), &Transport::Tcp(5000, 8080, SYN)) {
        assert_eq!(both.run(Hook::ToPod, a, &probe)?.verdict, Verdict::Pass);
        let mut answer = reversed(&probe, SYN | ACK);
        answer[6..12].copy_from_slice(&mac(0xa));
        assert_eq!(both.run(Hook::FromPod, a, &answer)?.verdict, Verdict::Pass);
    }
    both.compare_flows()
}

#[test]
fn the_network_reaches_pods_but_not_addresses_without_one() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    let udp = Transport::Udp(53, 4000);
    for packet in between(NATIVE_POD, POD_A, mac(0), &udp) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Pod(a));
    }
    for packet in between(NATIVE_POD, NOBODY, mac(0), &udp) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Drop(Reason::NoEndpoint));
    }
    for packet in between(POD_B, POD_A, mac(0), &udp) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Drop(Reason::MartianSource));
    }
    for packet in between(OVERLAY_POD, POD_A, mac(0), &udp) {
        let forged = both.run(Hook::FromNet, uplink, &packet)?.verdict;
        assert_eq!(forged, Verdict::Drop(Reason::MartianSource), "its node sends through the overlay");
    }
    for packet in between(ROUTER, NODE, mac(0), &Transport::Tcp(1, 22, SYN)) {
        assert_eq!(both.run(Hook::FromNet, uplink, &packet)?.verdict, Verdict::Pass, "the node's own");
    }
    for packet in between(NATIVE_POD, POD_A, mac(0), &udp) {
        assert_eq!(
            both.run(Hook::FromOverlay, both.scene.overlay, &packet)?.verdict,
            Verdict::Drop(Reason::UnknownTunnel)
        );
    }
    both.compare_flows()
}

#[test]
fn a_change_is_noticed_at_the_next_packet_and_costs_none() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let packets = from_a(POD_B, &Transport::Udp(4000, 53));
    for packet in &packets {
        both.run(Hook::FromPod, a, packet)?;
    }
    both.revise(RevisionSlot::of_endpoint(Slot(2)))?;
    for packet in &packets {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Pod(both.scene.pod_b));
    }
    assert_eq!(both.native.counters.borrow()[Reason::Rejudged.index(Hook::FromPod) as usize], 2);

    both.endpoint(2, 0, POD_B, mac(0xb))?;
    both.revise(RevisionSlot::of_endpoint(Slot(2)))?;
    for packet in &packets {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Drop(Reason::NoEndpoint));
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn routes_are_followed_again_when_they_change() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    let packets = from_a(NATIVE_POD, &Transport::Udp(4000, 53));
    for packet in &packets {
        both.run(Hook::FromPod, a, packet)?;
    }
    // The other node's pods turn out to be on this one's neighbour: their route is a host's own now.
    both.addresses(NATIVE_POD, (32, 128), AddressKind::Node, 1)?;
    both.revise(RevisionSlot::ROUTES)?;
    for (packet, hop) in packets.iter().zip(hops(NATIVE_NODE)) {
        assert_eq!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Neighbour(hop));
    }
    both.compare_flows()?;
    both.compare_counters()
}
