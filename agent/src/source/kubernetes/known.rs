//! From what is heard of a kind of objects to changes.

use std::collections::BTreeMap;
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
#[derive(Debug, PartialEq, Eq)]
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
    /// By namespace and name: since which start of the watch each was told of last.
    objects: BTreeMap<String, BTreeMap<Box<str>, u32>>,
    /// How often the watch has started.
    starts: u32,
    /// The latest version that it has told of.
    newest: u64,
    is_listed: bool,
}

impl Known {
    /// What there is to tell after something was heard.
    pub fn hear<K: Watched>(&mut self, heard: Heard<K>) -> Told {
        let is_complete = matches!(heard, Heard::Event(Event::InitDone) | Heard::Absent);
        let access = match &heard {
            // That something is heard was noted when the server answered.
            Heard::Event(_) | Heard::Fetched(_) => None,
            Heard::Absent => Some(Err(Trouble::Absent(format!(
                "the API server does not have the kind {} in {}, so there are none, which is well where nobody wants any; to have \
                 them, install its CustomResourceDefinition, which counts at once",
                K::kind(&()),
                K::api_version(&())
            )))),
            Heard::Nothing(trouble) => Some(Err(trouble.clone())),
        };
        let changes = match heard {
            Heard::Event(Event::Init) => {
                self.starts += 1;
                Vec::new()
            }
            Heard::Event(Event::InitApply(object) | Event::Apply(object)) => {
                self.newest = self.newest.max(version(&object));
                self.is(&object)
            }
            Heard::Event(Event::InitDone) => {
                let last = self.starts;
                self.lose::<K>(|start| start != last)
            }
            Heard::Event(Event::Delete(object)) => {
                self.newest = self.newest.max(version(&object));
                let (namespace, name) = key(&object);
                if let Some(names) = self.objects.get_mut(&namespace) {
                    names.remove(&*name);
                    if names.is_empty() {
                        self.objects.remove(&namespace);
                    }
                }
                K::gone(&namespace, &name, object.uid().unwrap_or_default()).into_iter().collect()
            }
            // The watch has told of it by now, or of its end.
            Heard::Fetched(object) if version(&object) <= self.newest => Vec::new(),
            Heard::Fetched(object) => self.is(&object),
            Heard::Absent => self.lose::<K>(|_| true),
            // What it said last stays.
            Heard::Nothing(_) => Vec::new(),
        };
        Told { changes, is_listed: is_complete && !mem::replace(&mut self.is_listed, true), access }
    }

    fn is<K: Watched>(&mut self, object: &K) -> Vec<Tiding> {
        let (namespace, name) = key(object);
        self.objects.entry(namespace).or_default().insert(name.into(), self.starts);
        object.is().into_iter().collect()
    }

    /// Those are gone that were told of last since such a start.
    fn lose<K: Watched>(&mut self, is_gone: impl Fn(u32) -> bool) -> Vec<Tiding> {
        let mut lost = Vec::new();
        self.objects.retain(|namespace, names| {
            let gone = names.extract_if(.., |_, start| is_gone(*start));
            lost.extend(gone.filter_map(|(name, _)| K::gone(namespace, &name, String::new())));
            !names.is_empty()
        });
        lost
    }
}

fn key<K: Watched>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The version of an object; versions grow with time. 0: unknown.
fn version<K: Watched>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}
