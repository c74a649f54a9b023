//! Where Services are tried: three nodes, pods that serve and pods that ask, and a stranger.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use sluice_tests::lab::serving::{Heard, Means, PATIENCE, SILENCE, Server};
use sluice_tests::lab::{Families, Lab, Place, Plan, Pod, until};

use super::world::World;

/// The port that pods serve at; processes of nodes do at the next.
pub const TARGET: u16 = 8080;
/// How often somebody is asked at least: nobody who should not answer is likely to be missed.
const ENOUGH: usize = 8;
/// How often at most, until all have answered who should.
const MOST: usize = 300;

/// How nodes serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct How {
    pub routing: &'static str,
    /// Whether sockets are translated.
    pub sockets: bool,
    /// Where packets for backends elsewhere are turned round.
    pub xdp: &'static str,
    /// Whether clients are answered by their backend's node.
    pub direct: bool,
    pub families: Families,
}

/// As nodes serve that are told nothing else.
pub const PLAIN: How = How { routing: "native", sockets: true, xdp: "off", direct: false, families: Families::Dual };
/// Packet by packet.
pub const PACKETS: How = How { sockets: false, ..PLAIN };
/// Packet by packet, before the stack sees them.
pub const EXPRESS: How = How { xdp: "driver", ..PACKETS };
/// Sockets, through the overlay.
pub const OVERLAY: How = How { routing: "vxlan", ..PLAIN };
/// Packet by packet, through the overlay.
pub const SLOW_OVERLAY: How = How { sockets: false, ..OVERLAY };

pub const EVERY_WAY: [How; 5] = [PLAIN, PACKETS, EXPRESS, OVERLAY, SLOW_OVERLAY];
/// For what is the same whether or not XDP has a part in it.
pub const MOST_WAYS: [How; 4] = [PLAIN, EXPRESS, OVERLAY, SLOW_OVERLAY];

impl How {
    fn settings(self) -> String {
        let Self { sockets, xdp, direct, .. } = self;
        let dsr = if direct { "ipip" } else { "off" };
        format!("socket_lb: {sockets}\nxdp: {xdp}\ndsr: {dsr}\n")
    }
}

/// Plays on a stage where nodes serve in each of these ways, one after the other; another routing is another stage, and so
/// are other families.
pub fn each_way(ways: &[How], play: impl Fn(&mut Stage) -> Result<()>) -> Result<()> {
    let mut stage: Option<Stage> = None;
    for how in ways {
        let mut next = match stage.take() {
            Some(mut stage) if (stage.how.routing, stage.how.families) == (how.routing, how.families) => {
                stage.turn(*how)?;
                stage
            }
            _ => Stage::set(*how)?,
        };
        play(&mut next).with_context(|| format!("{how:?}"))?;
        stage = Some(next);
    }
    Ok(())
}

/// Three nodes. On the first two, a pod that serves, `a1` and `a2`; on the first and the last, one that only asks, `c1` and
/// `c3`.
pub struct Stage {
    pub lab: Lab,
    pub how: How,
    is_plugged: bool,
    cast: BTreeMap<String, (usize, Pod)>,
    servers: BTreeMap<(String, u16), Server>,
    /// How many namespaces the agents were told of last: ever more, so that they can be seen to have heard.
    namespaces: Cell<usize>,
    /// What the cluster IPs of Services end with.
    numbers: RefCell<BTreeMap<String, u8>>,
}

/// What becomes of some who ask.
#[derive(Clone)]
pub struct Line {
    from: Vec<String>,
    at: Vec<String>,
    means: Vec<Means>,
    fate: Fate,
    seen_as: Option<String>,
}

#[derive(Clone)]
enum Fate {
    Served(BTreeSet<String>),
    Refused,
    Ignored,
}

/// Each of these is served at each of those places, `WHERE:PORT`, by each of these, and by nobody else.
pub fn served(from: &str, at: &str, by: &str) -> Line {
    Line::new(from, at, Fate::Served(words(by).into_iter().collect()))
}

/// Each of these is told that nobody serves there.
pub fn refused(from: &str, at: &str) -> Line {
    // Of other sockets, nobody is told.
    Line { means: vec![Means::Tcp, Means::ConnectedUdp], ..Line::new(from, at, Fate::Refused) }
}

