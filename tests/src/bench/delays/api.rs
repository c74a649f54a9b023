//! A client of the API server, and when it is told of what.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::kubernetes::Cluster;
use crate::lab::until;

/// A kind of objects that namespaces have.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + 'static
{
}

impl Kind for Pod {}
impl Kind for NetworkPolicy {}

/// A client, for one namespace. It speaks from the network that the thread is in which makes it.
pub struct Api {
    client: Client,
    namespace: String,
    runtime: Runtime,
}

impl Api {
    /// A client, as the cluster's administrator.
    ///
    /// # Errors
    /// Where the cluster has no usable kubeconfig.
    pub fn of(cluster: &Cluster, namespace: &str) -> Result<Self> {
        // A thread of its own sees to connections while the caller does something else.
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().context("starting a client")?;
        let path = cluster.place("admin.conf");
        let file = Kubeconfig::read_from(&path).with_context(|| format!("reading {}", path.display()))?;
        let client = runtime.block_on(async {
            let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        });
        let client = client.with_context(|| format!("making a client of {}", path.display()))?;
        Ok(Self { client, namespace: namespace.into(), runtime })
    }

    fn all<K: Kind>(&self) -> kube::Api<K> {
        kube::Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes an object.
    ///
    /// # Errors
    /// Where the server refuses it.
    pub fn create<K: Kind>(&self, object: K) -> Result<()> {
        let made = self.runtime.block_on(self.all().create(&PostParams::default(), &object));
        made.map(|_| ()).with_context(|| format!("making a {}", K::kind(&())))
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// Where the server refuses that.
    pub fn patch<K: Kind>(&self, name: &str, patch: &Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        let changed = self.runtime.block_on(self.all::<K>().patch(name, &PatchParams::default(), &patch));
        changed.map(|_| ()).with_context(|| format!("changing the {} {name}", K::kind(&())))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// Where the server refuses that.
    pub fn delete<K: Kind>(&self, name: &str) -> Result<()> {
        let deleted = self.runtime.block_on(self.all::<K>().delete(name, &DeleteParams::default()));
        deleted.map(|_| ()).with_context(|| format!("deleting the {} {name}", K::kind(&())))
    }

    /// Watches the namespace's objects of a kind; all that there are now have been told of.
    ///
    /// # Errors
    /// Where the server does not tell of them.
    pub fn watch<K: Kind>(&self) -> Result<Watch<K>> {
        let (watch, begun) = (Watch { heard: Arc::default() }, Instant::now());
        let (heard, events) = (Arc::clone(&watch.heard), watcher(self.all::<K>(), Config::default()).default_backoff());
        self.runtime.spawn(events.for_each(move |event| {
            // After an interruption it begins anew.
            if let Ok(event) = event {
                lock(&heard).push((Instant::now(), event));
            }
            std::future::ready(())
        }));
        watch.first("all objects are listed", begun, |event| matches!(event, Event::InitDone))?;
        Ok(watch)
    }
}

/// All that a watch has heard, and when.
type Heard<K> = Vec<(Instant, Event<K>)>;

/// A watch, until its client is dropped.
pub struct Watch<K> {
    heard: Arc<Mutex<Heard<K>>>,
}

impl<K> Watch<K> {
    /// Waits until the server has told of something; gives when it did so first, since an instant.
    ///
    /// # Errors
    /// Where it does not.
    pub fn first(&self, what: &str, since: Instant, is_it: impl Fn(&Event<K>) -> bool) -> Result<Instant> {
        until(what, || {
            let heard = lock(&self.heard);
            let found = heard.iter().find(|(when, event)| *when >= since && is_it(event));
            found.map(|(when, _)| *when).context("the watch has not told of it")
        })
    }
}

fn lock<K>(heard: &Mutex<Heard<K>>) -> MutexGuard<'_, Heard<K>> {
    heard.lock().expect("nobody panics with it")
}
