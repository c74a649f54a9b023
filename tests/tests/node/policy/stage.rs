//! Where scenarios are played: two nodes with pods, and whoever tries to reach whom.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use sluice_api::{DenialStatus, PodRef};
use sluice_policy::question::{Answered, Expected, Traffic};
use sluice_tests::lab::exchange::{Client, End, Server};
use sluice_tests::lab::{Lab, Node, Plan, Pod, until};

use super::world::World;

/// Two nodes with pods, and a stranger.
pub struct Stage {
    pub lab: Lab,
    cast: BTreeMap<String, Actor>,
    /// How many namespaces the agents were told of last: ever more, so that they can be seen to have heard.
    namespaces: Cell<usize>,
}

/// A pod.
struct Actor {
    pod: Pod,
    node: usize,
}

/// What is expected of who reaches whom.
pub struct Line {
    from: Vec<String>,
    to: Vec<String>,
    traffic: Vec<Traffic>,
    expected: Outcome,
    reason: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Passes,
    IsDenied,
    /// It passes, and is told of as something that would be denied.
    IsAudited,
}

/// Each of these reaches each of those, by all that is listed.
pub fn allows(from: &str, to: &str, traffic: &str) -> Line {
    Line::new(from, to, traffic, Outcome::Passes)
}

/// None of these reaches any of those, by nothing that is listed.
pub fn denies(from: &str, to: &str, traffic: &str) -> Line {
    Line::new(from, to, traffic, Outcome::IsDenied)
}

/// Each of these reaches each of those, and is told of as if it were denied.
pub fn audits(from: &str, to: &str, traffic: &str) -> Line {
    Line::new(from, to, traffic, Outcome::IsAudited)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Line {
    fn new(from: &str, to: &str, traffic: &str, expected: Outcome) -> Self {
        let traffic = traffic.split_whitespace().map(|text| text.parse().expect("a port and protocol")).collect();
        Self { from: words(from), to: words(to), traffic, expected, reason: None }
    }

    /// The same of others.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        (self.from, self.to) = (words(from), words(to));
    }

    /// This is why.
    pub fn because(mut self, reason: &str) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// One exchange, over one family.
pub(super) struct Trial<'a> {
    pub from: End<'a>,
    pub to: End<'a>,
    pub traffic: Traffic,
    expected: Outcome,
    reason: Option<&'a str>,
}

impl Trial<'_> {
    pub fn text(&self) -> String {
        let Self { from, to, traffic, .. } = self;
        format!("{} ({}) -> {} ({}) {traffic}", from.place.name, from.address, to.place.name, to.address)
    }
}

/// What a denial must say.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Denied {
    pod: String,
    direction: &'static str,
    verdict: &'static str,
    peer: IpAddr,
    protocol: u8,
    port: u16,
    reason: String,
}

impl Denied {
    fn is_told_by(&self, denial: &DenialStatus) -> bool {
        denial.pod.as_ref().is_some_and(|pod| full_name(pod) == self.pod)
            && (denial.direction.as_str(), denial.verdict.as_str()) == (self.direction, self.verdict)
            && (denial.peer, denial.protocol, denial.port) == (self.peer, self.protocol, self.port)
            && denial.reason == self.reason
    }
}

fn full_name(pod: &PodRef) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// A pod's namespace and name.
fn split(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or_else(|| panic!("{name:?} is no namespace/name"))
}

impl Stage {
    /// Two nodes with these pods, by node (from 1), namespace and name. The first pod of the first node has 10.1.1.11 and
    /// fd00:1:1::11, the second 10.1.1.12 and fd00:1:1::12; those of the other node have 2 in place of the last 1 but one.
    pub fn set(routing: &'static str, cast: &[(usize, &str)]) -> Result<Self> {
        let lab = Lab::start(Plan { nodes: 2, routing, ..Plan::default() })?;
        lab.tell_stranger_of_pods()?;
        let mut stage = Self { lab, cast: BTreeMap::new(), namespaces: Cell::new(40) };
        let mut numbers = [10; 2];
        for (node, name) in cast {
            numbers[node - 1] += 1;
            let number = numbers[node - 1];
            stage.enter(*node, name, number)?;
        }
        stage.make_room_for_nodes()?;
        Ok(stage)
    }

    /// A pod enters, with the addresses of a number.
    pub fn enter(&mut self, node: usize, name: &str, number: u8) -> Result<()> {
        let addresses = [format!("10.1.{node}.{number}").parse()?, format!("fd00:1:{node}::{number}").parse()?];
        let (namespace, short) = split(name);
        let pod = self.lab.pod_with(node, namespace, short, &addresses)?;
        ensure!(pod.addresses == addresses, "{name} has {:?}", pod.addresses);
        self.cast.insert(name.into(), Actor { pod, node });
        Ok(())
    }

    /// A pod leaves: the runtime deletes it.
    pub fn leave(&mut self, name: &str) -> Result<()> {
        let actor = self.cast.remove(name).with_context(|| format!("there is no pod {name}"))?;
        actor.pod.delete()
    }