/// None of these hears anything from there.
pub fn ignored(from: &str, at: &str) -> Line {
    Line::new(from, at, Fate::Ignored)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Line {
    fn new(from: &str, at: &str, fate: Fate) -> Self {
        Self { from: words(from), at: words(at), means: Means::ALL.to_vec(), fate, seen_as: None }
    }

    /// Those who serve see an address of one of these; `itself` is whoever asks.
    pub fn seen_as(self, who: &str) -> Self {
        Self { seen_as: Some(who.into()), ..self }
    }

    /// By these means only.
    pub fn by(self, means: &[Means]) -> Self {
        Self { means: means.to_vec(), ..self }
    }
}

/// Somebody asks at an address.
struct Trial<'a> {
    from: &'a Place,
    name: &'a str,
    at: SocketAddr,
    means: Means,
    fate: &'a Fate,
    seen: Option<Vec<IpAddr>>,
}

impl Trial<'_> {
    fn run(&self) -> Result<()> {
        self.from
            .inside(|| match self.fate {
                Fate::Served(by) => self.is_served(by),
                Fate::Refused => self.hears(&Heard::Refused, PATIENCE),
                Fate::Ignored => self.hears(&Heard::Nothing, SILENCE),
            })
            .with_context(|| format!("{} asks {} ({:?})", self.name, self.at, self.means))
    }

    fn is_served(&self, by: &BTreeSet<String>) -> Result<()> {
        let mut heard = BTreeSet::new();
        for asked in 1..=MOST {
            let said = self.means.ask(self.at, PATIENCE)?.said().with_context(|| format!("at the {asked}. time"))?;
            ensure!(by.contains(&said.name), "{} answers, not {by:?}", said.name);
            let client = said.client.ip();
            ensure!(self.seen.as_ref().is_none_or(|seen| seen.contains(&client)), "{} sees {client}", said.name);
            heard.insert(said.name);
            if asked >= ENOUGH && heard.len() == by.len() {
                return Ok(());
            }
        }
        bail!("only {heard:?} answer")
    }

    fn hears(&self, expected: &Heard, patience: std::time::Duration) -> Result<()> {
        let heard = self.means.ask(self.at, patience)?;
        ensure!(heard == *expected, "hears {heard:?}, not {expected:?}");
        Ok(())
    }
}

impl Stage {
    /// Sets it.
    pub fn set(how: How) -> Result<Self> {
        let lab = Lab::start(Plan { nodes: 3, routing: how.routing, families: how.families, ..Plan::default() })?;
        let mut stage = Self {
            lab,
            how,
            is_plugged: false,
            cast: BTreeMap::new(),
            servers: BTreeMap::new(),
            namespaces: Cell::new(0),
            numbers: RefCell::default(),
        };
        for (node, name) in [(1, "a1"), (2, "a2"), (1, "c1"), (3, "c3")] {
            stage.enter(node, name)?;
        }
        for name in ["a1", "a2"] {
            stage.serve(name, TARGET)?;
        }
        if (How { routing: PLAIN.routing, families: PLAIN.families, ..how }) != PLAIN {
            stage.turn(how)?;
        }
        stage.write(&World::default())?;
        for node in &stage.lab.nodes {
            stage.lab.take_back(&format!("{}.json", node.name))?;
        }
        stage.play(&World::default())?;
        Ok(stage)
    }

    /// Agents are killed and start again; nodes serve in another way from now on, but for their routing.
    pub fn turn(&mut self, how: How) -> Result<()> {
        self.how = how;
        for node in &mut self.lab.nodes {
            node.restart_with(&how.settings())?;
        }
        if how.xdp != "off" && !self.is_plugged {
            self.lab.plug_as_hardware()?;
            self.is_plugged = true;
        }
        Ok(())
    }

    /// The agent of one node, counted from 1, is killed and starts again, with a setting more.
    pub fn turn_node(&mut self, node: usize, setting: &str) -> Result<()> {
        self.lab.nodes[node - 1].restart_with(&format!("{}{setting}\n", self.how.settings()))?;
        Ok(())
    }

