//! The addresses of new pods of this node, said on their objects before their kubelet says them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender};
use futures::future::{self, Either};
use futures::stream::{self, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Status;
use kube::runtime::watcher::{DefaultBackoff, Event};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sluice_policy::PodName;
use sluice_policy::object::ADDRESSES;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::access::{Target, Trouble};
use super::known::{Heard, Told};
use super::{MANAGER, Watched};

/// Most pods whose addresses are being said at once.
const AT_ONCE: usize = 32;
/// So many conflicts in a row mean that another pod has the name. Those with writers who are quicker, a kubelet for one, end.
pub const CONFLICTS: u32 = 3;

/// What there is to say of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its name,
    pub pod: PodName,
    /// and its UID, as the API server has it.
    pub uid: String,
    /// At most one of each family. None: it does not have those any more that were said.
    pub addresses: Vec<IpAddr>,
}

impl Word {
    /// With the UID, so that no other pod of the name gets it.
    fn patch(&self) -> Patch<Value> {
        let condition = if self.addresses.is_empty() {
            json!({ "type": ADDRESSES, "$patch": "delete" })
        } else {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            json!({
                "type": ADDRESSES,
                "status": "True",
                "reason": "Assigned",
                "message": addresses.join(","),
                "lastTransitionTime": Timestamp::now(),
            })
        };
        Patch::Strategic(json!({ "metadata": { "uid": self.uid }, "status": { "conditions": [condition] } }))
    }
}

