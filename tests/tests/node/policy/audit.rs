//! Policies that are only tried: what they would deny is told of, and passes.

use anyhow::{Result, ensure};

use super::flows::Flows;
use super::stage::{Stage, allows, audits, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 5] = [(1, "x/db"), (1, "x/web"), (1, "y/db"), (2, "x/far"), (2, "y/far")];
const ALL: &str = "80/TCP 53/UDP ICMP";
const BY_X: &str = "no ingress rule of NetworkPolicy x/all";
const BY_Y: &str = "no ingress rule of NetworkPolicy y/all";

/// All pods of both namespaces hear only `x/web`.
fn isolated() -> World {
    let peer = "{namespaceSelector: {}, podSelector: {matchLabels: {role: web}}}";
    let spec = format!("podSelector: {{}}, ingress: [{{from: [{peer}]}}]");
    world().pods("x/web", "role: web").policy("x/all", &spec).policy("y/all", &spec)
}

fn audit(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let audited = || stage.lab.nodes.iter().map(|node| Ok(node.status()?.policy.audited)).collect::<Result<Vec<_>>>();
    stage.play(&isolated())?;
    ensure!(audited()? == [0, 0]);
    stage.expect([
        allows("x/web", "x/db y/db x/far y/far", ALL),
        denies("y/far stranger", "x/db x/far", ALL).because(BY_X),
        denies("x/far stranger", "y/db y/far", ALL).because(BY_Y),
    ])?;

    // A namespace's pods, on whatever node.
    stage.play(&isolated().auditing_namespace("x"))?;
    ensure!(audited()? == [2, 1]);
    stage.expect([
        allows("x/web", "x/db y/db x/far y/far", ALL),
        audits("y/far y/db stranger n2", "x/db", ALL).because(BY_X),
        audits("y/far y/db stranger n1", "x/far", ALL).because(BY_X),
        denies("x/far stranger", "y/db y/far", ALL).because(BY_Y),
    ])?;
    let mut flows = Flows::open(&stage, "y/far y/db", "x/db x/far", "7000/TCP 7001/UDP")?;

    // A node's pods, of whatever namespace.
    stage.play(&isolated().auditing_node("n1"))?;
    ensure!(audited()? == [3, 0]);
    stage.expect([
        audits("y/far stranger n2", "x/db", ALL).because(BY_X),
        audits("x/far stranger n2", "y/db", ALL).because(BY_Y),
        denies("y/db stranger n1", "x/far", ALL).because(BY_X),
        denies("x/far stranger n1", "y/far", ALL).because(BY_Y),
    ])?;

    // What passed only because of that ends with it, and what is sent is tried likewise.
    stage.play(&isolated())?;
    flows.are_cut(&stage)?;
    stage.play(&isolated().auditing_namespace("x"))?;
    flows.go_on(&stage)?;
    let admin = "subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}, {nodes: {}}]}]";
    stage.play(&world().cluster_policy("none", "Admin", 1, admin).auditing_namespace("x"))?;
    stage.expect([
        audits("x/db x/far", "y/db y/far n1 n2", ALL).because("ClusterNetworkPolicy none egress[0]"),
        denies("y/db y/far", "x/db x/far", ALL).because("ClusterNetworkPolicy none egress[0]"),
        allows("x/db y/db x/far y/far", "stranger", ALL),
    ])
}

#[test]
fn what_is_only_tried_is_told_of_and_passes_natively() -> Result<()> {
    audit("native")
}

#[test]
fn what_is_only_tried_is_told_of_and_passes_through_the_overlay() -> Result<()> {
    audit("vxlan")
}
