//! What policies say of flows, and what becomes of these when it changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use sluice_abi::{
    AddressKind, DenialKey, Direction, Hook, Identity, Ipv4, Ipv6, PolicyDirection, PolicyMode, Port, Protocol, Reason,
    Rule, RuleKey, RuleSetId, RuleVerdict, Slot, Verdict as Judged,
};
use sluice_policy::{PodName, Step};
use sluice_tests::packet::addresses::{NATIVE_POD, NOBODY, NODE, OUTSIDE, POD_A, POD_B, Pair, ROUTER};
use sluice_tests::packet::{Both, Build, Ip, Recipe, Transport, Verdict, mac, reversed};

use super::outside::fragments;
use PolicyDirection::{Egress, Ingress};
use RuleVerdict::{Allow, Deny, Isolate};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A web request, a question of DNS.
const WEB: Transport = Transport::Tcp(4000, 80, SYN);
const DNS: Transport = Transport::Udp(4000, 53);

/// Rule sets that rule one direction, or both.
const INTO: RuleSetId = RuleSetId::new(1, [true, false]);
const OUT: RuleSetId = RuleSetId::new(2, [false, true]);
const EITHER: RuleSetId = RuleSetId::new(3, [true, true]);

/// Anyone, and two that policies know.
const ANYONE: u32 = 0;
const FRIEND: u32 = 5;
const STRANGER: u32 = 6;

fn a() -> PodName {
    PodName::new("x", "a")
}

fn b() -> PodName {
    PodName::new("x", "b")
}

/// The scene, with pods that policies may select but say nothing of.
fn scene() -> Result<Both> {
    let mut both = Both::set()?;
    for (slot, pod) in [(1, a()), (2, b())] {
        both.make(&[Step::SetRuleSet(pod.clone(), RuleSetId::OPEN)])?;
        both.enforce(&pod, slot)?;
    }
    Ok(both)
}

/// The scene, in which the first pod has a rule set of these rules.
fn scene_with<const N: usize>(rule_set: RuleSetId, rules: [Step; N]) -> Result<Both> {
    let mut both = scene()?;
    both.make(&rules)?;
    both.make(&[Step::SetRuleSet(a(), rule_set)])?;
    Ok(both)
}

/// Of the ports that a rule is about, all that share their first bits.
#[derive(Clone, Copy)]
struct Ports(Protocol, u16, u32);

const ALL: Ports = Ports(Protocol(0), 0, RuleKey::ANY_PROTOCOL);
const HTTP: Ports = Ports(Protocol::TCP, 80, RuleKey::ONE_PORT);

/// A rule, whose policy has the number of its verdict and whom it is about: 105 allows a friend.
fn rule(rule_set: RuleSetId, direction: PolicyDirection, who: u32, ports: Ports, verdict: RuleVerdict) -> Step {
    let Ports(protocol, port, length) = ports;
    let key = RuleKey::new(rule_set, direction, Identity(who), protocol, Port::new(port)).prefix(length);
    Step::AddRule(key, Rule { verdict, policy: policy(who, verdict) })
}

fn policy(who: u32, verdict: RuleVerdict) -> u32 {
    100 * (verdict as u32 + 1) + who
}

/// Says as whom policies know a pair of addresses.
fn identify((v4, v6): Pair, who: u32) -> [Step; 2] {
    [IpAddr::V4(v4), IpAddr::V6(v6)].map(|address| Step::SetIdentity(IpNet::from(address), Identity(who)))
}

/// Packets of both families.
fn packets(from: Pair, to: Pair, transport: &Transport) -> [Vec<u8>; 2] {
    let mac = if from == POD_B { mac(0xb) } else { mac(0xa) };
    [Ip::v4(from.0, to.0), Ip::v6(from.1, to.1)]
        .map(|ip| Recipe { mac, ip, transport: transport.clone(), payload: 16 }.build())
}

/// Where packets from one to another are seen first.
fn entrance(both: &Both, from: Pair, to: Pair) -> (Hook, u32) {
    let pod = |pair| if pair == POD_A { both.scene.pod_a } else { both.scene.pod_b };
    match from {
        POD_A | POD_B => (Hook::FromPod, pod(from)),
        NODE => (Hook::ToPod, pod(to)),
        _ => (Hook::FromNet, both.scene.uplink),
    }
}

