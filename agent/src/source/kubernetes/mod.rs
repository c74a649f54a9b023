//! The Kubernetes API: objects listed and watched, and pods asked for by name.

mod access;
mod announced;
mod blocks;
mod client;
mod condition;
mod known;
mod lean;
mod publish;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use hyper::Uri;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use sluice_policy::cluster_policy::{API_VERSION, ClusterNetworkPolicy, KIND};
use sluice_policy::object::{PodObject, Policy};
use sluice_policy::{Kind, ObjectError, ObjectName, PodName, Strictness};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Change, Object, Source};
use crate::causes;
use access::{Outage, REFUSALS, Server, Target, Trouble, Troubles, passes};
use announced::Announced;
use blocks::{Blocks, SEEN, take};
use client::{PATIENCE, connect};
use condition::{Conditions, Due, write};
use known::{Heard, Known, Tiding, Told};
use lean::Lean;
use publish::{Counts, Means, Word, publish};

/// Most changes that are told of at once.
const BATCH: usize = 1024;
/// Until the server is asked again for a kind that it does not have. Whoever installs one waits no longer for it.
const ABSENT: Duration = Duration::from_secs(10);
/// Until a pod is asked for again that the server does not give, how long one answer may take, and how long it is tried: for as
/// long as an ADD waits for it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(4);
const WAITED_FOR: Duration = Duration::from_secs(10);
/// Most pods that are asked for at once: as many as there can be clients that wait for them.
const ASKED_AT_ONCE: usize = 256;
/// As whom the agents of all nodes set what is theirs of a status.
const MANAGER: &str = "sluice-agent";
/// The oldest version that is supported, as the chart says too. Whoever lacks a kind that is not a matter of choice is far older
/// (EndpointSlice in discovery.k8s.io/v1: 1.21).
const OLDEST: &str = "1.30";
/// What ClusterNetworkPolicies were before, and until it is asked again whether there are any.
const ADMIN_POLICIES: &str = "policy.networking.k8s.io/v1alpha1";
const ADMIN_POLICIES_AGAIN: Duration = Duration::from_secs(600);

pub use blocks::Claimant;

/// The API server of a cluster.
pub struct Kubernetes {
    kubeconfig: Option<PathBuf>,
    server: Option<Uri>,
    asked: UnboundedReceiver<Ask>,
    words: UnboundedReceiver<Word>,
    counts: Arc<Counts>,
    services: bool,
    claimant: Option<Claimant>,
    announced: Announced,
}

/// Has the API server asked for pods that its watch has not told of yet, and told of the addresses of new ones.
#[derive(Clone, Debug)]
pub struct Messenger {
    asks: UnboundedSender<Ask>,
    words: UnboundedSender<Word>,
    counts: Arc<Counts>,
}

/// A pod that is asked for.
#[derive(Debug)]
struct Ask {
    pod: PodName,
    /// Empty: whichever has the name.
    uid: String,
}

impl Messenger {
    /// Asks for a pod with a name and UID (empty: any). It is told of as the watch tells of it, which may be first.
    pub fn ask(&self, pod: PodName, uid: String) {
        // Without a source the agent is about to end.
        let _ = self.asks.unbounded_send(Ask { pod, uid });
    }

    /// Has the object of a pod say its addresses, those of the first of each family; with none, has it say them no more.
    pub fn publish(&self, pod: PodName, uid: String, addresses: &[IpAddr]) {
        let [v4, v6] = [true, false].map(|v4| addresses.iter().copied().find(|address| address.is_ipv4() == v4));
        let addresses = v4.into_iter().chain(v6).collect();
        let _ = self.words.unbounded_send(Word { pod, uid, addresses });
    }

    /// How often addresses were said, and could not be.
    pub fn published(&self) -> [u64; 2] {
        self.counts.read()
    }
}

impl Kubernetes {
    /// The server that a kubeconfig names; without, the one that `KUBECONFIG` names, or that runs this pod. With who tells it
    /// something.
    pub fn new(kubeconfig: Option<&Path>) -> (Self, Messenger) {
        let ((asks, asked), (says, words)) = (mpsc::unbounded(), mpsc::unbounded());
        let counts = Arc::new(Counts::default());
        let messenger = Messenger { asks, words: says, counts: Arc::clone(&counts) };
        let kubeconfig = kubeconfig.map(Path::to_owned);
        let (services, claimant, announced) = (false, None, Announced::default());
        (Self { kubeconfig, server: None, asked, words, counts, services, claimant, announced }, messenger)
    }

