//! What a packet for a service costs the programs: test runs, beside plain flows from the same client.
//!
//! A program leaves a packet translated, and a second run of it would be of another flow: so each run is a call of its own,
//! of which the median counts. What plain flows cost is measured by the same means, not by those of `bench datapath`.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use sluice_abi::{AddressKind, Hook, Port, Protocol};
use sluice_datapath::socket::{self, Talk};

use crate::bench::datapath::lookups;
use crate::bench::report::{Row, Target, median};
use crate::packet::addresses::{NATIVE_POD, NODE, OUTSIDE, POD_A, POD_B, Pair};
use crate::packet::{Both, Build, Bytes, Ip, Recipe, Served, Serving, Transport, Verdict, mac, reversed};

/// Calls of a measurement.
const CALLS: usize = 20_001;

const VIP: Pair = (Ipv4Addr::new(10, 96, 0, 10), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa));
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
/// The port that backends listen at.
const TARGET: u16 = 8080;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A side of the scene: the hook, the interface and the link-layer address by which its packets are seen.
#[derive(Clone, Copy)]
struct Side {
    hook: Hook,
    interface: fn(&Both) -> u32,
    mac: [u8; 6],
}

const A: Side = Side { hook: Hook::FromPod, interface: |both| both.scene.pod_a, mac: mac(0xa) };
const B: Side = Side { hook: Hook::FromPod, interface: |both| both.scene.pod_b, mac: mac(0xb) };
const WIRE: Side = Side { hook: Hook::FromNet, interface: |both| both.scene.uplink, mac: mac(1) };

/// A connection through a service, and the plain one that it is compared with.
struct Case {
    name: &'static str,
    from: (Pair, Side),
    to: (Pair, u16),
    backend: (Pair, Side),
    plain: ((Pair, u16), Side),
}

const CASES: [Case; 4] = [
    Case {
        name: "from_pod.same_node",
        from: (POD_A, A),
        to: (VIP, PORT),
        backend: (POD_B, B),
        plain: ((POD_B, TARGET), B),
    },
    Case {
        name: "from_pod.native",
        from: (POD_A, A),
        to: (VIP, PORT),
        backend: (NATIVE_POD, WIRE),
        plain: ((NATIVE_POD, TARGET), WIRE),
    },
    Case {
        name: "from_net.local_backend",
        from: (OUTSIDE, WIRE),
        to: (NODE, NODE_PORT),
        backend: (POD_A, A),
        plain: ((POD_A, TARGET), A),
    },
    Case {
        name: "from_net.remote_backend",
        from: (OUTSIDE, WIRE),
        to: (NODE, NODE_PORT),
        backend: (NATIVE_POD, WIRE),
        plain: ((POD_A, TARGET), A),
    },
];

/// Measures all of them.
///
/// # Errors
/// Where the kernel refuses, or a packet goes where it should not.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in &CASES {
        let mut both = scene(&[(case.backend.0, TARGET)])?;
        let mut bench = Bench::of(&mut both)?;
        for family in FAMILIES {
            let plain = bench.connection(case, family, case.plain)?;
            let own = bench.connection(case, family, (case.to, case.backend.1))?;
            let id = |what: &str| format!("{what}.{}.{}", case.name, family.name);
            rows.push(ns(&id("ns_service_established"), own.established.ns).against("plain", plain.established.ns));
            let one = Target::AtMost(1.0);
            rows.push(Row::new(&id("lookups_service_established"), own.established.lookups, "hash", one));
            rows.push(ns(&id("ns_service_first_and_end"), own.first.ns).against("plain", plain.first.ns));
            let lookups = Row::new(&id("lookups_service_first_and_end"), own.first.lookups, "hash", Target::None);
            rows.push(lookups.against("plain", plain.first.lookups));
        }
    }
    let mut both = scene(&[(NATIVE_POD, TARGET)])?;
    let connect = lookups_of_connect(&both);
    rows.push(Row::new("lookups_connect4.service", connect, "hash", Target::None));
    let mut bench = Bench::of(&mut both)?;
    for family in FAMILIES {
        rows.extend(bench.express(family)?);
    }
    let mut both = scene(&[])?;
    let mut bench = Bench::of(&mut both)?;
    for family in FAMILIES {
        rows.extend(bench.refusals(family)?);
    }
    Ok(rows)
}

