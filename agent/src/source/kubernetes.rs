//! The Kubernetes API: nodes, pods, namespaces, listed and watched.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sluice_topology::{ObjectError, PodName};

use super::{Change, Source};

/// Most changes that are told of at once.
const BATCH: usize = 1024;

/// The API server of a cluster.
pub struct Kubernetes {
    kubeconfig: Option<PathBuf>,
}

impl Kubernetes {
    /// The server that a kubeconfig names; without, the one that `KUBECONFIG` names, or that runs this pod.
    pub fn new(kubeconfig: Option<&Path>) -> Self {
        Self { kubeconfig: kubeconfig.map(Path::to_owned) }
    }

    async fn client(&self) -> Result<Client> {
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("reading the kubeconfig {}", path.display()))?;
                kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("using the kubeconfig {}", path.display()))?
            }
            None => kube::Config::infer().await.context(
                "finding the API server: set KUBECONFIG, run as a pod with a service account, or name a kubeconfig \
                 (kubernetes:PATH)",
            )?,
        };
        tracing::info!(server = %config.cluster_url, "watching the Kubernetes API");
        Client::try_from(config).context("making a client of the Kubernetes API")
    }
}

impl Source for Kubernetes {
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting the watch of the Kubernetes API")?.block_on(async {
            let client = self.client().await?;
            follow(&client, tell).await;
            Ok(())
        })
    }
}

/// Watches until nobody listens any more. While the server is away, what it said last stays.
async fn follow(client: &Client, tell: &mut dyn FnMut(Vec<Change>) -> bool) {
    let watches = [
        watch::<Node>(client, |name, _| Change::Node(name, None)),
        watch::<Pod>(client, |name, namespace| Change::Pod(PodName { namespace, name }, None)),
        watch::<Namespace>(client, |name, _| Change::Namespace(name, None)),
    ];
    let mut unlisted = watches.len();
    let mut events = stream::select_all(watches).ready_chunks(BATCH);
    let mut problems: BTreeMap<String, String> = BTreeMap::new();
    let mut waiting = Vec::new();
    while let Some(batch) = events.next().await {
        let mut complains = false;
        for word in batch {
            match word {
                Word::Listed => unlisted -= 1,
                Word::Change(object, change) => {
                    complains |= problems.remove(&object).is_some();
                    waiting.push(change);
                }
                Word::Wrong(object, change, error) => {
                    complains |= problems.insert(object, format!("{error}; it is ignored")).is_none();
                    waiting.push(change);
                }
            }
        }
        if complains {
            waiting.push(Change::Problems(problems.values().cloned().collect()));
        }
        if unlisted == 0 && !tell(std::mem::take(&mut waiting)) {
            return;
        }
    }
}

/// What a watch says.
enum Word {
    /// All that there is has been told of, for the first time.
    Listed,
    /// An object, by its name in messages, has changed.
    Change(String, Change),
    /// An object makes no sense: it counts as gone.
    Wrong(String, Change, ObjectError),
}

/// Watches a kind of objects, for ever; `gone` says that one is gone, by name and namespace.
fn watch<K>(client: &Client, gone: fn(String, String) -> Change) -> BoxStream<'static, Word>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    for<'a> Change: TryFrom<&'a K, Error = ObjectError>,
{
    let kind = K::kind(&());
    let events =
        watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff().filter_map(move |event| {
            let event = event.inspect_err(|error| {
                tracing::warn!(%error, "the watch of every {kind} is interrupted; trying again");
            });
            async { event.ok() }
        });
    words(events, gone).boxed()
}

