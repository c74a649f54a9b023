//! How flows begin, go on and end.

use anyhow::Result;
use sluice_abi::{Direction, Hook, Reason};
use sluice_tests::packet::addresses::{OUTSIDE, POD_A, POD_B, Pair};
use sluice_tests::packet::{Both, Ip, Recipe, Transport, Verdict, mac, reversed};

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