/// Whether policies let packets pass, of which both families are told the same.
fn allows(both: &mut Both, from: Pair, to: Pair, transport: &Transport) -> Result<bool> {
    let (hook, interface) = entrance(both, from, to);
    let [v4, v6] = packets(from, to, transport).map(|packet| both.run(hook, interface, &packet));
    let is_allowed = |verdict| match verdict {
        Verdict::Drop(Reason::Policy) => Ok(false),
        Verdict::Drop(other) => anyhow::bail!("{from:?} to {to:?} is dropped for {other:?}"),
        Verdict::Back
        | Verdict::Pass
        | Verdict::Pod(_)
        | Verdict::Neighbour(_)
        | Verdict::Overlay(_)
        | Verdict::Direct(_) => Ok(true),
    };
    let told = [is_allowed(v4?.verdict)?, is_allowed(v6?.verdict)?];
    ensure!(told[0] == told[1], "families are told differently: {told:?}");
    Ok(told[0])
}

/// The same connection, when it goes on.
fn going_on(transport: &Transport) -> Transport {
    match transport {
        Transport::Tcp(source, destination, _) => Transport::Tcp(*source, *destination, ACK),
        other => other.clone(),
    }
}

/// The answer of whom something was sent to.
fn answer(transport: &Transport) -> Transport {
    match transport {
        Transport::Tcp(source, destination, _) => Transport::Tcp(*destination, *source, SYN | ACK),
        Transport::Udp(source, destination) => Transport::Udp(*destination, *source),
        Transport::Sctp(source, destination, _) => Transport::Sctp(*destination, *source, 2),
        Transport::Echo(request, id) => Transport::Echo(!request, *id),
        other => other.clone(),
    }
}

/// A flow that both ends have taken part in.
fn establish(both: &mut Both, from: Pair, to: Pair, transport: &Transport) -> Result<()> {
    ensure!(allows(both, from, to, transport)?, "it is not allowed");
    ensure!(allows(both, to, from, &answer(transport))?, "its answer is not allowed");
    ensure!(allows(both, from, to, &going_on(transport))?, "it does not go on");
    Ok(())
}

/// Packets that the flows of a direction have let pass, of both families.
fn passed(both: &Both, direction: Direction) -> u64 {
    let (v4, v6) = (both.native.v4.flows.borrow(), both.native.v6.flows.borrow());
    let v4 = v4.values().filter(|flow| flow.direction == direction).map(|flow| flow.packets);
    let v6 = v6.values().filter(|flow| flow.direction == direction).map(|flow| flow.packets);
    v4.chain(v6).sum()
}

/// How many entries there are of flows of any kind.
fn entries(both: &Both) -> usize {
    both.established() + both.native.v4.openings.borrow().len() + both.native.v6.openings.borrow().len()
}

/// How many flows have been judged again.
fn rejudged(both: &Both) -> u64 {
    Hook::ALL.iter().map(|hook| both.count(*hook, Reason::Rejudged)).sum()
}

/// Both builds have done the same.
fn agree(both: &Both) -> Result<()> {
    both.compare_flows()?;
    both.compare_denials()?;
    both.compare_counters()
}

#[test]
fn what_a_pod_must_not_send_does_not_leave_it() -> Result<()> {
    let mut both = scene_with(OUT, [rule(OUT, Egress, ANYONE, ALL, Isolate)])?;
    for to in [POD_B, NATIVE_POD, OUTSIDE] {
        assert!(!allows(&mut both, POD_A, to, &WEB)?, "{to:?}");
    }
    assert!(allows(&mut both, POD_B, POD_A, &WEB)?, "it is ruled in the other direction only");
    assert!(allows(&mut both, NATIVE_POD, POD_A, &WEB)?);
    agree(&both)
}

