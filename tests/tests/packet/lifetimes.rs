//! How flows begin, go on and end.

use anyhow::Result;
use sluice_abi::{Direction, Hook, Reason, RevisionSlot, Slot, Timeouts};
use sluice_datapath::Outcome;
use sluice_tests::packet::addresses::{OUTSIDE, POD_A, POD_B, Pair};
use sluice_tests::packet::{Both, Build, Bytes, Ip, Recipe, Transport, Verdict, mac, reversed};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Jiffies that flows may be idle in these tests: more than any of them takes.
const TIMEOUT: u32 = 1_000_000;

/// A packet of the first pod, in both families.
fn from_a(to: Pair, transport: &Transport) -> [Vec<u8>; 2] {
    [Ip::v4(POD_A.0, to.0), Ip::v6(POD_A.1, to.1)]
        .map(|ip| Recipe { mac: mac(0xa), ip, transport: transport.clone(), payload: 8 }.build())
}

/// The answer of the second pod to a packet of the first.
fn answer_of_b(packet: &[u8], flags: u8) -> Vec<u8> {
    let mut answer = reversed(packet, flags);
    answer[6..12].copy_from_slice(&mac(0xb));
    answer
}

#[test]
fn a_question_with_one_answer_is_not_established() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    for (before, transport) in [Transport::Udp(4000, 53), Transport::Echo(true, 7)].iter().enumerate() {
        let questions = from_a(POD_B, transport);
        for question in &questions {
            both.run(Hook::FromPod, a, question)?;
            for _ in 0..2 {
                assert_eq!(both.run(Hook::FromPod, b, &answer_of_b(question, 0))?.verdict, Verdict::Pod(a));
            }
        }
        assert_eq!(both.established(), 4 * before, "an answer alone could have been called forth by a forged source");
        for question in &questions {
            both.run(Hook::FromPod, a, question)?;
        }
        assert_eq!(both.established(), 4 * before + 4);
    }
    assert_eq!(both.count(Hook::FromPod, Reason::Opened), 4);
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_full_table_takes_both_directions_or_none() -> Result<()> {
    let both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    both.native.room.set(1);
    let run = |interface, data: &[u8]| both.native.run(Hook::FromPod, &mut Bytes::new(data.to_vec(), interface));
    for question in from_a(POD_B, &Transport::Udp(4000, 53)) {
        for _ in 0..2 {
            assert_eq!(run(a, &question), Outcome::Pod { interface: b });
            assert_eq!(run(b, &answer_of_b(&question, 0)), Outcome::Pod { interface: a });
        }
    }
    assert_eq!(both.established(), 0);
    assert_eq!(both.count(Hook::FromPod, Reason::NotEstablished), 2);
    assert_eq!(both.count(Hook::FromPod, Reason::Opened), 2);
    Ok(())
}

