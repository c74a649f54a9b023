//! Policies, and which of them are in force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::atoms::AtomId;
use super::population::Inhabited;
use crate::labels::Labels;
use crate::matchers::Matchers;
use crate::name::ObjectName;
use crate::object::{Action, PolicyObject, Tier};
use crate::traffic::Traffic;

/// Stands for what a policy said at some time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct VersionId(u32);

/// All policies.
#[derive(Debug, Default)]
pub(super) struct Policies {
    current: BTreeMap<ObjectName, VersionId>,
    versions: BTreeMap<VersionId, Version>,
    last: u32,
    in_force: usize,
    /// NetworkPolicies, by namespace.
    by_namespace: HashMap<String, Matchers<VersionId>>,
    cluster: BTreeSet<VersionId>,
}

/// What a policy says, or said until now.
#[derive(Debug)]
pub(super) struct Version {
    pub object: Arc<PolicyObject>,
    /// How many different lists of policies it is in that pods of this node have.
    pub users: usize,
    /// Its rules, while it is in force.
    pub compiled: Option<Arc<Compiled>>,
    is_current: bool,
}

/// The rules of a policy in force, for each direction.
#[derive(Debug)]
pub(super) struct Compiled {
    pub rules: [Vec<CompiledRule>; 2],
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub action: Action,
    /// `None`: anyone.
    pub peers: Option<AtomId>,
    pub traffic: Traffic,
    /// The number of its reason.
    pub reason: u32,
}

impl Policies {
    pub fn all(&self) -> impl Iterator<Item = &PolicyObject> {
        self.current.values().filter_map(|id| self.object(*id))
    }

    pub fn object(&self, id: VersionId) -> Option<&PolicyObject> {
        self.versions.get(&id).map(|version| &*version.object)
    }

    pub fn version_mut(&mut self, id: VersionId) -> Option<&mut Version> {
        self.versions.get_mut(&id)
    }

    pub fn version(&self, id: VersionId) -> Option<&Version> {
        self.versions.get(&id)
    }

    /// Of these versions, the rules of those that no pod has any more, by the policy's name.
    pub fn compiled_without_users(&self, ids: &BTreeSet<VersionId>) -> HashMap<ObjectName, Arc<Compiled>> {
        let versions = ids.iter().filter_map(|id| self.versions.get(id)).filter(|version| version.users == 0);
        versions
            .filter_map(|version| Some((version.object.name.clone(), Arc::clone(version.compiled.as_ref()?))))
            .collect()
    }

    /// How many have rules.
    pub fn in_force(&self) -> usize {
        self.in_force
    }

    /// Gives a policy its rules.
    pub fn put_in_force(&mut self, id: VersionId, compiled: Compiled) {
        if let Some(version) = self.versions.get_mut(&id) {
            self.in_force += usize::from(version.compiled.replace(Arc::new(compiled)).is_none());
        }
    }

    /// Takes a policy's rules, if it has no users.
    pub fn take_out_of_force(&mut self, id: VersionId) -> Option<Arc<Compiled>> {
        let version = self.versions.get_mut(&id).filter(|version| version.users == 0)?;
        let compiled = version.compiled.take()?;
        self.in_force -= 1;
        Some(compiled)
    }

    /// What a policy says now.
    pub fn find(&self, name: &ObjectName) -> Option<&PolicyObject> {
        self.object(*self.current.get(name)?)
    }

    /// Puts a policy in.
    pub fn insert(&mut self, object: PolicyObject) -> VersionId {
        self.last += 1;
        let id = VersionId(self.last);
        match object.tier {
            Tier::Namespaced => {
                self.by_namespace.entry(object.name.namespace.clone()).or_default().insert(id, &object.pods);
            }
            Tier::Admin(_) | Tier::Baseline(_) => {
                self.cluster.insert(id);
            }
        }
        self.current.insert(object.name.clone(), id);
        self.versions.insert(id, Version { object: Arc::new(object), users: 0, compiled: None, is_current: true });
        id
    }

    /// Takes a policy out. For as long as it has users, what it said is still there.
    pub fn remove(&mut self, name: &ObjectName) -> Option<VersionId> {
        let id = self.current.remove(name)?;
        if let Some(version) = self.versions.get_mut(&id) {
            version.is_current = false;
            match version.object.tier {
                Tier::Namespaced => {
                    if let Some(matchers) = self.by_namespace.get_mut(&name.namespace) {
                        matchers.remove(id, &version.object.pods);
                        if matchers.is_empty() {
                            self.by_namespace.remove(&name.namespace);
                        }
                    }
                }
                Tier::Admin(_) | Tier::Baseline(_) => {
                    self.cluster.remove(&id);
                }
            }
        }
        self.forget(id);
        Some(id)
    }

    /// Forgets what a policy said, if it says so no more and has no users.
    pub fn forget(&mut self, id: VersionId) {
        if self
            .versions
            .get(&id)
            .is_some_and(|version| !version.is_current && version.users == 0 && version.compiled.is_none())
        {
            self.versions.remove(&id);
        }
    }

    /// The policies that select a pod with these labels, in the order in which they are asked.
    pub fn selecting(&self, namespace: &Inhabited, labels: &Labels) -> Box<[VersionId]> {
        let named = self.by_namespace.get(&namespace.object.name);
        let mut ids: BTreeSet<VersionId> = named.into_iter().flat_map(|matchers| matchers.matching(labels)).collect();
        ids.extend(self.cluster.iter().filter(|id| self.selects(**id, namespace, labels)));
        let mut places: Vec<_> = ids.into_iter().map(|id| (self.place(id), id)).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, id)| id).collect()
    }

    /// The same, where it is known which policies selected the pod before some of them went and others came.
    pub fn reselecting(
        &self,
        before: &[VersionId],
        gone: &BTreeSet<VersionId>,
        new: &BTreeSet<VersionId>,
        namespace: &Inhabited,
        labels: &Labels,
    ) -> Box<[VersionId]> {
        let mut ids: Vec<VersionId> = before.iter().filter(|id| !gone.contains(id)).copied().collect();
        for id in new.iter().filter(|id| self.selects(**id, namespace, labels)) {
            let at = ids.partition_point(|other| self.place(*other) < self.place(*id));
            ids.insert(at, *id);
        }
        ids.into()
    }

    fn selects(&self, id: VersionId, namespace: &Inhabited, labels: &Labels) -> bool {
        self.object(id).is_some_and(|policy| namespace.is_in(&policy.scope) && policy.pods.matches(labels))
    }

    /// What policies are sorted by.
    fn place(&self, id: VersionId) -> Option<(Tier, &ObjectName)> {
        self.object(id).map(|policy| (policy.tier, &policy.name))
    }
}