#[test]
fn what_a_pod_must_not_get_does_not_reach_it() -> Result<()> {
    let mut both = scene_with(INTO, [rule(INTO, Ingress, ANYONE, ALL, Isolate)])?;
    for from in [POD_B, NATIVE_POD, OUTSIDE] {
        assert!(!allows(&mut both, from, POD_A, &WEB)?, "{from:?}");
    }
    assert!(allows(&mut both, POD_A, POD_B, &WEB)?, "it is ruled in the other direction only");
    assert!(allows(&mut both, POD_A, OUTSIDE, &WEB)?);
    agree(&both)
}

#[test]
fn both_ends_must_allow_a_flow() -> Result<()> {
    for (sender, receiver) in [(Allow, Allow), (Allow, Deny), (Deny, Allow), (Deny, Deny)] {
        let mut both = scene()?;
        both.make(&identify(POD_A, FRIEND))?;
        both.make(&identify(POD_B, STRANGER))?;
        both.make(&[
            rule(OUT, Egress, STRANGER, HTTP, sender),
            rule(INTO, Ingress, FRIEND, HTTP, receiver),
            Step::SetRuleSet(a(), OUT),
            Step::SetRuleSet(b(), INTO),
        ])?;
        let expected = (sender, receiver) == (Allow, Allow);
        assert_eq!(allows(&mut both, POD_A, POD_B, &WEB)?, expected, "{sender:?} {receiver:?}");
        agree(&both)?;
    }
    Ok(())
}

#[test]
fn answers_need_no_rule_of_their_own() -> Result<()> {
    let mut both = scene_with(EITHER, [rule(EITHER, Egress, ANYONE, ALL, Allow)])?;
    both.make(&[rule(OUT, Egress, ANYONE, ALL, Isolate), Step::SetRuleSet(b(), OUT)])?;
    for transport in [WEB, DNS, Transport::Sctp(4000, 9, 1), Transport::Echo(true, 7)] {
        for peer in [POD_B, NATIVE_POD] {
            assert!(allows(&mut both, POD_A, peer, &transport)?);
            assert!(allows(&mut both, peer, POD_A, &answer(&transport))?, "{transport:?} of {peer:?}");
        }
    }
    both.clear()?;
    for peer in [POD_B, NATIVE_POD] {
        assert!(!allows(&mut both, peer, POD_A, &WEB)?, "what answers nothing is no answer");
    }
    let left = packets(POD_A, OUTSIDE, &DNS).map(|packet| both.run(Hook::FromPod, both.scene.pod_a, &packet));
    for packet in left {
        let back = both.run(Hook::FromNet, both.scene.uplink, &reversed(&packet?.data, 0))?;
        assert_eq!(back.verdict, Verdict::Pod(both.scene.pod_a));
    }
    agree(&both)
}

/// ICMP errors of a router to a pod, about packets that it has sent.
fn errors_about(sent: &[Vec<u8>; 2], to: Pair) -> [Vec<u8>; 2] {
    let [v4, v6] = sent.each_ref().map(|packet| [&[0; 4], &packet[14..]].concat());
    let build =
        |ip, kind, rest| Recipe { mac: mac(1), ip, transport: Transport::Icmp(kind, 1, rest), payload: 0 }.build();
    [build(Ip::v4(ROUTER.0, to.0), 3, v4), build(Ip::v6(ROUTER.1, to.1), 1, v6)]
}

#[test]
fn errors_share_the_fate_of_the_flow_that_they_are_about() -> Result<()> {
    let only_web = [rule(EITHER, Egress, ANYONE, HTTP, Allow), rule(EITHER, Ingress, ANYONE, ALL, Isolate)];
    let mut both = scene_with(EITHER, only_web)?;
    let told = |both: &mut Both, transport: &Transport| -> Result<[Verdict; 2]> {
        let errors = errors_about(&packets(POD_A, NATIVE_POD, transport), POD_A);
        let [v4, v6] = errors.map(|error| both.run(Hook::FromNet, both.scene.uplink, &error));
        Ok([v4?.verdict, v6?.verdict])
    };
    assert!(allows(&mut both, POD_A, NATIVE_POD, &WEB)?);
    assert_eq!(told(&mut both, &WEB)?, [Verdict::Pod(both.scene.pod_a); 2], "although nobody may reach it");

    assert!(!allows(&mut both, POD_A, NATIVE_POD, &DNS)?);
    assert_eq!(told(&mut both, &DNS)?, [Verdict::Drop(Reason::UnrelatedIcmp); 2], "there is no such flow");

    both.make(&[Step::SetRuleSet(a(), RuleSetId::CLOSED)])?;
    assert_eq!(told(&mut both, &WEB)?, [Verdict::Drop(Reason::Policy); 2], "nor may the flow go on");
    agree(&both)
}

