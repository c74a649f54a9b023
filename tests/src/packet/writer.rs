//! Writes what policies say into the programs' tables, as the agent does (`agent/src/kernel/policy.rs`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use sluice_abi::{
    AddressEntry, AddressKind, Endpoint, Hook, Identity, PolicyMode, RevisionSlot, Rule, RuleKey, RuleSetId, Slot,
};
use sluice_agent::kernel::addresses::{Addresses, Sequel};
use sluice_policy::{PodName, Step, Tables};

use super::both::Ran;
use super::native::{Bytes, Native};

/// Tables that can be written, and packets that are judged by them: the native build's alone, or both builds'.
pub trait Build {
    /// Writes an endpoint.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn write_endpoint(&mut self, slot: Slot, endpoint: Endpoint) -> Result<()>;
    /// Writes whose the addresses of a prefix are; `None` removes it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn write_address(&mut self, net: IpNet, entry: Option<AddressEntry>) -> Result<()>;
    /// Writes a rule; `None` removes it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn write_rule(&mut self, key: RuleKey, rule: Option<Rule>) -> Result<()>;
    /// Ends the validity of judgements.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn revise(&mut self, slot: RevisionSlot) -> Result<()>;
    /// Runs a packet through a hook.
    ///
    /// # Errors
    /// Where builds disagree on what becomes of it.
    fn run_as(&mut self, hook: Hook, packet: Bytes) -> Result<Ran>;
    /// Forgets all flows, fragments and denials.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn clear(&mut self) -> Result<()>;
    /// The native build.
    fn native(&self) -> &Native;
}

/// The one writer of a build's tables, and what it has written.
#[derive(Default)]
pub struct Writer {
    owners: BTreeMap<IpNet, AddressEntry>,
    addresses: Addresses,
    written: BTreeMap<IpNet, AddressEntry>,
    endpoints: BTreeMap<Slot, Endpoint>,
    rules: HashMap<RuleKey, Rule>,
    pods: BTreeMap<Slot, PodName>,
    /// What policies say of pods, whether they are there or not.
    rule_sets: BTreeMap<PodName, RuleSetId>,
}

