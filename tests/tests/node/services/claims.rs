//! Places that several claim, objects that make no sense, and very many ports.

use std::fmt::Write;
use std::net::TcpListener;

use anyhow::{Result, ensure};
use sluice_tests::lab::serving::Means;
use sluice_tests::lab::until;

use super::stage::{PLAIN, Stage, served};
use super::world::{World, ports, world};

const SHARED: &str = "203.0.113.20:80 [2001:db8:cafe::20]:80";

fn claim(world: World, name: &str, number: u8, app: &str, made: &str) -> World {
    let spec = format!(
        "type: NodePort, selector: {{app: {app}}}, externalIPs: [203.0.113.20, '2001:db8:cafe::20'], {}",
        ports("80>8080@30080")
    );
    world.service(name, number, &spec).marked(name, &format!("creationTimestamp: '{made}'"))
}

#[test]
fn whoever_claims_too_much_is_told() -> Result<()> {
    let stage = Stage::set(PLAIN)?;
    the_first_has_what_several_claim_and_the_next_where_it_goes(&stage)?;
    what_makes_no_sense_is_told_and_the_rest_is_served(&stage)?;
    a_service_may_have_thousands_of_ports(&stage)?;
    a_node_port_that_a_process_of_the_node_has_is_told(&stage)
}

fn the_first_has_what_several_claim_and_the_next_where_it_goes(stage: &Stage) -> Result<()> {
    let pods = || world().pods("a1", "app: one").pods("a2", "app: two");
    let one = |world| claim(world, "one", 11, "one", "2024-01-01T00:00:00Z");
    let two = |world| claim(world, "two", 12, "two", "2024-01-02T00:00:00Z");
    stage.play(&two(pods()))?;
    stage.expect([served("c1 c3 n1", SHARED, "a2"), served("stranger", "n1:30080", "a2")])?;
    stage.play_with_problems(&one(two(pods())))?;
    for node in &stage.lab.nodes {
        let problems = node.status()?.problems;
        let named = |what: &str| problems.iter().filter(|problem| problem.contains(what)).count();
        ensure!(
            named("Service default/two") == problems.len()
                && named("is already Service default/one's") == problems.len(),
            "{problems:?}"
        );
        ensure!(named("203.0.113.20:80/TCP") == 1 && named("the node's port 30080/UDP") == 1, "{problems:?}");
    }
    stage.expect([
        served("c1 c3 n1", SHARED, "a1"),
        served("stranger", "n1:30080", "a1"),
        served("c1 c3 n1", "one:80", "a1"),
        served("c1 c3 n1", "two:80", "a2"),
    ])?;
    stage.play(&two(pods()))?;
    stage.expect([served("c1 c3 n1", SHARED, "a2"), served("stranger", "n1:30080", "a2")])
}

fn what_makes_no_sense_is_told_and_the_rest_is_served(stage: &Stage) -> Result<()> {
    let web = || {
        world().pods("a1 a2", "app: web").service("web", 10, &format!("selector: {{app: web}}, {}", ports("80>8080")))
    };
    let service = |name: &str, spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{spec}}}\n")
    };
    let wrong = web()
        .object(&service("no-address", "clusterIP: ten, ports: [{port: 80}]"))
        .object(&service("no-port", "clusterIP: 10.96.0.50, ports: [{port: 70000}]"))
        .object(&service("loop", "clusterIP: 10.96.0.51, externalIPs: [127.0.0.1], ports: [{port: 80}]"));
    stage.play_with_problems(&wrong)?;
    let problems = stage.lab.nodes[0].status()?.problems;
    for name in ["no-address", "no-port", "loop"] {
        ensure!(
            problems.iter().any(|problem| problem.contains(&format!("Service default/{name}"))),
            "{name}: {problems:?}"
        );
    }
    stage.expect([served("c1 c3 n1", "web:80", "a1 a2")])?;
    stage.play(&web())?;
    stage.expect([served("c1 c3 n1", "web:80", "a1 a2")])
}

fn a_node_port_that_a_process_of_the_node_has_is_told(stage: &Stage) -> Result<()> {
    let taken = stage.place("n1")?.inside(|| Ok(TcpListener::bind("0.0.0.0:30080")?))?;
    let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080"));
    stage.play_with_problems(&world().pods("a1 a2", "app: web").service("web", 10, &spec))?;
    until("that is told", || {
        let problems = stage.lab.nodes[0].status()?.problems;
        ensure!(problems.iter().any(|problem| problem.contains("30080")), "{problems:?}");
        Ok(())
    })?;
    stage.expect([served("stranger c3", "n1:30080 n2:30080", "a1 a2")])?;
    drop(taken);
    Ok(())
}

fn a_service_may_have_thousands_of_ports(stage: &Stage) -> Result<()> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 3_000;
    let mut many = String::new();
    for port in FIRST..FIRST + COUNT {
        let _ = write!(many, "{{name: p{port}, port: {port}, targetPort: 8080}}, ");
    }
    stage.play(&world().pods("a1 a2", "app: web").service(
        "web",
        10,
        &format!("selector: {{app: web}}, ports: [{many}]"),
    ))?;
    let (first, last) = (format!("web:{FIRST}"), format!("web:{}", FIRST + COUNT - 1));
    stage.expect([served("c1 c3 n1", &format!("{first} {last}"), "a1 a2").by(&[Means::Tcp])])?;
    stage.play(&world())
}