#[test]
fn protocols_without_ports_are_only_in_rules_for_any_protocol() -> Result<()> {
    let all_tcp = Ports(Protocol::TCP, 0, RuleKey::ANY_PORT);
    let portless = [Transport::Other(47, vec![0; 8]), Transport::Echo(true, 7)];
    for (ports, expected) in [(ALL, true), (all_tcp, false)] {
        let mut both = scene_with(INTO, [rule(INTO, Ingress, ANYONE, ports, Allow)])?;
        for transport in &portless {
            assert_eq!(allows(&mut both, NATIVE_POD, POD_A, transport)?, expected, "{transport:?}");
        }
        assert!(allows(&mut both, NATIVE_POD, POD_A, &WEB)?);
        agree(&both)?;
    }
    Ok(())
}

#[test]
fn of_rules_for_ports_the_longest_prefix_counts() -> Result<()> {
    let of_udp = |port, length| Ports(Protocol::UDP, port, length);
    let mut both = scene_with(
        INTO,
        [
            rule(INTO, Ingress, ANYONE, of_udp(0, RuleKey::ANY_PORT), Isolate),
            // 8080 to 8087, of them not 8082 and 8083, but 8083.
            rule(INTO, Ingress, ANYONE, of_udp(8080, RuleKey::ONE_PORT - 3), Allow),
            rule(INTO, Ingress, ANYONE, of_udp(8082, RuleKey::ONE_PORT - 1), Deny),
            rule(INTO, Ingress, ANYONE, of_udp(8083, RuleKey::ONE_PORT), Allow),
        ],
    )?;
    for (port, expected) in [
        (0, false),
        (8079, false),
        (8080, true),
        (8081, true),
        (8082, false),
        (8083, true),
        (8084, true),
        (8087, true),
        (8088, false),
        (65535, false),
    ] {
        assert_eq!(allows(&mut both, NATIVE_POD, POD_A, &Transport::Udp(4000, port))?, expected, "{port}");
        assert!(!allows(&mut both, NATIVE_POD, POD_A, &Transport::Tcp(4000, port, SYN))?, "{port}, of TCP");
    }
    agree(&both)
}

#[test]
fn a_pod_reaches_itself_whatever_policies_say() -> Result<()> {
    let mut both = scene_with(EITHER, [rule(EITHER, Egress, ANYONE, ALL, Deny)])?;
    for rule_set in [EITHER, RuleSetId::CLOSED] {
        both.make(&[Step::SetRuleSet(a(), rule_set)])?;
        assert!(allows(&mut both, POD_A, POD_A, &WEB)?);
        assert!(!allows(&mut both, POD_A, POD_B, &WEB)?);
    }
    agree(&both)
}