    /// What there was to say of pods until now.
    #[cfg(test)]
    pub fn take_words(&mut self) -> Vec<Word> {
        std::iter::from_fn(|| self.words.try_recv().ok()).collect()
    }

    /// Reaches the server at this address, whatever else is said of where it is: one that is there without Services, which
    /// this agent is yet to serve.
    #[must_use]
    pub fn at(self, server: Option<Uri>) -> Self {
        Self { server, ..self }
    }

    /// Nodes without pod CIDRs have blocks of a pool, which their agents take.
    #[must_use]
    pub fn with_pool(self, claimant: Option<Claimant>) -> Self {
        Self { claimant, ..self }
    }

    /// Whether pods may have addresses outside their nodes' pod CIDRs, which another plugin gives.
    #[must_use]
    pub fn with_addresses_anywhere(self, anywhere: bool) -> Self {
        Self { announced: Announced::new(anywhere), ..self }
    }

    /// Asks once for every kind, and for what the account may do on a node, with a pool or without; gives what is wrong.
    ///
    /// # Errors
    /// Where there is no client.
    pub fn examine(self, node: &str, has_pool: bool) -> Result<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting a client of the Kubernetes API")?.block_on(async {
            let (client, server, _given) = reach(self.kubeconfig.as_deref(), self.server).await?;
            let mut troubles = Troubles::new(server, 1);
            examine::<Node>(&client, &mut troubles).await;
            examine::<Pod>(&client, &mut troubles).await;
            examine::<Namespace>(&client, &mut troubles).await;
            examine::<NetworkPolicy>(&client, &mut troubles).await;
            examine::<Service>(&client, &mut troubles).await;
            examine::<EndpointSlice>(&client, &mut troubles).await;
            examine::<ClusterNetworkPolicy>(&client, &mut troubles).await;
            let mut problems = troubles.problems(false);
            let lacking = rights::lacking(&client, has_pool).await;
            if lacking.is_empty() {
                problems.extend(publish::refusal(&client, node).await);
            }
            problems.extend(lacking);
            Ok(problems)
        })
    }

    /// Watches Services and EndpointSlices too, for which it must be let.
    #[must_use]
    pub fn with_services(self) -> Self {
        Self { services: true, ..self }
    }
}

/// A client of the server, as [`connect`] has it.
async fn reach(kubeconfig: Option<&Path>, server: Option<Uri>) -> Result<(Client, Server, UnboundedReceiver<Target>)> {
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
    trust_nobody_in_vain(&mut config);
    tracing::info!(server = %config.cluster_url, "watching the Kubernetes API");
    connect(&config, PATIENCE).context(
        "making a client of the Kubernetes API; where the system trusts no certificate authority, as in an image, the \
         kubeconfig must name the server's (certificate-authority)",
    )
}

/// Asks for none of the system's certificate authorities where no certificate is looked at: there may be none, and without
/// any there would be no client.
fn trust_nobody_in_vain(config: &mut kube::Config) {
    let is_plain = config.cluster_url.scheme_str() == Some("http");
    if (is_plain || config.accept_invalid_certs) && config.root_cert.is_none() {
        config.root_cert = Some(Vec::new());
    }
}

impl Source for Kubernetes {
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("starting the watch of the Kubernetes API")?.block_on(async {
            let Self { kubeconfig, server, asked, words, counts, services, claimant, announced } = *self;
            let (client, server, given) = reach(kubeconfig.as_deref(), server).await?;
            let (absent, seen) = (ABSENT, SEEN);
            let listening = Listening { asked, words, counts, given, services, claimant, announced, absent, seen };
            follow(&client, server, listening, tell).await;
            Ok(())
        })
    }
}

/// What is listened to.
struct Listening {
    /// Pods that are asked for.
    asked: UnboundedReceiver<Ask>,
    /// What there is to say of pods,
    words: UnboundedReceiver<Word>,
    /// and who counts how that goes.
    counts: Arc<Counts>,
    /// Where the server gives what it is asked for.
    given: UnboundedReceiver<Target>,
    /// Whether Services are watched.
    services: bool,
    /// Who takes blocks of a pool.
    claimant: Option<Claimant>,
    /// Where announced addresses count.
    announced: Announced,
    /// How long until a kind is asked for again that the server does not have,
    absent: Duration,
    /// and until the watch must have told of a block that is taken.
    seen: Duration,
}

