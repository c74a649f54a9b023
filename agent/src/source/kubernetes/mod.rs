//! The Kubernetes API: objects listed and watched, and pods asked for by name.

mod condition;
mod known;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use hyper::Uri;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use sluice_policy::cluster_policy::{API_VERSION, ClusterNetworkPolicy, KIND};
use sluice_policy::object::{PodObject, Policy};
use sluice_policy::{Kind, ObjectError, PodName, Strictness};
use tokio::time::sleep;

use super::{Change, Object, Source};
use condition::Conditions;
use known::{Heard, Known, Told};

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
/// The oldest version whose API servers have all kinds that are not a matter of choice (EndpointSlice in discovery.k8s.io/v1).
const OLDEST: &str = "1.21";
/// What ClusterNetworkPolicies were before, and until it is asked again whether there are any.
const ADMIN_POLICIES: &str = "policy.networking.k8s.io/v1alpha1";
const ADMIN_POLICIES_AGAIN: Duration = Duration::from_secs(600);

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

    /// Asks once for every kind, and gives what is wrong.
    ///
    /// # Errors
    /// Where there is no client.
    pub fn examine(self) -> Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting a client of the Kubernetes API")?.block_on(async {
            let client = client(self.kubeconfig.as_deref(), self.server).await?;
            let mut problems: Vec<String> = Vec::new();
            problems.extend(examine::<Node>(&client).await);
            problems.extend(examine::<Pod>(&client).await);
            problems.extend(examine::<Namespace>(&client).await);
            problems.extend(examine::<NetworkPolicy>(&client).await);
            problems.extend(examine::<Service>(&client).await);
            problems.extend(examine::<EndpointSlice>(&client).await);
            problems.extend(examine::<ClusterNetworkPolicy>(&client).await);
            problems.dedup();
            Ok(problems)
        })
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
    watches.push(admin_policies(client).boxed());
    let mut batches = stream::select_all(watches).ready_chunks(BATCH);
    let mut waiting = Vec::new();
    let mut refusals = Refusals::default();
    while let Some(batch) = batches.next().await {
        let mut problems = Vec::new();
        for (kind, told) in batch {
            waiting.extend(told.changes);
            if told.is_listed {
                unlisted -= 1;
                waiting.extend((unlisted == 0).then_some(Change::Listed));
            }
            if told.access.is_some_and(|access| refusals.note(kind, access)) {
                problems = vec![refusals.problems()];
            }
        }
        // What is wrong is to be known though not all is listed: that may be why.
        let mut changes = if unlisted == 0 { std::mem::take(&mut waiting) } else { Vec::new() };
        changes.extend(problems);
        if (unlisted == 0 || !changes.is_empty()) && !tell(changes) {
            return;
        }
    }
}

/// Kinds that this agent cannot watch: why, and what to do.
#[derive(Default)]
struct Refusals(BTreeMap<&'static str, String>);

impl Refusals {
    /// Takes notice of what was found out of a kind. Whether it is another than before.
    fn note(&mut self, kind: &'static str, access: Result<(), String>) -> bool {
        match access {
            Ok(()) => self.0.remove(&kind).is_some(),
            Err(why) => self.0.insert(kind, why.clone()) != Some(why),
        }
    }

    fn problems(&self) -> Change {
        // One that does not answer says so for every kind.
        let problems: BTreeSet<&String> = self.0.values().collect();
        Change::Problems(problems.into_iter().cloned().collect())
    }
}

/// A kind of objects of the API.
trait Watched: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static {
    /// What policies call it.
    const KIND: Kind;

    /// Which of its objects do not matter, in a selector of labels that the server applies; empty: all do.
    const WITHOUT: &str = "";

    /// What matters of an object, as the API server has it.
    fn object(&self) -> Result<Object, ObjectError>;
}

macro_rules! watched {
    ($($kind:ident $(without $without:literal)? => $read:expr);* $(;)?) => {$(
        impl Watched for $kind {
            const KIND: Kind = Kind::$kind;
            $(const WITHOUT: &str = $without;)?

            fn object(&self) -> Result<Object, ObjectError> {
                let read: fn(&Self) -> _ = $read;
                read(self)
            }
        }
    )*};
}

watched! {
    Node => |node| node.try_into();
    Pod => |pod| pod.try_into();
    Namespace => |namespace| namespace.try_into();
    Service without "!service.kubernetes.io/service-proxy-name" => |service| service.try_into();
    EndpointSlice without "!service.kubernetes.io/headless" => |slice| slice.try_into();
    NetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
    ClusterNetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
}

/// What there is to tell of what is heard of a kind of objects.
fn tidings<K: Watched>(
    heard: impl Stream<Item = Heard<K>> + Send + 'static,
) -> BoxStream<'static, (&'static str, Told)> {
    let mut known = Known::default();
    heard.map(move |heard| (K::KIND.name(), known.hear(heard))).boxed()
}

