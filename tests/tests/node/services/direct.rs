//! Clients outside that are answered by their backend's node.

use anyhow::Result;

use super::stage::{How, OVERLAY, PLAIN, each_way, ignored, refused, served};
use super::world::{World, ports, world};

fn web(spec: &str) -> World {
    let ports = ports("80>8080@30080");
    world()
        .pods("a1 a2", "app: web")
        .service("web", 10, &format!("type: LoadBalancer, selector: {{app: web}}, {ports}, {spec}"))
        .balanced("web", "{ip: 203.0.113.10}, {ip: '2001:db8:cafe::10'}")
}

#[test]
fn whoever_is_asked_backends_see_their_clients() -> Result<()> {
    let direct = How { direct: true, ..PLAIN };
    let overlay = How { direct: true, ..OVERLAY };
    each_way(&[direct, How { sockets: false, ..direct }, overlay], |stage| {
        stage.play(&web(""))?;
        stage.expect([
            served("stranger", "n1:30080 n2:30080 n3:30080", "a1 a2").seen_as("stranger"),
            served("c1 c3 n1 n3", "web:80", "a1 a2"),
            served("c1 c3 a1 n1 n2", "n3:30080", "a1 a2"),
            served("c1 c3 a1", "n1:30080 n2:30080 n3:30080", "a1 a2"),
            refused("stranger", "n3:30081"),
        ])?;
        for node in 1..=3 {
            for (address, own) in ["203.0.113.10", "2001:db8:cafe::10"].iter().zip(&stage.lab.nodes[node - 1].addresses)
            {
                stage.lab.stranger.ip(&format!("route replace {address} via {own}"))?;
            }
            let balanced = "203.0.113.10:80 [2001:db8:cafe::10]:80";
            stage.expect([served("stranger", balanced, "a1 a2").seen_as("stranger")])?;
        }
        stage.play(&web("externalTrafficPolicy: Local, healthCheckNodePort: 30900"))?;
        stage.expect([served("stranger", "n1:30080", "a1").seen_as("stranger"), ignored("stranger", "n3:30080")])
    })
}