/// Watches until nobody listens any more. While the server is away, what it said last stays. A kind that it does not have is
/// asked for again after a time.
async fn follow(client: &Client, server: Server, listening: Listening, tell: &mut dyn FnMut(Vec<Change>) -> bool) {
    let Listening { asked, words, counts, given, services, claimant, mut announced, absent, seen } = listening;
    let (tells, noted) = mpsc::unbounded();
    let pods = stream::select(watch::<Pod>(client), fetch(client, asked, tells.clone()));
    let pods = publish(Means { client: client.clone(), counts, tell: tells.clone() }, words, pods);
    let mut watches = vec![
        tidings(client, watch::<Node>(client)),
        tidings(client, pods),
        tidings(client, watch::<Namespace>(client)),
        tidings(client, watch::<NetworkPolicy>(client)),
        tidings(client, report(client, tells.clone(), watch_if_there::<ClusterNetworkPolicy>(client, absent))),
    ];
    if services {
        watches.extend([tidings(client, watch::<Service>(client)), tidings(client, watch::<EndpointSlice>(client))]);
    }
    let mut blocks = claimant.map(|claimant| {
        watches.push(tidings(client, watch::<Lease>(client)));
        let node = claimant.node.clone();
        let (blocks, orders) = Blocks::new(claimant);
        tokio::spawn(take(blocks::api(client), node, orders, seen, tells));
        blocks
    });
    let mut unlisted = watches.len();
    watches.extend([
        given.map(|target| (target, Told::access(Ok(())))).boxed(),
        noted.boxed(),
        admin_policies(client).boxed(),
    ]);
    let mut batches = stream::select_all(watches).ready_chunks(BATCH);
    let mut troubles = Troubles::new(server, REFUSALS);
    // Problems and notes.
    let mut said = (Vec::new(), Vec::new());
    while let Some(batch) = batches.next().await {
        let (mut changes, mut is_other, was_unlisted) = (Vec::new(), false, unlisted > 0);
        for (target, told) in batch {
            for tiding in told.changes {
                match (tiding, &mut blocks) {
                    (Tiding::Object(change), None) => changes.push(change),
                    (Tiding::Object(change), Some(blocks)) => changes.extend(blocks.pass(change)),
                    (Tiding::Block(change), Some(blocks)) => blocks.change(change),
                    (Tiding::Block(_), None) => {}
                }
            }
            unlisted -= usize::from(told.is_listed);
            is_other |= told.access.is_some_and(|access| troubles.note(target, access, Timestamp::now()));
        }
        if let (Some(blocks), 0) = (&mut blocks, unlisted) {
            let (nodes, accesses) = blocks.settle();
            changes.extend(nodes);
            for (target, access) in accesses {
                is_other |= troubles.note(target, access, Timestamp::now());
            }
        }
        changes = announced.settle(changes);
        changes.extend((was_unlisted && unlisted == 0).then_some(Change::Listed));
        if is_other {
            let now = (troubles.problems(unlisted == 0), troubles.notes());
            changes.extend((now.0 != said.0).then(|| Change::Problems(now.0.clone())));
            changes.extend((now.1 != said.1).then(|| Change::Notes(now.1.clone())));
            said = now;
        }
        if !changes.is_empty() && !tell(changes) {
            return;
        }
    }
}

/// A kind of objects of the API.
trait Watched: Resource<DynamicType = ()> + lean::Kind + Clone + Debug + Send + 'static {
    /// Which of its objects matter, in a selector of labels that the server applies; empty: all.
    const LABELS: &str = "";
    /// The same, in a selector of fields.
    const FIELDS: &str = "";

    /// Where they are.
    fn api(client: &Client) -> Api<Lean<Self>>;

    /// What there is to tell of an object.
    fn is(&self) -> Option<Tiding>;

    /// What there is to tell of one that is gone, by its namespace, name and UID (empty: unknown).
    fn gone(namespace: &str, name: &str, uid: String) -> Option<Tiding>;
}

macro_rules! watched {
    ($($kind:ident $(labels $labels:literal)? $(fields $fields:literal)? => $read:expr);* $(;)?) => {$(
        impl Watched for $kind {
            $(const LABELS: &str = $labels;)?
            $(const FIELDS: &str = $fields;)?

            fn api(client: &Client) -> Api<Lean<Self>> {
                Api::all(client.clone())
            }

            fn is(&self) -> Option<Tiding> {
                let read: fn(&Self) -> Result<Object, ObjectError> = $read;
                Some(Tiding::Object(read(self).map_or_else(Change::Wrong, Change::Is)))
            }

            fn gone(namespace: &str, name: &str, uid: String) -> Option<Tiding> {
                Some(Tiding::Object(Change::Gone(ObjectName::new(Kind::$kind, namespace, name), uid)))
            }
        }
    )*};
}

