//! Which policies select which pods.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::policies::VersionId;
use super::population::PodId;

/// The policies in force of each pod of this node, in the order in which they are asked. Equal lists are kept once.
#[derive(Debug, Default)]
pub(super) struct Selections {
    pods: BTreeMap<PodId, Arc<[VersionId]>>,
    /// How many pods have a list.
    users: HashMap<Arc<[VersionId]>, usize>,
}

/// Lists that pods did not have before, and that none has any more. One may be both.
#[derive(Debug, Default)]
pub(super) struct ListChanges {
    pub new: Vec<Arc<[VersionId]>>,
    pub gone: Vec<Arc<[VersionId]>>,
}

impl Selections {
    /// The policies of a pod; `None`: no policy selects it.
    pub fn get(&self, pod: PodId) -> Option<&Arc<[VersionId]>> {
        self.pods.get(&pod)
    }

    /// How many pods have policies.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Says which policies a pod has.
    pub fn set(&mut self, pod: PodId, list: &[VersionId], changes: &mut ListChanges) {
        let before = self.pods.remove(&pod);
        if !list.is_empty() {
            let list = match self.users.get_key_value(list) {
                Some((known, _)) => Arc::clone(known),
                None => {
                    let new: Arc<[VersionId]> = list.into();
                    changes.new.push(Arc::clone(&new));
                    new
                }
            };
            *self.users.entry(Arc::clone(&list)).or_default() += 1;
            self.pods.insert(pod, list);
        }
        if let Some(before) = before
            && let Some(users) = self.users.get_mut(&before)
        {
            *users -= 1;
            if *users == 0 {
                self.users.remove(&before);
                changes.gone.push(before);
            }
        }
    }
}
