//! What is allowed, but can hardly be meant.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::{Index, Problem, Severity};
use crate::name::ObjectName;
use crate::object::{Direction, Peer, Peers, PodObject, PolicyObject, PolicyRule, Tier};
use crate::reason::Reason;
use crate::traffic::{Ports, Traffic};

impl Index {
    /// All [problems](Self::problems), and what of the policies has no effect: those that select nothing, rules that can
    /// match nothing, names of ports that nobody has, and rules of whose traffic others always decide. To say so of all
    /// pods, it needs [`View::Everything`](crate::View::Everything).
    pub fn lint(&self) -> Vec<Problem> {
        let mut problems = self.problems();
        let mut selected: BTreeMap<&ObjectName, Vec<&PodObject>> = BTreeMap::new();
        for pod in self.pods().filter(|pod| pod.is_selectable()) {
            for policy in self.policies_of(&pod.name) {
                selected.entry(&policy.name).or_default().push(pod);
            }
        }
        let deciding = self.deciding();
        for policy in self.policies() {
            let mut warn = |field: String, what: &str| {
                let object = policy.name.clone();
                problems.push(Problem { severity: Severity::Warning, object, field, what: what.to_owned() });
            };
            let Some(subjects) = selected.get(&policy.name) else {
                warn("spec".into(), "selects no pod");
                continue;
            };
            for direction in Direction::ALL {
                for (index, rule) in policy.rules(direction).iter().enumerate() {
                    let field = format!("spec.{}[{index}]", direction.name());
                    let peers = self.pods().filter(|pod| pod.is_selectable() && self.may_be(pod, &rule.peers));
                    let receivers: Vec<&PodObject> = match direction {
                        Direction::Ingress => subjects.clone(),
                        Direction::Egress => peers.collect(),
                    };
                    let lost = names_nobody_has(rule, &receivers);
                    for name in &lost {
                        warn(field.clone(), &format!("no pod that this is about has a port named {name:?}"));
                    }
                    if self.matches_nobody(&rule.peers) {
                        warn(field, "matches nobody: there are no such pods, nodes or addresses");
                    } else if lost.is_empty() && !deciding.contains(&(&policy.name, direction as u32, index as u32)) {
                        self.warn_of_shadow(policy, rule, &field, &mut warn);
                    }
                }
            }
        }
        problems.sort();
        problems
    }

    fn warn_of_shadow(
        &self,
        policy: &PolicyObject,
        rule: &PolicyRule,
        field: &str,
        warn: &mut impl FnMut(String, &str),
    ) {
        match (policy.tier, rule.action) {
            // Nothing names what is passed on.
            (_, crate::object::Action::Pass) => {}
            (Tier::Namespaced, _) => warn(field.to_owned(), "has no effect: other rules decide all that it allows"),
            (Tier::Admin(_) | Tier::Baseline(_), _) => {
                warn(field.to_owned(), "has no effect: rules that are asked before it decide all that it matches");
            }
        }
    }

    /// The rules that the tables name.
    fn deciding(&self) -> BTreeSet<(&ObjectName, u32, u32)> {
        let numbers: BTreeSet<u32> = self.tables().rules().map(|(_, rule)| rule.policy).collect();
        let rule = |number: u32| match self.reason(number)? {
            Reason::Rule { policy, direction, index, .. } => Some((policy, *direction as u32, *index)),
            Reason::Isolated { .. } => None,
        };
        numbers.into_iter().filter_map(rule).collect()
    }

    fn may_be(&self, pod: &PodObject, peers: &Peers) -> bool {
        match peers {
            Peers::Anyone => true,
            Peers::Listed(peers) => {
                peers.iter().any(|peer| pod.addresses.iter().any(|address| self.is_peer(*address, peer)))
            }
        }
    }

    fn matches_nobody(&self, peers: &Peers) -> bool {
        let exists = |peer: &Peer| match peer {
            Peer::Block(_) => true,
            Peer::Pods(scope, selector) => {
                let mut pods = self.pods().filter(|pod| pod.is_selectable());
                pods.any(|pod| self.is_in(&pod.name.namespace, scope) && selector.matches(&pod.labels))
            }
            Peer::Nodes(selector) => self.nodes().any(|node| selector.matches(&node.labels)),
        };
        match peers {
            Peers::Anyone => false,
            Peers::Listed(peers) => !peers.iter().any(exists),
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
