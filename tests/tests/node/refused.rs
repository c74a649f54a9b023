//! An API server that does not let the agent see everything.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use sluice_tests::lab::traffic::{ping, udp};
use sluice_tests::lab::{Lab, Node, Plan, until};

use super::roles::{declare, only_from};

/// What such a server knows.
struct Api {
    /// All Nodes; there is nothing else.
    nodes: Value,
    /// Whether ClusterNetworkPolicies may be seen.
    shows_all: AtomicBool,
}

impl Api {
    /// Starts one on a node. With the kubeconfig that leads there.
    fn start(node: &Node, nodes: Value) -> Result<(Arc<Self>, String)> {
        let listener = node.place.inside(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let server = format!("http://{}", listener.local_addr()?);
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "lab", "cluster": { "server": server } }],
            "users": [{ "name": "agent", "user": {} }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "agent" } }],
            "current-context": "lab",
        });
        let path = node.directory.join("kubeconfig");
        fs::write(&path, kubeconfig.to_string())?;
        let api = Arc::new(Self { nodes, shows_all: AtomicBool::new(false) });
        let serving = Arc::clone(&api);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // Whoever asks may go.
                thread::spawn(move || serving.serve(&stream));
            }
        });
        Ok((api, path.display().to_string()))
    }

    fn serve(&self, mut stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                ensure!(reader.read_line(&mut head)? > 0, "it is gone");
            }
            let target = head.split(' ').nth(1).unwrap_or_default();
            if target.contains("watch=") {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                // Nothing changes.
                reader.read_to_string(&mut head)?;
                return Ok(());
            }
            let items = if target.starts_with("/api/v1/nodes") { self.nodes.clone() } else { json!([]) };
            let is_shown = self.shows_all.load(Ordering::Relaxed) || !target.contains("/clusternetworkpolicies");
            let (code, text) = if is_shown {
                let version = json!({ "resourceVersion": "1" });
                (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": version, "items": items }))
            } else {
                let refusal = json!({
                    "kind": "Status", "code": 403, "status": "Failure", "reason": "Forbidden", "message": "it may not",
                });
                (403, refusal)
            };
            let text = text.to_string();
            let length = text.len();
            write!(
                stream,
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{text}"
            )?;
        }
    }
}

/// What was in force stays, even when pods go, and it is known why no more come.
#[test]
fn policies_that_an_agent_may_not_see_hold_new_pods_up_and_change_nothing_for_others() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (db, web, other, short) = (lab.pod(1, "db")?, lab.pod(1, "web")?, lab.pod(1, "other")?, lab.pod(1, "short")?);
    declare(&lab, [&db, &web, &other])?;
    only_from(&lab, "web")?;
    let address = db.addresses[0];
    until("other is kept out", || match ping(&other.place, address) {
        Ok(()) => bail!("it is let in"),
        Err(_) => Ok(()),
    })?;
    let node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    let (api, kubeconfig) = Api::start(&lab.nodes[0], json!([node]))?;
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &format!("kubernetes:{kubeconfig}")])?;
    let node = &lab.nodes[0];
    let status = until("the agent says what it may not see", || {
        let status = node.status()?;
        ensure!(!status.problems.is_empty(), "{status:?}");
        Ok(status)
    })?;
    assert!(!status.ready && status.problems.len() == 1, "{status:?}");
    assert!(status.problems[0].contains("verbs list and watch on clusternetworkpolicies"), "{status:?}");
    until("whoever asks whether it is ready learns why not", || {
        let (code, text) = node.page("/readyz")?;
        ensure!(code == 503 && text.contains("clusternetworkpolicies"), "{code}: {text}");
        Ok(())
    })?;
    assert_eq!(node.metric("sluice_problems{severity=\"error\"}")?, 1.0);
    let refused = lab.pod(1, "late").err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(refused.contains("clusternetworkpolicies"), "{refused}");
    short.delete()?;
    assert!(ping(&other.place, address).is_err(), "other is let in");
    udp(&web.place, &db.place, address, 10)?;
    ping(&other.place, web.addresses[0])?;
    api.shows_all.store(true, Ordering::Relaxed);
    lab.nodes[0].wait_until_ready()?;
    assert_eq!(lab.nodes[0].status()?.problems, [""; 0]);
    Ok(())
}
