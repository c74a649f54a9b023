//! A server of the Kubernetes API that writes out a large cluster page by page, and keeps none of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use anyhow::{Context, Result};
use serde_json::json;

use super::churn::{Tell, What};
use super::cluster::{Cluster, List};
use crate::lab::{Node, next_request, until, write_kubeconfig};

/// The first version of anything.
const FIRST: u64 = 1_000_000;
/// What a client asks for who wants no pods that have ended, as it stands in a query.
const WITHOUT_ENDED: &str = "status.phase%21%3DSucceeded";

/// The server.
#[derive(Clone)]
pub struct Server {
    state: Arc<State>,
    /// A kubeconfig for it.
    pub kubeconfig: PathBuf,
}

struct State {
    cluster: Arc<Cluster>,
    version: AtomicU64,
    /// Lists that have only their first object.
    cut: Mutex<Vec<List>>,
    /// Pages of lists that were asked for, and how many these were when they were last looked at.
    pages: [AtomicU64; 2],
    /// Watches that are open, by path: where more is to be said.
    watches: Mutex<BTreeMap<String, TcpStream>>,
    sent: Mutex<BTreeMap<List, Sent>>,
}

/// What was sent of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Bytes in answers to those who list it,
    pub listed: u64,
    /// objects in these,
    pub objects: u64,
    /// and bytes of changes.
    pub watched: u64,
}

impl Server {
    /// Starts one, which only this node reaches.
    ///
    /// # Errors
    /// Where it has no socket, or its kubeconfig cannot be written.
    pub fn start(node: &Node, cluster: Arc<Cluster>) -> Result<Self> {
        let listener = node.place.inside(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let kubeconfig = write_kubeconfig(node, listener.local_addr()?)?;
        let (cut, pages, watches, sent) = Default::default();
        let state = Arc::new(State { cluster, version: AtomicU64::new(FIRST), cut, pages, watches, sent });
        let serving = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // Whoever goes away in the middle of a request has no need of its end.
                thread::spawn(move || serving.serve(stream));
            }
        });
        Ok(Self { state, kubeconfig })
    }

    /// From now on, these lists have only their first object, and all others are whole.
    pub fn cut(&self, lists: &[List]) {
        *lock(&self.state.cut) = lists.to_vec();
    }

    /// What was sent of each list since this was last asked.
    pub fn take_sent(&self) -> BTreeMap<List, Sent> {
        std::mem::take(&mut *lock(&self.state.sent))
    }

    /// Whether somebody has listed something since this was last asked.
    pub fn lists_on(&self) -> bool {
        let [asked, seen] = &self.state.pages;
        let asked = asked.load(Ordering::Relaxed);
        seen.swap(asked, Ordering::Relaxed) != asked
    }

    /// Breaks the watch of a list off, and forgets where it was: who watches must list anew.
    ///
    /// # Errors
    /// Where nobody watches.
    pub fn expire(&self, list: List) -> Result<()> {
        let status =
            json!({ "kind": "Status", "code": 410, "status": "Failure", "reason": "Expired", "message": "too old" });
        self.state.tell(list, &format!("{}\n", json!({ "type": "ERROR", "object": status })))?;
        lock(&self.state.watches).remove(list.path());
        Ok(())
    }

    /// Waits until somebody watches a list.
    ///
    /// # Errors
    /// Where nobody does.
    pub fn is_watched(&self, list: List) -> Result<()> {
        until("somebody watches", || {
            lock(&self.state.watches)
                .get(list.path())
                .map(|_| ())
                .with_context(|| format!("nobody watches {}", list.name()))
        })
    }
}

impl Tell for Server {
    /// To those who watch the list.
    fn tell(&self, list: List, _: usize, what: What, write: &dyn Fn(u64, &mut String)) -> Result<()> {
        let version = self.state.version.fetch_add(1, Ordering::Relaxed) + 1;
        let what = match what {
            What::Added => "ADDED",
            What::Modified => "MODIFIED",
            What::Deleted => "DELETED",
        };
        let mut text = format!("{{\"type\":\"{what}\",\"object\":");
        write(version, &mut text);
        text.push_str("}\n");
        self.state.tell(list, &text)
    }

    fn bookmark(&self) -> Result<()> {
        let metadata = json!({ "resourceVersion": self.state.version().to_string(), "creationTimestamp": null });
        let text =
            json!({ "type": "BOOKMARK", "object": { "kind": "Bookmark", "apiVersion": "v1", "metadata": metadata } });
        List::ALL.into_iter().try_for_each(|list| self.state.tell(list, &format!("{text}\n")))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

impl State {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    fn tell(&self, list: List, text: &str) -> Result<()> {
        let mut watches = lock(&self.watches);
        let watch = watches.get_mut(list.path()).with_context(|| format!("nobody watches {}", list.name()))?;
        watch.write_all(text.as_bytes()).context("telling of a change")?;
        lock(&self.sent).entry(list).or_default().watched += text.len() as u64;
        Ok(())
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        loop {
            let Some((path, query)) = next_request(&mut lines) else { return Ok(()) };
            let list = List::ALL.into_iter().find(|list| list.path() == path);
            if query.contains("watch=") {
                write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                lock(&self.watches).insert(path, writer);
                return Ok(());
            }
            self.pages[0].fetch_add(1, Ordering::Relaxed);
            let body = self.page(list, &query);
            if let Some(list) = list {
                lock(&self.sent).entry(list).or_default().listed += body.len() as u64;
            }
            let kind = "Content-Type: application/json";
            write!(writer, "HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
    }

    /// As much of a list as is asked for, from where the page before has ended.
    fn page(&self, list: Option<List>, query: &str) -> String {
        let asked =
            |name| query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.parse::<usize>().ok());
        let count = match list {
            Some(list) if lock(&self.cut).contains(&list) => 1,
            Some(list) => self.cluster.count(list),
            None => 0,
        };
        let is_meant =
            |number: &usize| list != Some(List::Pods) || !query.contains(WITHOUT_ENDED) || !Cluster::has_ended(*number);
        let mut numbers = (asked("continue").unwrap_or(0)..count).filter(is_meant).peekable();
        let (mut items, mut objects) = (String::new(), 0);
        for number in numbers.by_ref().take(asked("limit").unwrap_or(usize::MAX)) {
            items.push_str(if objects > 0 { "," } else { "" });
            if let Some(list) = list {
                self.cluster.write(list, number, FIRST - 1, &mut items);
            }
            objects += 1;
        }
        if let Some(list) = list {
            lock(&self.sent).entry(list).or_default().objects += objects;
        }
        let mut metadata = json!({ "resourceVersion": self.version().to_string() });
        if let Some(next) = numbers.peek() {
            metadata["continue"] = next.to_string().into();
        }
        format!("{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{metadata},\"items\":[{items}]}}\n")
    }
}