    /// A pod enters.
    pub fn enter(&mut self, node: usize, name: &str) -> Result<()> {
        let pod = self.lab.pod(node, name)?;
        self.cast.insert(name.into(), (node, pod));
        Ok(())
    }

    /// A pod enters, to which ports of its node lead.
    pub fn enter_with_ports(&mut self, node: usize, name: &str, ports: &serde_json::Value) -> Result<()> {
        let pod = self.lab.pod_with_host_ports(node, name, ports)?;
        self.cast.insert(name.into(), (node, pod));
        Ok(())
    }

    /// A pod leaves: the runtime deletes it.
    pub fn leave(&mut self, name: &str) -> Result<()> {
        self.servers.retain(|(server, _), _| server != name);
        self.cast.remove(name).with_context(|| format!("there is no pod {name}"))?.1.delete()
    }

    /// Somebody begins to serve at a port, by their own name.
    pub fn serve(&mut self, name: &str, port: u16) -> Result<()> {
        let server = Server::start(self.place(name)?, port, name)?;
        self.servers.insert((name.into(), port), server);
        Ok(())
    }

    /// Where somebody is.
    pub fn place(&self, name: &str) -> Result<&Place> {
        if let Some((_, pod)) = self.cast.get(name) {
            return Ok(&pod.place);
        }
        if name == "stranger" {
            return Ok(&self.lab.stranger);
        }
        let node = self.lab.nodes.iter().find(|node| node.name == name);
        Ok(&node.with_context(|| format!("nobody is called {name}"))?.place)
    }

    /// A pod.
    pub fn pod(&self, name: &str) -> &Pod {
        &self.cast.get(name).unwrap_or_else(|| panic!("there is no pod {name}")).1
    }

