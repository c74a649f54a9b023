//! Objects in, changes of the tables out: work is proportional to the change.
//!
//! *Atoms* are the peer lists of rules, each once however many rules have it. An address's *membership* is the set of
//! atoms that match it: by selectors, where it is a pod's or node's, and by blocks. Addresses with the same membership
//! (and, of pods, the same ports behind the names that egress rules use for them) share an *identity*.
//!
//! An event is applied in three parts. `maintain` keeps all that is derived from objects up to date: which policies are
//! in force, their atoms, memberships. `plan` finds which pods need which rule sets and which prefixes which identities,
//! and what must be written for it in which order. `commit` makes it so and tells the steps.

mod atoms;
mod excerpt;
mod identities;
mod maintain;
mod plan;
mod policies;
mod population;
mod problems;
mod regions;
mod rule_sets;
mod selections;
mod settle;
mod takeover;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use sluice_abi::{Identity, RuleSetId};

use crate::cluster_policy::ClusterNetworkPolicy;
use crate::name::{Kind, ObjectError, ObjectName, PodName};
pub use crate::object::Severity;
use crate::object::{NamespaceObject, NodeObject, PodObject, Policy, PolicyMode, PolicyObject, Scope};
use crate::reading::Strictness;
use crate::reason::{Reason, Reasons};
use crate::steps::{Step, Steps};
use crate::tables::{LastNumbers, Tables};

use atoms::{AtomId, Atoms};
use identities::Identities;
use policies::{Policies, VersionId};
use population::{PodId, Population};
pub use problems::Problem;
use problems::Problems;
use regions::Regions;
use rule_sets::RuleSets;
use selections::Selections;
use settle::Cost;

/// Whose pods' policies are compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// Those of a node.
    Node(String),
    /// All pods': for answers about a whole cluster.
    Everything,
    /// No pod's: to take [excerpts](Index::excerpt) from.
    Nothing,
}

/// How much fits into the tables, at every moment of a change. What does not fit is denied to the pods concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Greatest number of rules.
    pub rules: usize,
    /// Greatest number of prefixes that have an identity.
    pub prefixes: usize,
}

impl Limits {
    /// None.
    pub const NONE: Self = Self { rules: usize::MAX, prefixes: usize::MAX };
}

/// Something is no longer as it was. Objects that events are made of are as the API server has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A namespace is new, or has changed.
    Namespace(NamespaceObject),
    /// A pod is new, or has changed.
    Pod(PodObject),
    /// A node is new, or has changed.
    Node(NodeObject),
    /// A policy of either kind is new, or has changed.
    Policy(PolicyObject),
    /// An object is new or has changed, but makes no sense: what was known of it still holds.
    Invalid(ObjectError),
    /// An object is gone.
    Removed(ObjectName),
}

impl Event {
    /// Which object it is about.
    pub fn object(&self) -> ObjectName {
        match self {
            Self::Namespace(namespace) => ObjectName::new(Kind::Namespace, "", &namespace.name),
            Self::Pod(pod) => ObjectName::new(Kind::Pod, &pod.name.namespace, &pod.name.name),
            Self::Node(node) => ObjectName::new(Kind::Node, "", &node.name),
            Self::Policy(policy) => policy.name.clone(),
            Self::Invalid(error) => error.object.clone(),
            Self::Removed(name) => name.clone(),
        }
    }
}

macro_rules! events {
    ($($object:ty => $read:expr, $event:ident);* $(;)?) => {$(
        impl From<&$object> for Event {
            fn from(object: &$object) -> Self {
                let read: fn(&$object) -> _ = $read;
                read(object).map_or_else(Self::Invalid, Self::$event)
            }
        }
    )*};
}

events! {
    Namespace => |namespace| namespace.try_into(), Namespace;
    Pod => |pod| pod.try_into(), Pod;
    Node => |node| node.try_into(), Node;
    NetworkPolicy => |policy| policy.read(Strictness::AsServed), Policy;
    ClusterNetworkPolicy => |policy| policy.read(Strictness::AsServed), Policy;
}

