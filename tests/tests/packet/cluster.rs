//! A node of a random cluster: its pods at its devices, its policies in its tables, and packets of either.

use std::collections::BTreeMap;
use std::env;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use sluice_abi::{
    AddressEntry, AddressKind, DenialKey, Direction, Endpoint, Features, Flow, FlowKey, Hook, Identity, IpAddress, Mac,
    Port, Reason, Slot,
};
use sluice_policy::object::PodObject;
use sluice_policy::{Event, Index, Limits, PodName, Step, View};
use sluice_policy_oracle::{Cluster, Probe, Protocol};
use sluice_tests::packet::{Build, Bytes, Ip, Native, Recipe, Scene, Transport, Verdict, Writer, mac};

/// The node.
const NODE: &str = "n0";

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Tries so many cases, drawn from a seed, which `SLUICE_SEED` may be.
///
/// # Errors
/// Why one fails, of which the smallest has been looked for in so many attempts.
pub fn try_all<S: Strategy>(
    cases: u32,
    max_shrink_iters: u32,
    drawn: &S,
    attempt: impl Fn(S::Value) -> Result<()>,
) -> Result<()> {
    let seed: u64 = match env::var("SLUICE_SEED") {
        Ok(seed) => seed.parse().context("SLUICE_SEED is a number")?,
        Err(_) => 20_261_125,
    };
    let config = Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() };
    let bytes: Vec<u8> = seed.to_ne_bytes().into_iter().cycle().take(32).collect();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let attempt = |value| attempt(value).map_err(|error| TestCaseError::fail(format!("{error:#}")));
    // What was drawn says little: changes and probes find what they are about in a cluster.
    runner.run(drawn, attempt).map_err(|error| match error {
        TestError::Fail(reason, _) => anyhow!("seed {seed}: {reason}"),
        TestError::Abort(reason) => anyhow!("seed {seed}: given up: {reason}"),
    })
}

/// How many cases to try without the kernel; `SLUICE_CASES` asks for others.
pub fn cases(default: u32) -> Result<u32> {
    env::var("SLUICE_CASES").map_or(Ok(default), |cases| cases.parse().context("SLUICE_CASES is a number"))
}

/// What somebody sends to somebody, and where it comes in.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl Sent {
    /// What a probe asks about.
    pub fn of(probe: &Probe, cluster: &Cluster) -> Self {
        let [from, to] = [&probe.from, &probe.to].map(|end| cluster.address_of(end));
        Self { from, to, protocol: probe.protocol, port: probe.port }
    }

    /// Its first packet, or a later one; or, as it is `back`, the answer to either.
    fn packet(&self, source_port: u16, is_first: bool, back: bool, mac: [u8; 6]) -> Vec<u8> {
        let (from, to) = if back { (self.to, self.from) } else { (self.from, self.to) };
        let (source, destination) = if back { (self.port, source_port) } else { (source_port, self.port) };
        let flags = if is_first && !back { SYN } else { ACK };
        let ip = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Ip::v4(from, to),
            (IpAddr::V6(from), IpAddr::V6(to)) => Ip::v6(from, to),
            _ => unreachable!("both ends have one family"),
        };
        let transport = match self.protocol {
            Protocol::Tcp => Transport::Tcp(source, destination, flags),
            Protocol::Udp => Transport::Udp(source, destination),
            Protocol::Sctp => Transport::Sctp(source, destination, u8::from(is_first && !back)),
            Protocol::Other => Transport::Echo(!back, source_port),
        };
        Recipe { mac, ip, transport, payload: 8 }.build()
    }
}

/// A flow that has been opened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SourcePort(u16);

/// Where packets of an address are seen first, and with which link-layer address.
struct Entrance(Hook, u32, [u8; 6]);

/// The node.
pub struct ClusterNode<B> {
    pub build: B,
    pub writer: Writer,
    pub index: Index,
    /// The pods' host sides, by slot from 1 on.
    interfaces: Vec<u32>,
    uplink: u32,
    next_port: u16,
}

impl ClusterNode<Native> {
    /// One without a kernel.
    pub fn imagined() -> Self {
        let mut native = Native::of(Scene::IMAGINED);
        native.config.features = Features(0);
        let interfaces = (101..).take(native.endpoints.len() - 1).collect();
        Self::new(native, interfaces, Scene::IMAGINED.uplink)
    }
}