/// Turns the events of a watch into words. A watch that had to start anew does not tell of what is gone meanwhile: that is
/// found by what it tells no more.
fn words<K>(
    events: impl Stream<Item = Event<K>> + Send,
    gone: fn(String, String) -> Change,
) -> impl Stream<Item = Word> + Send
where
    K: Resource<DynamicType = ()> + Send,
    for<'a> Change: TryFrom<&'a K, Error = ObjectError>,
{
    let kind = K::kind(&());
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    let mut listed: BTreeSet<(String, String)> = BTreeSet::new();
    let mut first = true;
    events.flat_map(move |event| {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let called = |(namespace, name): &(String, String)| format!("{kind} {namespace}/{name}");
        let end = |(namespace, name): &(String, String)| gone(name.clone(), namespace.clone());
        let word = |object: &K| match Change::try_from(object) {
            Ok(change) => Word::Change(called(&key(object)), change),
            Err(error) => Word::Wrong(called(&key(object)), end(&key(object)), error),
        };
        let words = match event {
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                listed.insert(key(&object));
                vec![word(&object)]
            }
            Event::InitDone => {
                let mut words: Vec<Word> =
                    known.difference(&listed).map(|lost| Word::Change(called(lost), end(lost))).collect();
                known = std::mem::take(&mut listed);
                if std::mem::take(&mut first) {
                    words.push(Word::Listed);
                }
                words
            }
            Event::Apply(object) => {
                known.insert(key(&object));
                vec![word(&object)]
            }
            Event::Delete(object) => {
                known.remove(&key(&object));
                vec![Word::Change(called(&key(&object)), end(&key(&object)))]
            }
        };
        stream::iter(words)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Objects;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    /// A server that lists what it is given; of nodes, its watch tells of changes.
    fn serve(stream: TcpStream, watched: &str) {
        let mut writer = stream.try_clone().expect("clones");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        while let Some(request) = lines.next() {
            while lines.next().is_some_and(|header| !header.is_empty()) {}
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let of = |kind: &str, items: &str| {
                format!(
                    r#"{{"kind":"{kind}List","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#
                )
            };
            if path.contains("watch=") {
                let body = if path.starts_with("/api/v1/nodes") { watched } else { "" };
                let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
                // It stays open, as watches do, until the client goes.
                let _ = writer.flush();
                let _ = lines.next();
                return;
            }
            let body = if path.starts_with("/api/v1/nodes") {
                of(
                    "Node",
                    r#"{"metadata":{"name":"a"}},{"metadata":{"name":"b"}},{"metadata":{"name":"c"},"spec":{"podCIDR":"10/8"}}"#,
                )
            } else if path.starts_with("/api/v1/pods") {
                of(
                    "Pod",
                    r#"{"metadata":{"name":"p","namespace":"x"},"spec":{"nodeName":"a","containers":[]},"status":{"podIP":"10.1.0.5"}}"#,
                )
            } else {
                of("Namespace", r#"{"metadata":{"name":"x"}}"#)
            };
            let length = body.len();
            let _ = write!(
                writer,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    }

    #[test]
    fn all_is_told_of_once_it_is_listed_and_then_what_changes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let watched = concat!(
            r#"{"type":"DELETED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"b","resourceVersion":"2"}}}"#,
            "\n",
            r#"{"type":"MODIFIED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"c","resourceVersion":"3"}}}"#,
            "\n",
        );
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, watched));
            }
        });
        let (said, heard) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
            runtime.block_on(async {
                let uri = format!("http://{address}").parse().expect("a URI");
                let client = Client::try_from(kube::Config::new(uri)).expect("a client");
                follow(&client, &mut |changes| said.send(changes).is_ok()).await;
            });
        });
        let mut objects = Objects::default();
        let mut counts = Vec::new();
        loop {
            let changes = heard.recv_timeout(std::time::Duration::from_secs(20)).expect("it goes on");
            for change in changes {
                objects.apply(change);
            }
            counts.push((objects.nodes.len(), objects.pods.len(), objects.namespaces.len()));
            if objects.nodes.keys().eq(["a", "c"]) && objects.problems.is_empty() {
                break;
            }
        }
        assert!(counts.iter().all(|(_, pods, namespaces)| (*pods, *namespaces) == (1, 1)), "{counts:?}");
    }

    #[test]
    fn what_is_told_of_no_more_after_a_new_start_is_gone() {
        let node = |name: &str| {
            let mut node = Node::default();
            node.metadata.name = Some(name.into());
            node
        };
        let events = vec![
            Event::Init,
            Event::InitApply(node("a")),
            Event::InitApply(node("b")),
            Event::InitDone,
            Event::Apply(node("c")),
            Event::Init,
            Event::InitApply(node("b")),
            Event::InitDone,
        ];
        let words = words(stream::iter(events), |name, _| Change::Node(name, None));
        let words: Vec<Word> = futures::executor::block_on(words.collect());
        let mut objects = Objects::default();
        let mut listed = 0;
        for word in words {
            match word {
                Word::Change(_, change) => drop(objects.apply(change)),
                Word::Listed => listed += 1,
                Word::Wrong(..) => panic!("all make sense"),
            }
        }
        assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(listed, 1);
    }
}