/// How the tables become what they should be.
///
/// Steps are to be made in order, by one writer. What a pod's policy says of a packet, in either direction, is at each
/// moment what it said before all steps or what it says after them; a packet between two pods is judged by each of their
/// policies, which change one after the other. Rules are never changed where they can be seen: they come before the
/// first pod or address that is judged by them, and go after the last.
///
/// The phases are rules to be added, identities, pods' rule sets, identities once more with prefixes to be removed, and
/// rules to be removed. A packet reads a rule set, an identity and rules at different moments, so between two phases that
/// it could tell apart there is [`Step::Settle`]; also before the first one of these, where an earlier change needs it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Delta {
    /// The steps.
    pub steps: Vec<Step>,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Pods that have addresses of their own.
    pub pods: usize,
    /// Rules in the tables.
    pub rules: usize,
    /// Prefixes in the tables.
    pub prefixes: usize,
    /// Identities.
    pub identities: usize,
    /// Rule sets.
    pub rule_sets: usize,
    /// Policies that select a pod of this node.
    pub policies: usize,
    /// Different peer lists of those.
    pub atoms: usize,
    /// Reasons that verdicts give.
    pub reasons: usize,
    /// Pods of this node that policies select,
    pub selected: usize,
    /// and those of them that are denied everything, because their policies do not fit.
    pub closed: usize,
}

/// All objects, and what follows from them.
#[derive(Debug)]
pub struct Index {
    view: View,
    limits: Limits,
    population: Population,
    policies: Policies,
    atoms: Atoms,
    regions: Regions,
    reasons: Reasons,
    /// Of each pod and node, the atoms whose selectors match it, sorted; without entry: none.
    memberships: Memberships,
    selections: Selections,
    /// What does not fit, by pod: what it would need.
    closed: BTreeMap<PodId, Cost>,
    problems: Problems,
    identities: Identities,
    rule_sets: RuleSets,
    /// What each pod of this node is pointed at.
    assigned: BTreeMap<PodId, (PodName, RuleSetId)>,
    /// Those of the change that is being applied.
    steps: Steps,
    /// What was learnt, and nothing has followed from yet.
    learnt: Work,
}

#[derive(Debug, Default)]
struct Memberships {
    pods: BTreeMap<PodId, Vec<AtomId>>,
    nodes: BTreeMap<String, Vec<AtomId>>,
}

/// What must be looked at anew.
#[derive(Debug, Default)]
struct Work {
    /// Pods that any other policies may select than before.
    subjects: BTreeSet<PodId>,
    /// Pods that policies selected which are gone, or that new ones may select.
    reselected: BTreeSet<PodId>,
    /// Policies, as they say it now, that pods may not have yet.
    new_policies: BTreeSet<VersionId>,
    /// Policies, as they said it before, that pods may still have.
    gone_policies: BTreeSet<VersionId>,
    /// Pods that other atoms may match than before.
    peers: BTreeSet<PodId>,
    /// The same of nodes.
    nodes: BTreeSet<String>,
    /// Pods whose policies have been looked at.
    touched: BTreeSet<PodId>,
    /// Prefixes that may have another identity than before.
    prefixes: BTreeSet<IpNet>,
    /// CIDRs of blocks that come or go: so may whatever tells addresses inside them apart.
    blocks: BTreeSet<IpNet>,
    /// Atoms that no rule set in the tables knows.
    newborn: BTreeSet<AtomId>,
    /// Atoms that only rule sets know which are about to go.
    dying: BTreeSet<AtomId>,
}

impl Index {
    /// Without any objects.
    pub fn new(view: View, limits: Limits) -> Self {
        Self {
            view,
            limits,
            population: Population::default(),
            policies: Policies::default(),
            atoms: Atoms::default(),
            regions: Regions::default(),
            reasons: Reasons::default(),
            memberships: Memberships::default(),
            selections: Selections::default(),
            closed: BTreeMap::new(),
            problems: Problems::default(),
            identities: Identities::default(),
            rule_sets: RuleSets::default(),
            assigned: BTreeMap::new(),
            steps: Steps::default(),
            learnt: Work::default(),
        }
    }

    /// Takes only numbers after these, for tables that still hold those of an earlier agent. So an old `reason`, which
    /// flows may still give for their verdicts, is never taken for a new one.
    #[must_use]
    pub fn numbered_after(mut self, numbers: LastNumbers) -> Self {
        self.rule_sets.number_after(numbers.rule_set);
        self.identities.number_after(numbers.identity);
        self.reasons.number_after(numbers.reason);
        self
    }

    /// Applies an event.
    pub fn apply(&mut self, event: Event) -> Delta {
        self.apply_all([event])
    }

    /// Takes in events that are part of the next change: what follows from them, it tells.
    pub fn learn(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut work = mem::take(&mut self.learnt);
        for event in events {
            self.take_in(event, &mut work);
        }
        self.learnt = work;
    }

    /// Applies several events as one change.
    pub fn apply_all(&mut self, events: impl IntoIterator<Item = Event>) -> Delta {
        self.learn(events);
        self.settled(|index| {
            let work = mem::take(&mut index.learnt);
            index.settle(work);
            index.heal(false);
        })
    }

