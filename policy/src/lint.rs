//! What is allowed, but can hardly be meant.

mod peers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::index::{Event, Index, Limits, Problem, Severity, View};
use crate::name::{Kind, ObjectName};
use crate::object::{Action, Direction, PodObject, PolicyObject, PolicyRule, Tier};
use crate::reason::Reason;
use crate::traffic::{Ports, Traffic};

use peers::Reach;

/// A rule, by its policy, direction and place there.
type RuleId = (ObjectName, u32, u32);

/// What of a NetworkPolicy is ignored: sections for a direction that is not among its `policyTypes`. One that makes no
/// sense is refused, which is told of elsewhere.
pub fn ignored_sections(policy: &NetworkPolicy) -> Vec<Problem> {
    let (Ok(object), Some(spec)) = (ObjectName::of(Kind::NetworkPolicy, &policy.metadata), &policy.spec) else {
        return Vec::new();
    };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let is_ignored = |there: bool, name: &str| there && !types.is_empty() && !types.iter().any(|it| it == name);
    let sections = [("ingress", "Ingress", spec.ingress.is_some()), ("egress", "Egress", spec.egress.is_some())];
    let ignored = sections.into_iter().filter(|(_, name, there)| is_ignored(*there, name));
    ignored
        .map(|(field, name, _)| {
            let what = format!("is ignored: spec.policyTypes does not list {name}");
            warning(&object, format!("spec.{field}"), what)
        })
        .collect()
}

fn warning(object: &ObjectName, field: String, what: String) -> Problem {
    Problem { severity: Severity::Warning, object: object.clone(), field, what }
}

impl Index {
    /// All [problems](Self::problems), and what of the policies has no effect: those that select nothing, rules and peers
    /// that can match nothing, names of ports that nobody has, and rules of whose traffic others always decide. And
    /// addresses that several pods claim. To say so of all pods, it needs [`View::Everything`](crate::View::Everything).
    pub fn lint(&self) -> Vec<Problem> {
        let mut problems = self.problems();
        problems.extend(self.claimed_twice());
        let mut selected: BTreeMap<&ObjectName, Vec<&PodObject>> = BTreeMap::new();
        for pod in self.pods().filter(|pod| pod.is_selectable()) {
            for policy in self.policies_of(&pod.name) {
                selected.entry(&policy.name).or_default().push(pod);
            }
        }
        let deciding = self.deciding();
        for policy in self.policies() {
            let mut warn = |field: &str, what: String| problems.push(warning(&policy.name, field.to_owned(), what));
            let Some(subjects) = selected.get(&policy.name) else {
                warn("spec", "selects no pod".into());
                continue;
            };
            for direction in Direction::ALL {
                for (index, rule) in policy.rules(direction).iter().enumerate() {
                    let field = format!("spec.{}[{index}]", direction.name());
                    let mut findings = self.unheard(rule, direction, subjects);
                    let id = (policy.name.clone(), direction as u32, index as u32);
                    if findings.is_empty() && !deciding.contains(&id) {
                        findings.push(shadowed(policy.tier).into());
                    }
                    findings.into_iter().for_each(|what| warn(&field, what));
                }
            }
        }
        problems.sort();
        problems
    }

    /// What keeps a rule from matching, or a part of it, whatever other rules say.
    fn unheard(&self, rule: &PolicyRule, direction: Direction, subjects: &[&PodObject]) -> Vec<String> {
        let peers = self.pods().filter(|pod| pod.is_selectable() && self.may_be(pod, &rule.peers));
        let receivers: Vec<&PodObject> = match direction {
            Direction::Ingress => subjects.to_vec(),
            Direction::Egress => peers.collect(),
        };
        let reaches = self.reaches(&rule.peers);
        let dead = reaches.iter().filter_map(|(peer, reach)| reach.complaint(peer));
        if !reaches.is_empty() && reaches.iter().all(|(_, reach)| *reach == Reach::NoSuch) {
            return vec!["matches nobody: there are no such pods, nodes or addresses".into()];
        }
        let nameless = |name| format!("no pod that this is about has a port named {name:?}");
        dead.chain(names_nobody_has(rule, &receivers).into_iter().map(nameless)).collect()
    }