fn ns(id: &str, value: f64) -> Row {
    Row::new(id, value, "ns", Target::None)
}

/// A scene with a cluster IP and a node port that these serve.
fn scene(backends: &[(Pair, u16)]) -> Result<Both> {
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    for protocol in [Protocol::TCP, Protocol::UDP] {
        for served in [Served::new(VIP, PORT, protocol, backends), Served::node_port(NODE_PORT, protocol, backends)] {
            let nobody = Served { inside: Serving::Reject, outside: Serving::Reject, ..served.clone() };
            both.serve(if backends.is_empty() { &nobody } else { &served })?;
        }
    }
    both.reject_rest(VIP)?;
    Ok(both)
}

#[derive(Clone, Copy)]
struct Family {
    name: &'static str,
    ip: fn(Pair, Pair) -> Ip,
}

const FAMILIES: [Family; 2] = [
    Family { name: "v4", ip: |from, to| Ip::v4(from.0, to.0) },
    Family { name: "v6", ip: |from, to| Ip::v6(from.1, to.1) },
];

/// What a packet costs.
struct Cost {
    ns: f64,
    lookups: f64,
}

/// What the packets of a connection cost: one of those in between, and the first.
struct Costs {
    established: Cost,
    first: Cost,
}

/// Both builds, and what a call takes that does nothing.
struct Bench<'a> {
    both: &'a mut Both,
    empty: f64,
}

impl<'a> Bench<'a> {
    fn of(both: &'a mut Both) -> Result<Self> {
        let packet = Bytes::new(vec![0; 64], 0);
        let empty = middle(|| Ok(both.kernel.time("clock", &packet, 1)? as f64))?;
        Ok(Self { both, empty })
    }

    fn connection(&mut self, case: &Case, family: Family, to: ((Pair, u16), Side)) -> Result<Costs> {
        self.both.clear()?;
        let ((client, side), ((server, port), answers)) = (case.from, to);
        let packet = |flags, source| packet(side, (family.ip)(client, server), Transport::Tcp(source, port, flags));
        self.establish(case.name, side, answers, &packet(SYN, 4000), &packet(ACK, 4000))?;
        let established = self.cost(side, &packet(ACK, 4000))?;
        // Each ends the connection that it opens: the next one finds that dead, removes it and opens another.
        self.both.clear()?;
        let first = packet(SYN | RST, 4001);
        for _ in 0..2 {
            self.sent(case.name, side, &first)?;
        }
        Ok(Costs { established, first: self.cost(side, &first)? })
    }

    /// Has a connection be made; gives the last packet of the backend, as it comes.
    fn establish(&mut self, what: &str, client: Side, backend: Side, syn: &[u8], ack: &[u8]) -> Result<Vec<u8>> {
        let mut answer = reversed(&self.sent(what, client, syn)?, SYN | ACK);
        answer[6..12].copy_from_slice(&backend.mac);
        self.sent(what, backend, &answer)?;
        let mut answer = reversed(&self.sent(what, client, ack)?, ACK);
        answer[6..12].copy_from_slice(&backend.mac);
        Ok(answer)
    }

    fn sent(&mut self, what: &str, side: Side, packet: &[u8]) -> Result<Vec<u8>> {
        let interface = (side.interface)(self.both);
        let ran = self.both.run(side.hook, interface, packet)?;
        ensure!(!matches!(ran.verdict, Verdict::Drop(_) | Verdict::Pass), "{what}: {:?}", ran.verdict);
        Ok(ran.data)
    }

