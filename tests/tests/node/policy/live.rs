//! Policies, and the traffic that they let pass or not.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use sluice_api::{Answer, Call, DenialStatus};
use sluice_tests::lab::traffic::{Steady, is_refused, ping, udp};
use sluice_tests::lab::{Lab, Node, Plan, Pod, until, until_so};

/// Declares a pod of a node with a label, as the cluster would.
pub fn declare(lab: &Lab, node: &Node, pod: &Pod, name: &str) -> Result<()> {
    let addresses: Vec<String> = pod.addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
    write(
        lab,
        name,
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{role: {name}}}}}\n\
             spec: {{nodeName: {}, containers: []}}\nstatus: {{podIPs: [{}]}}\n",
            node.name,
            addresses.join(", ")
        ),
    )
}

/// Writes a manifest, all of it at once.
pub fn write(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let (unfinished, path) = (lab.manifests().join(format!(".{name}")), lab.manifests().join(format!("{name}.yaml")));
    fs::write(&unfinished, text).context("writing a manifest")?;
    fs::rename(unfinished, path).context("putting a manifest in its place")
}

/// A policy that has `db` hear only from these.
pub fn only_from(roles: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db}}\n\
         spec: {{podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: \
         [{{key: role, operator: In, values: [{roles}]}}]}}}}]}}]}}\n"
    )
}

/// Waits until a node's policies have denied something to this address's family, and says what.
fn denied(node: &Node, peer: &str, to: IpAddr) -> Result<DenialStatus> {
    until(&format!("something of {peer} is denied"), || {
        let Answer::Denials(denials) = node.ask(Call::Denials { limit: 100 })? else { bail!("no answer") };
        let is_its = |denial: &DenialStatus| {
            denial.peer_pod.as_ref().is_some_and(|pod| pod.name == peer) && denial.peer.is_ipv4() == to.is_ipv4()
        };
        denials.into_iter().find(is_its).context("nothing yet")
    })
}

