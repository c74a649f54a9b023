//! ADD, where the API server tells of pods earlier, later, or not at all.

use std::fs;
use std::net::IpAddr;
use std::process::Child;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_policy::question::Traffic;
use sluice_tests::lab::exchange::{Client, End, Server};
use sluice_tests::lab::{ApiServer, Call, Lab, Node, Place, Plan, until, until_so};

const PODS: &str = "/api/v1/pods";

/// A pod of this node, of which the API server may know.
struct Arrival {
    place: Place,
    add: Call,
}

impl Arrival {
    fn new(node: &Node, name: &str, uid: &str) -> Result<Self> {
        let place = Place::make(&format!("{}-x.{name}", node.place.name))?;
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let add = Call::new(node, "ADD", &place.name, &place.path())?.with("CNI_ARGS", &arguments);
        Ok(Self { place, add })
    }
}

/// What the API server says of a pod before it has addresses.
fn pod(name: &str, uid: &str, role: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "x", "uid": uid, "labels": { "role": role }, "resourceVersion": version.to_string() },
        "spec": { "nodeName": "n1", "containers": [] }, "status": { "phase": "Pending" },
    })
}

fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().context("addresses")?;
    let plain = |ip: &Value| ip["address"].as_str().and_then(|net| net.split('/').next()?.parse().ok());
    ips.iter().map(|ip| plain(ip).context("an address")).collect()
}

/// The result of an ADD that was started.
fn result(child: Child) -> Result<Value> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{text}");
    Ok(serde_json::from_str(&text)?)
}

/// What is sent to a pod of the node is denied, and by which reason.
fn is_denied(node: &Node, from: End<'_>, to: End<'_>, reason: &str) -> Result<()> {
    let traffic: Traffic = "80/TCP".parse().map_err(anyhow::Error::msg)?;
    let _server = Server::start(to, traffic)?;
    let client = Client::ask(from, to.address, traffic)?;
    until("it is told of", || {
        let denials = node.denials(100)?;
        let is_it = denials.iter().any(|denial| denial.peer == from.address && denial.reason == reason);
        ensure!(is_it, "{denials:?}");
        Ok(())
    })?;
    ensure!(!client.is_answered()?, "it passes");
    Ok(())
}

#[test]
fn add_waits_for_its_own_pod_and_is_refused_without() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let manifest = fs::read(lab.manifests().join("n1.json")).context("reading the node's manifest")?;
    let server = ApiServer::start(&lab.nodes[0])?;
    server.give("/api/v1/nodes", json!([serde_json::from_slice::<Value>(&manifest)?]));
    let policy = |name: &str, role: &str| {
        let selector = json!({ "matchLabels": { "role": role } });
        json!({ "metadata": { "name": name, "namespace": "x" }, "spec": { "podSelector": selector } })
    };
    server.give("/apis/networking.k8s.io/v1/networkpolicies", json!([policy("db", "db"), policy("web", "web")]));
    server.give(PODS, json!([pod("known", "u1", "free", 1), pod("heir", "u1", "web", 1)]));
    lab.nodes[0].stop_agent();
    let source = format!("kubernetes:{}", server.kubeconfig.display());
    let mut agent = lab.nodes[0]
        .agent_command(&["--source", &source, "--log-level", "error"])
        .spawn()
        .context("starting the agent")?;
    let node = &lab.nodes[0];
    let outcome = until_so("it is ready", || Ok(node.status()?.ready)).and_then(|()| arrivals(node, &server));
    agent.kill()?;
    agent.wait()?;
    outcome
}

fn arrivals(node: &Node, server: &ApiServer) -> Result<()> {
    // Nobody ever tells of this one, which ends the test.
    let unknown = Arrival::new(node, "unknown", "u1")?;
    let waiting = unknown.add.spawn()?;

    // One that is known.
    let known = Arrival::new(node, "known", "u1")?;
    let known_addresses = addresses(&known.add.run()?)?;

    // One that is told of later: until then it waits, and nothing of it is in force.
    let late = Arrival::new(node, "late", "u1")?;
    let mut child = late.add.spawn()?;
    server.is_asked_for("/api/v1/namespaces/x/pods/late")?;
    ensure!(child.try_wait()?.is_none() && node.status()?.endpoints == 1, "it does not wait");
    server.say(PODS, "ADDED", &pod("late", "u1", "db", 5))?;
    let late_addresses = addresses(&result(child)?)?;

    // One that the server knows when it is asked, ahead of the watch.
    server.give("/api/v1/namespaces/x/pods/asked", pod("asked", "u1", "db", 6));
    let asked = Arrival::new(node, "asked", "u1")?;
    let asked_addresses = addresses(&asked.add.run()?)?;

    // One whose predecessor is known, and is none to go by.
    let heir = Arrival::new(node, "heir", "u2")?;
    let mut child = heir.add.spawn()?;
    server.is_asked_for("/api/v1/namespaces/x/pods/heir")?;
    ensure!(child.try_wait()?.is_none() && node.status()?.endpoints == 3, "it does not wait");
    server.say(PODS, "DELETED", &pod("heir", "u1", "web", 7))?;
    server.say(PODS, "ADDED", &pod("heir", "u2", "db", 8))?;
    let heir_addresses = addresses(&result(child)?)?;

    // All of them are isolated from the first packet on, by their own labels.
    for (at, address) in known_addresses.iter().enumerate() {
        let from = End { place: &known.place, address: *address };
        for (arrival, addresses) in [(&late, &late_addresses), (&asked, &asked_addresses), (&heir, &heir_addresses)] {
            let to = End { place: &arrival.place, address: addresses[at] };
            is_denied(node, from, to, "no ingress rule of NetworkPolicy x/db")?;
        }
    }
    let output = waiting.wait_with_output()?;
    let error: Value = serde_json::from_slice(&output.stdout).context("reading its error")?;
    ensure!(!output.status.success() && error["code"] == 11, "{error}");
    let message = error["msg"].as_str().unwrap_or_default();
    ensure!(message.contains("pod x/unknown (UID u1) is not known to the API server"), "{message}");
    ensure!(node.status()?.endpoints == 4, "it has left an endpoint");
    Ok(())
}