watched! {
    Node => |node| node.try_into();
    Pod fields "status.phase!=Succeeded,status.phase!=Failed" => |pod| pod.try_into();
    Namespace => |namespace| namespace.try_into();
    Service labels "!service.kubernetes.io/service-proxy-name" => |service| service.try_into();
    EndpointSlice labels "!service.kubernetes.io/headless" => |slice| slice.try_into();
    NetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
    ClusterNetworkPolicy => |policy| policy.read(Strictness::AsServed).map(Object::Policy);
}

/// What there is to tell of what is heard of a kind of objects.
fn tidings<K: Watched>(
    client: &Client,
    heard: impl Stream<Item = Heard<K>> + Send + 'static,
) -> BoxStream<'static, (Target, Told)> {
    let mut known = Known::default();
    let target = Target::from(K::api(client).resource_url());
    heard.map(move |heard| (Arc::clone(&target), known.hear(heard))).boxed()
}

/// What one watch of a kind says: events, and what interrupts it. It is begun again ever less often.
fn events<K: Watched>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K> {
    let patience = Patience::default();
    let (is_answered, has_expired) = (Arc::clone(&patience.is_answered), Arc::clone(&patience.has_expired));
    let selector = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let which = watcher::Config {
        label_selector: selector(K::LABELS),
        field_selector: selector(K::FIELDS),
        ..Default::default()
    };
    let events = watcher(K::api(client), which).map_ok(Lean::event);
    let heard = events.inspect(move |event| {
        // A watch begins with Init before it has asked for anything.
        is_answered.store(!matches!(event, Ok(Event::Init)), Ordering::Relaxed);
        let is_expired = matches!(event, Err(watcher::Error::WatchError(status)) if status.code == EXPIRED);
        has_expired.store(is_expired, Ordering::Relaxed);
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

/// Lists one of a kind, and takes notice of what is wrong where that fails.
async fn examine<K: Watched>(client: &Client, troubles: &mut Troubles) {
    let api = K::api(client);
    let Err(error) = api.list(&ListParams::default().limit(1)).await else { return };
    // A matter of choice.
    let is_optional = K::kind(&()) == KIND;
    let trouble = if is_optional && is_missing(&error) {
        let Ok(Some(version)) = elsewhere::<K>(client).await else { return };
        moved::<K>(&version)
    } else {
        trouble::<K>(&error)
    };
    troubles.note(api.resource_url().into(), Err(trouble), Timestamp::now());
}

/// What it means that a watch is interrupted; `None`: nothing, but that it is begun again.
fn interrupted<K: Watched>(error: &watcher::Error) -> Option<Heard<K>> {
    let kind = K::kind(&());
    let Some(error) = failure(error) else {
        tracing::debug!(%error, "the watch of every {kind} is interrupted; trying again");
        return None;
    };
    Some(Heard::Nothing(trouble::<K>(error)))
}

/// Watches a kind of objects that the server may have or not, for ever.
fn watch_if_there<K: Watched>(client: &Client, absent: Duration) -> impl Stream<Item = Heard<K>> + Send + use<K> {
    let client = client.clone();
    let watches = stream::repeat_with(move || {
        let rest = stream::once(sleep(absent)).filter_map(|()| future::ready(None));
        until_absent(client.clone()).chain(rest)
    });
    let mut was_there = None;
    watches.flatten().inspect(move |heard| {
        let is_there = match heard {
            // A watch begins with Init before it has asked for anything, and who is refused does not learn it either.
            Heard::Event(Event::Init) | Heard::Nothing(_) => return,
            Heard::Event(_) | Heard::Fetched(_) => true,
            Heard::Absent => false,
        };
        if was_there.replace(is_there) != Some(is_there) {
            let kind = K::kind(&());
            if is_there {
                tracing::info!("the API server has the kind {kind}: it counts");
            } else {
                tracing::info!("the API server does not have the kind {kind}: there are none until it has");
            }
        }
    })
}

/// Looks again and again whether the server has policies that this agent does not know, and nobody enforces therefore.
fn admin_policies(client: &Client) -> impl Stream<Item = (Target, Told)> + Send + use<> {
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
                Err(Trouble::Amiss(format!(
                    "the API server has the kinds {} of {ADMIN_POLICIES}, which this agent does not know: what policies of them \
                     say is not enforced; write them as {KIND} of {API_VERSION}, and remove the old kinds",
                    kinds.join(" and ")
                )))
            };
            Some(((Target::from(ADMIN_POLICIES), Told::access(access)), ADMIN_POLICIES_AGAIN))
        }
    })
}

