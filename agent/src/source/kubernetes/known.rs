//! From what is heard of a kind of objects to changes.

use std::collections::BTreeSet;
use std::mem;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::Watched;
use super::access::Trouble;
use super::blocks::BlockChange;
use crate::source::Change;

/// Something heard of a kind of objects.
#[derive(Debug)]
pub enum Heard<K> {
    /// Its watch says this.
    Event(Event<K>),
    /// An object that was asked for, perhaps ahead of the watch.
    Fetched(K),
    /// The server does not have the kind.
    Absent,
    /// The server does not let it be listed and watched, or tells nothing.
    Nothing(Trouble),
}

/// A change.
#[derive(Debug)]
pub enum Tiding {
    /// Of an object.
    Object(Change),
    /// Of a block of the pool of pod CIDRs.
    Block(BlockChange),
}

/// What there is to tell of it.
#[derive(Debug)]
pub struct Told {
    /// What has changed.
    pub changes: Vec<Tiding>,
    /// Whether with that, all that there is has been told of for the first time.
    pub is_listed: bool,
    /// Whether the server tells of the kind, or why not; `None`: this does not say.
    pub access: Option<Result<(), Trouble>>,
}

impl Told {
    /// Only whether the server gives what it was asked for.
    pub fn access(access: Result<(), Trouble>) -> Self {
        Self { changes: Vec::new(), is_listed: false, access: Some(access) }
    }
}

/// Which objects of a kind have been told of. A watch that had to start anew does not tell of what is gone meanwhile: that is
/// found by what it tells no more.
#[derive(Debug, Default)]
pub struct Known {
    objects: BTreeSet<(String, String)>,
    /// While a watch starts: what it has told of since.
    listing: Option<BTreeSet<(String, String)>>,
    /// The latest version that the watch has told of.
    newest: u64,
    is_listed: bool,
}

impl Known {
    /// What there is to tell after something was heard.
    pub fn hear<K: Watched>(&mut self, heard: Heard<K>) -> Told {
        let gone = |(namespace, name): &(String, String), uid| K::gone(namespace, name, uid);
        let is_complete = matches!(heard, Heard::Event(Event::InitDone) | Heard::Absent);
        let access = match &heard {
            // That something is heard was noted when the server answered.
            Heard::Event(_) | Heard::Fetched(_) => None,
            Heard::Absent => Some(Ok(())),
            Heard::Nothing(trouble) => Some(Err(trouble.clone())),
        };
        let changes = match heard {
            Heard::Event(Event::Init) => {
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            Heard::Event(Event::InitApply(object) | Event::Apply(object)) => {
                self.newest = self.newest.max(version(&object));
                self.is(&object)
            }
            Heard::Event(Event::InitDone) => {
                let listed = self.listing.take().unwrap_or_default();
                let lost = self.objects.difference(&listed).filter_map(|name| gone(name, String::new())).collect();
                self.objects = listed;
                lost
            }
            Heard::Event(Event::Delete(object)) => {
                self.newest = self.newest.max(version(&object));
                let name = key(&object);
                self.objects.remove(&name);
                gone(&name, object.uid().unwrap_or_default()).into_iter().collect()
            }
            // The watch has told of it by now, or of its end.
            Heard::Fetched(object) if version(&object) <= self.newest => Vec::new(),
            Heard::Fetched(object) => self.is(&object),
            Heard::Absent => {
                self.listing = None;
                mem::take(&mut self.objects).iter().filter_map(|name| gone(name, String::new())).collect()
            }
            // What it said last stays.
            Heard::Nothing(_) => Vec::new(),
        };
        Told { changes, is_listed: is_complete && !mem::replace(&mut self.is_listed, true), access }
    }

    fn is<K: Watched>(&mut self, object: &K) -> Vec<Tiding> {
        if let Some(listing) = &mut self.listing {
            listing.insert(key(object));
        }
        self.objects.insert(key(object));
        object.is().into_iter().collect()
    }
}

fn key<K: Watched>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The version of an object; versions grow with time. 0: unknown.
fn version<K: Watched>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}
