//! The Kubernetes API: objects listed and watched, and pods asked for by name.

mod condition;
mod known;
mod lean;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use hyper::Uri;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use sluice_policy::cluster_policy::{API_VERSION, ClusterNetworkPolicy, KIND};
use sluice_policy::object::{PodObject, Policy};
use sluice_policy::{Kind, ObjectError, PodName, Strictness};
use tokio::time::sleep;

use super::{Change, Object, Source};
use condition::Conditions;
use known::{Heard, Known, Told};
use lean::Lean;

/// Most changes that are told of at once.
const BATCH: usize = 1024;
/// Until the server is asked again for a kind that it does not have. Whoever installs one waits no longer for it.
const ABSENT: Duration = Duration::from_secs(10);
/// Until a pod is asked for again that the server does not give, and how often: for as long as an ADD waits for it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 10;
/// Most pods that are asked for at once: as many as there can be clients that wait for them.
const ASKED_AT_ONCE: usize = 256;
/// As whom the agents of all nodes set what is theirs of a status.
const MANAGER: &str = "sluice-agent";

/// The API server of a cluster.
pub struct Kubernetes {
    kubeconfig: Option<PathBuf>,
    server: Option<Uri>,
    asked: UnboundedReceiver<Ask>,
    services: bool,
}

/// Has the API server asked for pods that its watch has not told of yet.
#[derive(Clone, Debug)]
pub struct Asker(UnboundedSender<Ask>);

/// A pod that is asked for.
#[derive(Debug)]
struct Ask {
    pod: PodName,
    /// Empty: whichever has the name.
    uid: String,
}

impl Asker {
    /// Asks for a pod with a name and UID (empty: any). It is told of as the watch tells of it, which may be first.
    pub fn ask(&self, pod: PodName, uid: String) {
        // Without a source the agent is about to end.
        let _ = self.0.unbounded_send(Ask { pod, uid });
    }
}

impl Kubernetes {
    /// The server that a kubeconfig names; without, the one that `KUBECONFIG` names, or that runs this pod. With who asks it.
    pub fn new(kubeconfig: Option<&Path>) -> (Self, Asker) {
        let (asks, asked) = mpsc::unbounded();
        (Self { kubeconfig: kubeconfig.map(Path::to_owned), server: None, asked, services: false }, Asker(asks))
    }

    /// Reaches the server at this address, whatever else is said of where it is: one that is there without Services, which
    /// this agent is yet to serve.
    #[must_use]
    pub fn at(self, server: Option<Uri>) -> Self {
        Self { server, ..self }
    }

    /// Watches Services and EndpointSlices too, for which it must be let.
    #[must_use]
    pub fn with_services(self) -> Self {
        Self { services: true, ..self }
    }
}

async fn client(kubeconfig: Option<&Path>, server: Option<Uri>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file =
                Kubeconfig::read_from(path).with_context(|| format!("reading the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using the kubeconfig {}", path.display()))?
        }
        None => kube::Config::infer().await.context(
            "finding the API server: set KUBECONFIG, run as a pod with a service account, or name a kubeconfig \
             (kubernetes:PATH)",
        )?,
    };
    if let Some(server) = server {
        config.cluster_url = server;
    }
    tracing::info!(server = %config.cluster_url, "watching the Kubernetes API");
    Client::try_from(config).context("making a client of the Kubernetes API")
}

impl Source for Kubernetes {
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting the watch of the Kubernetes API")?.block_on(async {
            let client = client(self.kubeconfig.as_deref(), self.server).await?;
            follow(&client, self.asked, self.services, ABSENT, tell).await;
            Ok(())
        })
    }
}

/// Watches until nobody listens any more. While the server is away, what it said last stays. A kind that it does not have is
/// asked for again after a time.
async fn follow(
    client: &Client,
    asked: UnboundedReceiver<Ask>,
    services: bool,
    absent: Duration,
    tell: &mut dyn FnMut(Vec<Change>) -> bool,
) {
    let pods = stream::select(watch::<Pod>(client), fetch(client, asked));
    let mut watches = vec![
        tidings(watch::<Node>(client)),
        tidings(pods),
        tidings(watch::<Namespace>(client)),
        tidings(watch::<NetworkPolicy>(client)),
        tidings(report(client, watch_if_there::<ClusterNetworkPolicy>(client, absent))),
    ];
    if services {
        watches.extend([tidings(watch::<Service>(client)), tidings(watch::<EndpointSlice>(client))]);
    }
    let mut unlisted = watches.len();
    let mut batches = stream::select_all(watches).ready_chunks(BATCH);
    let mut refusals = Refusals::default();
    while let Some(batch) = batches.next().await {
        let (mut changes, mut problems) = (Vec::new(), None);
        for (kind, told) in batch {
            changes.extend(told.changes);
            if told.is_listed {
                unlisted -= 1;
                changes.extend((unlisted == 0).then_some(Change::Listed));
            }
            if told.access.is_some_and(|access| refusals.note(kind, access)) {
                problems = Some(refusals.problems());
            }
        }
        changes.extend(problems);
        if !changes.is_empty() && !tell(changes) {
            return;
        }
    }
}

