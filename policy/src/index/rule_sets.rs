//! Compiled policies of pods.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_abi::{Identity, PolicyDirection as Direction, Rule, RuleKey, RuleSetId};

use super::atoms::AtomId;
use super::identities::Membership;
use super::policies::{Policies, VersionId};
use super::population::PodId;
use crate::flatten::{Claim, Claims, Entry, Reach};
use crate::object::{Action, PodObject, Tier};
use crate::reason::{Reason, Reasons};
use crate::traffic::{NamedPort, Ports, Traffic};

/// What makes the policies of pods equal.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct SetKey {
    versions: Arc<[VersionId]>,
    /// The pod's ports behind names that ingress rules use.
    ports: Box<[NamedPort]>,
}

/// What is written for an identity, for each direction; `None`: what is written for anyone holds.
pub(super) type Answers = [Option<Arc<[Entry]>>; 2];

/// The compiled policies of one or more pods.
#[derive(Debug)]
pub(super) struct RuleSet {
    key: Arc<SetKey>,
    sides: [Side; 2],
    /// What is written for anyone; in directions without rules nothing.
    anyone: [Arc<[Entry]>; 2],
    answers: BTreeMap<Identity, Answers>,
    /// The pods that are pointed at it.
    pub pods: BTreeSet<PodId>,
}

/// The rules of all policies of a pod for one direction.
#[derive(Debug)]
struct Side {
    isolated: Option<u32>,
    /// In the order in which they are asked.
    rules: Vec<SideRule>,
    /// Those for anyone.
    for_anyone: Vec<usize>,
    by_atom: HashMap<AtomId, Vec<usize>>,
    /// Names of ports that rules for anyone use.
    names: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct SideRule {
    tier: Tier,
    action: Action,
    traffic: Traffic,
    reason: u32,
}

impl SetKey {
    pub fn of(versions: &Arc<[VersionId]>, pod: &PodObject, policies: &Policies) -> Self {
        let uses = |port: &NamedPort| {
            let compiled = versions.iter().filter_map(|id| policies.version(*id)?.compiled.as_ref());
            compiled.flat_map(|compiled| &compiled.rules[Direction::Ingress as usize]).any(|rule| match &rule.traffic {
                Traffic::Any => false,
                Traffic::Listed(ports) => ports.iter().any(|listed| match listed {
                    Ports::Named(transport, name) => {
                        *name == port.name && transport.is_none_or(|transport| transport == port.transport)
                    }
                    Ports::Range(..) => false,
                }),
            })
        };
        let ports = pod.named_ports.iter().filter(|port| uses(port)).cloned().collect();
        Self { versions: Arc::clone(versions), ports }
    }
}

impl Side {
    fn new(direction: Direction, key: &SetKey, policies: &Policies, reasons: &mut Reasons) -> Self {
        let (mut rules, mut for_anyone, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut by_atom: HashMap<AtomId, Vec<usize>> = HashMap::new();
        let mut isolating = Vec::new();
        for version in key.versions.iter().filter_map(|id| policies.version(*id)) {
            if version.object.isolates(direction) {
                isolating.push(version.object.name.clone());
            }
            for rule in version.compiled.iter().flat_map(|compiled| &compiled.rules[direction as usize]) {
                match rule.peers {
                    Some(atom) => by_atom.entry(atom).or_default().push(rules.len()),
                    None => for_anyone.push(rules.len()),
                }
                let traffic = match (direction, &rule.traffic) {
                    (_, Traffic::Any) => Traffic::Any,
                    // The pod's own ports are known now.
                    (Direction::Ingress, Traffic::Listed(ports)) => {
                        let mut resolved = Vec::new();
                        for ports in ports {
                            ports.resolve(&key.ports, |transport, first, last| {
                                resolved.push(Ports::Range(transport, first, last));
                            });
                        }
                        Traffic::Listed(resolved.into())
                    }
                    (Direction::Egress, Traffic::Listed(ports)) => {
                        if rule.peers.is_none() {
                            names.extend(ports.iter().filter_map(|ports| match ports {
                                Ports::Named(_, name) => Some(Arc::clone(name)),
                                Ports::Range(..) => None,
                            }));
                        }
                        Traffic::Listed(ports.clone())
                    }
                };
                let tier = version.object.tier;
                rules.push(SideRule { tier, action: rule.action, traffic, reason: rule.reason });
            }
        }
        let isolated = (!isolating.is_empty())
            .then(|| reasons.take(Reason::Isolated { direction, policies: isolating.into_boxed_slice() }));
        Self { isolated, rules, for_anyone, by_atom, names }
    }

    /// Whether it has anything to say.
    fn is_ruled(&self) -> bool {
        self.isolated.is_some() || !self.rules.is_empty()
    }

    /// The whole answer for a membership; `None`: no rule is about it in particular.
    fn answer(&self, membership: &Membership) -> Option<Vec<Entry>> {
        let mut places: Vec<usize> = if self.by_atom.len() < membership.atoms.len() {
            let has = |atom: &&AtomId| membership.atoms.binary_search(atom).is_ok();
            self.by_atom.keys().filter(has).flat_map(|atom| &self.by_atom[atom]).copied().collect()
        } else {
            membership.atoms.iter().filter_map(|atom| self.by_atom.get(atom)).flatten().copied().collect()
        };
        if places.is_empty() && !membership.ports.iter().any(|port| self.names.contains(&port.name)) {
            return None;
        }
        places.extend(&self.for_anyone);
        places.sort_unstable();
        Some(self.flatten(places, &membership.ports))
    }

    fn flatten(&self, places: impl IntoIterator<Item = usize>, ports: &[NamedPort]) -> Vec<Entry> {
        let mut claims = Claims { isolated: self.isolated, ..Claims::default() };
        for rule in places.into_iter().map(|place| &self.rules[place]) {
            let reach = match &rule.traffic {
                Traffic::Any => Reach::Everything,
                Traffic::Listed(listed) => {
                    let mut reached = Vec::new();
                    for listed in listed {
                        listed.resolve(ports, |transport, first, last| reached.push((transport, first, last)));
                    }
                    Reach::Ports(reached)
                }
            };
            let claim = Claim { action: rule.action, policy: rule.reason, reach };
            match rule.tier {
                Tier::Admin(_) => claims.admin.push(claim),
                Tier::Namespaced => claims.namespaced.push(claim),
                Tier::Baseline(_) => claims.baseline.push(claim),
            }
        }
        claims.flatten()
    }
}

impl RuleSet {
    /// Compiles; what it says of identities must be [asked for](Self::answers) and [written](Self::write) apart.
    pub fn new(key: Arc<SetKey>, policies: &Policies, reasons: &mut Reasons) -> Self {
        let sides = Direction::ALL.map(|direction| Side::new(direction, &key, policies, reasons));
        let anyone = [0, 1].map(|side: usize| {
            let side = &sides[side];
            if side.is_ruled() { side.flatten(side.for_anyone.iter().copied(), &[]).into() } else { Arc::default() }
        });
        Self { key, sides, anyone, answers: BTreeMap::new(), pods: BTreeSet::new() }
    }