/// What one watch of a kind says: events, and what interrupts it. It is begun again ever less often.
fn events<K: Watched>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K> {
    let patience = Patience::default();
    let is_answered = Arc::clone(&patience.is_answered);
    let which = watcher::Config {
        label_selector: Some(K::WITHOUT.to_owned()).filter(|it| !it.is_empty()),
        ..Default::default()
    };
    let events = watcher(Api::<K>::all(client.clone()), which);
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

/// Lists one of a kind, and gives what is wrong where that fails.
async fn examine<K: Watched>(client: &Client) -> Option<String> {
    let error = Api::<K>::all(client.clone()).list(&ListParams::default().limit(1)).await.err()?;
    // A matter of choice.
    if K::KIND == Kind::ClusterNetworkPolicy && matches!(&error, kube::Error::Api(status) if status.code == 404) {
        return None;
    }
    wrong::<K>(&error).or_else(|| Some(format!("listing every {}: {}", K::KIND.name(), chain(&error))))
}

/// What it means that a watch is interrupted; `None`: nothing, but that it is begun again.
fn interrupted<K: Watched>(error: &watcher::Error) -> Option<Heard<K>> {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    let refused = match error {
        InitialListFailed(error) => wrong::<K>(error),
        // One that does not answer has told of all that there is before, and may be back by now.
        WatchStartFailed(error @ kube::Error::Api(_)) => wrong::<K>(error),
        _ => None,
    };
    if refused.is_none() {
        tracing::warn!(%error, "the watch of every {} is interrupted; trying again", K::KIND.name());
    }
    refused.map(Heard::Refused)
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

/// Looks again and again whether the server has policies that this agent does not know, and nobody enforces therefore.
fn admin_policies(client: &Client) -> impl Stream<Item = (&'static str, Told)> + Send + use<> {
    let client = client.clone();
    stream::unfold(Duration::ZERO, move |rest| {
        let client = client.clone();
        async move {
            sleep(rest).await;
            let resources = client.list_api_group_resources(ADMIN_POLICIES).await.map(|list| list.resources);
            let kinds: BTreeSet<String> =
                resources.unwrap_or_default().into_iter().map(|resource| resource.kind).collect();
            let kinds = kinds.into_iter().filter(|kind| kind.ends_with("AdminNetworkPolicy")).collect::<Vec<_>>();
            let access = if kinds.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "the API server has the kinds {} of {ADMIN_POLICIES}, which this agent does not know: what policies of them \
                     say is not enforced; write them as {KIND} of {API_VERSION}, and remove the old kinds",
                    kinds.join(" and ")
                ))
            };
            Some((
                ("AdminNetworkPolicy", Told { changes: Vec::new(), is_listed: false, access: Some(access) }),
                ADMIN_POLICIES_AGAIN,
            ))
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

/// What an unanswered list or watch of a kind says of the server, of this agent's account or of its settings, with what to do;
/// `None`: nothing.
fn wrong<K: Watched>(error: &kube::Error) -> Option<String> {
    const MEANWHILE: &str = "it tries again, and until then what it knows of them stays in force; one that has known nothing of \
                             them since it started adds no pods";
    let (kind, plural, group) = (K::KIND.name(), K::plural(&()), K::group(&()));
    let status = match error {
        kube::Error::Api(status) => status,
        error => {
            return Some(format!(
                "the API server does not answer this agent ({}): look whether it is where the settings say (api_server, or the \
                 kubeconfig), and whether they have its certificate authority; it tries again, and until then what it knows of \
                 the cluster stays in force; one that has known nothing since it started adds no pods",
                chain(error)
            ));
        }
    };
    match status.code {
        401 => Some(format!(
            "the API server does not know whom this agent speaks for ({}): give it a token or certificate that is valid (in the \
             kubeconfig, or as the pod's service account); {MEANWHILE}",
            status.message
        )),
        403 => Some(format!(
            "the API server does not let this agent list and watch every {kind} ({}): give its account the verbs list and watch \
             on {plural} of the API group {group:?}, as manifests/rbac.yaml does; {MEANWHILE}",
            status.message
        )),
        404 => Some(format!(
            "the API server does not have the kind {kind} in {} ({}): it must be of Kubernetes {OLDEST} or later; {MEANWHILE}",
            K::api_version(&()),
            status.message
        )),
        _ => None,
    }
}

/// An error with all that has caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    let mut parts: Vec<String> = causes.collect();
    // Some say what has caused them themselves.
    parts.dedup_by(|cause, error| error.contains(&**cause));
    parts.join(": ")
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

async fn fetch_one(api: Api<Pod>, Ask { pod: name, uid }: Ask) -> Option<Pod> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(ASK_AGAIN).await;
        }
        match api.get_opt(&name.name).await {
            Ok(Some(pod)) if PodObject::try_from(&pod).is_ok_and(|object| object.is(&uid)) => return Some(pod),
            // Gone, or another by now.
            Ok(_) => tracing::debug!(%name, uid, "the API server does not know this pod"),
            Err(error) => tracing::warn!(%error, "asking for the pod {name} again"),
        }
    }
    None
}
