//! Packets that nobody thought of.

use std::env;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use fastrand::Rng;
use sluice_abi::{AddressKind, Features, Hook, Protocol, RevisionSlot, Slot};
use sluice_tests::packet::addresses::{
    EXEMPT, GROUP, NATIVE_NODE, NATIVE_POD, NOBODY, NODE, OUTSIDE, OVERLAY_NODE, OVERLAY_POD, POD_A, POD_B, Pair,
    ROUTER,
};
use sluice_tests::packet::{Both, Build, Bytes, Ip, Recipe, Served, Serving, Transport, Verdict, mac, reversed};

/// Packets before the flow tables are compared and forgotten.
const ACT: usize = 200;
/// Packets in all; `SLUICE_PACKETS` asks for more.
const PACKETS: usize = 300_000;

/// Cluster IPs.
const SERVED: [Pair; 6] = [vip(1), vip(2), vip(3), vip(4), vip(5), vip(6)];

const fn vip(last: u8) -> Pair {
    (Ipv4Addr::new(10, 96, 0, last), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, last as u16))
}

const EVERYBODY: [Pair; 18] = [
    POD_A,
    POD_B,
    NOBODY,
    NODE,
    NATIVE_NODE,
    NATIVE_POD,
    OVERLAY_NODE,
    OVERLAY_POD,
    OUTSIDE,
    EXEMPT,
    GROUP,
    ROUTER,
    SERVED[0],
    SERVED[1],
    SERVED[2],
    SERVED[3],
    SERVED[4],
    SERVED[5],
];

/// Services of all kinds, with backends at each kind of place: for those that nobody serves, or only others, or not
/// everybody may ask.
fn services() -> Vec<Served> {
    let mut services = Vec::new();
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
        let backends: [&[(Pair, u16)]; 5] = [
            &[(POD_A, 50)],
            &[(POD_B, 52), (POD_A, 51)],
            &[(NATIVE_POD, 51), (NATIVE_POD, 52), (POD_B, 50)],
            &[(OVERLAY_POD, 50), (NATIVE_POD, 50)],
            &[(NODE, 52), (POD_A, 50), (OVERLAY_POD, 51)],
        ];
        services.extend(SERVED.iter().zip(backends).map(|(at, backends)| Served::new(*at, 50, protocol, backends)));
        let nobody = Served::new(SERVED[5], 50, protocol, &[]);
        services.push(Served { inside: Serving::Reject, outside: Serving::Reject, ..nobody });
        services.push(Served::node_port(50, protocol, &[(POD_A, 51)]));
        // Whoever stays does so for longer than this takes, and with whom is never left to chance.
        let spread = Served::node_port(51, protocol, &[(NATIVE_POD, 50), (POD_B, 51), (OVERLAY_POD, 52)]);
        services.push(Served { maglev: true, affinity: 100_000, inside: Serving::Among(vec![0]), ..spread });
        services.push(Served { maglev: true, ..Served::node_port(52, protocol, &[(NATIVE_POD, 51), (POD_A, 52)]) });
        services.push(Served { outside: Serving::Drop, ..Served::new(SERVED[0], 51, protocol, &[(POD_B, 50)]) });
        let ranged = Served::new(SERVED[1], 51, protocol, &[(POD_A, 52)]);
        services.push(Served { source_ranges: vec![(OUTSIDE, (24, 64)), (POD_A, (32, 128))], ..ranged });
    }
    services
}

