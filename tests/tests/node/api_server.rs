//! Where the agent finds the API server.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::lab::{ApiServer, Lab, Plan};

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