    /// A pod.
    pub fn pod(&self, name: &str) -> &Pod {
        &self.cast.get(name).unwrap_or_else(|| panic!("there is no pod {name}")).pod
    }

    /// The manifests of nodes stand among the others, which are in one file, so that all are read at once.
    fn make_room_for_nodes(&self) -> Result<()> {
        self.write(&World::default())?;
        for node in &self.lab.nodes {
            self.lab.take_back(&format!("{}.json", node.name))?;
        }
        self.play(&World::default())
    }

    /// Makes the cluster say this, and nothing else; waits until it is in force on both nodes.
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

    fn write(&self, world: &World) -> Result<()> {
        let mut text = String::new();
        let mut names: Vec<&str> = self.cast.keys().map(|name| split(name).0).collect();
        names.extend(world.namespaces.keys().map(String::as_str));
        names.sort_unstable();
        names.dedup();
        self.namespaces.set(self.namespaces.get() + 1);
        let fillers: Vec<String> =
            (names.len()..self.namespaces.get()).map(|number| format!("filler-{number}")).collect();
        for name in names.into_iter().chain(fillers.iter().map(String::as_str)) {
            let metadata = world.namespaces.get(name).cloned().unwrap_or_default().text();
            let _ = write!(text, "---\nkind: Namespace\nmetadata: {{name: {name}, {metadata}}}\n");
        }
        for node in &self.lab.nodes {
            let metadata = world.nodes.get(&node.name).cloned().unwrap_or_default().text();
            let addresses: Vec<_> =
                node.addresses.iter().map(|address| json!({ "type": "InternalIP", "address": address })).collect();
            let _ = write!(
                text,
                "---\nkind: Node\nmetadata: {{name: {}, {metadata}}}\nspec: {{podCIDRs: {}}}\nstatus: {{addresses: {}}}\n",
                node.name,
                json!(node.pod_cidrs),
                json!(addresses)
            );
        }
        for (name, actor) in &self.cast {
            let pod = world.pods.get(name).cloned().unwrap_or_default();
            if !pod.is_gone {
                let node = &self.lab.nodes[actor.node - 1].name;
                let _ = write!(text, "---\n{}", pod.manifest(split(name), node, &actor.pod.addresses));
            }
        }
        for name in world.pods.keys() {
            ensure!(self.cast.contains_key(name), "there is no pod {name}");
        }
        for manifest in &world.more {
            let _ = write!(text, "---\n{manifest}");
        }
        self.lab.tell("world.yaml", &text)
    }

