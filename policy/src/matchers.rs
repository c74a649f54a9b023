//! Many selectors, asked about one object's labels.

use std::collections::{BTreeMap, HashMap};

use crate::labels::{Labels, fingerprint};
use crate::selector::Selector;

/// Items that have a selector each. Only those are looked at that need one of the labels that an object has, or none.
#[derive(Debug)]
pub(crate) struct Matchers<T> {
    anchored: HashMap<u64, BTreeMap<T, Selector>>,
    others: BTreeMap<T, Selector>,
}

impl<T> Default for Matchers<T> {
    fn default() -> Self {
        Self { anchored: HashMap::new(), others: BTreeMap::new() }
    }
}

impl<T: Ord + Copy> Matchers<T> {
    pub fn insert(&mut self, item: T, selector: &Selector) {
        match selector.anchors() {
            Some(anchors) => {
                for anchor in anchors {
                    self.anchored.entry(anchor).or_default().insert(item, selector.clone());
                }
            }
            None => {
                self.others.insert(item, selector.clone());
            }
        }
    }

    pub fn remove(&mut self, item: T, selector: &Selector) {
        for anchor in selector.anchors().into_iter().flatten() {
            if let Some(items) = self.anchored.get_mut(&anchor) {
                items.remove(&item);
                if items.is_empty() {
                    self.anchored.remove(&anchor);
                }
            }
        }
        self.others.remove(&item);
    }

    /// The items whose selectors match; one may come twice.
    pub fn matching(&self, labels: &Labels) -> impl Iterator<Item = T> {
        let anchored = labels.iter().filter_map(|(key, value)| self.anchored.get(&fingerprint(key, value))).flatten();
        anchored.chain(&self.others).filter(|(_, selector)| selector.matches(labels)).map(|(item, _)| *item)
    }

    pub fn is_empty(&self) -> bool {
        self.anchored.is_empty() && self.others.is_empty()
    }
}
