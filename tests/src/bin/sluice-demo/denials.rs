//! What the agents tell of denials.

use std::net::IpAddr;

use anyhow::Result;
use sluice_abi::Protocol;
use sluice_api::DenialStatus;
use sluice_tests::lab::Lab;

use crate::party::Party;

/// The greatest number that an agent is asked for.
const LIMIT: usize = 1000;

/// The denials of all nodes.
pub struct Denials(Vec<DenialStatus>);

impl Denials {
    /// Asks all agents.
    ///
    /// # Errors
    /// Where one does not answer.
    pub fn told(lab: &Lab) -> Result<Self> {
        Ok(Self(lab.denials(LIMIT)?))
    }

    /// Those of which there are more than before.
    pub fn since(mut self, before: &Self) -> Self {
        let is_same = |one: &DenialStatus, other: &DenialStatus| {
            let what = |it: &DenialStatus| (it.pod.clone(), it.direction.clone(), it.peer, it.protocol, it.port);
            what(one) == what(other) && one.reason == other.reason
        };
        let count = |denial: &DenialStatus| {
            before.0.iter().filter(|other| is_same(other, denial)).map(|other| other.packets).sum::<u64>()
        };
        self.0.retain(|denial| denial.packets > count(denial));
        self
    }

    /// Why something that one party sends to an address of another was denied, if it was, at whichever end.
    pub fn why(&self, from: &Party<'_>, to: &Party<'_>, address: IpAddr, protocol: Protocol) -> Option<&str> {
        let is_of = |denial: &DenialStatus, party: &Party<'_>| {
            denial.pod.as_ref().is_some_and(|pod| (&*pod.namespace, &*pod.name) == (party.group, party.name))
        };
        let is_this = |denial: &&DenialStatus| match &*denial.direction {
            _ if u32::from(denial.protocol) != protocol.0 => false,
            "egress" => is_of(denial, from) && denial.peer == address,
            _ => is_of(denial, to) && Some(denial.peer) == from.address_like(address),
        };
        self.0.iter().find(is_this).map(|denial| &*denial.reason)
    }
}