/// Kinds that the server does not let this agent watch: why, and what to do.
#[derive(Default)]
struct Refusals(BTreeMap<Kind, String>);

impl Refusals {
    /// Takes notice of what was found out of a kind. Whether it is another than before.
    fn note(&mut self, kind: Kind, access: Result<(), String>) -> bool {
        match access {
            Ok(()) => self.0.remove(&kind).is_some(),
            Err(why) => self.0.insert(kind, why.clone()) != Some(why),
        }
    }

    fn problems(&self) -> Change {
        Change::Problems(self.0.values().cloned().collect())
    }
}

/// A kind of objects of the API.
trait Watched: Resource<DynamicType = ()> + lean::Kind + Clone + Debug + Send + 'static {
    /// What policies call it.
    const KIND: Kind;

    /// Which of its objects do not matter, in a selector of labels that the server applies; empty: all do.
    const WITHOUT: &str = "";

    /// The same, in a selector of fields.
    const NEITHER: &str = "";

    /// What matters of an object, as the API server has it.
    fn object(&self) -> Result<Object, ObjectError>;
}

macro_rules! watched {
    ($($kind:ident $(without $without:literal)? $(neither $neither:literal)? => $read:expr);* $(;)?) => {$(
        impl Watched for $kind {
            const KIND: Kind = Kind::$kind;
            $(const WITHOUT: &str = $without;)?
            $(const NEITHER: &str = $neither;)?

            fn object(&self) -> Result<Object, ObjectError> {
                let read: fn(&Self) -> _ = $read;
                read(self)
            }
        }
    )*};
}

watched! {
    Node => |node| node.try_into();
    Pod neither "status.phase!=Succeeded,status.phase!=Failed" => |pod| pod.try_into();
    Namespace => |namespace| namespace.try_into();
    Service without "!service.kubernetes.io/service-proxy-name" => |service| service.try_into();
    EndpointSlice without "!service.kubernetes.io/headless" => |slice| slice.try_into();
    NetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
    ClusterNetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
}