#[test]
fn both_builds_agree_on_every_packet() -> Result<()> {
    let packets = match env::var("SLUICE_PACKETS") {
        Ok(number) => number.parse().context("SLUICE_PACKETS is a number")?,
        Err(_) => PACKETS,
    };
    let seed = match env::var("SLUICE_SEED") {
        Ok(seed) => seed.parse().context("SLUICE_SEED is a number")?,
        Err(_) => 20_261_124,
    };
    let mut rng = Rng::with_seed(seed);
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    let mut services: Vec<(Served, bool)> = services().into_iter().map(|served| (served, true)).collect();
    services.iter().try_for_each(|(served, _)| both.serve(served))?;
    SERVED.iter().try_for_each(|at| both.reject_rest(*at))?;
    [50, 52].iter().try_for_each(|port| both.hosts_backend(*port, Protocol::TCP))?;
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for act in 0..packets / ACT {
        let mut earlier: Vec<Vec<u8>> = Vec::new();
        for number in 0..ACT {
            if rng.u8(..) < 3 {
                let slot = *choose(
                    &mut rng,
                    &[RevisionSlot::ROUTES, RevisionSlot::of_endpoint(Slot(1)), RevisionSlot::of_endpoint(Slot(2))],
                );
                both.revise(slot)?;
            }
            if rng.u8(..) < 1 {
                let at = rng.usize(..services.len());
                let (served, is_served) = &mut services[at];
                if *is_served {
                    both.unserve(served)?
                } else {
                    both.serve(served)?
                }
                *is_served = !*is_served;
            }
            if rng.u8(..) < 1 {
                both.configure(|config| config.features = Features(config.features.0 ^ Features::DIRECT_RETURN.0))?;
            }
            let (hook, packet) = next(&mut rng, &both, &earlier);
            let what = || format!("seed {seed}, act {act}, packet {number}, {hook:?}: {packet:02x?}");
            if hook == Hook::FromNet && packet.segment == 0 && both.express(&packet.data).with_context(what)?.0 {
                *outcomes.entry("FromNet out at once".into()).or_default() += 1;
            }
            let ran = both.run_as(hook, packet.clone()).with_context(what)?;
            let name = match ran.verdict {
                Verdict::Drop(reason) => format!("{hook:?} {reason:?}"),
                Verdict::Pass => format!("{hook:?} pass"),
                Verdict::Pod(_) => format!("{hook:?} pod"),
                Verdict::Neighbour(_) => format!("{hook:?} neighbour"),
                Verdict::Back => format!("{hook:?} back"),
                Verdict::Overlay(_) => format!("{hook:?} overlay"),
                Verdict::Direct(_) => format!("{hook:?} direct"),
            };
            *outcomes.entry(name).or_default() += 1;
            if !matches!(ran.verdict, Verdict::Drop(_)) {
                earlier.push(ran.data);
            }
        }
        both.compare_flows().with_context(|| format!("seed {seed}, act {act}"))?;
        both.clear()?;
    }
    both.compare_counters()?;
    for (outcome, count) in &outcomes {
        println!("{count:>8}  {outcome}");
    }
    // Where the generator no longer reaches something, this test has become a smaller one.
    assert!(outcomes.len() > 60, "only {} kinds of outcomes", outcomes.len());
    Ok(())
}

fn choose<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// A packet, new or the answer to an earlier one, possibly damaged.
fn next(rng: &mut Rng, both: &Both, earlier: &[Vec<u8>]) -> (Hook, Bytes) {
    let hook = *choose(
        rng,
        &[
            Hook::FromPod,
            Hook::FromPod,
            Hook::FromPod,
            Hook::FromNet,
            Hook::FromNet,
            Hook::ToPod,
            Hook::ToNet,
            Hook::FromOverlay,
        ],
    );
    let in_a = rng.bool();
    let interface = match hook {
        Hook::FromPod | Hook::ToPod if in_a => both.scene.pod_a,
        Hook::FromPod | Hook::ToPod => both.scene.pod_b,
        Hook::FromNet | Hook::ToNet => both.scene.uplink,
        Hook::FromOverlay => both.scene.overlay,
    };
    let mut data = if !earlier.is_empty() && rng.u8(..) < 110 {
        let packet = choose(rng, earlier).clone();
        answer(rng, packet)
    } else {
        let own = if in_a { POD_A } else { POD_B };
        let anybody = *choose(rng, &EVERYBODY);
        let other = *choose(rng, &EVERYBODY);
        let (from, to) = match hook {
            Hook::FromPod if rng.u8(..) < 230 => (own, anybody),
            Hook::ToPod if rng.u8(..) < 230 => (NODE, own),
            Hook::FromNet | Hook::FromOverlay if rng.u8(..) < 150 => (anybody, own),
            Hook::FromNet if rng.bool() => (anybody, NODE),
            Hook::ToNet if rng.u8(..) < 150 => (own, anybody),
            _ => (anybody, other),
        };
        recipe(rng, from, to, earlier).build()
    };
    if hook == Hook::FromPod && rng.u8(..) < 245 {
        data[6..12].copy_from_slice(&mac(if in_a { 0xa } else { 0xb }));
    }
    if hook == Hook::FromNet && rng.u8(..) < 20 {
        data = sent_on(rng, &data);
    }
    damage(rng, &mut data);
    // What is wrapped up is cut as what is in it: test runs cannot say so.
    let may_be_wrapped = hook == Hook::FromNet && both.native.config.features.has(Features::DIRECT_RETURN);
    let segment = if !may_be_wrapped && rng.u8(..) < 20 { *choose(rng, &[1, 1000, 1400, 1448, 0xffff]) } else { 0 };
    (hook, Bytes { segment, ..Bytes::new(data, interface) })
}

