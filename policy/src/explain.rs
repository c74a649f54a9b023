//! Why a flow is allowed or denied: the policies of one end, rule by rule, in the order in which they are asked.
//!
//! Written from the objects, so that it can also tell of rules that have no part in the answer. Who is a rule's peer and
//! what its traffic is, is asked as the documentation has it; the answer itself is the tables'.

use std::net::IpAddr;

use crate::index::Index;
use crate::name::{ObjectName, PodName};
use crate::object::{Action, Direction, Peer, Peers, PodObject, PolicyRule};
use crate::traffic::{Traffic, Transport};

/// What a rule has to do with a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// It matches.
    Yes,
    /// The other end is none of its peers.
    OtherPeer,
    /// The other end is one of its peers, but it is about other ports or protocols.
    OtherTraffic,
}

impl Match {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "match",
            Self::OtherPeer => "other peer",
            Self::OtherTraffic => "other traffic",
        }
    }
}

/// A step of the reasoning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reasoning {
    /// A policy selects the pod; where it isolates it, what none of its rules allows is denied.
    Policy {
        /// Which.
        policy: ObjectName,
        /// Whether it isolates.
        isolates: bool,
    },
    /// A rule of it.
    Rule {
        /// Of which policy.
        policy: ObjectName,
        /// From 0.
        index: usize,
        /// What it says of what it matches.
        action: Action,
        /// Whether it matches.
        matches: Match,
    },
}

impl Index {
    /// The reasoning about a flow at one end: the policies of `subject` that have anything to say in a direction, and their
    /// rules. `transport` is `None` for protocols without ports.
    pub fn explain(
        &self,
        subject: &PodName,
        direction: Direction,
        peer: IpAddr,
        transport: Option<Transport>,
        port: u16,
    ) -> Vec<Reasoning> {
        let mut steps = Vec::new();
        let receiver = match direction {
            Direction::Ingress => self.pod(subject),
            Direction::Egress => self.pod_at(peer),
        };
        for policy in self.policies_of(subject) {
            let (rules, isolates) = (policy.rules(direction), policy.isolates(direction));
            if rules.is_empty() && !isolates {
                continue;
            }
            steps.push(Reasoning::Policy { policy: policy.name.clone(), isolates });
            for (index, rule) in rules.iter().enumerate() {
                let matches = if !self.is_among(peer, &rule.peers) {
                    Match::OtherPeer
                } else if !is_about(rule, receiver, transport, port) {
                    Match::OtherTraffic
                } else {
                    Match::Yes
                };
                steps.push(Reasoning::Rule { policy: policy.name.clone(), index, action: rule.action, matches });
            }
        }
        steps
    }

    fn is_among(&self, address: IpAddr, peers: &Peers) -> bool {
        match peers {
            Peers::Anyone => true,
            Peers::Listed(peers) => peers.iter().any(|peer| self.is_peer(address, peer)),
        }
    }

    /// Whether an address is a peer.
    pub(crate) fn is_peer(&self, address: IpAddr, peer: &Peer) -> bool {
        match peer {
            Peer::Block(block) => {
                block.cidr.contains(&address) && !block.excepts.iter().any(|except| except.contains(&address))
            }
            Peer::Pods(scope, selector) => self
                .pod_at(address)
                .is_some_and(|pod| self.is_in(&pod.name.namespace, scope) && selector.matches(&pod.labels)),
            Peer::Nodes(selector) => {
                let mut nodes = self.nodes().filter(|node| node.addresses.contains(&address));
                nodes.any(|node| selector.matches(&node.labels))
            }
        }
    }
}

fn is_about(rule: &PolicyRule, receiver: Option<&PodObject>, transport: Option<Transport>, port: u16) -> bool {
    let Traffic::Listed(listed) = &rule.traffic else { return true };
    let named = receiver.map_or(&[][..], |pod| &pod.named_ports);
    let mut found = false;
    for ports in listed {
        ports.resolve(named, |of, first, last| found |= Some(of) == transport && (first..=last).contains(&port));
    }
    found
}
