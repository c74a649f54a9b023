//! What the first packet of a flow costs where policies decide it: 1,000 of them, and 100,000 identities.

use anyhow::{Result, ensure};
use sluice_abi::{Features, Hook, Reason};
use sluice_policy::{Index, Limits, PodName, View};

use super::cluster::{CLIENT, NODE, SERVER, couple, crowd, in_crowd, population};
use crate::bench::datapath::{best, lookups};
use crate::bench::report::{Row, Target};
use crate::packet::addresses::{POD_A, POD_B};
use crate::packet::{Both, Bytes, Ip, Recipe, Transport, Verdict, mac};

const IDENTITIES: usize = 100_000;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// Measures a flow to a pod of the same node, which both ends' policies are asked about, and one to a CIDR outside.
///
/// # Errors
/// Where the kernel refuses, or a packet goes where it should not.
pub fn run() -> Result<Vec<Row>> {
    let mut both = Both::set()?;
    // A test run sends on what it has made of the packet: translated, it would be forged.
    both.configure(|config| config.features = Features(0))?;
    let empty = best(&mut both, "clock", &Bytes::new(vec![0; 64], 0))?;
    let mut index = Index::new(View::Node(NODE.into()), Limits::NONE);
    let objects = population().chain(crowd(IDENTITIES)).chain(couple([POD_A, POD_B]));
    both.make(&index.apply_all(objects).steps)?;
    for ((namespace, name), slot) in [(CLIENT, 1), (SERVER, 2)] {
        both.enforce(&PodName::new(namespace, name), slot)?;
    }
    let counts = index.counts();
    ensure!(counts.identities >= IDENTITIES, "there are only {} identities", counts.identities);

    let (local4, local6) = (Ip::v4(POD_A.0, POD_B.0), Ip::v6(POD_A.1, POD_B.1));
    let cases = [
        ("first_packet.same_node.v4", local4.clone(), 80, false),
        ("first_packet.same_node.v6", local6.clone(), 80, false),
        ("first_packet.outside.v4", Ip::v4(POD_A.0, in_crowd(0)), 443, false),
        ("denied.same_node.v4", local4, 81, true),
        ("denied.same_node.v6", local6, 81, true),
    ];
    let interface = both.scene.pod_a;
    // Each ends the flow that it opens: the next one finds that dead, removes it, is judged and opens another.
    let packet = |ip: &Ip, port| {
        let transport = Transport::Tcp(4001, port, SYN | RST);
        Recipe { mac: mac(0xa), ip: ip.clone(), transport, payload: 64 }.build()
    };
    for (id, ip, port, is_denied) in &cases {
        let ran = both.run(Hook::FromPod, interface, &packet(ip, *port))?;
        let is_right = match ran.verdict {
            Verdict::Drop(reason) => *is_denied && reason == Reason::Policy,
            Verdict::Back
            | Verdict::Pass
            | Verdict::Pod(_)
            | Verdict::Neighbour(_)
            | Verdict::Overlay(_)
            | Verdict::Direct(_) => !is_denied,
        };
        ensure!(is_right, "{id}: {:?}", ran.verdict);
    }
    let mut rows = Vec::new();
    let mut most: f64 = 0.0;
    for (id, ip, port, is_denied) in &cases {
        let packet = packet(ip, *port);
        let lookups = lookups(&both, Hook::FromPod, interface, &packet);
        let cost = best(&mut both, Hook::FromPod.name(), &Bytes::new(packet, interface))? - empty;
        rows.push(Row::new(&format!("ns_{id}"), cost, "ns", Target::None));
        rows.push(Row::new(&format!("lookups_{id}"), lookups, "hash or trie", Target::None));
        if !is_denied {
            most = most.max(cost);
        }
    }
    rows.push(Row::new("ns_first_packet", most, "ns", Target::AtMost(1500.0)));
    Ok(rows)
}