/// How often addresses were said, and could not be.
#[derive(Debug, Default)]
pub struct Counts {
    published: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Both.
    pub fn read(&self) -> [u64; 2] {
        [&self.published, &self.failed].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Where is said what, and how that went.
#[derive(Clone)]
pub struct Means {
    /// The server.
    pub client: Client,
    /// Who counts.
    pub counts: Arc<Counts>,
    /// Who is told whether the server lets this agent.
    pub tell: UnboundedSender<(Target, Told)>,
}

/// Says what there is to say of pods, until their kubelet has said it, or they are gone. Passes on what is heard of pods.
pub fn publish<S: Stream<Item = Heard<Pod>> + Send>(
    means: Means,
    words: UnboundedReceiver<Word>,
    pods: S,
) -> impl Stream<Item = Heard<Pod>> + Send {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut speakers = Speakers { means, slots, of: BTreeMap::new(), ending: BTreeSet::new() };
    stream::select(words.map(Either::Left), pods.map(Either::Right)).filter_map(move |next| {
        future::ready(match next {
            Either::Left(word) => {
                speakers.say(word);
                None
            }
            Either::Right(heard) => {
                speakers.hear(&heard);
                Some(heard)
            }
        })
    })
}

/// Why the server would not let this agent say addresses of a pod of a node, if there is one to try it with. By authorization
/// alone it is not known: admission has its say. Nothing is changed by it.
pub async fn refusal(client: &Client, node: &str) -> Option<String> {
    let here = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
    let pod = Pod::api(client).list(&here).await.ok()?.items.into_iter().next()?;
    let (namespace, name, uid) = (pod.namespace()?, pod.name_any(), pod.uid()?);
    let word = Word { pod: PodName::new(&namespace, &name), uid, addresses: Vec::new() };
    let params = PatchParams { dry_run: true, ..params() };
    match Api::<Pod>::namespaced(client.clone(), &namespace).patch_status(&name, &params, &word.patch()).await {
        Err(kube::Error::Api(status)) if !is_of_another(&status) => refused(&status),
        Ok(_) | Err(_) => None,
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() }
}

/// What it means that the server does not let this agent, if that is what it says.
fn refused(status: &Status) -> Option<String> {
    (status.is_forbidden() || status.code == 422).then(|| {
        format!(
            "the API server does not let this agent say which addresses new pods have ({}): give its account the verb patch \
             on pods/status, as manifests/base/rbac.yaml does, and see that no admission policy or webhook denies it; until \
             then the policies of other nodes know a new pod only once its kubelet has said its addresses, some seconds later",
            status.message
        )
    })
}

/// Who says something of pods.
struct Speakers {
    means: Means,
    slots: Arc<Semaphore>,
    /// By the pods' UIDs: says one word after the other, so that the last one is what stays. When it is dropped, it says no more.
    of: BTreeMap<String, watch::Sender<Word>>,
    /// The UIDs of pods that have been told to end, whose objects go with all that they say.
    ending: BTreeSet<String>,
}

impl Speakers {
    fn say(&mut self, word: Word) {
        self.of.retain(|_, speaker| !speaker.is_closed());
        if word.addresses.is_empty() && self.ending.contains(&word.uid) {
            self.of.remove(&word.uid);
        } else if let Some(speaker) = self.of.get(&word.uid) {
            speaker.send_replace(word);
        } else {
            // What is to be taken back, an agent before this one may have said.
            let uid = word.uid.clone();
            let (speaker, next) = watch::channel(word);
            tokio::spawn(speak(self.means.clone(), Arc::clone(&self.slots), next));
            self.of.insert(uid, speaker);
        }
    }

    /// Whose addresses its kubelet has said, or who is gone, needs nobody to speak for it.
    fn hear(&mut self, heard: &Heard<Pod>) {
        match heard {
            Heard::Event(Event::Init) => self.ending.clear(),
            Heard::Event(Event::InitApply(pod) | Event::Apply(pod)) | Heard::Fetched(pod) => {
                let uid = pod.uid().unwrap_or_default();
                // Before a pod was given a new sandbox, its kubelet has said other addresses.
                if self.of.get(&uid).is_some_and(|speaker| is_said(&speaker.borrow().addresses, pod)) {
                    self.of.remove(&uid);
                }
                if pod.metadata.deletion_timestamp.is_some() {
                    self.ending.insert(uid);
                }
            }
            Heard::Event(Event::Delete(pod)) => {
                let uid = pod.uid().unwrap_or_default();
                self.of.remove(&uid);
                self.ending.remove(&uid);
            }
            Heard::Event(Event::InitDone) | Heard::Absent | Heard::Nothing(_) => {}
        }
    }
}

/// Whether its kubelet says that a pod has these addresses, of which there are some.
fn is_said(addresses: &[IpAddr], pod: &Pod) -> bool {
    let said = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    let said: BTreeSet<IpAddr> = said.filter_map(|ip| ip.ip.parse().ok()).collect();
    !addresses.is_empty() && addresses.iter().all(|address| said.contains(address))
}

/// Whether it is refused since the object that has the name by now has another UID, which no patch may change.
fn is_of_another(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

async fn speak(means: Means, slots: Arc<Semaphore>, mut words: watch::Receiver<Word>) {
    let (mut pause, mut conflicts) = (DefaultBackoff::default(), 0);
    loop {
        let word = words.borrow_and_update().clone();
        let Ok(slot) = slots.acquire().await else { return };
        let said = means.say(&word).await;
        drop(slot);
        conflicts = if said == Said::Conflict { conflicts + 1 } else { 0 };
        let changed = match said {
            Said::Yes => words.changed().await,
            Said::ToNobody => return,
            Said::Conflict if conflicts == CONFLICTS => {
                means.counts.failed.fetch_add(1, Ordering::Relaxed);
                words.changed().await
            }
            Said::Conflict | Said::No => match timeout(pause.next().unwrap_or_default(), words.changed()).await {
                Ok(changed) => changed,
                Err(_) => continue,
            },
        };
        if changed.is_err() {
            return;
        }
        (pause, conflicts) = (DefaultBackoff::default(), 0);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Yes,
    /// The pod is gone, or another has its name.
    ToNobody,
    /// Another has its name, or somebody else has written to it at the same time.
    Conflict,
    /// Not yet.
    No,
}

impl Means {
    async fn say(&self, word: &Word) -> Said {
        let Word { pod, uid, addresses } = word;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let access = match api.patch_status(&pod.name, &params(), &word.patch()).await {
            Ok(_) => {
                tracing::debug!(%pod, uid, ?addresses, "the pod's object says its addresses");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                tracing::debug!(%pod, uid, %status, "another has the pod's name, or writes to it");
                return Said::Conflict;
            }
            Err(kube::Error::Api(status)) if status.code == 404 || is_of_another(&status) => {
                tracing::debug!(%pod, uid, %status, "there is no such pod to say addresses of");
                return Said::ToNobody;
            }
            Err(error) => {
                tracing::debug!(%pod, uid, %error, "the pod's addresses are said again later");
                let refused = if let kube::Error::Api(status) = &error { refused(status) } else { None };
                Err(refused.map(Trouble::Refused))
            }
        };
        let (count, said) = match access {
            Ok(()) => (&self.counts.published, Said::Yes),
            Err(_) => (&self.counts.failed, Said::No),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(access) = access.map_or_else(|trouble| trouble.map(Err), |()| Some(Ok(()))) {
            // Who has ended does not want to know.
            let _ = self.tell.unbounded_send(("pods/status".into(), Told::access(access)));
        }
        said
    }
}