/// What a watch says until the server does not have the kind, in any version.
fn until_absent<K: Watched>(client: Client) -> impl Stream<Item = Heard<K>> + Send {
    let heard = events::<K>(&client).filter_map(move |event| {
        let client = client.clone();
        async move {
            match event {
                Ok(event) => said(event),
                Err(error) if is_absent(&error) => Some(match elsewhere::<K>(&client).await {
                    Ok(Some(version)) => Heard::Nothing(moved::<K>(&version)),
                    Err(error) if passes(&error) => Heard::Nothing(trouble::<K>(&error)),
                    // A server that does not say which kinds it has is taken to have no other version.
                    Ok(None) | Err(_) => Heard::Absent,
                }),
                Err(error) => interrupted(&error),
            }
        }
    });
    stream::unfold(Some(Box::pin(heard)), |goes_on| async {
        let mut heard = goes_on?;
        let next = heard.next().await?;
        let goes_on = (!matches!(next, Heard::Absent)).then_some(heard);
        Some((next, goes_on))
    })
}

/// In which version the server has objects of a kind that it does not serve in the one that is asked for.
async fn elsewhere<K: Watched>(client: &Client) -> kube::Result<Option<String>> {
    let (group, plural) = (K::group(&()), K::plural(&()));
    let groups = client.list_api_groups().await?.groups;
    let versions = groups.into_iter().filter(|it| it.name == group).flat_map(|it| it.versions);
    for version in versions.filter(|it| it.version != K::version(&())) {
        let kinds = client.list_api_group_resources(&version.group_version).await?.resources;
        if kinds.iter().any(|kind| kind.name == plural) {
            let kind = GroupVersionKind::gvk(&group, &version.version, &K::kind(&()));
            let resource = ApiResource::from_gvk_with_plural(&kind, &plural);
            let objects = Api::<DynamicObject>::all_with(client.clone(), &resource);
            if !objects.list(&ListParams::default().limit(1)).await?.items.is_empty() {
                return Ok(Some(version.group_version));
            }
        }
    }
    Ok(None)
}

/// What it means that there are objects of a kind in another version only: they count, and nobody can read them.
fn moved<K: Watched>(version: &str) -> Trouble {
    let kind = K::kind(&());
    Trouble::Amiss(format!(
        "the API server has every {kind} in {version} only, which this agent does not know: have its CustomResourceDefinition \
         serve {}, too, or take a Sluice that knows {version}; {MEANWHILE}",
        K::api_version(&())
    ))
}

/// Whether the server does not have what was to be watched.
fn is_absent(error: &watcher::Error) -> bool {
    failure(error).is_some_and(is_missing)
}