    /// The directions that it rules.
    pub fn directions(&self) -> [bool; 2] {
        [self.sides[0].is_ruled(), self.sides[1].is_ruled()]
    }

    pub fn key(&self) -> &Arc<SetKey> {
        &self.key
    }

    /// The reasons that it has taken.
    pub fn reasons(&self) -> impl Iterator<Item = u32> {
        self.sides.iter().filter_map(|side| side.isolated)
    }

    /// The atoms that its rules are about.
    pub fn atoms(&self) -> impl Iterator<Item = AtomId> {
        self.sides.iter().flat_map(|side| side.by_atom.keys().copied())
    }

    /// Whether what it says of anyone depends on their named ports.
    pub fn uses_names(&self) -> bool {
        self.sides.iter().any(|side| !side.names.is_empty())
    }

    /// What must be written for a membership.
    pub fn answers(&self, membership: &Membership) -> Answers {
        [0, 1].map(|side: usize| {
            let answer = self.sides[side].answer(membership)?;
            (*answer != *self.anyone[side]).then(|| answer.into())
        })
    }

    /// What is written for an identity.
    pub fn written(&self, identity: Identity) -> Option<&Answers> {
        self.answers.get(&identity)
    }

    /// Writes what it says of an identity.
    pub fn write(&mut self, identity: Identity, answers: Answers) {
        if count(&answers) > 0 {
            self.answers.insert(identity, answers);
        }
    }

    /// Forgets what is written for identities.
    pub fn unwrite(&mut self) {
        self.answers.clear();
    }

    /// All rules, with their keys.
    pub fn rules(&self, id: RuleSetId) -> impl Iterator<Item = (RuleKey, Rule)> {
        let anyone = Direction::ALL.into_iter().flat_map(move |direction| {
            self.anyone[direction as usize]
                .iter()
                .map(move |entry| (entry.key(id, direction, Identity::ANYONE), entry.rule))
        });
        anyone.chain(self.answers.iter().flat_map(move |(identity, answers)| rules_of(id, *identity, answers)))
    }

