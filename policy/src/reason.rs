//! Why something is allowed or denied, by number.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::name::ObjectName;
use crate::object::Direction;

/// Why a rule of the tables allows or denies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// A rule of a policy says so.
    Rule {
        /// Which policy.
        policy: ObjectName,
        /// In which direction, as the policy's pod sees it.
        direction: Direction,
        /// Which of the policy's rules for this direction, from 0.
        index: u32,
        /// Its name; empty: none.
        name: String,
    },
    /// The pod is isolated, and none of the policies that isolate it allows this.
    Isolated {
        /// In which direction.
        direction: Direction,
        /// By which policies, sorted.
        policies: Box<[ObjectName]>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { policy, direction, index, name } => {
                write!(f, "{policy} {}[{index}]", direction.name())?;
                if name.is_empty() { Ok(()) } else { write!(f, " ({name})") }
            }
            Self::Isolated { direction, policies } => {
                write!(f, "no {} rule of ", direction.name())?;
                for (at, policy) in policies.iter().enumerate() {
                    write!(f, "{}{policy}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// The reasons in use.
#[derive(Default, Debug)]
pub(crate) struct Reasons {
    by_id: BTreeMap<u32, (Reason, usize)>,
    ids: HashMap<Reason, u32>,
    last: u32,
}

impl Reasons {
    pub fn number_after(&mut self, id: u32) {
        self.last = id;
    }

    /// The number of a reason, from 1 on, for one more user.
    pub fn take(&mut self, reason: Reason) -> u32 {
        if let Some(id) = self.ids.get(&reason) {
            if let Some((_, users)) = self.by_id.get_mut(id) {
                *users += 1;
            }
            return *id;
        }
        // Numbers are not used again soon: what was told of an old one must not be taken for a new one.
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && !self.by_id.contains_key(&self.last) {
                break;
            }
        }
        self.ids.insert(reason.clone(), self.last);
        self.by_id.insert(self.last, (reason, 1));
        self.last
    }

    /// A user needs it no more.
    pub fn release(&mut self, id: u32) {
        let Some((reason, users)) = self.by_id.get_mut(&id) else { return };
        *users -= 1;
        if *users == 0 {
            self.ids.remove(reason);
            self.by_id.remove(&id);
        }
    }

    pub fn get(&self, id: u32) -> Option<&Reason> {
        self.by_id.get(&id).map(|(reason, _)| reason)
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}