/// Whether the server does not have what was asked for.
fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// What has kept a watch from beginning. `None`: it had begun, and whether it goes on, the next attempt shows.
fn failure(error: &watcher::Error) -> Option<&kube::Error> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) => Some(error),
        WatchError(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

/// What is until the server gives what it is asked for.
const MEANWHILE: &str = "it tries again, and until then what it knows of them stays in force; one that has known nothing of them \
                         since it started adds no pods";

/// What an unanswered list or watch of a kind says of the server, or of this agent's account, with what to do.
fn trouble<K: Watched>(error: &kube::Error) -> Trouble {
    let (kind, plural, group) = (K::kind(&()), K::plural(&()), K::group(&()));
    match error {
        kube::Error::Api(status) if status.is_forbidden() => Trouble::Refused(format!(
            "the API server does not let this agent list and watch every {kind} ({}): give its account the verbs list and watch \
             on {plural} of the API group {group:?}, as the manifests' rbac.yaml does; {MEANWHILE}",
            status.message
        )),
        kube::Error::Api(status) if status.code == 404 => Trouble::Amiss(format!(
            "the API server does not have the kind {kind} in {} ({}): it must be of Kubernetes {OLDEST} or later; {MEANWHILE}",
            K::api_version(&()),
            status.message
        )),
        _ => Trouble::Away(Outage::from(error)),
    }
}

/// Waits ever longer between two attempts, until one is answered. Where the beginning of an attempt counts as an answer, a
/// server that refuses is asked every second for ever. A watch that has expired is an answer, after which all is listed anew: a
/// server that has just come back says this first.
#[derive(Default)]
struct Patience {
    backoff: DefaultBackoff,
    is_answered: Arc<AtomicBool>,
    has_expired: Arc<AtomicBool>,
}

/// What a server says of a watch of what it remembers no more (410 Gone).
const EXPIRED: u16 = 410;

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.has_expired.load(Ordering::Relaxed) {
            self.backoff.reset();
        }
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
    tell: UnboundedSender<(Target, Told)>,
    policies: S,
) -> impl Stream<Item = Heard<ClusterNetworkPolicy>> + Send + use<S> {
    let api: Api<ClusterNetworkPolicy> = Api::all(client.clone());
    let tell = move |access| {
        let target = Target::from("clusternetworkpolicies/status");
        // Who has ended does not want to know.
        drop(tell.unbounded_send((target, Told::access(access))));
    };
    let mut conditions = Conditions::default();
    // Of each policy one, for whom nobody waits, and who stops when he is dropped.
    let mut writers: BTreeMap<String, JoinSet<()>> = BTreeMap::new();
    policies.inspect(move |heard| {
        let (policy, due) = match heard {
            Heard::Event(Event::InitApply(policy) | Event::Apply(policy)) => (policy, conditions.due(policy)),
            Heard::Event(Event::Delete(policy)) => {
                conditions.forget(policy);
                (policy, Due::Nothing)
            }
            Heard::Event(Event::Init) => return conditions.list(),
            Heard::Event(Event::InitDone) => return conditions.listed(),
            Heard::Absent => return conditions.clear(),
            Heard::Fetched(_) | Heard::Nothing(_) => return,
        };
        let name = policy.name_any();
        match due {
            Due::Condition(condition) => {
                let mut writer = JoinSet::new();
                writer.spawn(write(api.clone(), name.clone(), condition, tell.clone()));
                writers.insert(name, writer);
            }
            // Whoever may not write it need not.
            Due::Nothing if writers.remove(&name).is_some() => tell(Ok(())),
            Due::Nothing | Due::AsBefore => {}
        }
    })
}

/// Gets the pods that are asked for.
fn fetch(
    client: &Client,
    asked: UnboundedReceiver<Ask>,
    tell: UnboundedSender<(Target, Told)>,
) -> impl Stream<Item = Heard<Pod>> + Send + use<> {
    let client = client.clone();
    let pods = asked.map(move |ask| {
        let api = Api::namespaced(client.clone(), &ask.pod.namespace);
        let tell = tell.clone();
        // Who has ended does not want to know.
        fetch_one(api, ask, move |access| drop(tell.unbounded_send(("pods: get".into(), Told::access(access)))))
    });
    pods.buffer_unordered(ASKED_AT_ONCE).filter_map(|pod| future::ready(pod.map(Heard::Fetched)))
}

/// Asks for a pod while somebody waits for it; who is refused, until he is not, so that it is known when.
async fn fetch_one(
    api: Api<Lean<Pod>>,
    Ask { pod: name, uid }: Ask,
    tell: impl Fn(Result<(), Trouble>),
) -> Option<Pod> {
    let (until, mut pause) = (Instant::now() + WAITED_FOR, DefaultBackoff::default());
    loop {
        match timeout(ANSWER, api.get_opt(&name.name)).await {
            Ok(Ok(pod)) => {
                tell(Ok(()));
                let is_meant = |pod: &Pod| PodObject::try_from(pod).is_ok_and(|object| object.is(&uid));
                if let Some(pod) = pod.map(|Lean(pod)| pod).filter(is_meant) {
                    return Some(pod);
                }
                // Gone, or another by now.
                tracing::debug!(%name, uid, "the API server does not know this pod");
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                tell(Err(Trouble::Refused(format!(
                    "the API server does not let this agent ask for a pod by its name ({}): give its account the verb get on \
                     pods, as manifests/base/rbac.yaml does; until then a new pod waits for the watch to tell of it, and is refused \
                     as not known to the API server where that takes more than {} s",
                    status.message,
                    WAITED_FOR.as_secs()
                ))));
                sleep(pause.next().unwrap_or_default()).await;
                continue;
            }
            Ok(Err(error)) => tracing::warn!(error = causes::of(&error), "asking for the pod {name} again"),
            // The next question goes by another connection.
            Err(_) => tracing::warn!("asking for the pod {name} again: no answer for {} s", ANSWER.as_secs()),
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(ASK_AGAIN).await;
    }
}
