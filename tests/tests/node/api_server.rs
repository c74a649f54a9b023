//! Where the agent finds the API server.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::lab::{ApiServer, Lab, Node, Plan, until};

const NODES: &str = "/api/v1/nodes";

/// What says where the server is may name a Service, which only this agent can serve: then it must be told better.
#[test]
fn an_agent_asks_the_server_at_the_address_that_it_is_given() -> Result<()> {
    const SERVICE: &str = "http://10.96.0.1:80";
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    let api = ApiServer::start(&lab.nodes[0])?;
    api.give("/api/v1/nodes", json!([node]));
    let mut config: Value = serde_json::from_slice(&fs::read(&api.kubeconfig)?)?;
    let server = config["clusters"][0]["cluster"]["server"].take();
    config["clusters"][0]["cluster"]["server"] = SERVICE.into();
    fs::write(&api.kubeconfig, config.to_string())?;

    let source = format!("kubernetes:{}", api.kubeconfig.display());
    let server = server.as_str().context("a kubeconfig names its server")?;
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &source, "--api-server", server])?;
    let status = lab.nodes[0].wait_until_ready()?;
    ensure!(status.objects.nodes == 1 && status.problems.is_empty(), "{status:?}");
    Ok(())
}

/// The machine of a server that has lost its power closes no connection, nor does an address that has moved to another machine.
#[test]
fn an_agent_notices_that_the_server_is_not_heard_any_more_and_that_it_is_again() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    let api = ApiServer::start(&lab.nodes[0])?;
    api.give(NODES, json!([node]));
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &format!("kubernetes:{}", api.kubeconfig.display())])?;
    ensure!(lab.nodes[0].wait_until_ready()?.problems.is_empty());
    let n1 = &lab.nodes[0];

    let port = api.address.port();
    nft(
        n1,
        &format!(
            "add table inet silence; add chain inet silence packets {{ type filter hook input priority 0; }}; \
             add rule inet silence packets tcp dport {port} drop; add rule inet silence packets tcp sport {port} drop"
        ),
    )?;
    api.forget_watches();
    until("the agent says that nobody is there", || {
        let problems = n1.status()?.problems;
        ensure!(problems.len() == 1 && problems[0].contains("tells nothing: nobody answers there"), "{problems:?}");
        Ok(())
    })?;
    nft(n1, "delete table inet silence")?;
    until("the agent says no more that nobody is there", || {
        let problems = n1.status()?.problems;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    })?;
    let other = json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": "n2", "uid": "u2", "resourceVersion": "2" } });
    api.say(NODES, "ADDED", &other)?;
    until("the agent hears of changes", || {
        let nodes = n1.status()?.objects.nodes;
        ensure!(nodes == 2, "{nodes}");
        Ok(())
    })
}

fn nft(node: &Node, commands: &str) -> Result<()> {
    let output = node.place.command("nft").arg(commands).output().context("running nft")?;
    ensure!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