#[test]
fn its_node_reaches_a_pod_and_what_the_stack_forwards_is_not_the_nodes() -> Result<()> {
    let gateways = (Ipv4Addr::new(169, 254, 1, 1), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let mut both = scene_with(INTO, [rule(INTO, Ingress, ANYONE, ALL, Deny)])?;
    for rule_set in [INTO, RuleSetId::CLOSED] {
        both.make(&[Step::SetRuleSet(a(), rule_set)])?;
        for (from, verdict) in [
            (NODE, Verdict::Pass),
            (gateways, Verdict::Pass),
            (OUTSIDE, Verdict::Drop(Reason::Policy)),
            (NATIVE_POD, Verdict::Drop(Reason::Policy)),
            (POD_B, Verdict::Drop(Reason::Policy)),
        ] {
            for packet in packets(from, POD_A, &WEB) {
                assert_eq!(both.run(Hook::ToPod, both.scene.pod_a, &packet)?.verdict, verdict, "{from:?}");
            }
        }
    }
    agree(&both)
}

#[test]
fn its_node_is_reached_unless_a_rule_denies_it() -> Result<()> {
    for (verdict, expected) in [(Allow, true), (Isolate, true), (Deny, false)] {
        let mut both = scene_with(OUT, [rule(OUT, Egress, ANYONE, ALL, verdict)])?;
        assert_eq!(allows(&mut both, POD_A, NODE, &WEB)?, expected, "{verdict:?}");
        assert_eq!(allows(&mut both, POD_A, NATIVE_POD, &WEB)?, verdict == Allow, "{verdict:?}, of others");
        agree(&both)?;
    }
    let mut both = scene_with(OUT, [])?;
    assert!(!allows(&mut both, POD_A, NODE, &WEB)?, "rules that are not there yet allow nothing");
    agree(&both)
}

#[test]
fn nothing_but_its_node_reaches_a_pod_that_is_closed() -> Result<()> {
    let mut both = scene_with(RuleSetId::CLOSED, [rule(RuleSetId::CLOSED, Ingress, ANYONE, ALL, Allow)])?;
    for peer in [POD_B, NATIVE_POD, OUTSIDE] {
        assert!(!allows(&mut both, peer, POD_A, &WEB)?);
        assert!(!allows(&mut both, POD_A, peer, &WEB)?);
    }
    assert!(!allows(&mut both, POD_A, NODE, &WEB)?);
    establish(&mut both, NODE, POD_A, &WEB)?;
    agree(&both)
}

#[test]
fn a_change_stops_live_flows_in_both_directions_and_a_change_back_lets_them_go_on() -> Result<()> {
    for transport in [WEB, DNS] {
        let mut both = scene_with(INTO, [rule(INTO, Ingress, ANYONE, ALL, Isolate)])?;
        both.make(&[Step::SetRuleSet(a(), RuleSetId::OPEN)])?;
        let on = going_on(&transport);
        for peer in [POD_B, NATIVE_POD] {
            establish(&mut both, peer, POD_A, &transport)?;
        }
        let before = both.native.lookups.get();
        assert!(allows(&mut both, POD_B, POD_A, &on)?);
        assert_eq!(both.native.lookups.get() - before, 2, "one for each family: the fast path");
        let counted = [passed(&both, Direction::Forward), passed(&both, Direction::Reply)];

        both.make(&[Step::SetRuleSet(a(), INTO)])?;
        for peer in [POD_B, NATIVE_POD] {
            assert!(!allows(&mut both, peer, POD_A, &on)?, "of {peer:?}");
            assert!(!allows(&mut both, POD_A, peer, &answer(&transport))?, "to {peer:?}");
            assert!(!allows(&mut both, peer, POD_A, &on)?, "it stays stopped");
        }
        assert_eq!([passed(&both, Direction::Forward), passed(&both, Direction::Reply)], counted);

        both.make(&[Step::SetRuleSet(a(), RuleSetId::OPEN)])?;
        for peer in [POD_B, NATIVE_POD] {
            assert!(allows(&mut both, peer, POD_A, &on)?);
            assert!(allows(&mut both, POD_A, peer, &answer(&transport))?);
        }
        let now = [passed(&both, Direction::Forward), passed(&both, Direction::Reply)];
        assert_eq!(now, counted.map(|packets| packets + 4), "they are the flows that they were");
        assert_eq!(both.established(), 8);
        agree(&both)?;
    }
    Ok(())
}

#[test]
fn a_flow_that_is_still_allowed_goes_on_as_the_same() -> Result<()> {
    let mut both = scene_with(INTO, [rule(INTO, Ingress, ANYONE, ALL, Allow)])?;
    establish(&mut both, POD_B, POD_A, &WEB)?;
    let (counted, judged) = (passed(&both, Direction::Forward), rejudged(&both));
    both.make(&[rule(EITHER, Ingress, ANYONE, ALL, Allow), Step::SetRuleSet(a(), EITHER)])?;
    for _ in 0..3 {
        assert!(allows(&mut both, POD_B, POD_A, &going_on(&WEB))?);
    }
    assert_eq!(passed(&both, Direction::Forward), counted + 6);
    assert_eq!(rejudged(&both), judged + 2, "once for each family");
    agree(&both)
}

#[test]
fn who_becomes_another_to_policies_has_its_flows_judged_again_and_nobody_else() -> Result<()> {
    const NEIGHBOUR: Pair = (Ipv4Addr::new(10, 2, 0, 8), Ipv6Addr::new(0xfd00, 0x10, 2, 0, 0, 0, 0, 8));
    let mut both = scene_with(OUT, [rule(OUT, Egress, FRIEND, HTTP, Allow)])?;
    for peer in [NATIVE_POD, NEIGHBOUR] {
        both.make(&identify(peer, FRIEND))?;
        establish(&mut both, POD_A, peer, &WEB)?;
    }
    let on = going_on(&WEB);
    both.make(&[rule(OUT, Egress, STRANGER, HTTP, Allow)])?;
    for (who, judged_again) in [(STRANGER, 2), (FRIEND, 4)] {
        both.make(&identify(NATIVE_POD, who))?;
        for _ in 0..2 {
            assert!(allows(&mut both, POD_A, NATIVE_POD, &on)? && allows(&mut both, POD_A, NEIGHBOUR, &on)?);
        }
        assert_eq!(rejudged(&both), judged_again, "two flows, once for each change");
    }
    both.make(&identify(NATIVE_POD, ANYONE))?;
    assert!(!allows(&mut both, POD_A, NATIVE_POD, &on)?);
    assert!(!allows(&mut both, NATIVE_POD, POD_A, &answer(&WEB))?);
    assert!(allows(&mut both, POD_A, NEIGHBOUR, &on)?);
    agree(&both)
}

#[test]
fn a_pod_of_this_node_becomes_another_to_policies_too() -> Result<()> {
    let mut both = scene_with(OUT, [rule(OUT, Egress, FRIEND, HTTP, Allow)])?;
    both.make(&identify(POD_B, FRIEND))?;
    establish(&mut both, POD_A, POD_B, &WEB)?;
    let on = going_on(&WEB);
    both.make(&identify(POD_B, STRANGER))?;
    assert!(!allows(&mut both, POD_A, POD_B, &on)?);
    assert!(!allows(&mut both, POD_B, POD_A, &answer(&WEB))?);
    both.make(&identify(POD_B, FRIEND))?;
    assert!(allows(&mut both, POD_A, POD_B, &on)?);
    agree(&both)
}

#[test]
fn policies_may_know_the_addresses_of_a_pod_as_different_ones() -> Result<()> {
    let mut both = scene_with(OUT, [rule(OUT, Egress, FRIEND, HTTP, Allow)])?;
    let [v4, _] = identify(POD_B, FRIEND);
    let [_, v6] = identify(POD_B, STRANGER);
    both.make(&[v4, v6])?;
    let told = packets(POD_A, POD_B, &WEB).map(|packet| both.run(Hook::FromPod, both.scene.pod_a, &packet));
    let [v4, v6] = told;
    assert_eq!(v4?.verdict, Verdict::Pod(both.scene.pod_b));
    assert_eq!(v6?.verdict, Verdict::Drop(Reason::Policy));
    agree(&both)
}

#[test]
fn the_next_pod_in_a_slot_is_not_judged_as_the_one_before() -> Result<()> {
    let next = PodName::new("x", "next");
    let mut both = scene_with(OUT, [rule(OUT, Egress, FRIEND, HTTP, Allow)])?;
    both.make(&identify(POD_B, FRIEND))?;
    establish(&mut both, POD_A, POD_B, &WEB)?;
    establish(&mut both, NATIVE_POD, POD_B, &WEB)?;
    let interface = both.scene.far;
    let on = going_on(&WEB);

    // It has the same address; nobody has said yet what may reach it.
    both.endpoint(2, interface, POD_B, mac(0xb))?;
    both.enforce(&next, 2)?;
    for peer in [POD_A, NATIVE_POD] {
        assert!(!allows(&mut both, peer, POD_B, &on)?);
        assert!(!allows(&mut both, peer, POD_B, &DNS)?);
    }
    both.make(&[Step::SetRuleSet(next.clone(), RuleSetId::OPEN)])?;
    for packet in packets(NATIVE_POD, POD_B, &DNS) {
        assert_eq!(both.run(Hook::FromNet, both.scene.uplink, &packet)?.verdict, Verdict::Pod(interface));
    }

    // It has another address, and the old one still leads to its slot: who may send to the new one may not to the old.
    both.make(&identify(NOBODY, FRIEND))?;
    both.endpoint(2, interface, NOBODY, mac(0xb))?;
    both.enforce(&next, 2)?;
    for packet in packets(POD_A, POD_B, &Transport::Tcp(4001, 80, SYN)) {
        let late = both.run(Hook::FromPod, both.scene.pod_a, &packet)?.verdict;
        assert_eq!(late, Verdict::Drop(Reason::NoEndpoint));
    }
    both.addresses(NOBODY, (32, 128), AddressKind::Endpoint, 2)?;
    assert!(allows(&mut both, POD_A, NOBODY, &WEB)?);
    agree(&both)
}

#[test]
fn what_is_denied_leaves_no_flow_and_takes_no_port() -> Result<()> {
    let mut both = scene_with(EITHER, [rule(EITHER, Egress, ANYONE, ALL, Deny)])?;
    for (from, to) in
        [(POD_A, POD_B), (POD_A, NATIVE_POD), (POD_A, OUTSIDE), (POD_A, NODE), (POD_B, POD_A), (NATIVE_POD, POD_A)]
    {
        for transport in [WEB, DNS, Transport::Echo(true, 7), Transport::Other(47, vec![0; 8])] {
            assert!(!allows(&mut both, from, to, &transport)?);
        }
    }
    assert_eq!(entries(&both), 0);
    assert!(allows(&mut both, POD_B, OUTSIDE, &DNS)?, "the only port is free");
    agree(&both)
}

#[test]
fn fragments_share_the_fate_of_their_first() -> Result<()> {
    for (verdict, expected) in [(Allow, true), (Deny, false)] {
        let of_dns = Ports(Protocol::UDP, 53, RuleKey::ONE_PORT);
        let other = if expected { Deny } else { Allow };
        let all = rule(OUT, Egress, ANYONE, ALL, other);
        let mut both = scene_with(OUT, [all, rule(OUT, Egress, ANYONE, of_dns, verdict)])?;
        for packet in fragments(POD_A, NATIVE_POD, (4000, 53)).iter().flatten() {
            let told = both.run(Hook::FromPod, both.scene.pod_a, packet)?.verdict;
            assert_eq!(told != Verdict::Drop(Reason::Policy), expected, "{told:?}");
        }
        agree(&both)?;
    }
    Ok(())
}

/// All that was denied, and how often.
fn denials(both: &Both) -> Vec<(DenialKey, u64)> {
    both.native.denials.borrow().iter().map(|(key, count)| (*key, *count)).collect()
}

#[test]
fn a_denial_says_what_was_denied_to_whom_and_by_what() -> Result<()> {
    let rules = [rule(EITHER, Egress, FRIEND, ALL, Deny), rule(EITHER, Ingress, ANYONE, ALL, Isolate)];
    let mut both = scene_with(EITHER, rules)?;
    both.make(&identify(POD_B, FRIEND))?;
    let echo = Transport::Echo(true, 7);
    let (deny, isolate) = (policy(FRIEND, Deny), policy(ANYONE, Isolate));
    for (from, to, transport, (direction, policy), port, count) in [
        (POD_A, POD_B, WEB, (Egress, deny), 80, 1),
        (POD_A, POD_B, echo, (Egress, deny), 0, 2),
        (POD_B, POD_A, DNS, (Ingress, isolate), 53, 3),
        (NATIVE_POD, POD_A, Transport::Other(47, vec![0; 8]), (Ingress, isolate), 0, 1),
        (POD_A, NATIVE_POD, WEB, (Egress, 0), 80, 1),
    ] {
        both.clear()?;
        for _ in 0..count {
            assert!(!allows(&mut both, from, to, &transport)?);
        }
        let peer = if from == POD_A { to } else { from };
        let protocols = match transport {
            Transport::Tcp(..) => [Protocol::TCP; 2],
            Transport::Udp(..) => [Protocol::UDP; 2],
            Transport::Echo(..) => [Protocol::ICMP, Protocol::ICMPV6],
            _ => [Protocol(47); 2],
        };
        let peers = [DenialKey::peer(Ipv4::from(peer.0)), DenialKey::peer(Ipv6::from(peer.1))];
        for (peer, protocol) in peers.into_iter().zip(protocols) {
            let expected = DenialKey {
                endpoint: Slot(1),
                policy,
                direction,
                mode: PolicyMode::Enforce,
                peer,
                protocol,
                port: Port::new(port),
                pad: 0,
            };
            assert!(denials(&both).contains(&(expected, count)), "{expected:?} in {:?}", denials(&both));
        }
        assert_eq!(denials(&both).len(), 2, "one of each family");
        both.compare_denials()?;
    }
    agree(&both)
}

#[test]
fn an_audit_lets_pass_what_it_writes_down() -> Result<()> {
    let mut both = scene_with(OUT, [rule(OUT, Egress, ANYONE, ALL, Deny)])?;
    both.make(&[rule(INTO, Ingress, ANYONE, ALL, Isolate), Step::SetRuleSet(b(), INTO)])?;
    for slot in [1, 2] {
        both.set_mode(slot, PolicyMode::Audit)?;
    }
    let verdicts = |both: &Both| {
        let (v4, v6) = (both.native.v4.flows.borrow(), both.native.v6.flows.borrow());
        v4.values().map(|flow| flow.verdict).chain(v6.values().map(|flow| flow.verdict)).collect::<Vec<_>>()
    };
    establish(&mut both, POD_A, POD_B, &WEB)?;
    assert_eq!(verdicts(&both), [Judged::Audit; 4]);
    let told: Vec<_> = denials(&both).iter().map(|(key, count)| (key.endpoint.0, key.mode, *count)).collect();
    assert_eq!(told.len(), 4, "of both families and both ends");
    for slot in [1, 2] {
        assert!(told.contains(&(slot, PolicyMode::Audit, 1)), "{told:?}");
    }

    let on = going_on(&WEB);
    both.set_mode(2, PolicyMode::Enforce)?;
    assert!(!allows(&mut both, POD_A, POD_B, &on)?, "one end does not only audit");
    both.make(&[Step::SetRuleSet(a(), RuleSetId::OPEN), Step::SetRuleSet(b(), RuleSetId::OPEN)])?;
    assert!(allows(&mut both, POD_A, POD_B, &on)?);
    assert_eq!(verdicts(&both), [Judged::Allow; 4]);
    agree(&both)
}

#[test]
fn each_direction_of_a_flow_names_what_lets_it_pass() -> Result<()> {
    let mut both = scene_with(OUT, [rule(OUT, Egress, STRANGER, HTTP, Allow)])?;
    both.make(&identify(POD_A, FRIEND))?;
    both.make(&identify(POD_B, STRANGER))?;
    both.make(&[rule(INTO, Ingress, FRIEND, HTTP, Allow), Step::SetRuleSet(b(), INTO)])?;
    establish(&mut both, POD_A, POD_B, &WEB)?;
    let policies = |both: &Both, direction: Direction| {
        let (v4, v6) = (both.native.v4.flows.borrow(), both.native.v6.flows.borrow());
        let v4 = v4.values().filter(|flow| flow.direction == direction).map(|flow| flow.policy);
        let v6 = v6.values().filter(|flow| flow.direction == direction).map(|flow| flow.policy);
        v4.chain(v6).collect::<Vec<_>>()
    };
    assert_eq!(policies(&both, Direction::Forward), [policy(STRANGER, Allow); 2], "what the sender's say");
    assert_eq!(policies(&both, Direction::Reply), [policy(FRIEND, Allow); 2], "what the receiver's say");

    // The answer leads to a new judgement, which is that of the flow all the same.
    both.make(&[Step::SetRuleSet(b(), RuleSetId::OPEN)])?;
    assert!(allows(&mut both, POD_B, POD_A, &answer(&WEB))?);
    assert_eq!(policies(&both, Direction::Forward), [policy(STRANGER, Allow); 2]);
    assert_eq!(policies(&both, Direction::Reply), [0; 2]);
    agree(&both)
}