/// An edit ends live flows that it denies and spares the others, and the next one lets them begin again.
fn an_edit_concerns_live_flows(routing: &'static str) -> Result<()> {
    let lab = Lab::start(Plan { nodes: 2, routing, ..Plan::default() })?;
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    let (db, web, remote) = (lab.pod(1, "db")?, lab.pod(1, "web")?, lab.pod(2, "remote")?);
    for (node, pod, name) in [(here, &db, "db"), (here, &web, "web"), (there, &remote, "remote")] {
        declare(&lab, node, pod, name)?;
    }
    for address in &db.addresses {
        let spared = Steady::start(&remote.place, &db.place, *address)?;
        let connected = Steady::stream(&remote.place, &db.place, *address)?;
        let ended = Steady::start(&web.place, &db.place, *address)?;
        for flow in [&spared, &connected, &ended] {
            flow.goes_on(50)?;
        }
        write(&lab, "policy", &only_from("remote"))?;
        let denial = denied(here, "web", *address)?;
        assert_eq!((denial.direction.as_str(), denial.verdict.as_str()), ("ingress", "denied"));
        assert_eq!(denial.pod.map(|pod| pod.name).as_deref(), Some("db"));
        assert_eq!(denial.reason, "no ingress rule of NetworkPolicy default/db");
        for flow in [&spared, &connected] {
            flow.goes_on(200)?;
        }
        let (sent, answered) = ended.stop()?;
        assert!(sent > answered, "a flow that is denied goes on: {sent} sent, {answered} answered");
        assert!(ping(&web.place, *address).is_err(), "an echo is denied too");
        // What db sends itself, and the answers to it, no policy denies; nor what its own node sends.
        for own in web.addresses.iter().filter(|own| own.is_ipv4() == address.is_ipv4()) {
            udp(&db.place, &web.place, *own, 100)?;
        }
        udp(&here.place, &db.place, *address, 100)?;

        write(&lab, "policy", &only_from("remote, web"))?;
        until("web is let in again", || udp(&web.place, &db.place, *address, 100))?;
        for flow in [spared, connected] {
            let (sent, answered) = flow.stop()?;
            assert_eq!(sent, answered, "a flow that is allowed throughout loses packets");
        }
        fs::remove_file(lab.manifests().join("policy.yaml")).context("removing the policy")?;
        until("everybody is let in", || is_refused(&web.place, *address))?;
    }
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

#[test]
fn metrics_tell_what_policies_do() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (db, web) = (lab.pod(1, "db")?, lab.pod(1, "web")?);
    for (pod, name) in [(&db, "db"), (&web, "web")] {
        declare(&lab, &lab.nodes[0], pod, name)?;
    }
    let node = &lab.nodes[0];
    assert_eq!(node.metric("sluice_policies")?, 0.0);
    let changes = "sluice_policy_apply_duration_seconds_count";
    let before = node.metric(changes)?;
    write(&lab, "policy", &only_from("nobody"))?;
    until_so("the policy is in force", || Ok(node.metric("sluice_policies")? == 1.0))?;
    assert!(node.metric(changes)? > before, "that took some time");
    assert!(ping(&web.place, db.addresses[0]).is_err(), "web is let in");
    for (name, number) in [
        ("sluice_ready", 1.0),
        ("sluice_endpoints", 2.0),
        ("sluice_policy_pods_selected", 1.0),
        ("sluice_policy_pods_closed", 0.0),
        ("sluice_policy_pods_audited", 0.0),
        ("sluice_problems{severity=\"error\"}", 0.0),
    ] {
        assert_eq!(node.metric(name)?, number, "{name}");
    }
    let dropped = node.metric("sluice_drops_total{hook=\"from_pod\",reason=\"policy\"}")?;
    let denied = node.metric("sluice_policy_denials_total{direction=\"ingress\",verdict=\"denied\"}")?;
    assert!(dropped >= denied && denied > 0.0, "{dropped} dropped, {denied} denied");
    assert!(node.metric("sluice_table_entries{table=\"denials\"}")? > 0.0);
    assert!(
        node.metric("sluice_table_capacity{table=\"rules\"}")?
            >= node.metric("sluice_table_entries{table=\"rules\"}")?
    );
    assert_eq!((node.page("/readyz")?.0, node.page("/healthz")?.0), (200, 200));
    lab.nodes[0].restart_with("metrics_address: off\n")?;
    assert!(lab.nodes[0].page("/metrics").is_err(), "nobody wants them");
    Ok(())
}

#[test]
fn policies_outlive_an_agent_and_are_taken_over_by_the_next() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (db, web, other) = (lab.pod(1, "db")?, lab.pod(1, "web")?, lab.pod(1, "other")?);
    for (pod, name) in [(&db, "db"), (&web, "web"), (&other, "other")] {
        declare(&lab, &lab.nodes[0], pod, name)?;
    }
    write(&lab, "policy", &only_from("web"))?;
    let address = db.addresses[0];
    until("other is kept out", || match ping(&other.place, address) {
        Ok(()) => bail!("it is let in"),
        Err(_) => Ok(()),
    })?;
    let flow = Steady::start(&web.place, &db.place, address)?;
    flow.goes_on(50)?;
    for _ in 0..3 {
        lab.nodes[0].stop_agent();
        assert!(ping(&other.place, address).is_err(), "without an agent");
        lab.nodes[0].start_agent()?;
        lab.nodes[0].wait_until_ready()?;
        assert!(ping(&other.place, address).is_err(), "with the next one");
        flow.goes_on(100)?;
        // A flow that begins, too.
        udp(&web.place, &db.place, address, 100)?;
    }
    let (sent, answered) = flow.stop()?;
    assert_eq!(sent, answered, "a flow that is allowed throughout loses packets");
    Ok(())
}