impl<B: Build> ClusterNode<B> {
    /// One whose pods take their host sides from these.
    pub fn new(build: B, interfaces: Vec<u32>, uplink: u32) -> Self {
        let (writer, index) = (Writer::default(), Index::new(View::Node(NODE.into()), Limits::NONE));
        Self { build, writer, index, interfaces, uplink, next_port: 0 }
    }

    /// Tells of events; pods come and go, and the steps towards the new policies are left to be made.
    pub fn hear(&mut self, events: Vec<Event>) -> Result<Vec<Step>> {
        if let Some(error) = events.iter().find(|event| matches!(event, Event::Invalid(_))) {
            bail!("{error:?}");
        }
        let delta = self.index.apply_all(events);
        self.seat()?;
        Ok(delta.steps)
    }

    /// An agent that knows nothing takes over, and is told of events.
    pub fn restart(&mut self, events: Vec<Event>) -> Result<Vec<Step>> {
        self.writer.restart();
        let index = Index::new(View::Node(NODE.into()), Limits::NONE);
        self.index = index.numbered_after(self.writer.left().numbers());
        self.hear(events)?;
        Ok(self.index.take_over(&self.writer.left()).steps)
    }

    /// Makes a step.
    pub fn make(&mut self, step: &Step) -> Result<()> {
        self.writer.make(step, &mut self.build)
    }