    /// The ends that a name stands for, one for each family: a pod, a node, the stranger, or one of its addresses.
    fn ends(&self, name: &str) -> Result<Vec<End<'_>>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![End { place: &self.lab.stranger, address }]);
        }
        let node = |node: &&Node| node.name == name;
        let (place, addresses) = if let Some(actor) = self.cast.get(name) {
            (&actor.pod.place, actor.pod.addresses.clone())
        } else if let Some(node) = self.lab.nodes.iter().find(node) {
            (&node.place, node.addresses.clone())
        } else if name == "stranger" {
            (&self.lab.stranger, self.lab.stranger_addresses())
        } else {
            bail!("nobody is called {name}");
        };
        Ok(addresses.into_iter().map(|address| End { place, address }).collect())
    }

    /// All exchanges of these lines, over every family that both ends have.
    pub(super) fn trials<'a>(&'a self, lines: &'a [Line]) -> Result<Vec<Trial<'a>>> {
        let mut trials = Vec::new();
        for Line { from, to, traffic, expected, reason } in lines {
            for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
                let (from_ends, to_ends) = (self.ends(from)?, self.ends(to)?);
                let before = trials.len();
                for from in &from_ends {
                    for to in to_ends.iter().filter(|to| to.address.is_ipv4() == from.address.is_ipv4()) {
                        trials.extend(traffic.iter().map(|traffic| Trial {
                            from: *from,
                            to: *to,
                            traffic: *traffic,
                            expected: *expected,
                            reason: reason.as_deref(),
                        }));
                    }
                }
                ensure!(trials.len() > before, "{from} and {to} have no family in common");
            }
        }
        Ok(trials)
    }

    /// Tries all of these lines by real traffic, and asks `sluicectl` about them too. What is denied is to be named by the
    /// agent whose policies deny it, for the reason that `sluicectl` gives.
    pub fn expect<const N: usize>(&self, lines: [Line; N]) -> Result<()> {
        let trials = self.trials(&lines)?;
        let denials = self.denials_of(&trials)?;
        self.tries(&trials, &denials)
    }

    /// What is to be told of trials, by what `sluicectl` answers.
    pub(super) fn denials_of(&self, trials: &[Trial<'_>]) -> Result<Vec<Option<Denied>>> {
        let answers = self.ask_offline(trials)?;
        Ok(trials.iter().zip(&answers).map(|(trial, answer)| self.denial_of(trial, answer)).collect())
    }

    /// All of these are told of by now, and were not before.
    pub(super) fn are_told(
        &self,
        denied: &[Option<Denied>],
        before: &[DenialStatus],
        now: &[DenialStatus],
    ) -> Result<()> {
        for denied in denied.iter().flatten() {
            ensure!(count(now, denied) > count(before, denied), "nobody tells of {denied:?}; but of {now:#?}");
        }
        Ok(())
    }

    /// Tries lines by real traffic that `sluicectl` cannot know the answers to; each that is denied says why, at which end.
    pub fn expect_of_agents<const N: usize>(&self, lines: [(Line, &'static str); N]) -> Result<()> {
        for (line, direction) in lines {
            let lines = [line];
            let trials = self.trials(&lines)?;
            let denial = |trial: &Trial<'_>| {
                let reason = trial.reason.unwrap_or_default();
                (trial.expected != Outcome::Passes).then(|| self.denied(trial, direction, reason))
            };
            let denials: Vec<_> = trials.iter().map(denial).collect();
            self.tries(&trials, &denials)?;
        }
        Ok(())
    }

    fn ask_offline(&self, trials: &[Trial<'_>]) -> Result<Vec<Answered>> {
        let probe = |Trial { from, to, traffic, expected, .. }: &Trial<'_>| {
            let expect = match expected {
                Outcome::Passes => "allow",
                Outcome::IsDenied | Outcome::IsAudited => "deny",
            };
            let (from, to, protocol, port) = (from.address, to.address, traffic.protocol_name(), traffic.port);
            json!({ "from": from, "to": to, "protocol": protocol, "port": port, "expect": expect })
        };
        self.lab.ask_offline(&trials.iter().map(probe).collect::<Vec<_>>())
    }

    /// What is to be told of a trial that does not just pass.
    fn denial_of(&self, trial: &Trial<'_>, answer: &Answered) -> Option<Denied> {
        // Who sends is asked first.
        let (direction, side) = match (answer.egress.verdict, answer.ingress.verdict) {
            (Expected::Deny, _) => ("egress", &answer.egress),
            (Expected::Allow, Expected::Deny) => ("ingress", &answer.ingress),
            (Expected::Allow, Expected::Allow) => return None,
        };
        Some(self.denied(trial, direction, &side.reason))
    }

    fn denied(&self, trial: &Trial<'_>, direction: &'static str, reason: &str) -> Denied {
        let (subject, peer) = match direction {
            "egress" => (trial.from, trial.to),
            _ => (trial.to, trial.from),
        };
        let pod = self.cast.iter().find(|(_, actor)| actor.pod.addresses.contains(&subject.address));
        let protocol = match (trial.traffic.transport, subject.address) {
            (Some(transport), _) => transport.protocol().0 as u8,
            (None, IpAddr::V4(_)) => 1,
            (None, IpAddr::V6(_)) => 58,
        };
        Denied {
            pod: pod.map_or_else(|| "nobody".into(), |(name, _)| name.clone()),
            direction,
            verdict: if trial.expected == Outcome::IsAudited { "audited" } else { "denied" },
            peer: peer.address,
            protocol,
            port: trial.traffic.port,
            reason: reason.into(),
        }
    }

    /// All at once: each is sent, and seen to become what is expected of it. Nothing is waited for that does not come.
    fn tries(&self, trials: &[Trial<'_>], denials: &[Option<Denied>]) -> Result<()> {
        for (trial, denial) in trials.iter().zip(denials) {
            if let (Some(reason), told) = (trial.reason, denial.as_ref().map(|denial| denial.reason.as_str())) {
                ensure!(told == Some(reason), "{}: expected {reason:?}, sluicectl says {told:?}", trial.text());
            }
        }
        let mut servers: BTreeMap<String, Server> = BTreeMap::new();
        for Trial { to, traffic, .. } in trials {
            if let Entry::Vacant(free) = servers.entry(format!("{} {} {traffic}", to.place.name, to.address)) {
                free.insert(Server::start(*to, *traffic)?);
            }
        }
        let before = self.denials()?;
        let mut open = Vec::new();
        for trial in trials {
            let client = Client::ask(trial.from, trial.to.address, trial.traffic).with_context(|| trial.text())?;
            open.push((trial, client, false));
        }
        until("all of these are what is expected", || {
            servers.values().try_for_each(Server::serve)?;
            for (trial, client, is_answered) in &mut open {
                *is_answered = *is_answered || client.is_answered().with_context(|| trial.text())?;
                if *is_answered && trial.expected == Outcome::IsDenied {
                    // Nor will it ever have been denied.
                    return Ok(Err(anyhow!("it passes: {}", trial.text())));
                }
            }
            for (trial, _, is_answered) in &open {
                ensure!(*is_answered || trial.expected == Outcome::IsDenied, "it does not pass: {}", trial.text());
            }
            if denials.iter().any(Option::is_some) {
                self.are_told(denials, &before, &self.denials()?)?;
            }
            Ok(Ok(()))
        })?
    }

    /// What both nodes have denied last.
    pub(super) fn denials(&self) -> Result<Vec<DenialStatus>> {
        self.lab.denials(500)
    }
}

/// How many packets were denied as these say.
fn count(denials: &[DenialStatus], denied: &Denied) -> u64 {
    denials.iter().filter(|denial| denied.is_told_by(denial)).map(|denial| denial.packets).sum()
}