    /// The rules that have a say: those that the tables name, and those that pass on something.
    fn deciding(&self) -> BTreeSet<RuleId> {
        let mut deciding = self.named();
        for tier in [Tier::Admin(0), Tier::Baseline(0)] {
            let passes = |policy: &PolicyObject| {
                let mut rules = policy.rules.iter().flatten();
                discriminant(&policy.tier) == discriminant(&tier) && rules.any(|rule| rule.action == Action::Pass)
            };
            if self.policies().any(passes) {
                deciding.extend(self.with_passes_accepted(&passes).named());
            }
        }
        deciding
    }

    /// The rules that the tables name.
    fn named(&self) -> BTreeSet<RuleId> {
        let numbers: BTreeSet<u32> = self.tables().rules().map(|(_, rule)| rule.policy).collect();
        let rule = |number: u32| match self.reason(number)? {
            Reason::Rule { policy, direction, index, .. } => Some((policy.clone(), *direction as u32, *index)),
            Reason::Isolated { .. } => None,
        };
        numbers.into_iter().filter_map(rule).collect()
    }

    /// The same objects, but that some policies accept what they pass on. Nothing names what is passed on; what is accepted
    /// is named, and ends the questions to its tier all the same.
    fn with_passes_accepted(&self, are_meant: &impl Fn(&PolicyObject) -> bool) -> Self {
        let accepting = |policy: &PolicyObject| {
            let mut policy = policy.clone();
            if are_meant(&policy) {
                let passing = policy.rules.iter_mut().flatten().filter(|rule| rule.action == Action::Pass);
                passing.for_each(|rule| rule.action = Action::Accept);
            }
            Event::Policy(policy)
        };
        let events = (self.namespaces().cloned().map(Event::Namespace))
            .chain(self.nodes().cloned().map(Event::Node))
            .chain(self.pods().cloned().map(Event::Pod))
            .chain(self.policies().map(accepting));
        let mut index = Self::new(View::Everything, Limits::NONE);
        index.apply_all(events.collect::<Vec<_>>());
        index
    }

    /// Pods that claim an address which counts as another's.
    fn claimed_twice(&self) -> impl Iterator<Item = Problem> {
        let claims = self.pods().filter(|pod| pod.is_selectable());
        let claims = claims.flat_map(|pod| pod.addresses.iter().map(move |address| (pod, *address)));
        claims.filter_map(|(pod, address): (&PodObject, IpAddr)| {
            let owner = self.pod_at(address).filter(|owner| owner.name != pod.name)?;
            let object = ObjectName::new(Kind::Pod, &pod.name.namespace, &pod.name.name);
            let what = format!("{address} is pod {}'s too, and counts as that one's, which is the newer", owner.name);
            Some(warning(&object, "status.podIPs".into(), what))
        })
    }
}

/// What is wrong with a rule that has no say.
fn shadowed(tier: Tier) -> &'static str {
    match tier {
        Tier::Namespaced => "has no effect: other rules decide all that it allows",
        Tier::Admin(_) | Tier::Baseline(_) => {
            "has no effect: rules that are asked before it decide all that it matches, or pass it on"
        }
    }
}

/// The names of ports in a rule that no receiver has.
fn names_nobody_has<'a>(rule: &'a PolicyRule, receivers: &[&PodObject]) -> Vec<&'a str> {
    let listed = match &rule.traffic {
        Traffic::Any => &[][..],
        Traffic::Listed(listed) => listed,
    };
    let is_lost = |ports: &&Ports| {
        let mut found = false;
        receivers.iter().for_each(|pod| ports.resolve(&pod.named_ports, |_, _, _| found = true));
        !found
    };
    let name = |ports: &'a Ports| match ports {
        Ports::Named(_, name) => Some(&**name),
        Ports::Range(..) => None,
    };
    listed.iter().filter(is_lost).filter_map(name).collect()
}
