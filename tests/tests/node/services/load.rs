//! Nobody who asks notices that endpoints come and go, or that an agent does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_tests::lab::serving::{Asker, Means, PATIENCE};
use sluice_tests::lab::{Node, Place, until_so};

use super::stage::{EXPRESS, How, PACKETS, PLAIN, SLOW_OVERLAY, Stage, each_way, refused, served};
use super::world::{World, ports, world};

fn web(pods: &str) -> World {
    let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080"));
    world().pods(pods, "app: web").service("web", 10, &spec)
}

/// Some who ask, again and again, and are always answered.
pub struct Crowd {
    who: Vec<(Place, SocketAddr)>,
    is_over: AtomicBool,
    answered: AtomicU64,
}

impl Crowd {
    pub fn gather(stage: &Stage) -> Result<Self> {
        let mut who = Vec::new();
        for (from, at) in
            [("c1", "web:80"), ("c3", "web:80"), ("n3", "web:80"), ("stranger", "n1:30080"), ("stranger", "n3:30080")]
        {
            for at in stage.at(at)? {
                who.push((stage.place(from)?.share()?, at));
            }
        }
        Ok(Self { who, is_over: AtomicBool::new(false), answered: AtomicU64::new(0) })
    }

    /// They ask while something is done.
    pub fn asks_while(&self, means: &[Means], work: impl FnOnce() -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            let asking: Vec<_> = self
                .who
                .iter()
                .map(|(from, at)| {
                    scope.spawn(move || {
                        from.inside(|| self.ask(*at, means)).with_context(|| format!("{} asks {at}", from.name))
                    })
                })
                .collect();
            let done = self.goes_on(100).and_then(|()| work()).and_then(|()| self.goes_on(100));
            self.is_over.store(true, Ordering::Relaxed);
            let all: Result<Vec<()>> = asking.into_iter().map(|asking| asking.join().expect("no panic")).collect();
            all.and(done)
        })
    }

    fn ask(&self, at: SocketAddr, means: &[Means]) -> Result<()> {
        while !self.is_over.load(Ordering::Relaxed) {
            for means in means {
                let heard = means.ask(at, PATIENCE).and_then(|heard| heard.said());
                heard
                    .with_context(|| format!("after {} answers ({means:?})", self.answered.load(Ordering::Relaxed)))?;
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn goes_on(&self, more: u64) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        until_so("those who ask are answered", || {
            Ok(self.answered.load(Ordering::Relaxed) >= goal || self.is_over.load(Ordering::Relaxed))
        })
    }
}

#[test]
fn no_connection_fails_while_endpoints_change() -> Result<()> {
    const CHANGES: u32 = 200;
    const PACE: Duration = Duration::from_millis(10);
    each_way(&[PLAIN, EXPRESS, SLOW_OVERLAY], |stage| {
        stage.play(&web("a1 a2"))?;
        let slice = |number: u32, family: &str| {
            let mut endpoints = String::new();
            for (at, pod) in ["a1", "a2"].into_iter().enumerate() {
                // One stays, another comes and goes; which one, changes with every fourth.
                if (number / 4) as usize % 2 == at || number.is_multiple_of(2) {
                    let addresses = &stage.pod(pod).addresses;
                    let address =
                        addresses.iter().find(|address| address.is_ipv4() == (family == "IPv4")).expect("one");
                    endpoints += &format!("{{addresses: [\"{address}\"], nodeName: {}}}, ", stage.pod(pod).node);
                }
            }
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{}, namespace: default, \
                 labels: {{kubernetes.io/service-name: web}}}}\naddressType: {family}\n\
                 ports: [{{name: t80, port: 8080}}, {{name: u80, port: 8080, protocol: UDP}}]\nendpoints: [{endpoints}]\n",
                family.to_lowercase()
            )
        };
        Crowd::gather(stage)?.asks_while(&[Means::Tcp], || {
            let mut next = Instant::now();
            for number in 0..CHANGES {
                stage.lab.tell("slices.yaml", &(slice(number, "IPv4") + &slice(number, "IPv6")))?;
                // The pace of the changes, not a wait for anything.
                next += PACE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })?;
        stage.lab.take_back("slices.yaml")
    })
}