#[test]
fn a_flow_that_lost_its_answers_gets_them_back_at_the_same_port() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, packet) in from_a(OUTSIDE, &Transport::Udp(4000, 53)).iter().enumerate() {
        both.configure(|config| (config.port_first, config.port_last) = (20_000, 20_000))?;
        let left = both.run(Hook::FromPod, a, packet)?;
        both.configure(|config| (config.port_first, config.port_last) = (10_000, 29_999))?;
        both.evict(Direction::Reply)?;
        assert_eq!(both.run(Hook::FromNet, uplink, &reversed(&left.data, 0))?.verdict, Verdict::Pass);
        assert_eq!(both.run(Hook::FromPod, a, packet)?.data, left.data, "family {family}");
        let back = both.run(Hook::FromNet, uplink, &reversed(&left.data, 0))?;
        assert_eq!((back.verdict, back.data), (Verdict::Pod(a), reversed(packet, 0)));
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_port_whose_flow_has_expired_is_free() -> Result<()> {
    let mut both = Both::set()?;
    let a = both.scene.pod_a;
    both.configure(|config| config.timeouts = Timeouts::new([TIMEOUT; 5]))?;
    let old = from_a(OUTSIDE, &Transport::Udp(4000, 53));
    let new = from_a(OUTSIDE, &Transport::Udp(4001, 53));
    for _ in 0..3 {
        for packet in &old {
            assert!(matches!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Neighbour(_)));
        }
        both.age(TIMEOUT / 2)?;
    }
    for packet in &new {
        let refused = both.run(Hook::FromPod, a, packet)?.verdict;
        assert_eq!(refused, Verdict::Drop(Reason::PortsExhausted), "the other has gone on, unanswered");
    }
    both.age(TIMEOUT)?;
    for packet in &new {
        assert!(matches!(both.run(Hook::FromPod, a, packet)?.verdict, Verdict::Neighbour(_)));
    }
    for packet in &old {
        let refused = both.run(Hook::FromPod, a, packet)?.verdict;
        assert_eq!(refused, Verdict::Drop(Reason::PortsExhausted), "it has lost its port");
    }
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_flow_that_was_seen_by_a_cpu_whose_clock_is_ahead_goes_on() -> Result<()> {
    let mut both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    both.configure(|config| config.timeouts = Timeouts::new([TIMEOUT; 5]))?;
    for question in from_a(POD_B, &Transport::Udp(4000, 53)) {
        both.run(Hook::FromPod, a, &question)?;
        both.run(Hook::FromPod, b, &answer_of_b(&question, 0))?;
        both.run(Hook::FromPod, a, &question)?;
        both.age(0_u32.wrapping_sub(TIMEOUT))?;
        let before = both.native.lookups.get();
        both.run(Hook::FromPod, a, &question)?;
        assert_eq!(both.native.lookups.get() - before, 1);
    }
    both.compare_flows()
}

#[test]
fn a_new_pod_with_the_address_of_another_has_flows_of_its_own() -> Result<()> {
    let mut both = Both::set()?;
    let (b, old, new) = (both.scene.pod_b, both.scene.pod_a, both.scene.far);
    let established = from_a(POD_B, &Transport::Udp(4000, 53));
    let started_by = |new_pod_first: bool, both: &mut Both| -> Result<()> {
        both.endpoint(1, old, POD_A, mac(0xa))?;
        both.revise(RevisionSlot::of_endpoint(Slot(1)))?;
        both.clear()?;
        for question in &established {
            both.run(Hook::FromPod, old, question)?;
            both.run(Hook::FromPod, b, &answer_of_b(question, 0))?;
            both.run(Hook::FromPod, old, question)?;
        }
        both.endpoint(1, new, POD_A, mac(0xa))?;
        both.revise(RevisionSlot::of_endpoint(Slot(1)))?;
        for question in &established {
            let answer = answer_of_b(question, 0);
            if new_pod_first {
                assert_eq!(both.run(Hook::FromPod, new, question)?.verdict, Verdict::Pod(b));
            } else {
                let late = both.run(Hook::FromPod, b, &answer)?.verdict;
                assert_eq!(late, Verdict::Drop(Reason::NoFlow), "an answer to a pod that is gone");
            }
            assert_eq!(both.run(Hook::FromPod, b, &answer)?.verdict, Verdict::Pod(new));
            assert_eq!(both.run(Hook::FromPod, new, question)?.verdict, Verdict::Pod(b));
        }
        both.compare_flows()
    };
    started_by(true, &mut both)?;
    started_by(false, &mut both)?;
    both.compare_counters()
}

#[test]
fn strangers_cannot_end_a_connection_by_asking_for_another() -> Result<()> {
    let mut both = Both::set()?;
    let (a, uplink) = (both.scene.pod_a, both.scene.uplink);
    for (family, syn) in from_a(OUTSIDE, &Transport::Tcp(4000, 80, SYN)).iter().enumerate() {
        let left = both.run(Hook::FromPod, a, syn)?.data;
        both.run(Hook::FromNet, uplink, &reversed(&left, SYN | ACK))?;
        both.run(Hook::FromPod, a, &from_a(OUTSIDE, &Transport::Tcp(4000, 80, ACK))[family])?;
        for flags in [RST, SYN, ACK] {
            let back = both.run(Hook::FromNet, uplink, &reversed(&left, flags))?;
            assert_eq!((back.verdict, back.data), (Verdict::Pod(a), reversed(syn, flags)));
        }
    }
    assert_eq!(both.count(Hook::FromPod, Reason::Opened), 2);
    both.compare_flows()?;
    both.compare_counters()
}

#[test]
fn a_connection_that_both_ends_open_at_once_is_established() -> Result<()> {
    let both = Both::set()?;
    let (a, b) = (both.scene.pod_a, both.scene.pod_b);
    let run = |native: &sluice_tests::packet::Native, interface, data: &[u8]| {
        let mut packet = Bytes::new(data.to_vec(), interface);
        native.run(Hook::FromPod, &mut packet)
    };
    for (family, syn) in from_a(POD_B, &Transport::Tcp(4000, 80, SYN)).iter().enumerate() {
        let crossing = answer_of_b(syn, SYN);
        *both.native.meanwhile.borrow_mut() = Some(Box::new(move |native| {
            assert_eq!(run(native, b, &crossing), Outcome::Pod { interface: a });
        }));
        assert_eq!(run(&both.native, a, syn), Outcome::Pod { interface: b });
        assert_eq!(run(&both.native, b, &answer_of_b(syn, SYN | ACK)), Outcome::Pod { interface: a });
        let answer = &from_a(POD_B, &Transport::Tcp(4000, 80, SYN | ACK))[family];
        assert_eq!(run(&both.native, a, answer), Outcome::Pod { interface: b });
    }
    assert_eq!(both.established(), 4);
    Ok(())
}
