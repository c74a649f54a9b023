//! Backends that go: datagrams find who serves now, connections go on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{Array, Map, MapData};
use sluice_abi::{Backend, Ipv4, Ipv6, ServiceId, maps};
use sluice_tests::lab::serving::{Asker, Heard, PATIENCE};
use sluice_tests::lab::{Node, until};

use super::stage::{MOST_WAYS, Stage, each_way};
use super::world::{World, ports, world};

/// Served by one pod only.
fn web(by: &str) -> World {
    let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080 90>9000"));
    world().pods(by, "app: web").service("web", 10, &spec)
}

/// Somebody who asks, where, and what is said of it.
type Connected = (String, SocketAddr, Asker);

/// Who asks where, of those who can.
fn askers(stage: &Stage, connected: bool) -> Result<Vec<Connected>> {
    let mut askers = Vec::new();
    for (from, at) in [
        ("c1", "web:80"),
        ("c3", "web:80"),
        ("n1", "web:80"),
        ("n3", "web:80"),
        ("stranger", "n1:30080"),
        ("c3", "n1:30080"),
    ] {
        for at in stage.at(at)? {
            askers.push((format!("{from} asks {at}"), at, Asker::new(stage.place(from)?, at, connected)?));
        }
    }
    Ok(askers)
}

fn all_hear(askers: &[Connected], name: &str) -> Result<()> {
    for (what, _, asker) in askers {
        let heard = asker.ask(PATIENCE)?;
        ensure!(matches!(&heard, Heard::Said(said) if said.name == name), "{what}, hears {heard:?}, not {name}");
    }
    Ok(())
}

#[test]
fn backends_may_go() -> Result<()> {
    each_way(&MOST_WAYS, |stage| {
        datagrams_go_to_whoever_serves_now(stage)?;
        whoever_is_connected_to_a_backend_that_is_gone_is_told(stage)?;
        whoever_was_when_an_agent_was_killed_is_told_by_the_next(stage)?;
        whoever_has_the_same_backend_of_another_service_keeps_it(stage)?;
        a_client_stays_with_one_backend_of_datagrams(stage)?;
        connections_go_on_without_their_service(stage)
    })
}

fn datagrams_go_to_whoever_serves_now(stage: &mut Stage) -> Result<()> {
    stage.play(&web("a1"))?;
    let (loose, connected) = (askers(stage, false)?, askers(stage, true)?);
    for (before, now) in [("a1", "a2"), ("a2", "a1")] {
        all_hear(&loose, before)?;
        stage.play(&web(now))?;
        all_hear(&loose, now)?;
    }
    // The last of these is a1 again, by which nobody is connected to whom it was.
    for (what, at, asker) in &connected {
        let heard = asker.ask(PATIENCE)?;
        ensure!(
            matches!(&heard, Heard::Said(said) if said.name == "a1") || heard == Heard::Disconnected,
            "{what}: {heard:?} {at}"
        );
    }
    Ok(())
}

fn whoever_is_connected_to_a_backend_that_is_gone_is_told(stage: &mut Stage) -> Result<()> {
    stage.play(&web("a1"))?;
    let connected = askers(stage, true)?;
    all_hear(&connected, "a1")?;
    stage.play(&web("a2"))?;
    for connected in &connected {
        if is_translated(stage, connected)? {
            is_told(connected, "a2")?;
        } else {
            all_hear(std::slice::from_ref(connected), "a2")?;
        }
    }
    Ok(())
}

/// Whether it was when it was connected.
fn is_translated(stage: &Stage, (_, at, _): &Connected) -> Result<bool> {
    Ok(stage.how.sockets && stage.addresses("web")?.contains(&at.ip()))
}

/// Somebody is disconnected, and connected again hears who serves now.
fn is_told((what, _, asker): &Connected, name: &str) -> Result<()> {
    // Until then, nobody says that it will be.
    until(&format!("{what}: it is disconnected"), || {
        let heard = asker.ask(PATIENCE)?;
        ensure!(heard == Heard::Disconnected, "hears {heard:?}");
        Ok(())
    })?;
    // Perhaps it is told once more.
    until(&format!("{what} again"), || {
        let heard = asker.ask_again(PATIENCE)?.said()?;
        ensure!(heard.name == name, "hears {heard:?}");
        Ok(())
    })
}

