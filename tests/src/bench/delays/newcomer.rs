//! Pods that come to a node, from the moment at which the plugin has noted them.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use sluice_api::{EndpointRecord, Records};
use sluice_netlink::{Netlink, within};

use crate::kubernetes::Cluster;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether an interface carries packets by now.
const GLANCE: Duration = Duration::from_micros(500);

/// A pod of a node, as the plugin has noted it.
pub struct Newcomer {
    record: EndpointRecord,
    root: PathBuf,
}

impl Newcomer {
    /// One that is there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn known(cluster: &Cluster, node: &str, namespace: &str, name: &str) -> Result<Self> {
        let root = root(cluster, node)?;
        let mut records = records(&root).list().context("listing endpoints")?.into_iter().flatten();
        let record = records.find(|record| is_of(record, namespace, name));
        Ok(Self { record: record.with_context(|| format!("{node} has no endpoint of {name}"))?, root })
    }

    /// Its address of the cluster's first family.
    ///
    /// # Errors
    /// Where it has none.
    pub fn address(&self) -> Result<IpAddr> {
        self.record.addresses.first().copied().context("an endpoint without addresses")
    }

    /// Its network.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn namespace(&self) -> Result<File> {
        // /var/run, as runtimes have it, is a link from the root, which would be that of this process.
        let name = self.record.netns.file_name().context("a network without a name")?;
        let path = self.root.join("run/netns").join(name);
        File::open(&path).with_context(|| format!("opening {}", path.display()))
    }

    /// Waits until its interface carries packets, which is what ADD ends with.
    ///
    /// # Errors
    /// Where it does not get so far.
    pub fn carries_packets(&self) -> Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        let wait = || {
            let mut netlink = Netlink::open()?;
            while !netlink.link(&self.record.interface)?.is_some_and(|link| link.is_running) {
                ensure!(Instant::now() < deadline, "{} never carries packets", self.record.interface);
                thread::sleep(GLANCE);
            }
            Ok(Instant::now())
        };
        within(self.namespace()?, wait).context("entering a pod's network")?
    }
}

/// Records of endpoints that come to a node.
pub struct Arrivals {
    root: PathBuf,
    inotify: Inotify,
}

impl Arrivals {
    /// Those that come from now on.
    ///
    /// # Errors
    /// Where the kernel does not tell of them.
    pub fn on(cluster: &Cluster, node: &str) -> Result<Self> {
        let root = root(cluster, node)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context("watching endpoints")?;
        let directory = root.join(RECORDS).join("endpoints");
        inotify
            .add_watch(&directory, AddWatchFlags::IN_MOVED_TO)
            .with_context(|| format!("watching {}", directory.display()))?;
        Ok(Self { root, inotify })
    }

    /// Waits for a pod.
    ///
    /// # Errors
    /// Where it does not come.
    pub fn wait_for(self, namespace: &str, name: &str) -> Result<Newcomer> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let come = poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout);
            ensure!(come.context("waiting for endpoints")? > 0, "{name} has no endpoint yet");
            for event in self.inotify.read_events().context("reading of endpoints")? {
                let stem = event.name.as_deref().and_then(|name| Path::new(name).file_stem()?.to_str());
                let record = stem.map(|interface| records(&self.root).read(interface)).transpose()?.flatten();
                if let Some(record) = record.filter(|record| is_of(record, namespace, name)) {
                    return Ok(Newcomer { record, root: self.root });
                }
            }
        }
    }
}

/// Where nodes keep records, from their root.
const RECORDS: &str = "run/sluice";

fn root(cluster: &Cluster, node: &str) -> Result<PathBuf> {
    Ok(cluster.first_process(node)?.join("root"))
}

fn records(root: &Path) -> Records {
    Records::below(&root.join(RECORDS))
}

fn is_of(record: &EndpointRecord, namespace: &str, name: &str) -> bool {
    record.pod.as_ref().is_some_and(|pod| pod.namespace == namespace && pod.name == name)
}