/// What there is to tell of what is heard of a kind of objects.
fn tidings<K: Watched>(heard: impl Stream<Item = Heard<K>> + Send + 'static) -> BoxStream<'static, (Kind, Told)> {
    let mut known = Known::default();
    heard.map(move |heard| (K::KIND, known.hear(heard))).boxed()
}

/// What one watch of a kind says: events, and what interrupts it. It is begun again ever less often.
fn events<K: Watched>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K> {
    let patience = Patience::default();
    let is_answered = Arc::clone(&patience.is_answered);
    let selector = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let which = watcher::Config {
        label_selector: selector(K::WITHOUT),
        field_selector: selector(K::NEITHER),
        ..Default::default()
    };
    let events = watcher(Api::<Lean<K>>::all(client.clone()), which).map_ok(Lean::event);
    let heard = events.inspect(move |event| {
        // A watch begins with Init before it has asked for anything.
        is_answered.store(!matches!(event, Ok(Event::Init)), Ordering::Relaxed);
    });
    heard.backoff(patience)
}

/// Watches a kind of objects, for ever.
fn watch<K: Watched>(client: &Client) -> impl Stream<Item = Heard<K>> + Send + use<K> {
    events(client).filter_map(|event| future::ready(event.map_or_else(|error| interrupted(&error), said)))
}

fn said<K: Watched>(event: Event<K>) -> Option<Heard<K>> {
    Some(Heard::Event(event))
}

/// What it means that a watch is interrupted; `None`: nothing, but that it is begun again.
fn interrupted<K: Watched>(error: &watcher::Error) -> Option<Heard<K>> {
    let kind = K::KIND.name();
    match status(error) {
        Some(status) if status.is_forbidden() => Some(Heard::Refused(format!(
            "the API server does not let this agent list and watch every {kind} ({}): give its account the verbs list and watch \
             on {} of the API group {:?}, as manifests/rbac.yaml does; it tries again, and until then what it knows of them \
             stays in force; one that has known nothing of them since it started adds no pods",
            status.message,
            K::plural(&()),
            K::group(&()),
        ))),
        _ => {
            tracing::warn!(%error, "the watch of every {kind} is interrupted; trying again");
            None
        }
    }
}

/// Watches a kind of objects that the server may have or not, for ever.
fn watch_if_there<K: Watched>(client: &Client, absent: Duration) -> impl Stream<Item = Heard<K>> + Send + use<K> {
    let client = client.clone();
    let watches = stream::repeat_with(move || {
        let rest = stream::once(sleep(absent)).filter_map(|()| future::ready(None));
        until_absent(events(&client)).chain(rest)
    });
    let mut was_there = None;
    watches.flatten().inspect(move |heard| {
        let is_there = match heard {
            // A watch begins with Init before it has asked for anything, and who is refused does not learn it either.
            Heard::Event(Event::Init) | Heard::Refused(_) => return,
            Heard::Event(_) | Heard::Fetched(_) => true,
            Heard::Absent => false,
        };
        if was_there.replace(is_there) != Some(is_there) {
            let kind = K::KIND.name();
            if is_there {
                tracing::info!("the API server has the kind {kind}: it counts");
            } else {
                tracing::info!("the API server does not have the kind {kind}: there are none until it has");
            }
        }
    })
}

/// What a watch says until the server does not have the kind.
fn until_absent<K: Watched>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = Heard<K>> + Send {
    let heard = events.filter_map(|event| {
        future::ready(match event {
            Ok(event) => said(event),
            Err(error) if status(&error).is_some_and(|status| status.code == 404) => Some(Heard::Absent),
            Err(error) => interrupted(&error),
        })
    });
    stream::unfold(Some(Box::pin(heard)), |goes_on| async {
        let mut heard = goes_on?;
        let next = heard.next().await?;
        let goes_on = (!matches!(next, Heard::Absent)).then_some(heard);
        Some((next, goes_on))
    })
}

/// What the server says of a list or watch that it refuses.
fn status(error: &watcher::Error) -> Option<&Status> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)) => Some(status),
        InitialListFailed(_) | WatchStartFailed(_) | WatchError(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

/// Waits ever longer between two attempts, until one is answered. Where the beginning of an attempt counts as an answer, a
/// server that refuses is asked every second for ever.
#[derive(Default)]
struct Patience {
    backoff: DefaultBackoff,
    is_answered: Arc<AtomicBool>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.backoff.next()
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        if self.is_answered.load(Ordering::Relaxed) {
            self.backoff.reset();
        }
    }
}

/// Says in the status of policies what is not supported in them.
fn report<S: Stream<Item = Heard<ClusterNetworkPolicy>> + Send>(
    client: &Client,
    policies: S,
) -> impl Stream<Item = Heard<ClusterNetworkPolicy>> + Send + use<S> {
    let api: Api<ClusterNetworkPolicy> = Api::all(client.clone());
    let mut conditions = Conditions::default();
    policies.inspect(move |heard| {
        if let Heard::Event(Event::InitApply(policy) | Event::Apply(policy)) = heard
            && let Some(condition) = conditions.due(policy)
        {
            let (api, name) = (api.clone(), policy.name_any());
            // Nobody waits for it.
            tokio::spawn(async move {
                let patch = Patch::Apply(json!({
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "metadata": { "name": name },
                    "status": { "conditions": [condition] },
                }));
                if let Err(error) = api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &patch).await {
                    tracing::warn!(%error, "the status of {KIND} {name} does not say what is not supported in it");
                }
            });
        }
    })
}

/// Gets the pods that are asked for.
fn fetch(client: &Client, asked: UnboundedReceiver<Ask>) -> impl Stream<Item = Heard<Pod>> + Send + use<> {
    let client = client.clone();
    let pods = asked.map(move |ask| fetch_one(Api::namespaced(client.clone(), &ask.pod.namespace), ask));
    pods.buffer_unordered(ASKED_AT_ONCE).filter_map(|pod| future::ready(pod.map(Heard::Fetched)))
}

async fn fetch_one(api: Api<Lean<Pod>>, Ask { pod: name, uid }: Ask) -> Option<Pod> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(ASK_AGAIN).await;
        }
        match api.get_opt(&name.name).await {
            Ok(Some(Lean(pod))) if PodObject::try_from(&pod).is_ok_and(|object| object.is(&uid)) => return Some(pod),
            // Gone, or another by now.
            Ok(_) => tracing::debug!(%name, uid, "the API server does not know this pod"),
            Err(error) => tracing::warn!(%error, "asking for the pod {name} again"),
        }
    }
    None
}
