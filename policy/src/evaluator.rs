//! Answers without a kernel: through the tables and the code that the kernel has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use sluice_abi::{PolicyDirection, Port, Protocol};
use sluice_datapath::Family;
use sluice_datapath::policy::{Peer, Verdict, decide};
use thiserror::Error;

use crate::index::Index;
use crate::name::{Kind, PodName};
use crate::object::PodObject;
use crate::reason::Reason;
use crate::tables::Tables;

/// Who sends or receives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Party {
    /// A pod.
    Pod(PodName),
    /// Whoever has an address: a pod, where it is one's; else a node or somebody outside.
    Address(IpAddr),
}

/// What policies say of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// Whether it may pass: both ends must allow it.
    pub verdict: Verdict,
    /// What the sender's policies say.
    pub egress: Judgement<'a>,
    /// What the receiver's policies say.
    pub ingress: Judgement<'a>,
}

/// What the policies of one end say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judgement<'a> {
    /// Whether the flow may pass.
    pub verdict: Verdict,
    /// Why.
    pub why: Why<'a>,
}

/// Why a flow is allowed or denied at one end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why<'a> {
    /// This end is no pod, or one that uses its node's addresses: no policy is asked.
    NotSubject,
    /// A pod always reaches itself.
    Itself,
    /// A pod's own node always reaches it, and no NetworkPolicy keeps it from being reached.
    OwnNode,
    /// No policy has anything to say.
    NoPolicy,
    /// This is why.
    Policy(&'a Reason),
    /// The pod's policies do not fit, or it is not known here.
    Closed,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSubject => f.write_str("no pod with policies"),
            Self::Itself => f.write_str("the pod itself"),
            Self::OwnNode => f.write_str("the pod's own node"),
            Self::NoPolicy => f.write_str("no policy"),
            Self::Policy(reason) => reason.fmt(f),
            Self::Closed => f.write_str("its policies do not fit"),
        }
    }
}

/// A question that has no answer.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProbeError {
    /// There is no such pod.
    #[error("there is no pod {0}")]
    NoPod(PodName),
    /// The pod has run to its end.
    #[error("pod {0} has ended")]
    Ended(PodName),
    /// It has no address of this family.
    #[error("pod {0} has no {1} address")]
    NoAddress(PodName, &'static str),
}

/// Answers by the tables of an index. To answer for all pods, it needs [`View::Everything`](crate::View::Everything).
#[derive(Debug)]
pub struct Evaluator<'a> {
    index: &'a Index,
    tables: Tables,
    /// The addresses of nodes: those that they are known by, and those of pods that use them.
    nodes: BTreeMap<&'a str, BTreeSet<IpAddr>>,
}

/// One end of a flow.
pub(crate) struct End<'a> {
    pub address: IpAddr,
    /// The pod, where policies may select it.
    pub pod: Option<&'a PodObject>,
}

impl End<'_> {
    /// Whether it is this pod.
    pub fn is(&self, pod: &PodObject) -> bool {
        self.pod.is_some_and(|own| own.name == pod.name)
    }
}

impl<'a> Evaluator<'a> {
    /// Answers by the present tables of an index.
    pub fn new(index: &'a Index) -> Self {
        let mut nodes: BTreeMap<&str, BTreeSet<IpAddr>> = BTreeMap::new();
        for node in index.nodes() {
            nodes.entry(&node.name).or_default().extend(&node.addresses);
        }
        for pod in index.pods().filter(|pod| pod.host_network && !pod.ended) {
            if let Some(node) = &pod.node {
                nodes.entry(node).or_default().extend(&pod.addresses);
            }
        }
        Self { index, tables: index.tables(), nodes }
    }

    /// Asks about a flow that `from` opens to a port of `to`, over one address family. The family matters for pods that
    /// have addresses of both; of protocols without ports the port does not matter.
    ///
    /// # Errors
    /// Where a pod does not exist, has ended, or has no such address.
    pub fn probe(
        &self,
        from: &Party,
        to: &Party,
        protocol: Protocol,
        port: u16,
        family: Family,
    ) -> Result<Answer<'a>, ProbeError> {
        let from = self.end(from, family)?;
        let to = self.end(to, family)?;
        let egress = self.judge(PolicyDirection::Egress, &from, &to, protocol, port);
        let ingress = self.judge(PolicyDirection::Ingress, &to, &from, protocol, port);
        let verdict = match (egress.verdict, ingress.verdict) {
            (Verdict::Allow, Verdict::Allow) => Verdict::Allow,
            (Verdict::Deny, _) | (_, Verdict::Deny) => Verdict::Deny,
        };
        Ok(Answer { verdict, egress, ingress })
    }

    /// What these tables are made from.
    pub(crate) fn index(&self) -> &'a Index {
        self.index
    }

    /// Who and where an end is.
    pub(crate) fn end(&self, party: &Party, family: Family) -> Result<End<'a>, ProbeError> {
        match party {
            Party::Address(address) => Ok(End { address: *address, pod: self.index.pod_at(*address) }),
            Party::Pod(name) => {
                let pod = self.index.pod(name).ok_or_else(|| ProbeError::NoPod(name.clone()))?;
                if pod.ended {
                    return Err(ProbeError::Ended(name.clone()));
                }
                let (is_right, text): (fn(&&IpAddr) -> bool, _) = match family {
                    Family::V4 => (|address| address.is_ipv4(), "IPv4"),
                    Family::V6 => (|address| address.is_ipv6(), "IPv6"),
                };
                let mut own = pod.addresses.iter();
                let of_node = pod.node.as_deref().filter(|_| pod.host_network).and_then(|node| self.nodes.get(node));
                let address = own.find(is_right).or_else(|| of_node.into_iter().flatten().find(is_right));
                let address = *address.ok_or_else(|| ProbeError::NoAddress(name.clone(), text))?;
                Ok(End { address, pod: Some(pod).filter(|pod| pod.is_selectable()) })
            }
        }
    }

    /// Whether an end is the node that a pod runs on.
    pub(crate) fn is_own_node(&self, pod: &PodObject, peer: &End<'_>) -> bool {
        let node = pod.node.as_deref().and_then(|node| self.nodes.get(node));
        peer.pod.is_none() && node.is_some_and(|addresses| addresses.contains(&peer.address))
    }

    /// What the policies of `subject` say.
    fn judge(
        &self,
        direction: PolicyDirection,
        subject: &End<'a>,
        peer: &End<'a>,
        protocol: Protocol,
        port: u16,
    ) -> Judgement<'a> {
        let allow = |why| Judgement { verdict: Verdict::Allow, why };
        let Some(pod) = subject.pod else { return allow(Why::NotSubject) };
        if peer.is(pod) {
            return allow(Why::Itself);
        }
        let is_own_node = self.is_own_node(pod, peer);
        let rule_set = self.tables.rule_set(&pod.name);
        let other = Peer { identity: self.tables.identity(peer.address), is_own_node };
        let decision = decide(rule_set, direction, other, protocol, Port::new(port), &self.tables);
        let why = match (self.index.reason(decision.policy), decision.verdict) {
            // Some NetworkPolicy may allow it as well; but it is not theirs to judge.
            (Some(Reason::Rule { policy, .. }), _) if is_own_node && policy.kind == Kind::NetworkPolicy => Why::OwnNode,
            (Some(reason), _) => Why::Policy(reason),
            (None, Verdict::Allow) if is_own_node => Why::OwnNode,
            (None, Verdict::Allow) => Why::NoPolicy,
            (None, Verdict::Deny) => Why::Closed,
        };
        Judgement { verdict: decision.verdict, why }
    }
}
