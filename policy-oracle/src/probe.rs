//! Questions and answers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// What a packet is, as far as policies tell packets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Something without ports that policies have no name for, as ICMP.
    Other,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Sctp, Self::Other];

    /// Its name in Kubernetes' objects.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Tcp => Some("TCP"),
            Self::Udp => Some("UDP"),
            Self::Sctp => Some("SCTP"),
            Self::Other => None,
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The pod with this name (`namespace/name`), by its address of this family.
    Pod(String, Family),
    /// Whoever has this address.
    Address(IpAddr),
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Who sends it.
    pub from: End,
    /// Who it is sent to, after translation.
    pub to: End,
    /// What it is.
    pub protocol: Protocol,
    /// The port that it is sent to; without a meaning for [`Protocol::Other`].
    pub port: u16,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It arrives.
    Allow,
    /// It is dropped.
    Deny,
}

/// Names a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyName {
    /// A NetworkPolicy.
    NetworkPolicy {
        /// Its namespace.
        namespace: String,
        /// Its name there.
        name: String,
    },
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy {
        /// Its name.
        name: String,
    },
}

/// What of a policy decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decider {
    /// The policy.
    pub policy: PolicyName,
    /// Its rule, counted from 0 in its direction; `None` where it is not a rule but that the policy isolates the pod.
    pub rule: Option<usize>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Their verdict.
    pub verdict: Verdict,
    /// What decides. Empty: no policy does, and so the packet is allowed. Several: each does, be it that all of them
    /// allow the packet, or that all of them isolate the pod and none allows it. Any one is a right answer.
    pub deciders: BTreeSet<Decider>,
}

/// The answer to a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Allowed where both sides allow it.
    pub verdict: Verdict,
    /// What the sender's policies say.
    pub egress: Side,
    /// What the receiver's policies say.
    pub ingress: Side,
}

impl Side {
    /// No policy decides.
    pub(crate) fn undecided() -> Self {
        Self { verdict: Verdict::Allow, deciders: BTreeSet::new() }
    }

    /// The policies that decide.
    #[must_use]
    pub fn policies(&self) -> BTreeSet<&PolicyName> {
        self.deciders.iter().map(|decider| &decider.policy).collect()
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy { namespace, name } => write!(f, "NetworkPolicy {namespace}/{name}"),
            Self::ClusterNetworkPolicy { name } => write!(f, "ClusterNetworkPolicy {name}"),
        }
    }
}
