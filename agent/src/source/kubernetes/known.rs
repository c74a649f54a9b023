//! From what is heard of a kind of objects to changes.

use std::collections::BTreeMap;
use std::mem;

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use sluice_policy::ObjectName;

use super::Watched;
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
    /// The server does not let it be listed and watched: what is wrong, and what to do.
    Refused(String),
}

/// What there is to tell of it.
#[derive(Debug)]
pub struct Told {
    /// What has changed.
    pub changes: Vec<Change>,
    /// Whether with that, all that there is has been told of for the first time.
    pub is_listed: bool,
    /// Whether the server lets the kind be listed and watched, or why not; `None`: this does not tell.
    pub access: Option<Result<(), String>>,
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
            // A watch begins with this before it has asked for anything.
            Heard::Event(Event::Init) | Heard::Fetched(_) => None,
            Heard::Event(Event::InitApply(_) | Event::InitDone | Event::Apply(_) | Event::Delete(_))
            | Heard::Absent => Some(Ok(())),
            Heard::Refused(why) => Some(Err(why.clone())),
        };
        let changes = match heard {
            Heard::Event(Event::Init) => {
                self.starts += 1;
                Vec::new()
            }
            Heard::Event(Event::InitApply(object) | Event::Apply(object)) => {
                self.newest = self.newest.max(version(&object));
                vec![self.is(&object)]
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
                }
                vec![Change::Gone(ObjectName::new(K::KIND, &namespace, &name), object.uid().unwrap_or_default())]
            }
            // The watch has told of it by now, or of its end.
            Heard::Fetched(object) if version(&object) <= self.newest => Vec::new(),
            Heard::Fetched(object) => vec![self.is(&object)],
            Heard::Absent => self.lose::<K>(|_| true),
            // What it said last stays.
            Heard::Refused(_) => Vec::new(),
        };
        Told { changes, is_listed: is_complete && !mem::replace(&mut self.is_listed, true), access }
    }

    fn is<K: Watched>(&mut self, object: &K) -> Change {
        let (namespace, name) = key(object);
        self.objects.entry(namespace).or_default().insert(name.into(), self.starts);
        object.object().map_or_else(Change::Wrong, Change::Is)
    }

    /// Those are gone that were told of last since such a start.
    fn lose<K: Watched>(&mut self, is_gone: impl Fn(u32) -> bool) -> Vec<Change> {
        let mut lost = Vec::new();
        self.objects.retain(|namespace, names| {
            let gone = names.extract_if(.., |_, start| is_gone(*start));
            lost.extend(gone.map(|(name, _)| Change::Gone(ObjectName::new(K::KIND, namespace, &name), String::new())));
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