    /// Tries again whatever does not fit. [`apply`](Self::apply) does so itself where there is as much space as was
    /// missing; this helps where less is needed by now.
    pub fn retry(&mut self) -> Delta {
        self.settled(|index| index.heal(true))
    }

    fn settled(&mut self, settle: impl FnOnce(&mut Self)) -> Delta {
        let closed = self.closed.len();
        settle(self);
        // While any are, each change may close others instead.
        if closed.max(self.closed.len()) > 0 {
            self.problems.change();
        }
        Delta { steps: self.steps.take() }
    }

    /// The tables after all changes so far.
    pub fn tables(&self) -> Tables {
        let identities = self.identities.prefixes.iter().map(|(net, identity)| (*net, *identity));
        Tables::of(self.rule_sets.rules(), identities, self.assigned.values().cloned())
    }

    /// The rule set of a pod of this node; `None`: no such pod is known.
    pub fn rule_set(&self, pod: &PodName) -> Option<RuleSetId> {
        let id = self.population.id(pod)?;
        self.assigned.get(&id).map(|(_, rule_set)| *rule_set)
    }

    /// As whom policies know an address.
    pub fn identity(&self, address: IpAddr) -> Identity {
        self.identities.of(&IpNet::from(address))
    }

    /// What a number in a rule stands for; `None`: no policy applies, or none that is still there.
    pub fn reason(&self, number: u32) -> Option<&Reason> {
        self.reasons.get(number)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            pods: self.population.settled(),
            rules: self.rule_sets.count_rules(),
            prefixes: self.identities.prefixes.len(),
            identities: self.identities.len(),
            rule_sets: self.rule_sets.len(),
            policies: self.policies.in_force(),
            atoms: self.atoms.len(),
            reasons: self.reasons.len(),
            selected: self.selections.len() + self.closed.len(),
            closed: self.closed.len(),
        }
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &PodObject> {
        self.population.pods()
    }

    /// A pod.
    pub fn pod(&self, name: &PodName) -> Option<&PodObject> {
        self.population.pod(self.population.id(name)?)
    }

    /// All namespaces, those among them of which nothing is known but that they have pods.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceObject> {
        self.population.namespaces().map(|namespace| &namespace.object)
    }

    /// A node.
    pub fn node(&self, name: &str) -> Option<&NodeObject> {
        self.population.node(name)
    }

    /// All nodes, sorted by name.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeObject> {
        self.population.nodes()
    }

    /// The pod that has an address, if it is one that policies may select: of several, the newest.
    pub fn pod_at(&self, address: IpAddr) -> Option<&PodObject> {
        self.population.pod(self.population.owner(&IpNet::from(address))?)
    }

    /// How a pod's policies are meant: its namespace and its node may each ask for an audit. One that is not known counts
    /// as a pod of this node.
    pub fn mode(&self, pod: &PodName) -> PolicyMode {
        let node = match (self.pod(pod), &self.view) {
            (Some(pod), _) => pod.node.as_ref(),
            (None, View::Node(name)) => Some(name),
            (None, View::Everything | View::Nothing) => None,
        };
        let node = node.and_then(|name| self.node(name)).map(|node| node.mode);
        let namespace = self.population.namespace(&pod.namespace).map(|namespace| namespace.object.mode);
        if [node, namespace].contains(&Some(PolicyMode::Audit)) { PolicyMode::Audit } else { PolicyMode::Enforce }
    }

    /// Whether a namespace that has pods is among these.
    pub(crate) fn is_in(&self, namespace: &str, scope: &Scope) -> bool {
        self.population.namespace(namespace).is_some_and(|namespace| namespace.is_in(scope))
    }

    /// All policies, sorted by name.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyObject> {
        self.policies.all()
    }

    /// The policies that select a pod of this node, in the order in which they are asked.
    pub fn policies_of(&self, pod: &PodName) -> impl Iterator<Item = &PolicyObject> {
        let id = self.population.id(pod);
        let versions = id.and_then(|id| self.selections.get(id));
        versions.into_iter().flat_map(|versions| versions.iter()).filter_map(|version| self.policies.object(*version))
    }

    /// All that is wrong with objects.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.problems.list();
        for pod in self.closed.keys().filter_map(|id| self.population.pod(*id)) {
            let object = ObjectName::new(Kind::Pod, &pod.name.namespace, &pod.name.name);
            let what = "its policies do not fit into the tables; all its traffic is denied until they do".to_owned();
            problems.push(Problem::new(Severity::Error, &object, "", what));
        }
        problems.sort();
        problems
    }

    /// Another number whenever there may be other [problems](Self::problems): to ask for them after each change would cost
    /// more than most changes.
    pub fn problems_version(&self) -> u64 {
        self.problems.version()
    }
}
