//! A small server of the Kubernetes API, on a node.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Node, until};

/// What the agent lists and watches.
const LISTS: [&str; 7] = [
    "/api/v1/nodes",
    "/api/v1/pods",
    "/api/v1/namespaces",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies",
];

/// A server that lists what it is given, and tells of changes when it is told to.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Where it is, on its node.
    pub address: SocketAddr,
    /// A kubeconfig for it.
    pub kubeconfig: PathBuf,
}

#[derive(Default)]
struct State {
    /// By path: a list's items, or an object; null: nobody may see it.
    given: BTreeMap<String, Value>,
    /// Watches that are open, by path: where more is to be said.
    watches: BTreeMap<String, TcpStream>,
    /// Paths that somebody has asked for.
    asked: Vec<String>,
}

impl ApiServer {
    /// Starts one, which only this node reaches.
    ///
    /// # Errors
    /// Where it has no socket, or its kubeconfig cannot be written.
    pub fn start(node: &Node) -> Result<Self> {
        let listener = node.place.inside(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let address = listener.local_addr()?;
        let server = Self { state: Arc::default(), address, kubeconfig: write_kubeconfig(node, address)? };
        for path in LISTS {
            server.give(path, json!([]));
        }
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // Whoever goes away in the middle of a request has no need of its end.
                thread::spawn(move || serving.serve(stream));
            }
        });
        Ok(server)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// From now on, a path has this: an object, or the items of a list.
    pub fn give(&self, path: &str, what: Value) {
        self.state().given.insert(path.into(), what);
    }

    /// From now on, a path is not there.
    pub fn withdraw(&self, path: &str) {
        self.state().given.remove(path);
    }

    /// From now on, nobody may see a path.
    pub fn forbid(&self, path: &str) {
        self.give(path, Value::Null);
    }

    /// Tells those who watch a list that an object is new (`ADDED`), has changed or is gone. Waits for somebody to watch.
    ///
    /// # Errors
    /// Where nobody does.
    pub fn say(&self, list: &str, what: &str, object: &Value) -> Result<()> {
        until("somebody watches", || {
            let state = self.state();
            let mut watch = state.watches.get(list).with_context(|| format!("nobody watches {list}"))?;
            writeln!(watch, "{}", json!({ "type": what, "object": object })).context("telling of a change")
        })
    }

    /// Knows no more who watches.
    pub fn forget_watches(&self) {
        self.state().watches.clear();
    }

    /// Waits until somebody has asked for a path.
    ///
    /// # Errors
    /// Where nobody does.
    pub fn is_asked_for(&self, path: &str) -> Result<()> {
        until("the API server is asked", || {
            let asked = &self.state().asked;
            ensure!(asked.iter().any(|asked| asked == path), "not for {path}, but for {asked:?}");
            Ok(())
        })
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        let mut writer = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        loop {
            let Some((path, query)) = next_request(&mut lines) else { return Ok(()) };
            let mut state = self.state();
            if query.contains("watch=") {
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                state.watches.insert(path, writer);
                return Ok(());
            }
            state.asked.push(path.clone());
            let (code, body) = match state.given.get(&path) {
                Some(Value::Array(items)) => (200, page(items, &query)),
                Some(Value::Null) => (403, status(403, "Forbidden")),
                Some(object) => (200, object.clone()),
                None => (404, status(404, "NotFound")),
            };
            let body = body.to_string();
            let kind = "Content-Type: application/json";
            write!(writer, "HTTP/1.1 {code} X\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
    }
}

/// What is asked for next, without a body, on a connection: its path and its query. `None`: nothing any more.
pub fn next_request(lines: &mut impl Iterator<Item = io::Result<String>>) -> Option<(String, String)> {
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let target = head.first()?.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some((path.into(), query.into()))
}

/// Writes a kubeconfig for an API server that has this address on a node, and lets everybody do everything.
///
/// # Errors
/// Where it cannot be written.
pub fn write_kubeconfig(node: &Node, server: SocketAddr) -> Result<PathBuf> {
    let path = node.directory.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": { "server": format!("http://{server}") } }],
        "users": [{ "name": "lab", "user": {} }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
    });
    fs::write(&path, config.to_string()).context("writing a kubeconfig")?;
    Ok(path)
}

/// As much of a list as is asked for, from where the page before has ended.
fn page(items: &[Value], query: &str) -> Value {
    let asked =
        |name| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<usize>().ok());
    let start = asked("continue").unwrap_or(0).min(items.len());
    let end = asked("limit").map_or(items.len(), |limit| items.len().min(start + limit));
    let mut metadata = json!({ "resourceVersion": "1" });
    if end < items.len() {
        metadata["continue"] = end.to_string().into();
    }
    json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[start..end] })
}

fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "code": code, "status": "Failure", "reason": reason, "message": reason })
}