    /// Gives slots to the pods of this node that have none, and takes those of others; and says whose all addresses are.
    fn seat(&mut self) -> Result<()> {
        let here: BTreeMap<PodName, Endpoint> = self.pods().filter(|pod| is_here(pod)).map(endpoint).collect();
        let gone = self.writer.pods().iter().filter(|(_, pod)| !here.contains_key(pod));
        for slot in gone.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            self.writer.release(slot, &mut self.build)?;
        }
        let entry = |kind, slot| AddressEntry { kind, slot: Slot(slot), identity: Identity::ANYONE };
        let mut owners: BTreeMap<IpNet, AddressEntry> = BTreeMap::new();
        for pod in self.pods().filter(|pod| !is_here(pod)) {
            owners.extend(pod.addresses.iter().map(|own| (IpNet::from(*own), entry(AddressKind::RemotePods, 1))));
        }
        for node in self.index.nodes() {
            let entry = if node.name == NODE { entry(AddressKind::Host, 0) } else { entry(AddressKind::Node, 1) };
            owners.extend(node.addresses.iter().map(|own| (IpNet::from(*own), entry)));
        }
        self.writer.own(owners, &mut self.build)?;
        for (pod, endpoint) in here {
            let slot = self.slot(&pod)?;
            let interface = self.interfaces[slot.0 as usize - 1];
            self.writer.enforce(
                &pod,
                slot,
                Endpoint { interface, mac: Mac::new(mac(slot.0 as u8)), ..endpoint },
                &mut self.build,
            )?;
        }
        Ok(())
    }

    /// The pods that have addresses of their own, here or elsewhere.
    fn pods(&self) -> impl Iterator<Item = &PodObject> {
        self.index.pods().filter(|pod| !pod.host_network && !pod.ended && !pod.addresses.is_empty())
    }

    /// The slot of a pod, or one for it.
    fn slot(&self, pod: &PodName) -> Result<Slot> {
        let pods = self.writer.pods();
        let its = pods.iter().find(|(_, other)| *other == pod).map(|(slot, _)| *slot);
        let free = || (1..=self.interfaces.len() as u32).map(Slot).find(|slot| !pods.contains_key(slot));
        its.or_else(free).context("there are more pods than devices")
    }

    /// The slot of the pod that has an address, if it is one of this node.
    pub fn local(&self, address: IpAddr) -> Option<Slot> {
        let pod = self.index.pod_at(address)?;
        self.writer.pods().iter().find(|(_, other)| **other == pod.name).map(|(slot, _)| *slot)
    }

    /// Whether an address is the node's own.
    pub fn is_nodes(&self, address: IpAddr) -> bool {
        self.index.node(NODE).is_some_and(|node| node.addresses.contains(&address))
    }

    /// Where packets from one address to another come in; `None`: not here.
    fn entrance(&self, from: IpAddr, to: IpAddr) -> Option<Entrance> {
        let is_nodes = self.is_nodes(from);
        let interface = |slot| self.writer.endpoint(slot).interface;
        match (self.local(from), self.local(to)) {
            (Some(slot), _) => Some(Entrance(Hook::FromPod, interface(slot), mac(slot.0 as u8))),
            (None, Some(slot)) if is_nodes => Some(Entrance(Hook::ToPod, interface(slot), mac(0))),
            (None, _) if is_nodes => None,
            (None, _) => Some(Entrance(Hook::FromNet, self.uplink, mac(0))),
        }
    }

    /// Opens a flow; gives what denies it, and by which port it is found.
    pub fn open(&mut self, sent: &Sent) -> Result<(SourcePort, Option<DenialKey>)> {
        // Other flows than those to the ports that are asked about; so many that none is taken twice.
        self.next_port = (self.next_port + 1) % 50_000;
        let port = SourcePort(10_000 + self.next_port);
        Ok((port, self.send(sent, port, true, false)?))
    }

    /// Sends one more packet of a flow, there or `back`; gives what denies it.
    pub fn go_on(&mut self, sent: &Sent, port: SourcePort, back: bool) -> Result<Option<DenialKey>> {
        self.send(sent, port, false, back)
    }

    fn send(&mut self, sent: &Sent, port: SourcePort, is_first: bool, back: bool) -> Result<Option<DenialKey>> {
        let (from, to) = if back { (sent.to, sent.from) } else { (sent.from, sent.to) };
        let Some(Entrance(hook, interface, mac)) = self.entrance(from, to) else { return Ok(None) };
        let before = self.build.native().denials.borrow().clone();
        let packet = Bytes::new(sent.packet(port.0, is_first, back, mac), interface);
        let verdict = self.build.run_as(hook, packet).with_context(|| format!("{sent:?}, back: {back}"))?.verdict;
        match verdict {
            Verdict::Drop(Reason::Policy) => {
                let denials = self.build.native().denials.borrow();
                let new = denials.iter().find(|(key, count)| before.get(key) != Some(count));
                Ok(Some(*new.with_context(|| format!("{sent:?} was dropped, and nothing written down"))?.0))
            }
            Verdict::Drop(reason) => bail!("{sent:?}, back: {back}: dropped for {reason:?}"),
            Verdict::Back
            | Verdict::Pass
            | Verdict::Pod(_)
            | Verdict::Neighbour(_)
            | Verdict::Overlay(_)
            | Verdict::Direct(_) => Ok(None),
        }
    }

    /// The reasons why the policies of sender and receiver let a flow pass that was just opened, by their numbers.
    pub fn reasons(&self, sent: &Sent, port: SourcePort) -> Result<[u32; 2]> {
        let native = self.build.native();
        let found = match sent.from {
            IpAddr::V4(_) => reasons(native.v4.openings.borrow().iter(), port),
            IpAddr::V6(_) => reasons(native.v6.openings.borrow().iter(), port),
        };
        found.with_context(|| format!("{sent:?} has passed, and left no flow"))
    }
}

fn reasons<'a, A: IpAddress + 'a>(
    flows: impl Iterator<Item = (&'a FlowKey<A>, &'a Flow<A>)>,
    SourcePort(port): SourcePort,
) -> Option<[u32; 2]> {
    let (mut there, mut back) = (None, None);
    for (key, flow) in flows {
        match flow.direction {
            Direction::Forward if key.source_port == Port::new(port) => there = Some(flow.policy),
            Direction::Reply if key.destination_port == Port::new(port) => back = Some(flow.policy),
            Direction::Forward | Direction::Reply => {}
        }
    }
    Some([there?, back?])
}

fn is_here(pod: &PodObject) -> bool {
    pod.node.as_deref() == Some(NODE)
}

fn endpoint(pod: &PodObject) -> (PodName, Endpoint) {
    let mut endpoint = Endpoint::default();
    for address in &pod.addresses {
        match *address {
            IpAddr::V4(address) => endpoint.ipv4 = address.into(),
            IpAddr::V6(address) => endpoint.ipv6 = address.into(),
        }
    }
    (pod.name.clone(), endpoint)
}
