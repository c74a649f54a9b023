//! Policies that do not fit into the tables.

use anyhow::{Result, ensure};
use sluice_api::PolicyStatus;
use sluice_tests::lab::until_so;

use super::stage::{Stage, allows, audits, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 5] = [(1, "x/db"), (1, "x/web"), (1, "x/free"), (2, "x/far"), (2, "y/far")];
const ALL: &str = "80/TCP 53/UDP ICMP";
const CLOSED: &str = "no policy that could be named: the pod is not known, or its policies do not fit";

/// A policy for pods with a role, which takes about as many rules as it has ports: these many, from 80 on.
fn ports(world: World, role: &str, number: u16) -> World {
    let ports: Vec<String> = (0..number).map(|at| format!("{{port: {}}}", 80 + 2 * at)).collect();
    let spec = format!("podSelector: {{matchLabels: {{role: {role}}}}}, ingress: [{{ports: [{}]}}]", ports.join(", "));
    world.policy(&format!("x/{role}"), &spec)
}

fn roles() -> World {
    world().pods("x/db x/far", "role: db").pods("x/web", "role: web")
}

/// What policies take on the first node.
fn policy(stage: &Stage) -> Result<PolicyStatus> {
    Ok(stage.lab.nodes[0].status()?.policy)
}

fn room(routing: &'static str) -> Result<()> {
    let mut stage = Stage::set(routing, &CAST)?;
    stage.lab.nodes[0].restart_with("policy_rules: 20\n")?;
    ensure!(policy(&stage)?.rules_limit == 20);
    let both = ports(ports(roles(), "db", 12), "web", 10);
    // The larger one of the two is without room, on this node; the other node has enough.
    stage.play_with_problems(&both)?;
    let status = stage.lab.nodes[0].status()?;
    ensure!(status.policy.closed == 1, "{status:?}");
    ensure!(status.problems.len() == 1 && status.problems[0].contains("x/db"), "{status:?}");
    stage.expect_of_agents([
        (denies("x/web x/free x/far y/far stranger", "x/db", ALL).because(CLOSED), "ingress"),
        (denies("x/db", "x/free x/far y/far stranger", "80/TCP").because(CLOSED), "egress"),
        // Its own node reaches it all the same, and the others go on.
        (allows("n1", "x/db", ALL), ""),
        (allows("x/free x/far y/far stranger", "x/web", "80/TCP"), ""),
        (
            denies("x/free x/far y/far stranger", "x/web", "81/TCP ICMP")
                .because("no ingress rule of NetworkPolicy x/web"),
            "ingress",
        ),
        (allows("x/free x/web y/far stranger", "x/far x/free", "80/TCP"), ""),
    ])?;
    // Where there is room again, it heals by itself.
    stage.play_with_problems(&ports(roles(), "db", 12))?;
    until_so("there is room again", || Ok(policy(&stage)?.closed == 0))?;
    ensure!(stage.lab.nodes[0].status()?.problems.is_empty());
    stage.expect([
        allows("x/web x/free x/far y/far stranger", "x/db", "80/TCP 102/TCP"),
        denies("x/web x/free x/far y/far stranger", "x/db", "81/TCP 104/TCP ICMP"),
        allows("x/db", "x/web x/free y/far stranger", ALL),
    ])?;
    // A pod that comes while there is no room, in a namespace whose policies are only tried, is heard then and later.
    stage.play_with_problems(&both.clone().auditing_namespace("x"))?;
    stage.leave("x/web")?;
    stage.enter(1, "x/web", 12)?;
    let status = stage.lab.nodes[0].status()?;
    ensure!(status.policy.closed == 1 && status.problems[0].contains("x/web"), "{status:?}");
    stage.expect_of_agents([(audits("x/db y/far", "x/web", ALL).because(CLOSED), "ingress")])?;
    stage.play_with_problems(&ports(roles(), "web", 10).auditing_namespace("x"))?;
    until_so("there is room again", || Ok(policy(&stage)?.closed == 0))?;
    stage.expect([
        allows("x/db y/far", "x/web", "80/TCP"),
        audits("x/db y/far", "x/web", "81/TCP ICMP").because("no ingress rule of NetworkPolicy x/web"),
    ])?;
    // A policy that grows beyond it closes its pod, and an agent that is told of more room opens it.
    stage.play_with_problems(&ports(roles(), "db", 40))?;
    ensure!(policy(&stage)?.closed == 1, "{:?}", policy(&stage)?);
    stage.expect_of_agents([(denies("x/web y/far", "x/db", "80/TCP").because(CLOSED), "ingress")])?;
    stage.lab.nodes[0].restart_with("policy_rules: 200\n")?;
    stage.play(&both)?;
    stage.expect([allows("x/web y/far", "x/db", "80/TCP"), denies("x/web y/far", "x/db", "81/TCP")])
}

#[test]
fn who_does_not_fit_is_closed_and_heals_natively() -> Result<()> {
    room("native")
}

#[test]
fn who_does_not_fit_is_closed_and_heals_through_the_overlay() -> Result<()> {
    room("vxlan")
}
