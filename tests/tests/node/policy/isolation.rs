//! Whom policies isolate, in which direction, and how several of them go together.

use anyhow::{Context, Result};
use sluice_tests::lab::traffic::is_refused;

use super::stage::{Stage, allows, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 5] = [(1, "x/db"), (1, "x/web"), (1, "y/web"), (2, "x/far"), (2, "y/far")];
const OTHERS: &str = "x/web y/web x/far y/far stranger n2";
const ALL: &str = "80/TCP 53/UDP ICMP";

fn db(spec: &str) -> World {
    roles().policy("x/db", &format!("podSelector: {{matchLabels: {{role: db}}}}, {spec}"))
}

fn roles() -> World {
    world().pods("x/db", "role: db").pods("x/web x/far", "role: web")
}

fn isolation(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let (hears_none, reaches_none) = ("no ingress rule of NetworkPolicy x/db", "no egress rule of NetworkPolicy x/db");

    // Without policies, and where they are about others.
    for world in
        [roles(), roles().policy("y/all", "podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress]")]
    {
        stage.play(&world)?;
        stage.expect([allows(OTHERS, "x/db", ALL), allows("x/db", OTHERS, ALL)])?;
    }
    // Each direction by itself, in whatever way it is said. The pod's node, and the pod itself, are always heard and reached.
    let ingress = [
        "policyTypes: [Ingress]",
        "ingress: []",
        "egress: []",
        "policyTypes: [Ingress], egress: [{}]",
        "policyTypes: []",
    ];
    for spec in ingress {
        stage.play(&db(spec)).context(spec)?;
        stage
            .expect([
                denies(OTHERS, "x/db", ALL).because(hears_none),
                allows("x/db", OTHERS, ALL),
                allows("x/db n1", "x/db", ALL),
                allows("x/db", "n1", ALL),
                allows("x/web", "x/far", "80/TCP"),
            ])
            .context(spec)?;
    }
    for spec in ["policyTypes: [Egress]", "policyTypes: [Egress], ingress: [{}]", "policyTypes: [Egress], egress: []"] {
        stage.play(&db(spec)).context(spec)?;
        stage
            .expect([
                allows(OTHERS, "x/db", ALL),
                denies("x/db", OTHERS, ALL).because(reaches_none),
                allows("x/db n1", "x/db", ALL),
                allows("x/db", "n1", ALL),
            ])
            .context(spec)?;
    }
    for spec in ["policyTypes: [Ingress, Egress]", "egress: [{ports: [{port: 7}]}]"] {
        stage.play(&db(spec)).context(spec)?;
        stage
            .expect([
                denies(OTHERS, "x/db", ALL).because(hears_none),
                denies("x/db", OTHERS, ALL).because(reaches_none),
                allows("x/db n1", "x/db", ALL),
                allows("x/db", "n1", ALL),
            ])
            .context(spec)?;
    }
    // What is missing or empty in a rule means everybody, and everything.
    for rule in ["{}", "{from: []}", "{ports: []}", "{from: [], ports: []}"] {
        stage.play(&db(&format!("ingress: [{rule}]"))).context(rule)?;
        stage.expect([allows(OTHERS, "x/db", ALL), allows("x/db", OTHERS, ALL)]).context(rule)?;
    }
    for rule in ["{}", "{to: [], ports: []}"] {
        stage.play(&db(&format!("policyTypes: [Egress], egress: [{rule}]"))).context(rule)?;
        stage.expect([allows("x/db", OTHERS, ALL)]).context(rule)?;
    }
    stage.play(&db("ingress: [{ports: [{port: 80}]}]"))?;
    stage.expect([allows(OTHERS, "x/db", "80/TCP"), denies(OTHERS, "x/db", "53/UDP ICMP")])?;
    // A selector that is empty, or missing, selects all pods of the policy's namespace, and of no other.
    for selector in ["podSelector: {}", "policyTypes: [Ingress]"] {
        stage.play(&roles().policy("x/all", selector)).context(selector)?;
        stage
            .expect([
                denies("y/web y/far stranger", "x/db x/web x/far", ALL)
                    .because("no ingress rule of NetworkPolicy x/all"),
                allows("x/db x/web x/far", "y/web y/far", ALL),
            ])
            .context(selector)?;
    }

    // Policies add up: what any of them allows is allowed, and none takes anything away.
    let only_web =
        "podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {role: web}}}], ports: [{port: 80}]}]";
    let two = db("ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}], ports: [{port: 81}]}]")
        .policy("x/web", only_web)
        .policy("x/zero", "podSelector: {}");
    stage.play(&two)?;
    stage.expect([
        allows("x/web x/far", "x/db", "80/TCP"),
        allows("y/web y/far", "x/db", "81/TCP"),
        denies("x/web x/far", "x/db", "81/TCP"),
        denies("y/web y/far", "x/db", "80/TCP")
            .because("no ingress rule of NetworkPolicy x/db, NetworkPolicy x/web, NetworkPolicy x/zero"),
    ])?;

    // Both ends must allow it: the sender's policies are asked, and the receiver's.
    let to_db = "podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: db}}}]}]";
    let from_web = "ingress: [{from: [{podSelector: {matchLabels: {role: web}}}], ports: [{port: 80}]}]";
    stage.play(&db(from_web).policy("x/web", to_db))?;
    stage.expect([
        allows("x/web x/far", "x/db", "80/TCP"),
        denies("x/web x/far", "x/db", "81/TCP").because(hears_none),
        denies("x/web", "x/far stranger", "80/TCP").because("no egress rule of NetworkPolicy x/web"),
        denies("y/web y/far", "x/db", "80/TCP").because(hears_none),
    ])?;

    // Whoever may be reached answers, though it may open nothing; so do errors about what may be sent.
    let answering = "policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}, {port: 9, protocol: UDP}]}]";
    stage.play(&db(answering).policy("x/web", "podSelector: {matchLabels: {role: web}}, policyTypes: [Ingress]"))?;
    stage.expect([
        allows("x/web x/far stranger", "x/db", "80/TCP"),
        denies("x/db", "x/web x/far stranger", "80/TCP"),
        denies("y/web y/far stranger", "x/web x/far", "9/UDP"),
    ])?;
    for address in &stage.pod("x/db").addresses {
        for name in ["x/web", "x/far"] {
            is_refused(&stage.pod(name).place, *address)?;
        }
        is_refused(&stage.lab.stranger, *address)?;
    }
    stage.play(&db("policyTypes: [Ingress, Egress], egress: [{ports: [{port: 9, protocol: UDP}]}]"))?;
    stage.expect([denies(OTHERS, "x/db", ALL), denies("x/db", OTHERS, ALL)])?;
    for address in
        [&stage.pod("x/web").addresses[..], &stage.pod("y/far").addresses, &stage.lab.stranger_addresses()].concat()
    {
        is_refused(&stage.pod("x/db").place, address)?;
    }
    Ok(())
}

#[test]
fn policies_isolate_and_add_up_natively() -> Result<()> {
    isolation("native")
}

#[test]
fn policies_isolate_and_add_up_through_the_overlay() -> Result<()> {
    isolation("vxlan")
}
