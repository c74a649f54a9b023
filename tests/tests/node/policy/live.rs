//! Edits and takeovers under traffic that goes on.

use std::net::IpAddr;

use anyhow::{Result, bail, ensure};
use sluice_api::{Answer, Call, FlowStatus};
use sluice_policy::question::Traffic;
use sluice_tests::lab::exchange::{Client, End};
use sluice_tests::lab::traffic::{Steady, udp};
use sluice_tests::lab::{Node, Pod, until_so};

use super::flows::Flows;
use super::stage::{Stage, allows, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 4] = [(1, "x/db"), (1, "x/web"), (1, "x/other"), (2, "x/remote")];

/// Has `db` hear only from these.
fn only_from(roles: &str) -> World {
    let from = format!("{{podSelector: {{matchExpressions: [{{key: role, operator: In, values: [{roles}]}}]}}}}");
    roles_of_all().policy("x/db", &format!("podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{from}]}}]"))
}

fn roles_of_all() -> World {
    world().pods("x/db", "role: db").pods("x/web", "role: web").pods("x/remote", "role: remote")
}

/// An edit ends live flows that it denies and spares the others, and the next one lets them go on.
fn an_edit_concerns_live_flows(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    stage.play(&roles_of_all())?;
    let (db, remote) = (stage.pod("x/db"), stage.pod("x/remote"));
    let mut spared = Vec::new();
    for address in &db.addresses {
        spared.push(Steady::start(&remote.place, &db.place, *address)?);
        spared.push(Steady::stream(&remote.place, &db.place, *address)?);
    }
    let go_on = |more| spared.iter().try_for_each(|flow| flow.goes_on(more));
    let mut ended = Flows::open(&stage, "x/web", "x/db", "7000/TCP 7001/UDP")?;
    let mut own = Flows::open(&stage, "x/db", "x/web", "7002/TCP 7003/UDP")?;
    go_on(50)?;

    stage.play(&only_from("remote"))?;
    ended.are_cut(&stage)?;
    go_on(200)?;
    // What db sends itself, and the answers to it, no policy denies; nor what its own node sends.
    own.go_on(&stage)?;
    stage.expect([
        denies("x/web", "x/db", "80/TCP ICMP").because("no ingress rule of NetworkPolicy x/db"),
        allows("x/db", "x/web", "80/TCP ICMP"),
        allows("n1", "x/db", "80/TCP 53/UDP"),
    ])?;
    for address in &db.addresses {
        is_let_pass(&stage.lab.nodes[0], *address, "NetworkPolicy x/db ingress[0]")?;
    }

    stage.play(&only_from("remote, web"))?;
    ended.go_on(&stage)?;
    stage.play(&roles_of_all())?;
    ended.go_on(&stage)?;
    go_on(50)?;
    for flow in spared {
        let (sent, answered) = flow.stop()?;
        assert_eq!(sent, answered, "a flow that is allowed throughout loses packets");
    }
    Ok(())
}

/// A flow to an address says what lets it pass.
fn is_let_pass(node: &Node, to: IpAddr, by: &str) -> Result<()> {
    let Answer::Flows(flows) = node.ask(Call::Flows { limit: 1000 })? else { bail!("no answer") };
    let is_it = |flow: &FlowStatus| {
        (flow.destination, flow.verdict.as_str()) == (to, "allowed")
            && flow.ingress.as_ref().is_some_and(|ingress| ingress.reason == by)
    };
    ensure!(flows.iter().any(is_it), "no flow to {to} is let pass by {by}: {flows:#?}");
    Ok(())
}

#[test]
fn an_edit_concerns_live_flows_natively() -> Result<()> {
    an_edit_concerns_live_flows("native")
}

#[test]
fn an_edit_concerns_live_flows_through_the_overlay() -> Result<()> {
    an_edit_concerns_live_flows("vxlan")
}

/// Whether a pod gets no echo, where another one does that asks later: both are on the receiver's node, where nothing
/// overtakes.
fn is_kept_out(pod: &Pod, other: &Pod, receiver: &Pod) -> Result<bool> {
    let echo: Traffic = "ICMP".parse().map_err(anyhow::Error::msg)?;
    let mut is_kept_out = true;
    for (at, to) in receiver.addresses.iter().enumerate() {
        let ask = |from: &Pod| Client::ask(End { place: &from.place, address: from.addresses[at] }, *to, echo);
        let (first, second) = (ask(pod)?, ask(other)?);
        until_so("the other one gets its echo", || second.is_answered())?;
        is_kept_out &= !first.is_answered()?;
    }
    Ok(is_kept_out)
}

#[test]
fn policies_outlive_an_agent_and_are_taken_over_by_the_next() -> Result<()> {
    let mut stage = Stage::set("native", &CAST)?;
    stage.play(&roles_of_all())?;
    let is_kept_out = |stage: &Stage| is_kept_out(stage.pod("x/other"), stage.pod("x/web"), stage.pod("x/db"));
    ensure!(!is_kept_out(&stage)?);
    stage.play(&only_from("web"))?;
    let mut flows = Vec::new();
    for address in &stage.pod("x/db").addresses {
        flows.push(Steady::start(&stage.pod("x/web").place, &stage.pod("x/db").place, *address)?);
    }
    let go_on = |more| flows.iter().try_for_each(|flow| flow.goes_on(more));
    go_on(50)?;
    for _ in 0..3 {
        stage.lab.nodes[0].stop_agent();
        ensure!(is_kept_out(&stage)?, "without an agent");
        stage.lab.nodes[0].start_agent()?;
        stage.lab.nodes[0].wait_until_ready()?;
        ensure!(is_kept_out(&stage)?, "with the next one");
        go_on(100)?;
        // A flow that begins, too.
        let (db, web) = (stage.pod("x/db"), stage.pod("x/web"));
        for address in &db.addresses {
            udp(&web.place, &db.place, *address, 100)?;
        }
    }
    for flow in flows {
        let (sent, answered) = flow.stop()?;
        assert_eq!(sent, answered, "a flow that is allowed throughout loses packets");
    }
    Ok(())
}
