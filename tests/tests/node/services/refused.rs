//! Where nobody serves, that is said, and nothing leaves the node for it.

use anyhow::{Context, Result, ensure};
use sluice_tests::lab::serving::Means;

use super::stage::{MOST_WAYS, Stage, each_way, refused, served};
use super::world::{World, ports, world};

const BALANCED: &str = "203.0.113.10:80 [2001:db8:cafe::10]:80";

fn web(spec: &str) -> World {
    let ports = ports("80>8080@30080");
    world()
        .pods("a1 a2", "app: web")
        .service("web", 10, &format!("type: LoadBalancer, {ports}, {spec}"))
        .balanced("web", "{ip: 203.0.113.10}, {ip: '2001:db8:cafe::10'}")
}

/// Pings an address, and says what comes of it.
fn ping(stage: &Stage, from: &str, address: &str) -> Result<String> {
    let mut ping = stage.place(from)?.command("ping");
    let output = ping.args(["-c", "1", "-W", "3", address]).output().context("running ping")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn whoever_asks_in_vain_is_told() -> Result<()> {
    each_way(&MOST_WAYS, |stage| {
        // Whatever leaves a node for a cluster IP, somebody is there who answers.
        let mut is_there = false;
        if stage.place("stranger")?.ip("route get 10.96.0.10 from 10.96.0.10").is_err() {
            for address in ["10.96.0.10", "fd00:96::10", "203.0.113.10", "2001:db8:cafe::10"] {
                stage.lab.also_at(address.parse()?)?;
            }
            for port in [80, 81] {
                stage.serve("stranger", port)?;
            }
            is_there = true;
        }
        stage.play(&world())?;
        if is_there {
            stage.expect([served("c1 n1", "10.96.0.10:80 [fd00:96::10]:81", "stranger").by(&[Means::Tcp])])?;
        }
        for nobody in ["", "selector: {app: nobody}"] {
            stage.play(&web(nobody))?;
            stage.expect([
                refused("a1 c1 c3 n1 n3", &format!("web:80 web:81 {BALANCED}")),
                refused("stranger c1 c3", "n1:30080 n2:30080"),
            ])?;
        }
        stage.play(&web("selector: {app: web}"))?;
        stage.expect([served("c1 c3 n1 n3", "web:80", "a1 a2"), refused("c1 c3 n1 n3", "web:81")])?;
        for from in ["c1", "c3", "n1", "n3"] {
            for address in ["10.96.0.10", "fd00:96::10"] {
                let said = ping(stage, from, address)?;
                ensure!(said.contains("nreachable"), "{from} pings {address}: {said}");
            }
        }
        Ok(())
    })
}