fn recipe(rng: &mut Rng, from: Pair, to: Pair, earlier: &[Vec<u8>]) -> Recipe {
    let v6 = rng.bool();
    let ip = if v6 {
        let count = if rng.u8(..) < 50 { rng.usize(..10) } else { 0 };
        let extensions = (0..count).map(|_| extension(rng)).collect();
        Ip::V6 { source: from.1, destination: to.1, extensions }
    } else {
        let options = if rng.u8(..) < 40 { options(rng) } else { Vec::new() };
        let fragment = if rng.u8(..) < 40 { (rng.u16(..4), rng.bool()) } else { (0, false) };
        Ip::V4 { source: from.0, destination: to.0, options, fragment }
    };
    let (source, destination) = (1000 + rng.u16(..2), 50 + rng.u16(..3));
    let transport = match rng.u8(..16) {
        0..6 => Transport::Tcp(source, destination, *choose(rng, &[0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x00])),
        6..9 => Transport::Udp(source, destination),
        9 => Transport::UdpUnchecked(source, destination),
        10 => Transport::Sctp(source, destination, *choose(rng, &[0, 1, 2, 6, 7, 14])),
        11 | 12 => Transport::Echo(rng.bool(), rng.u16(..3)),
        13 | 14 => error(rng, v6, earlier),
        _ => Transport::Other(rng.u8(..), (0..rng.usize(..24)).map(|_| rng.u8(..)).collect()),
    };
    let payload = if rng.u8(..) < 10 { 1440 + rng.usize(..80) } else { rng.usize(..40) };
    Recipe { mac: mac(0xa), ip, transport, payload }
}

/// An ICMP message that quotes an earlier packet, or noise.
fn error(rng: &mut Rng, v6: bool, earlier: &[Vec<u8>]) -> Transport {
    let kinds: &[u8] = if v6 { &[1, 2, 3, 4, 133, 134, 135, 136, 137, 200] } else { &[3, 4, 11, 12, 5, 9, 13, 40] };
    let mut rest = vec![0; 4];
    match earlier {
        [] => rest.extend((0..rng.usize(..60)).map(|_| rng.u8(..))),
        some => {
            let quoted = &choose(rng, some)[14..];
            rest.extend(&quoted[..quoted.len().min(28 + rng.usize(..60))]);
        }
    }
    Transport::Icmp(*choose(rng, kinds), rng.u8(..6), rest)
}

fn extension(rng: &mut Rng) -> (u8, Vec<u8>) {
    let kind = *choose(rng, &[0, 43, 44, 44, 60, 60, 135, 139, 140]);
    let length = if rng.u8(..) < 30 { rng.u8(..4) } else { 0 };
    let mut bytes = vec![length];
    match kind {
        44 => {
            let place = (rng.u16(..3) << 3) | u16::from(rng.bool());
            bytes = vec![0];
            bytes.extend(place.to_be_bytes());
            bytes.extend([0, 0, 0, rng.u8(..2)]);
        }
        43 => bytes.extend([rng.u8(..5), rng.u8(..2), 0, 0, 0, 0]),
        _ => bytes.extend([1, 4, 0, 0, 0, 0]),
    }
    bytes.extend(vec![0; usize::from(bytes[0]) * 8]);
    (kind, bytes)
}

fn options(rng: &mut Rng) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..rng.usize(1..4) {
        match rng.u8(..6) {
            0 => options.push(1),
            1 => options.extend([7, 7, 4, 0, 0, 0, 0]),
            2 => options.extend([*choose(rng, &[131, 137]), 3, 4]),
            3 => options.extend([148, 4, 0, 0]),
            4 => options.extend([rng.u8(..), rng.u8(..)]),
            _ => options.push(0),
        }
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// The answer to a packet, if it is plain; else the same packet again.
fn answer(rng: &mut Rng, packet: Vec<u8>) -> Vec<u8> {
    let plain = packet.len() >= 14 + 60
        && (packet[14] == 0x45
            || (packet[12] == 0x86 && packet[20] < 60 && packet[20] != 43 && packet[20] != 44 && packet[20] != 0));
    if plain && rng.u8(..) < 180 {
        reversed(&packet, *choose(rng, &[0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x02]))
    } else {
        packet
    }
}

/// The same packet, as another node sends it on.
fn sent_on(rng: &mut Rng, packet: &[u8]) -> Vec<u8> {
    let (from, inner) = (*choose(rng, &[NATIVE_NODE, OVERLAY_NODE, OUTSIDE]), packet[14..].to_vec());
    let (ip, protocol) = if packet[12] == 0x86 { (Ip::v6(from.1, NODE.1), 41) } else { (Ip::v4(from.0, NODE.0), 4) };
    Recipe { mac: mac(0), ip, transport: Transport::Other(protocol, inner), payload: 0 }.build()
}

fn damage(rng: &mut Rng, data: &mut Vec<u8>) {
    match rng.u8(..) {
        0..12 => data.truncate(rng.usize(shortest(data)..=data.len())),
        12..30 => {
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..data.len());
                data[at] ^= 1 << rng.u8(..8);
            }
        }
        30..36 => {
            let at = rng.usize(12..data.len().min(60));
            data[at] = rng.u8(..);
        }
        _ => {}
    }
    data.resize(data.len().max(shortest(data)), 0);
}

/// The shortest packet of its EtherType that a test run takes (kernel 6.18, `bpf_prog_test_run_skb`).
fn shortest(data: &[u8]) -> usize {
    match data[12..14] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 15,
    }
}