/// A Service that comes and goes, with cluster IPs and node ports of its own, and one place that others claim too.
fn flapping(number: u8) -> World {
    let own = ports(&format!("80>8080@3010{number}"));
    let spec = format!("type: NodePort, externalIPs: [203.0.113.20], selector: {{app: web}}, {own}");
    world().service(&format!("flap-{number}"), 20 + number, &spec)
}

#[test]
fn no_request_fails_while_other_services_flap() -> Result<()> {
    const SERVICES: u8 = 5;
    /// An odd number: in the end they are there.
    const ROUNDS: u32 = 61;
    const PACE: Duration = Duration::from_millis(10);
    each_way(&[PLAIN, EXPRESS], |stage| {
        stage.play(&web("a1 a2"))?;
        let mut steady = Vec::new();
        for (from, at) in [("c1", "web:80"), ("n3", "web:80"), ("stranger", "n3:30080")] {
            for at in stage.at(at)? {
                let asker = Asker::new(stage.place(from)?, at, true)?;
                let name = asker.ask(PATIENCE)?.said()?.name;
                steady.push((format!("{from}, who has asked {at} all the time,"), asker, name));
            }
        }
        let file = |number| format!("flap-{number}.yaml");
        Crowd::gather(stage)?.asks_while(&[Means::Tcp, Means::Udp], || {
            let mut next = Instant::now();
            for (round, number) in (0..ROUNDS).flat_map(|round| (0..SERVICES).map(move |number| (round, number))) {
                if round.is_multiple_of(2) {
                    let manifest = flapping(number).manifests_of_services(stage.how.families);
                    stage.lab.tell(&file(number), &manifest)?;
                } else {
                    stage.lab.take_back(&file(number))?;
                }
                for (who, asker, name) in &steady {
                    let said = asker.ask(PATIENCE)?.said().with_context(|| who.clone())?;
                    ensure!(said.name == *name, "{who} hears {} and not {name}", said.name);
                }
                // The pace of the changes, not a wait for anything.
                next += PACE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })?;
        (0..SERVICES).try_for_each(|number| stage.lab.take_back(&file(number)))?;
        let all = (0..SERVICES).fold(web("a1 a2"), |world, number| world.and(flapping(number)));
        stage.play_with_problems(&all)?;
        for number in 0..SERVICES {
            stage.expect([
                served("c1 n3", &format!("flap-{number}:80"), "a1 a2"),
                served("stranger", &format!("n3:3010{number}"), "a1 a2"),
            ])?;
        }
        Ok(())
    })
}

#[test]
fn no_request_fails_while_agents_are_killed_and_start_again() -> Result<()> {
    let direct = How { direct: true, sockets: false, ..PLAIN };
    each_way(&[PLAIN, EXPRESS, direct, SLOW_OVERLAY], |stage| {
        stage.play(&web("a1 a2"))?;
        Crowd::gather(stage)?.asks_while(&[Means::Tcp, Means::Udp], || stage.turn(stage.how))
    })
}

/// Agents are killed and start again with so much room for backends, one after the other.
fn resize(stage: &mut Stage, backends: u32) -> Result<()> {
    (1..=stage.lab.nodes.len()).try_for_each(|node| stage.turn_node(node, &format!("service_backends: {backends}")))
}

#[test]
fn no_request_fails_while_tables_change_their_size() -> Result<()> {
    each_way(&[PACKETS], |stage| {
        stage.play(&web("a1 a2"))?;
        Crowd::gather(stage)?.asks_while(&[Means::Tcp, Means::Udp], || {
            [1_000_000, 100, 0].into_iter().try_for_each(|backends| resize(stage, backends))
        })
    })
}

#[test]
fn whoever_has_no_room_is_refused_until_there_is_some() -> Result<()> {
    const ALL: &str = "c1 c3 n3";
    each_way(&[PLAIN, PACKETS], |stage| {
        stage.play(&web("a1 a2"))?;
        // Whoever looks into links keeps none of them in force.
        let _held = stage.lab.nodes.iter().map(Node::pinned_links).collect::<Result<Vec<_>>>()?;
        resize(stage, 2)?;
        for node in &stage.lab.nodes {
            let problems = node.status()?.problems;
            ensure!(problems.iter().any(|problem| problem.contains("service_backends")), "{}: {problems:?}", node.name);
        }
        stage.expect([refused(ALL, "web:80")])?;
        resize(stage, 0)?;
        stage.play(&web("a1 a2"))?;
        stage.expect([served(ALL, "web:80", "a1 a2")])
    })
}