    fn cost(&mut self, side: Side, packet: &[u8]) -> Result<Cost> {
        let interface = (side.interface)(self.both);
        let lookups = lookups(self.both, side.hook, interface, packet);
        let bytes = Bytes::new(packet.to_vec(), interface);
        let ns = middle(|| Ok(self.both.kernel.time(side.hook.name(), &bytes, 1)? as f64))? - self.empty;
        Ok(Cost { ns, lookups })
    }

    /// What a packet costs that turns round before the stack sees it: from a client, and from the backend.
    fn express(&mut self, family: Family) -> Result<Vec<Row>> {
        let ip = (family.ip)(OUTSIDE, NODE);
        let packet = |flags| packet(WIRE, ip.clone(), Transport::Tcp(4000, NODE_PORT, flags));
        let answer = self.establish("xdp_lb", WIRE, WIRE, &packet(SYN), &packet(ACK))?;
        let mut rows = Vec::new();
        for (what, packet) in [("client", packet(ACK)), ("backend", answer)] {
            let before = self.both.native.lookups.get();
            let (leaves, _) = self.both.express(&packet)?;
            ensure!(leaves, "a packet of the {what} goes up the stack");
            let lookups = f64::from(self.both.native.lookups.get() - before);
            let bytes = Bytes::new(packet.clone(), self.both.scene.uplink);
            let express = middle(|| Ok(self.both.kernel.time_express(&bytes, 1)? as f64))? - self.empty;
            let behind = self.cost(WIRE, &packet)?;
            rows.push(ns(&format!("ns_xdp_lb.{what}.{}", family.name), express).against("from_net", behind.ns));
            rows.push(Row::new(
                &format!("lookups_xdp_lb.{what}.{}", family.name),
                lookups,
                "hash",
                Target::AtMost(1.0),
            ));
        }
        // Whatever else comes in pays for the look at it.
        let other = self::packet(WIRE, (family.ip)(OUTSIDE, POD_A), Transport::Tcp(4000, TARGET, ACK));
        let bytes = Bytes::new(other, self.both.scene.uplink);
        let other = middle(|| Ok(self.both.kernel.time_express(&bytes, 1)? as f64))? - self.empty;
        rows.push(ns(&format!("ns_xdp_lb.other.{}", family.name), other));
        Ok(rows)
    }

    /// What it costs to say that nobody serves.
    fn refusals(&mut self, family: Family) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (what, transport) in
            [("reset", Transport::Tcp(4000, PORT, SYN)), ("unreachable", Transport::Udp(4000, PORT))]
        {
            let packet = packet(A, (family.ip)(POD_A, VIP), transport);
            let interface = (A.interface)(self.both);
            let ran = self.both.run(A.hook, interface, &packet)?;
            ensure!(ran.verdict == Verdict::Back, "a {what}: {:?}", ran.verdict);
            let Cost { ns, lookups } = self.cost(A, &packet)?;
            let id = |kind: &str| format!("{kind}_refuse.{what}.{}", family.name);
            rows.push(Row::new(&id("ns"), ns, "ns", Target::None));
            rows.push(Row::new(&id("lookups"), lookups, "hash", Target::None));
        }
        Ok(rows)
    }
}

/// Lookups for a socket that is connected to the service.
fn lookups_of_connect(both: &Both) -> f64 {
    let (address, port) = (sluice_abi::Ipv4::from(VIP.0), Port::new(PORT));
    let talk =
        Talk { socket: 1, namespace: 1, is_host: false, serves_loopback: true, protocol: Protocol::TCP, address, port };
    let before = both.native.lookups.get();
    let target = socket::connect(&talk, &both.native);
    debug_assert!(target.is_some());
    f64::from(both.native.lookups.get() - before)
}

fn packet(side: Side, ip: Ip, transport: Transport) -> Vec<u8> {
    Recipe { mac: side.mac, ip, transport, payload: 64 }.build()
}

fn middle(mut call: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut calls = (0..CALLS).map(|_| call()).collect::<Result<Vec<f64>>>()?;
    Ok(median(&mut calls))
}