/// Has tables know of no backends, as an agent has left them that is killed before it tells whoever is connected.
fn forget_backends(node: &Node) -> Result<()> {
    fn forget<A>(node: &Node, name: &str) -> Result<()>
    where
        Backend<A>: Pod,
    {
        let map = MapData::from_pin(node.bpf_dir().join("v3/maps").join(name))?;
        let mut backends: Array<MapData, Backend<A>> = Map::from_map_data(map)?.try_into()?;
        for id in 1..backends.len() {
            let backend = backends.get(&id, 0)?;
            if backend.service != ServiceId::NONE {
                backends.set(id, Backend { service: ServiceId::NONE, ..backend }, 0)?;
            }
        }
        Ok(())
    }
    forget::<Ipv4>(node, maps::BACKENDS4)?;
    forget::<Ipv6>(node, maps::BACKENDS6)
}

fn whoever_was_when_an_agent_was_killed_is_told_by_the_next(stage: &mut Stage) -> Result<()> {
    stage.play(&web("a1"))?;
    let connected = askers(stage, true)?;
    all_hear(&connected, "a1")?;
    for node in &mut stage.lab.nodes {
        node.stop_agent();
        forget_backends(node)?;
    }
    stage.write(&web("a2"))?;
    for node in &mut stage.lab.nodes {
        node.start_agent()?;
        node.wait_until_ready()?;
    }
    for connected in &connected {
        if is_translated(stage, connected)? {
            is_told(connected, "a2")?;
        }
    }
    Ok(())
}

/// Of the same pods as `web`, whatever that has become since.
fn twin(world: World) -> World {
    world.service("twin", 11, &ports("80>8080")).slice("twin", "twin", "80>8080", &[("a1", "")])
}

fn whoever_has_the_same_backend_of_another_service_keeps_it(stage: &mut Stage) -> Result<()> {
    stage.play(&twin(web("a1")))?;
    let (mut going, mut staying) = (Vec::new(), Vec::new());
    for from in ["c1", "c3", "n1", "n3"] {
        for (at, askers) in [("web:80", &mut going), ("twin:80", &mut staying)] {
            for at in stage.at(at)? {
                askers.push((format!("{from} asks {at}"), at, Asker::new(stage.place(from)?, at, true)?));
            }
        }
    }
    all_hear(&going, "a1")?;
    all_hear(&staying, "a1")?;
    stage.play(&twin(web("a2")))?;
    if stage.how.sockets {
        going.iter().try_for_each(|connected| is_told(connected, "a2"))?;
    }
    all_hear(&staying, "a1")
}

fn a_client_stays_with_one_backend_of_datagrams(stage: &mut Stage) -> Result<()> {
    stage.play(&web("a1 a2"))?;
    for (what, _, asker) in askers(stage, false)?.into_iter().chain(askers(stage, true)?) {
        let first = asker.ask(PATIENCE)?.said()?.name;
        for _ in 0..20 {
            let next = asker.ask(PATIENCE)?.said()?.name;
            ensure!(first == next, "{what}, hears {first}, then {next}");
        }
    }
    Ok(())
}

/// A connection, from both its ends.
pub struct Connection {
    what: String,
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    pub fn make(stage: &Stage, from: &str, at: SocketAddr, listener: &TcpListener) -> Result<Self> {
        let client = stage.place(from)?.inside(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { what: format!("{from} to {at}"), client, server })
    }

    pub fn goes_on(&self) -> Result<()> {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let mut heard = [0; 12];
            from.write_all(b"still there?")
                .and_then(|()| to.read_exact(&mut heard))
                .with_context(|| self.what.clone())?;
            ensure!(&heard == b"still there?", "{} is garbled", self.what);
        }
        Ok(())
    }
}

fn connections_go_on_without_their_service(stage: &mut Stage) -> Result<()> {
    stage.play(&web("a1"))?;
    let listener = stage.place("a1")?.inside(|| Ok(TcpListener::bind("[::]:9000")?))?;
    let mut open = Vec::new();
    for from in ["c1", "c3", "n1", "n3", "a1"] {
        for at in stage.at("web:90")? {
            open.push(Connection::make(stage, from, at, &listener)?);
        }
    }
    for world in [web("a2"), web(""), world(), web("a1")] {
        if world.is_empty() && !stage.how.sockets {
            // What the node itself sends is translated only where there is a Service at its address.
            open.retain(|connection| !connection.what.starts_with('n'));
        }
        stage.play(&world)?;
        open.iter().try_for_each(Connection::goes_on)?;
    }
    Ok(())
}