    /// The addresses that a name stands for: of a pod, a node, the stranger, a Service; or one that is written out.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        if let Some(number) = self.numbers.borrow().get(name) {
            let mut addresses = vec![format!("10.96.0.{number}").parse()?, format!("fd00:96::{number}").parse()?];
            addresses.retain(|address| self.how.families.have(*address));
            return Ok(addresses);
        }
        if let Some((_, pod)) = self.cast.get(name) {
            return Ok(pod.addresses.clone());
        }
        if name == "stranger" {
            return Ok(self.lab.stranger_addresses());
        }
        let node = self.lab.nodes.iter().find(|node| node.name == name);
        Ok(node.with_context(|| format!("nobody is called {name}"))?.addresses.clone())
    }

    /// What `WHERE:PORT` stands for.
    pub fn at(&self, text: &str) -> Result<Vec<SocketAddr>> {
        let (name, port) = text.rsplit_once(':').with_context(|| format!("{text:?} has no port"))?;
        let port = port.parse().with_context(|| format!("the port of {text:?}"))?;
        Ok(self.addresses(name)?.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// Makes the cluster say this, and nothing else; waits until it is in force on all nodes.
    pub fn play(&self, world: &World) -> Result<()> {
        self.play_with_problems(world)?;
        for node in &self.lab.nodes {
            let problems = node.status()?.problems;
            ensure!(problems.is_empty(), "{} has problems: {problems:?}", node.name);
        }
        Ok(())
    }

    /// The same, whatever problems there are.
    pub fn play_with_problems(&self, world: &World) -> Result<()> {
        self.write(world)?;
        self.lab.nodes.iter().try_for_each(|node| {
            until(&format!("{} has heard what the cluster says", node.name), || {
                let status = node.status()?;
                ensure!(status.objects.namespaces == self.namespaces.get(), "{status:?}");
                Ok(())
            })
        })
    }

    /// Makes the cluster say this, and waits for nobody.
    pub fn write(&self, world: &World) -> Result<()> {
        let mut text = String::new();
        self.namespaces.set(self.namespaces.get() + 1);
        for number in 0..self.namespaces.get() {
            let name = if number == 0 { "default".into() } else { format!("filler-{number}") };
            let _ = write!(text, "---\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        }
        for node in &self.lab.nodes {
            let labels = world.nodes.get(&node.name).cloned().unwrap_or_default();
            let addresses: Vec<_> =
                node.addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address })).collect();
            let _ = write!(
                text,
                "---\nkind: Node\nmetadata: {{name: {}, labels: {{{labels}}}}}\nspec: {{podCIDRs: {}}}\nstatus: {{addresses: {}}}\n",
                node.name,
                json!(node.pod_cidrs),
                json!(addresses)
            );
        }
        for (name, (node, pod)) in &self.cast {
            let said = world.pods.get(name).cloned().unwrap_or_default();
            let ips: Vec<_> = pod.addresses.iter().map(|address| json!({ "ip": address })).collect();
            let ready = if said.is_unready { "False" } else { "True" };
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{{}}}}}\n\
                 spec: {{nodeName: {}, containers: [{{name: c, ports: [{}]}}]}}\n\
                 status: {{phase: Running, podIPs: {}, conditions: [{{type: Ready, status: \"{ready}\"}}]}}\n",
                said.labels,
                self.lab.nodes[node - 1].name,
                said.ports,
                json!(ips)
            );
        }
        text += &world.manifests_of_services(self.how.families);
        for slice in &world.slices {
            for (family, letter) in [("IPv4", 4), ("IPv6", 6)] {
                let mut endpoints = String::new();
                for (who, more) in &slice.endpoints {
                    let mut addresses = self.addresses(who)?;
                    addresses.retain(|address| address.is_ipv4() == (family == "IPv4"));
                    if let Some(address) = addresses.first() {
                        let node = self.node_of(who).map(|node| format!("nodeName: {node}, ")).unwrap_or_default();
                        let _ = write!(endpoints, "{{addresses: [\"{address}\"], {node}{more}}}, ");
                    }
                }
                let _ = write!(
                    text,
                    "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {}-{letter}, namespace: default, \
                     labels: {{kubernetes.io/service-name: {}}}}}\naddressType: {family}\nports: [{}]\nendpoints: [{endpoints}]\n",
                    slice.name, slice.service, slice.ports
                );
            }
        }
        for manifest in &world.more {
            let _ = write!(text, "---\n{manifest}");
        }
        *self.numbers.borrow_mut() =
            world.services.iter().map(|(name, service)| (name.clone(), service.number)).collect();
        self.lab.tell("world.yaml", &text)
    }

    fn node_of(&self, name: &str) -> Option<&str> {
        let number = self.cast.get(name).map(|(node, _)| node - 1);
        let number = number.or_else(|| self.lab.nodes.iter().position(|node| node.name == name))?;
        Some(&self.lab.nodes[number].name)
    }

    /// Tries all of these lines at once, over every family that both ends have.
    pub fn expect<const N: usize>(&self, lines: [Line; N]) -> Result<()> {
        let mut trials = Vec::new();
        for line in &lines {
            for from in &line.from {
                let own = self.addresses(from)?;
                for at in &line.at {
                    let before = trials.len();
                    for at in self.at(at)? {
                        let has = |address: &IpAddr| address.is_ipv4() == at.ip().to_canonical().is_ipv4();
                        if own.iter().any(has) {
                            let seen = line.seen_as.as_deref().map(|who| self.any_of(who, from)).transpose()?;
                            trials.extend(line.means.iter().map(|means| Trial {
                                from: self.place(from).expect("it has addresses"),
                                name: from,
                                at,
                                means: *means,
                                fate: &line.fate,
                                seen: seen.clone(),
                            }));
                        }
                    }
                    ensure!(trials.len() > before, "{from} and {at} have no family in common");
                }
            }
        }
        thread::scope(|scope| {
            let running: Vec<_> = trials.iter().map(|trial| scope.spawn(|| trial.run())).collect();
            let failed: Vec<String> = running
                .into_iter()
                .filter_map(|trial| trial.join().expect("no panic").err())
                .map(|error| format!("{error:#}"))
                .collect();
            if failed.is_empty() {
                return Ok(());
            }
            Err(anyhow!("{} of {} fail:\n{}", failed.len(), trials.len(), failed.join("\n")))
        })
    }

    fn any_of(&self, who: &str, itself: &str) -> Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for name in who.split_whitespace() {
            addresses.extend(self.addresses(if name == "itself" { itself } else { name })?);
        }
        Ok(addresses)
    }
}