impl Writer {
    /// Makes these the owners of addresses, and no others. Their identities stay.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn own(&mut self, owners: BTreeMap<IpNet, AddressEntry>, build: &mut impl Build) -> Result<()> {
        let changed = self.addresses.plan(&owners);
        self.owners = owners;
        self.refresh(changed, build)
    }

    /// Says who has the addresses of some more prefixes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn give(
        &mut self,
        nets: impl IntoIterator<Item = IpNet>,
        kind: AddressKind,
        slot: Slot,
        build: &mut impl Build,
    ) -> Result<()> {
        let entry = AddressEntry { kind, slot, identity: Identity::ANYONE };
        let mut owners = self.owners.clone();
        owners.extend(nets.into_iter().map(|net| (net, entry)));
        self.own(owners, build)
    }

    /// Puts an endpoint into a slot, which no policy selects.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn put(&mut self, slot: Slot, endpoint: Endpoint, build: &mut impl Build) -> Result<()> {
        self.pods.remove(&slot);
        self.endpoints.insert(slot, endpoint);
        build.write_endpoint(slot, endpoint)
    }

    /// Puts a pod into a slot, with the addresses that it has: it is judged by what policies have said of it. One that they
    /// have said nothing of is not heard.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn enforce(&mut self, pod: &PodName, slot: Slot, endpoint: Endpoint, build: &mut impl Build) -> Result<()> {
        let rule_set = self.rule_sets.get(pod).copied().unwrap_or(RuleSetId::CLOSED);
        let (ipv4, ipv6) =
            (IpNet::from(IpAddr::V4(endpoint.ipv4.into())), IpNet::from(IpAddr::V6(endpoint.ipv6.into())));
        let (identity4, identity6) = (self.addresses.identity(&ipv4), self.addresses.identity(&ipv6));
        self.pods.insert(slot, pod.clone());
        self.change(slot, |place| *place = Endpoint { rule_set, identity4, identity6, ..endpoint }, build)?;
        let own: Vec<IpNet> = [ipv4, ipv6].into_iter().filter(|net| !net.addr().is_unspecified()).collect();
        self.give_back(slot, &own, build)?;
        own.into_iter().try_for_each(|net| {
            self.addresses.lend(net.addr(), slot);
            self.refresh(vec![net], build)
        })
    }

    /// Empties a slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release(&mut self, slot: Slot, build: &mut impl Build) -> Result<()> {
        self.give_back(slot, &[], build)?;
        self.pods.remove(&slot);
        self.change(slot, |endpoint| *endpoint = Endpoint::default(), build)
    }

    /// Takes from the endpoint in a slot what it was lent, but for these.
    fn give_back(&mut self, slot: Slot, kept: &[IpNet], build: &mut impl Build) -> Result<()> {
        let lent = self.addresses.of_endpoint(slot).into_iter().filter(|net| !kept.contains(net));
        lent.collect::<Vec<_>>().into_iter().try_for_each(|net| {
            self.addresses.give_back(net);
            self.refresh(vec![net], build)
        })
    }

    /// Forgets what the tables do not hold, as an agent does that starts anew.
    pub fn restart(&mut self) {
        self.owners.clear();
        self.addresses = Addresses::default();
        for (net, entry) in &self.written {
            let identity = match (entry.kind, net.addr()) {
                (AddressKind::Endpoint, IpAddr::V4(_)) => self.endpoint(entry.slot).identity4,
                (AddressKind::Endpoint, IpAddr::V6(_)) => self.endpoint(entry.slot).identity6,
                _ => entry.identity,
            };
            self.addresses.read_back(*net, &AddressEntry { identity, ..*entry });
        }
        let pods = self.pods.iter().map(|(slot, pod)| (pod.clone(), self.endpoint(*slot).rule_set));
        self.rule_sets = pods.collect();
    }

    /// Which pod is in which slot.
    pub fn pods(&self) -> &BTreeMap<Slot, PodName> {
        &self.pods
    }

    /// The endpoint in a slot.
    pub fn endpoint(&self, slot: Slot) -> Endpoint {
        self.endpoints.get(&slot).copied().unwrap_or_default()
    }

    /// Makes a step.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn make(&mut self, step: &Step, build: &mut impl Build) -> Result<()> {
        match step {
            Step::AddRule(key, rule) => {
                self.rules.insert(*key, *rule);
                build.write_rule(*key, Some(*rule))
            }
            Step::RemoveRule(key) => {
                self.rules.remove(key);
                build.write_rule(*key, None)
            }
            Step::SetIdentity(net, identity) => {
                let changed = self.addresses.identify(*net, Some(*identity));
                self.refresh(changed, build)
            }
            Step::RemovePrefix(net) => {
                let changed = self.addresses.identify(*net, None);
                self.refresh(changed, build)
            }
            Step::SetRuleSet(pod, rule_set) => {
                self.rule_sets.insert(pod.clone(), *rule_set);
                let slots = self.pods.iter().filter(|(_, name)| *name == pod).map(|(slot, _)| *slot);
                let slots: Vec<Slot> = slots.collect();
                slots
                    .into_iter()
                    .try_for_each(|slot| self.change(slot, |endpoint| endpoint.rule_set = *rule_set, build))
            }
            // No packet is under way between two runs.
            Step::Settle => Ok(()),
        }
    }

    /// Sets what becomes of what the policies of the pod in a slot deny.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_mode(&mut self, slot: Slot, mode: PolicyMode, build: &mut impl Build) -> Result<()> {
        self.change(slot, |endpoint| endpoint.mode = mode, build)
    }

    /// What an agent finds that takes over.
    pub fn left(&self) -> Tables {
        let rules = self.rules.iter().map(|(key, rule)| (*key, *rule));
        let identities = self.addresses.identities().map(|(net, identity)| (*net, *identity));
        let pods = self.pods.iter().map(|(slot, pod)| (pod.clone(), self.endpoint(*slot).rule_set));
        Tables::of(rules, identities, pods)
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Endpoint), build: &mut impl Build) -> Result<()> {
        let endpoint = self.endpoints.entry(slot).or_default();
        let before = *endpoint;
        change(endpoint);
        if *endpoint == before {
            return Ok(());
        }
        build.write_endpoint(slot, *endpoint)?;
        build.revise(RevisionSlot::of_endpoint(slot))
    }

    fn refresh(&mut self, nets: Vec<IpNet>, build: &mut impl Build) -> Result<()> {
        for net in nets {
            let entry = self.addresses.entry(&net);
            let before = match entry {
                Some(entry) => self.written.insert(net, entry),
                None => self.written.remove(&net),
            };
            if entry != before {
                build.write_address(net, entry)?;
            }
            match self.addresses.sequel(&net, before, entry) {
                Sequel::None => {}
                Sequel::Endpoint(known) => self.change(known.slot, |endpoint| known.put(endpoint), build)?,
                Sequel::Revise(slot) => build.revise(slot)?,
            }
        }
        Ok(())
    }
}
