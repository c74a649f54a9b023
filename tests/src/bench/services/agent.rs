//! What an agent takes that an API server tells of services: until it is ready, until a new service answers, and of memory.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::{PORT, service, slice, vip};
use super::roads::Server;
use super::stage::{Stage, v4};
use super::writing::{self, SERVICES};
use crate::bench::process::Process;
use crate::bench::report::{Row, Target, median};
use crate::lab::{ApiServer, Pod, until};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const NAMESPACES: &str = "/api/v1/namespaces";
const LIST: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

/// Services that an agent starts with.
const MANY: usize = 5_000;
/// Starts, and services that are new.
const TIMES: usize = 3;
const NEW: usize = 21;
/// How long a connection is waited for until another is tried.
const ATTEMPT: Duration = Duration::from_millis(1);

/// A cluster to be kept in memory: pods, services and policies.
const POPULATION: (usize, usize, usize) = (15_000, 9_000, 1_000);

/// Measures starts, new services, and memory.
///
/// # Errors
/// Where the agent does not get ready, or a service does not answer.
pub fn run() -> Result<Vec<Row>> {
    let mut stage = Stage::set("sluice-bench", 1, 0, "")?;
    let _server = Server::start(&stage.near.place)?;
    let api = ApiServer::start(&stage.lab.nodes[0])?;
    let node: Value = serde_json::from_slice(&fs::read(stage.lab.manifests().join("n1.json"))?)?;
    api.give(NODES, json!([node]));
    let own = [manifest(&stage.client), manifest(&stage.near)];
    api.give(PODS, json!(own));
    let server = v4(&stage.near);
    api.give(LIST, (0..MANY).map(service).collect());
    api.give(SLICES, (0..MANY).map(|number| slice(number, &[server])).collect());

    let mut rows = Vec::new();
    for (id, fresh) in [("agent_ready.5k_services.restart", false), ("agent_ready.5k_services", true)] {
        let mut starts = (0..TIMES).map(|_| start(&mut stage, &api, fresh)).collect::<Result<Vec<_>>>()?;
        let target = if fresh { Target::AtMost(2000.0) } else { Target::None };
        rows.push(Row::new(id, median(&mut starts), "ms", target));
        answers(&stage.client, MANY - 1)?;
    }
    let mut times = Vec::new();
    for number in MANY..MANY + NEW {
        let started = Instant::now();
        api.say(LIST, "ADDED", &service(number))?;
        api.say(SLICES, "ADDED", &slice(number, &[server]))?;
        answers(&stage.client, number)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let worst = times.iter().copied().fold(0.0, f64::max);
    rows.push(Row::new("service_answers", median(&mut times), "ms", Target::AtMost(50.0)));
    rows.push(Row::new("service_answers.worst", worst, "ms", Target::None));
    rows.extend(memory(&stage, "agent_memory.5k_services", Target::None)?);

    api.give(LIST, (0..SERVICES).map(service).collect());
    api.give(SLICES, (0..SERVICES).flat_map(writing::slices).collect());
    let ready = start(&mut stage, &api, true)?;
    rows.push(Row::new("agent_ready.44k_services", ready, "ms", Target::None));
    rows.extend(memory(&stage, "agent_memory.44k_services", Target::None)?);

    let (pods, services, policies) = POPULATION;
    api.give(NAMESPACES, (0..NAMESPACE_COUNT).map(namespace).collect());
    api.give(PODS, own.into_iter().chain((0..pods).map(pod)).collect());
    api.give(LIST, (0..services).map(service).collect());
    api.give(SLICES, (0..services).map(|number| slice(number, &[address(number), address(number + 1)])).collect());
    api.give(POLICIES, (0..policies).map(policy).collect());
    start(&mut stage, &api, true)?;
    rows.extend(memory(&stage, "agent_rss", Target::AtMost(64.0))?);
    Ok(rows)
}

/// Starts the agent; gives the milliseconds until it is ready. `fresh`: nothing is in the kernel.
fn start(stage: &mut Stage, api: &ApiServer, fresh: bool) -> Result<f64> {
    let node = &mut stage.lab.nodes[0];
    node.stop_agent();
    if fresh {
        fs::remove_dir_all(node.bpf_dir()).context("removing tables")?;
    }
    let started = Instant::now();
    node.start_agent_with(&["--source", &format!("kubernetes:{}", api.kubeconfig.display())])?;
    node.wait_until_ready()?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let problems = node.status()?.problems;
    ensure!(problems.is_empty(), "{problems:?}");
    Ok(took)
}

/// Tries until a service answers.
fn answers(client: &Pod, number: usize) -> Result<()> {
    let to = SocketAddr::new(vip(number).into(), PORT);
    client.place.inside(|| {
        until("the service answers", || {
            // A pause would be as long as what is measured.
            for _ in 0..100 {
                if TcpStream::connect_timeout(&to, ATTEMPT).is_ok() {
                    return Ok(());
                }
            }
            anyhow::bail!("{to} does not")
        })
    })
}

/// MiB of memory that the agent has: all, and without what it shares with the kernel, which are tables.
fn memory(stage: &Stage, id: &str, target: Target) -> Result<Vec<Row>> {
    let agent = Process::of_agent(&stage.lab.nodes[0])?;
    Ok(vec![
        Row::new(id, agent.memory("RssAnon")?, "MiB", target),
        Row::new(&format!("{id}.with_tables"), agent.memory("VmRSS")?, "MiB", Target::None),
        Row::new(&format!("{id}.peak"), agent.memory("VmHWM")?, "MiB", Target::None),
    ])
}

/// What the API server says of a pod of the lab.
fn manifest(pod: &Pod) -> Value {
    json!({
        "metadata": { "namespace": pod.namespace, "name": pod.name, "uid": pod.name, "resourceVersion": "1" },
        "spec": { "nodeName": pod.node, "containers": [] },
        "status": { "phase": "Running", "podIPs": [{ "ip": v4(pod) }] },
    })
}

const NODE_COUNT: usize = 150;
const NAMESPACE_COUNT: usize = 300;
const APPS: usize = 10;

fn namespace(number: usize) -> Value {
    json!({ "metadata": { "name": format!("ns-{number}"), "resourceVersion": "1", "labels": { "team": format!("t{}", number % 9) } } })
}

fn address(number: usize) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from_bits(0x0a80_0000 + number as u32)
}

fn pod(number: usize) -> Value {
    let (name, app) = (format!("pod-{number}"), format!("app-{}", number / NAMESPACE_COUNT % APPS));
    // One node of these has the agent.
    let node = match number % NODE_COUNT {
        0 => "n1".into(),
        other => format!("node-{other}"),
    };
    json!({
        "metadata": {
            "namespace": format!("ns-{}", number % NAMESPACE_COUNT),
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "labels": { "app": app, "version": format!("v{}", number % 2) },
        },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "ports": [{ "name": "web", "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": address(number) }] },
    })
}

/// Of an app, who lets in another.
fn policy(number: usize) -> Value {
    let of_app = |number: usize| json!({ "matchLabels": { "app": format!("app-{}", number % APPS) } });
    json!({
        "metadata": { "namespace": format!("ns-{}", number % NAMESPACE_COUNT), "name": format!("p{number}"), "resourceVersion": "1" },
        "spec": {
            "podSelector": of_app(number / NAMESPACE_COUNT),
            "ingress": [{ "from": [{ "podSelector": of_app(number / NAMESPACE_COUNT + 1) }], "ports": [{ "port": 8080 }] }],
        },
    })
}