    /// How many rules it has.
    pub fn len(&self) -> usize {
        self.anyone.iter().map(|entries| entries.len()).sum::<usize>() + self.answers.values().map(count).sum::<usize>()
    }
}

/// How many rules there are.
pub(super) fn count(answers: &Answers) -> usize {
    answers.iter().flatten().map(|entries| entries.len()).sum()
}

/// The rules of an identity, with their keys.
pub(super) fn rules_of(id: RuleSetId, identity: Identity, answers: &Answers) -> impl Iterator<Item = (RuleKey, Rule)> {
    Direction::ALL.into_iter().flat_map(move |direction| {
        let entries = answers[direction as usize].as_deref().unwrap_or_default();
        entries.iter().map(move |entry| (entry.key(id, direction, identity), entry.rule))
    })
}

/// The rule sets in the tables.
#[derive(Debug, Default)]
pub(super) struct RuleSets {
    sets: BTreeMap<RuleSetId, RuleSet>,
    by_key: HashMap<Arc<SetKey>, RuleSetId>,
    by_atom: HashMap<AtomId, BTreeSet<RuleSetId>>,
    using_names: BTreeSet<RuleSetId>,
    rules: usize,
    last: u32,
}

impl RuleSets {
    pub fn number_after(&mut self, rule_set: u32) {
        self.last = rule_set;
    }

    /// An id that no rule set has, for one that rules these directions. Numbers are not used again soon.
    pub fn next_id(&mut self, directions: [bool; 2]) -> RuleSetId {
        loop {
            self.last = if self.last < RuleSetId::MAX_NUMBER { self.last + 1 } else { 1 };
            let id = RuleSetId::new(self.last, directions);
            if !self.sets.contains_key(&id) {
                return id;
            }
        }
    }

    pub fn find(&self, key: &SetKey) -> Option<RuleSetId> {
        self.by_key.get(key).copied()
    }

    pub fn get(&self, id: RuleSetId) -> Option<&RuleSet> {
        self.sets.get(&id)
    }

    pub fn get_mut(&mut self, id: RuleSetId) -> Option<&mut RuleSet> {
        self.sets.get_mut(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (RuleSetId, &RuleSet)> {
        self.sets.iter().map(|(id, set)| (*id, set))
    }

    pub fn len(&self) -> usize {
        self.sets.len()
    }

    pub fn count_rules(&self) -> usize {
        self.rules
    }

    /// All rules, with their keys.
    pub fn rules(&self) -> impl Iterator<Item = (RuleKey, Rule)> {
        self.sets.iter().flat_map(|(id, set)| set.rules(*id))
    }

    /// The rule sets that have something to say of a membership.
    pub fn about(&self, membership: &Membership) -> BTreeSet<RuleSetId> {
        let by_atom = membership.atoms.iter().filter_map(|atom| self.by_atom.get(atom)).flatten();
        let by_name = (!membership.ports.is_empty()).then_some(&self.using_names).into_iter().flatten();
        by_atom.chain(by_name).copied().collect()
    }

    pub fn insert(&mut self, id: RuleSetId, set: RuleSet) {
        for atom in set.atoms() {
            self.by_atom.entry(atom).or_default().insert(id);
        }
        if set.uses_names() {
            self.using_names.insert(id);
        }
        self.rules += set.len();
        self.by_key.insert(Arc::clone(&set.key), id);
        self.sets.insert(id, set);
    }

    pub fn remove(&mut self, id: RuleSetId) -> Option<RuleSet> {
        let set = self.sets.remove(&id)?;
        for atom in set.atoms() {
            if let Some(sets) = self.by_atom.get_mut(&atom) {
                sets.remove(&id);
                if sets.is_empty() {
                    self.by_atom.remove(&atom);
                }
            }
        }
        self.using_names.remove(&id);
        if self.by_key.get(&set.key) == Some(&id) {
            self.by_key.remove(&set.key);
        }
        self.rules -= set.len();
        Some(set)
    }

    /// Writes what a rule set says of an identity.
    pub fn write(&mut self, id: RuleSetId, identity: Identity, answers: Answers) {
        if let Some(set) = self.sets.get_mut(&id) {
            self.rules += count(&answers);
            set.write(identity, answers);
        }
    }

    /// Removes all that is written for an identity of a membership. Tells what it was.
    pub fn erase(&mut self, identity: Identity, membership: &Membership) -> Vec<(RuleSetId, Answers)> {
        let mut erased = Vec::new();
        for id in self.about(membership) {
            if let Some(answers) = self.sets.get_mut(&id).and_then(|set| set.answers.remove(&identity)) {
                self.rules -= count(&answers);
                erased.push((id, answers));
            }
        }
        erased
    }
}
