//! Protocols, ports, ranges of them, and their names.

use anyhow::Result;

use super::stage::{Stage, allows, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 4] = [(1, "x/db"), (1, "x/web"), (2, "x/far"), (2, "x/mute")];

/// Has `x/db` hear only these ports, whoever sends.
fn ingress(ports: &str) -> World {
    named().policy("x/db", &format!("podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{ports: [{ports}]}}]"))
}

/// Has `x/web` and `x/far` reach only these ports, whoever has them.
fn egress(ports: &str) -> World {
    let web = "podSelector: {matchLabels: {role: web}}, policyTypes: [Egress]";
    named().policy("x/web", &format!("{web}, egress: [{{ports: [{ports}]}}]"))
}

/// The same name means other numbers at other pods, and is known of both protocols at one.
fn named() -> World {
    world()
        .pods("x/db", "role: db")
        .pods("x/web x/far", "role: web")
        .ports("x/db", &["{name: api, containerPort: 8080}", "{name: api, containerPort: 5353, protocol: UDP}"])
        .ports("x/web", &["{name: api, containerPort: 8081}", "{name: more, containerPort: 8082}"])
        .ports("x/far", &["{name: api, containerPort: 8083}", "{containerPort: 8084}"])
}

fn ports(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let by_none = "no ingress rule of NetworkPolicy x/db";

    for port in ["{port: 80}", "{port: 80, protocol: TCP}"] {
        stage.play(&ingress(port))?;
        stage.expect([
            allows("x/web x/far stranger", "x/db", "80/TCP"),
            denies("x/web x/far stranger", "x/db", "80/UDP 81/TCP ICMP").because(by_none),
        ])?;
    }
    stage.play(&ingress("{port: 53, protocol: UDP}, {port: 54}"))?;
    stage.expect([
        allows("x/web x/far", "x/db", "53/UDP 54/TCP"),
        denies("x/web x/far", "x/db", "53/TCP 54/UDP ICMP").because(by_none),
    ])?;
    // All ports of a protocol; the other one is not TCP by default.
    stage.play(&ingress("{protocol: UDP}"))?;
    stage.expect([allows("x/web x/far", "x/db", "1/UDP 65535/UDP"), denies("x/web x/far", "x/db", "80/TCP ICMP")])?;
    stage.play(&ingress("{}"))?;
    stage.expect([allows("x/web x/far", "x/db", "1/TCP 65535/TCP"), denies("x/web x/far", "x/db", "80/UDP ICMP")])?;

    // Ranges, their ends among them, in each direction.
    let range = "{port: 8079, endPort: 8090}, {port: 60000, endPort: 65535, protocol: UDP}, {port: 443, endPort: 443}";
    let (within, beyond) = (
        "8079/TCP 8085/TCP 8090/TCP 60000/UDP 65535/UDP 443/TCP",
        "8078/TCP 8091/TCP 8085/UDP 59999/UDP 442/TCP 444/TCP",
    );
    stage.play(&ingress(range))?;
    stage.expect([allows("x/web x/far", "x/db", within), denies("x/web x/far", "x/db", beyond).because(by_none)])?;
    stage.play(&egress(range))?;
    stage.expect([
        allows("x/web x/far", "x/db stranger", within),
        denies("x/web x/far", "x/db stranger", beyond).because("no egress rule of NetworkPolicy x/web"),
    ])?;

    // A name is that of the receiver's port, and of the protocol that the rule says.
    stage.play(&ingress("{port: api}"))?;
    stage.expect([
        allows("x/web x/far", "x/db", "8080/TCP"),
        denies("x/web x/far", "x/db", "8080/UDP 5353/UDP 8081/TCP 8083/TCP").because(by_none),
    ])?;
    stage.play(&ingress("{port: api, protocol: UDP}"))?;
    stage.expect([allows("x/web x/far", "x/db", "5353/UDP"), denies("x/web x/far", "x/db", "8080/TCP 5353/TCP")])?;
    stage.play(&named().policy("x/all", "podSelector: {}, ingress: [{ports: [{port: api}]}]"))?;
    stage.expect([
        allows("x/mute", "x/db", "8080/TCP"),
        allows("x/mute", "x/web", "8081/TCP"),
        allows("x/mute", "x/far", "8083/TCP"),
        denies("x/mute", "x/db", "8081/TCP"),
        denies("x/mute", "x/web", "8080/TCP 8082/TCP"),
        denies("x/mute", "x/far", "8080/TCP 8084/TCP"),
        denies("x/web x/far", "x/mute", "8080/TCP 8081/TCP").because("no ingress rule of NetworkPolicy x/all"),
    ])?;
    stage.play(&egress("{port: api}"))?;
    stage.expect([
        allows("x/web x/far", "x/db", "8080/TCP"),
        allows("x/web", "x/far", "8083/TCP"),
        allows("x/far", "x/web", "8081/TCP"),
        denies("x/web x/far", "x/db", "8081/TCP 8083/TCP 5353/UDP"),
        denies("x/web", "x/far", "8080/TCP"),
        // Whoever has no port of that name has none, and outside nobody has names.
        denies("x/web", "n2", "8080/TCP 8083/TCP"),
        denies("x/web x/far", "x/mute stranger", "8080/TCP 8081/TCP 8083/TCP")
            .because("no egress rule of NetworkPolicy x/web"),
    ])?;
    // Beside numbers, and with peers.
    let rule = "egress: [{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: api}, {port: 90}]}]";
    stage.play(
        &named()
            .policy("x/web", &format!("podSelector: {{matchLabels: {{role: web}}}}, policyTypes: [Egress], {rule}")),
    )?;
    stage.expect([
        allows("x/web x/far", "x/db", "8080/TCP 90/TCP"),
        denies("x/web x/far", "x/mute", "8080/TCP 90/TCP"),
        denies("x/web", "x/far", "8083/TCP 90/TCP"),
    ])?;
    // Names that nobody has: who is selected is isolated all the same.
    stage.play(&ingress("{port: nowhere}"))?;
    stage.expect([denies("x/web x/far stranger", "x/db", "8080/TCP 80/TCP 5353/UDP ICMP").because(by_none)])?;
    stage.play(&egress("{port: nowhere}"))?;
    stage.expect([denies("x/web x/far", "x/db stranger", "8080/TCP 80/TCP ICMP")])?;
    // Nor does a name of a pod that changes its number mean the old one.
    stage.play(&ingress("{port: api}").ports("x/db", &["{name: api, containerPort: 9090}"]))?;
    stage.expect([allows("x/web x/far", "x/db", "9090/TCP"), denies("x/web x/far", "x/db", "8080/TCP")])
}

#[test]
fn ports_mean_what_they_say_natively() -> Result<()> {
    ports("native")
}

#[test]
fn ports_mean_what_they_say_through_the_overlay() -> Result<()> {
    ports("vxlan")
}
