//! What the programs cost: `BPF_PROG_TEST_RUN`, over a program that only returns; lookups are counted by the native build
//! of the same source.

use anyhow::{Result, ensure};
use sluice_abi::{Hook, Reason};

use super::report::{Row, Target};
use crate::packet::addresses::{NATIVE_POD, NODE, OUTSIDE, OVERLAY_POD, POD_A, POD_B, Pair};
use crate::packet::{Both, Build, Bytes, Ip, Recipe, Transport, Verdict, mac, reversed};

/// Packets of a run, and runs: the best of them counts.
const PACKETS: u32 = 200_000;
const RUNS: usize = 7;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Where answers are seen: the hook, the interface, and who sends them.
type Answers = (Hook, fn(&Both) -> u32, [u8; 6]);

struct Case {
    name: &'static str,
    hook: Hook,
    /// From the pod, node or host that the hook sees packets of.
    from: Pair,
    to: Pair,
    sender: [u8; 6],
    interface: fn(&Both) -> u32,
    /// Where answers are seen, if they are.
    answers: Option<Answers>,
}

/// A pod sends to another of its node, which answers.
const LOCAL: Case = Case {
    name: "from_pod.same_node",
    hook: Hook::FromPod,
    from: POD_A,
    to: POD_B,
    sender: mac(0xa),
    interface: |both| both.scene.pod_a,
    answers: Some((Hook::FromPod, |both| both.scene.pod_b, mac(0xb))),
};

/// What a pod is sent from elsewhere, and answers.
const TO_POD: Case = Case {
    name: "from_net.native",
    hook: Hook::FromNet,
    from: NATIVE_POD,
    to: POD_A,
    sender: mac(1),
    interface: |both| both.scene.uplink,
    answers: Some((Hook::FromPod, |both| both.scene.pod_a, mac(0xa))),
};

const CASES: [Case; 5] = [
    LOCAL,
    Case {
        name: "from_pod.native",
        to: NATIVE_POD,
        answers: Some((Hook::FromNet, |both| both.scene.uplink, mac(1))),
        ..LOCAL
    },
    Case { name: "from_pod.overlay", to: OVERLAY_POD, answers: None, ..LOCAL },
    TO_POD,
    Case {
        name: "to_pod.host",
        hook: Hook::ToPod,
        from: NODE,
        sender: mac(2),
        interface: |both| both.scene.pod_a,
        ..TO_POD
    },
];

/// Measures all programs.
///
/// # Errors
/// Where the kernel refuses, or a packet goes where it should not.
pub fn run() -> Result<Vec<Row>> {
    let mut both = Both::set()?;
    let empty = best(&mut both, "clock", &Bytes::new(vec![0; 64], 0))?;
    let mut rows = vec![Row::new("empty_program", empty, "ns", Target::None)];
    for case in &CASES {
        for (family, ip) in
            ["v4", "v6"].into_iter().zip([Ip::v4(case.from.0, case.to.0), Ip::v6(case.from.1, case.to.1)])
        {
            both.clear()?;
            let recipe = |transport| Recipe { mac: case.sender, ip: ip.clone(), transport, payload: 64 }.build();
            let interface = (case.interface)(&both);
            // Opened, answered, and established by what follows.
            let packet = recipe(Transport::Udp(4000, 53));
            let ran = both.run(case.hook, interface, &packet)?;
            ensure!(!matches!(ran.verdict, Verdict::Drop(_)), "{}: {:?}", case.name, ran.verdict);
            if let Some((hook, answering, mac)) = &case.answers {
                let mut answer = reversed(&packet, 0);
                answer[6..12].copy_from_slice(mac);
                both.run(*hook, answering(&both), &answer)?;
                both.run(case.hook, interface, &packet)?;
            }
            let lookups = lookups(&both, case.hook, interface, &packet);
            let bytes = |data| Bytes::new(data, interface);
            let fast = best(&mut both, case.hook.name(), &bytes(packet))?;
            // A connection that is asked for and ended by the same packet: each finds the last one dead, removes it, is
            // judged and opens another.
            let first = recipe(Transport::Tcp(4001, 80, SYN | RST));
            both.run(case.hook, interface, &first)?;
            let slow_lookups = self::lookups(&both, case.hook, interface, &first);
            let slow = best(&mut both, case.hook.name(), &bytes(first))?;
            let id = |what: &str| format!("{what}.{}.{family}", case.name);
            let (state, at_most) = if case.answers.is_some() {
                ("established", Target::AtMost(1.0))
            } else {
                ("unanswered", Target::None)
            };
            let target = if case.name == "from_pod.same_node" { Target::AtMost(60.0) } else { Target::None };
            rows.push(Row::new(&id(&format!("ns_{state}")), fast - empty, "ns", target));
            rows.push(Row::new(&id(&format!("lookups_{state}")), lookups, "hash", at_most));
            rows.push(Row::new(&id("ns_first_and_end"), slow - empty, "ns", Target::None));
            rows.push(Row::new(&id("lookups_first_and_end"), slow_lookups, "hash", Target::None));
        }
    }
    // The numbers by their plain names: the packet of an established flow that leaves a pod.
    for id in ["ns_established", "lookups_established"] {
        let of = |family: &str| rows.iter().find(|row| row.id == format!("{id}.from_pod.same_node.{family}")).cloned();
        if let Some(row) = of("v4") {
            rows.push(Row { id: id.into(), ..row });
        }
    }
    // What the host itself sends is not judged.
    for (family, ip) in [("v4", Ip::v4(NODE.0, OUTSIDE.0)), ("v6", Ip::v6(NODE.1, OUTSIDE.1))] {
        let packet = Recipe { mac: mac(2), ip, transport: Transport::Udp(4000, 53), payload: 64 }.build();
        let uplink = both.scene.uplink;
        let lookups = lookups(&both, Hook::ToNet, uplink, &packet);
        let own = best(&mut both, Hook::ToNet.name(), &Bytes::new(packet, uplink))? - empty;
        rows.push(Row::new(&format!("ns_passing.to_net.host.{family}"), own, "ns", Target::None));
        rows.push(Row::new(&format!("lookups_passing.to_net.host.{family}"), lookups, "hash", Target::None));
    }
    Ok(rows)
}

/// Lookups in hashes and tries that the native build makes for a packet.
pub fn lookups(both: &Both, hook: Hook, interface: u32, packet: &[u8]) -> f64 {
    let before = both.native.lookups.get();
    let mut bytes = Bytes::new(packet.to_vec(), interface);
    let dropped = both.native.counters.borrow()[Reason::NoSlowPath.index(hook) as usize];
    both.native.run(hook, &mut bytes);
    debug_assert_eq!(dropped, both.native.counters.borrow()[Reason::NoSlowPath.index(hook) as usize]);
    f64::from(both.native.lookups.get() - before)
}

/// ns for each packet, in the best of some runs.
pub fn best(both: &mut Both, program: &str, packet: &Bytes) -> Result<f64> {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(both.kernel.time(program, packet, PACKETS)? as f64);
    }
    Ok(runs.into_iter().fold(f64::INFINITY, f64::min))
}
