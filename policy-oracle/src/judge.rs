//! The order in which policies are asked.

use crate::cluster::{Cluster, Party, is_node_of};
use crate::cluster_network_policy::{self, Tier};
use crate::network_policy;
use crate::probe::{Family, Judgement, Probe, Protocol, Side, Verdict};

/// Which end's policies are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Those of the receiver.
    Ingress,
    /// Those of the sender.
    Egress,
}

/// A packet, as the policies of one end see it.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    /// Which end's policies are asked.
    pub direction: Direction,
    /// Who sends it.
    pub from: Party<'a>,
    /// Who it is sent to.
    pub to: Party<'a>,
    /// What it is.
    pub protocol: Protocol,
    /// The port that it is sent to.
    pub port: u16,
}

impl<'a> Packet<'a> {
    /// The other end.
    pub fn peer(&self) -> Party<'a> {
        match self.direction {
            Direction::Ingress => self.from,
            Direction::Egress => self.to,
        }
    }

    fn subject(&self) -> Party<'a> {
        match self.direction {
            Direction::Ingress => self.to,
            Direction::Egress => self.from,
        }
    }
}

impl Cluster {
    /// What becomes of a packet: "both the egress policy on the source pod and the ingress policy on the destination pod
    /// need to allow the connection."
    ///
    /// # Panics
    /// Where an end is a pod that is not there or has no address of that family, where the ends have not the same
    /// family, or where an object makes no sense.
    #[must_use]
    pub fn judge(&self, probe: &Probe) -> Judgement {
        let (from, to) = (self.party(&probe.from), self.party(&probe.to));
        assert_eq!(Family::of(from.address), Family::of(to.address), "both ends of {probe:?} have one family");
        let side = |direction| self.side(&Packet { direction, from, to, protocol: probe.protocol, port: probe.port });
        let (egress, ingress) = (side(Direction::Egress), side(Direction::Ingress));
        let both = egress.verdict == Verdict::Allow && ingress.verdict == Verdict::Allow;
        Judgement { verdict: if both { Verdict::Allow } else { Verdict::Deny }, egress, ingress }
    }

    /// "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier. [...] If a given
    /// connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which says that
    /// all pods can communicate with each other."
    fn side(&self, packet: &Packet<'_>) -> Side {
        let Some(subject) = packet.subject().pod else { return Side::undecided() };
        // "a pod cannot block access to itself", and "A Pod connecting to its own Pod IP is not subject to CNP."
        if packet.from.address == packet.to.address {
            return Side::undecided();
        }
        // "traffic to and from the node where a Pod is running is always allowed". No rule of a ClusterNetworkPolicy for
        // ingress can be about nodes, and one that is not understood and so denies all must not end probes of health.
        if packet.direction == Direction::Ingress && is_node_of(&packet.peer(), subject) {
            return Side::undecided();
        }
        cluster_network_policy::decide(self, Tier::Admin, subject, packet)
            .or_else(|| network_policy::decide(self, subject, packet))
            .or_else(|| cluster_network_policy::decide(self, Tier::Baseline, subject, packet))
            .unwrap_or_else(Side::undecided)
    }
}
