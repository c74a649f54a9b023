//! Why a flow is allowed or denied: the policies of one end, rule by rule, in the order in which they are asked.
//!
//! Written from the objects, so that it can also tell of rules that have no part in the answer. Who is a rule's peer and
//! what its traffic is, is asked as the documentation has it; the answer itself is the tables'.

use std::mem::discriminant;
use std::net::IpAddr;

use sluice_datapath::Family;

use crate::evaluator::{End, Evaluator, Party, ProbeError};
use crate::index::Index;
use crate::name::ObjectName;
use crate::object::{Action, Direction, Peer, Peers, PodObject, PolicyObject, PolicyRule, Tier};
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

/// What part a step has in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// It is asked, and decides nothing.
    Asked,
    /// It decides.
    Decides,
    /// It is not asked: others have decided, or passed to the next tier, or nothing of the kind is asked.
    NotAsked,
}

/// A step of the reasoning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reasoning {
    /// A policy selects the pod; where it isolates it, what no rule of such policies allows is denied.
    Policy {
        /// Which.
        policy: ObjectName,
        /// Whether it isolates.
        isolates: bool,
        /// Whether it is asked; it decides if no rule of its tier matches, as all that isolate the pod do.
        part: Part,
    },
    /// A rule of it.
    Rule {
        /// Of which policy.
        policy: ObjectName,
        /// From 0.
        index: usize,
        /// Its name; empty: none.
        name: String,
        /// What it says of what it matches.
        action: Action,
        /// Whether it matches.
        matches: Match,
        /// Whether it is asked, and decides.
        part: Part,
    },
}

impl Reasoning {
    /// What part it has in the answer.
    pub const fn part(&self) -> Part {
        match self {
            Self::Policy { part, .. } | Self::Rule { part, .. } => *part,
        }
    }
}

/// A packet, as rules see it.
struct Packet<'a> {
    peer: IpAddr,
    /// Whose names for ports count.
    receiver: Option<&'a PodObject>,
    /// `None`: of a protocol without ports.
    transport: Option<Transport>,
    port: u16,
}

impl Evaluator<'_> {
    /// The reasoning about a flow that could be [asked](Self::probe) about: the policies that have anything to say, and
    /// their rules; the sender's first, then the receiver's. `transport` is `None` for protocols without ports.
    ///
    /// # Errors
    /// Where a pod does not exist, has ended, or has no such address.
    pub fn explain(
        &self,
        from: &Party,
        to: &Party,
        transport: Option<Transport>,
        port: u16,
        family: Family,
    ) -> Result<[Vec<Reasoning>; 2], ProbeError> {
        let (from, to) = (self.end(from, family)?, self.end(to, family)?);
        let receiver = self.index().pod_at(to.address);
        let sent = Packet { peer: to.address, receiver, transport, port };
        let received = Packet { peer: from.address, receiver: to.pod, transport, port };
        let steps = |subject: &End<'_>, direction, peer: &End<'_>, packet| match subject.pod {
            Some(pod) => self.steps(pod, direction, peer, packet),
            None => Vec::new(),
        };
        Ok([steps(&from, Direction::Egress, &to, &sent), steps(&to, Direction::Ingress, &from, &received)])
    }

    fn steps(&self, pod: &PodObject, direction: Direction, peer: &End<'_>, packet: &Packet<'_>) -> Vec<Reasoning> {
        let index = self.index();
        let is_own_node = self.is_own_node(pod, peer);
        let has_say = |policy: &&PolicyObject| !policy.rules(direction).is_empty() || policy.isolates(direction);
        let policies: Vec<&PolicyObject> = index.policies_of(&pod.name).filter(has_say).collect();
        let mut is_decided = peer.is(pod) || is_own_node && direction == Direction::Ingress;
        let mut steps = Vec::new();
        for tier in policies.chunk_by(|a, b| discriminant(&a.tier) == discriminant(&b.tier)) {
            // No NetworkPolicy is asked about a pod's own node, but where there are any, none below them is either.
            let is_exempt = is_own_node && tier[0].tier == Tier::Namespaced;
            let mut tier = index.tier_steps(tier, direction, packet, !is_decided && !is_exempt);
            let isolates = |step: &Reasoning| matches!(step, Reasoning::Policy { isolates: true, .. });
            is_decided |= tier.iter().any(|step| step.part() == Part::Decides || is_exempt && isolates(step));
            steps.append(&mut tier);
        }
        steps
    }
}

impl Index {
    /// The steps of the policies of one tier, if that is asked at all.
    fn tier_steps(
        &self,
        policies: &[&PolicyObject],
        direction: Direction,
        packet: &Packet<'_>,
        is_asked: bool,
    ) -> Vec<Reasoning> {
        let mut steps = Vec::new();
        let mut asks = is_asked;
        let part = |asks| if asks { Part::Asked } else { Part::NotAsked };
        for policy in policies {
            let isolates = policy.isolates(direction);
            steps.push(Reasoning::Policy { policy: policy.name.clone(), isolates, part: part(asks) });
            for (index, rule) in policy.rules(direction).iter().enumerate() {
                let matches = self.matches(rule, packet);
                let is_last = asks && matches == Match::Yes;
                let part = if is_last && rule.action != Action::Pass { Part::Decides } else { part(asks) };
                asks &= !is_last;
                let (policy, name, action) = (policy.name.clone(), rule.name.clone(), rule.action);
                steps.push(Reasoning::Rule { policy, index, name, action, matches, part });
            }
        }
        if asks {
            for step in &mut steps {
                if let Reasoning::Policy { isolates: true, part, .. } = step {
                    *part = Part::Decides;
                }
            }
        }
        steps
    }

    fn matches(&self, rule: &PolicyRule, packet: &Packet<'_>) -> Match {
        if !self.is_among(packet.peer, &rule.peers) {
            Match::OtherPeer
        } else if !is_about(rule, packet) {
            Match::OtherTraffic
        } else {
            Match::Yes
        }
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

fn is_about(rule: &PolicyRule, packet: &Packet<'_>) -> bool {
    let Traffic::Listed(listed) = &rule.traffic else { return true };
    let named = packet.receiver.map_or(&[][..], |pod| &pod.named_ports);
    let is_here = |of, first, last| Some(of) == packet.transport && (first..=last).contains(&packet.port);
    let mut found = false;
    for ports in listed {
        ports.resolve(named, |of, first, last| found |= is_here(of, first, last));
    }
    found
}
