//! Endpoints: the pods of this node, under control of the programs.

use std::net::IpAddr;

use ipnet::IpNet;
use nix::net::if_::if_indextoname;
use sluice_abi::{AddressKind, Endpoint, Hook, Identity, Ipv4, Ipv6, MAX_ENDPOINTS, Mac, RevisionSlot, Slot};
use sluice_api::{EndpointRecord, EndpointStatus};

use super::Kernel;
use super::enforced::Enforced;
use super::error::{Doing, KernelError};
use super::expedite::Expedite;
use super::policy::{Policy, pod_of};
use crate::host::is_pods;

impl Kernel {
    /// Puts an endpoint under control of the programs. Again for the same endpoint, it sees that all is in place.
    ///
    /// # Errors
    /// Where the record is wrong, the node is full or the kernel refuses.
    pub fn enforce(&mut self, record: &EndpointRecord) -> Result<EndpointStatus, KernelError> {
        let name = record.host_interface.as_str();
        let wrong = |what: String| KernelError::Record { interface: name.into(), what };
        if !is_pods(name) {
            return Err(wrong("that is no name of an interface that the plugin makes".into()));
        }
        let interface = nix::net::if_::if_nametoindex(name)
            .map_err(|error| wrong(format!("there is no such interface ({error})")))?;
        let mac = parse_mac(&record.mac).ok_or_else(|| wrong(format!("{:?} is no link-layer address", record.mac)))?;
        let (mut ipv4, mut ipv6) = (Ipv4::default(), Ipv6::default());
        for address in &record.addresses {
            match address {
                IpAddr::V4(address) => ipv4 = (*address).into(),
                IpAddr::V6(address) => ipv6 = (*address).into(),
            }
            if let Some(owner) = self.owner(*address, name) {
                return Err(wrong(format!("{address} is the address of {owner} too")));
            }
        }
        let gone = record.addresses.iter().filter_map(|address| self.endpoint_with(*address, name));
        for other in gone.map(str::to_owned).collect::<Vec<_>>() {
            self.release(&other, false)?;
        }
        let slot = self.slot(name, interface, mac)?;
        let pod = pod_of(record);
        let policy = self.policy_of(pod.as_ref());
        let identity = |is_ipv4| {
            let own = record.addresses.iter().find(|address| address.is_ipv4() == is_ipv4);
            own.map_or(Identity::ANYONE, |address| self.addresses.identity(&IpNet::from(*address)))
        };
        let (identity4, identity6) = (identity(true), identity(false));
        self.change_endpoint(slot, |endpoint| {
            // Of one that is there already, such as an earlier agent's, what they said before, until somebody says otherwise.
            let before = (endpoint.interface == interface).then(|| Policy::of(endpoint));
            let Policy { rule_set, mode } = policy.or(before).unwrap_or(Policy::UNKNOWN);
            *endpoint = Endpoint { interface, ipv4, ipv6, mac, rule_set, mode, identity4, identity6 };
        })?;
        self.enforced.insert(Enforced { slot, interface, record: record.clone(), pod });
        self.unclaimed.remove(&slot.0);
        {
            let _quick = Expedite::on(&self.expedite);
            self.programs.attach(Hook::FromPod, name)?;
            self.programs.attach(Hook::ToPod, name)?;
        }
        // Those of an interface that had the same name.
        for net in self.addresses.of_endpoint(slot) {
            if !record.addresses.contains(&net.addr()) {
                self.give_back(net)?;
            }
        }
        for address in &record.addresses {
            self.addresses.lend(*address, slot);
            self.refresh([IpNet::from(*address)])?;
        }
        Ok(EndpointStatus { record: record.clone(), slot: slot.0, revision: self.revision(slot)? })
    }

    /// Who else has an address, and cannot do without it: the host, another node, an endpoint whose interface is there.
    fn owner(&self, address: IpAddr, name: &str) -> Option<String> {
        let (kind, _) = self.addresses.owner(address)?;
        match kind {
            AddressKind::Endpoint => {
                let other = self.endpoint_with(address, name)?;
                self.enforced.get(other).is_some_and(Enforced::is_there).then(|| other.to_owned())
            }
            AddressKind::Host => Some("this node".into()),
            AddressKind::Node => Some("another node".into()),
            AddressKind::Services => Some("a Service".into()),
            // A pod that the cluster has seen elsewhere may have moved here.
            AddressKind::Outside | AddressKind::Unmasqueraded | AddressKind::LocalPods | AddressKind::RemotePods => {
                None
            }
        }
    }

    /// The other endpoint that has an address.
    fn endpoint_with(&self, address: IpAddr, name: &str) -> Option<&str> {
        let (_, slot) = self.addresses.owner(address).filter(|(kind, _)| *kind == AddressKind::Endpoint)?;
        let other = &self.enforced.iter().find(|enforced| enforced.slot == slot)?.record.host_interface;
        (other != name).then_some(other.as_str())
    }

    /// The slot of an endpoint: the one it has, has had before the agent started, or a free one.
    fn slot(&self, name: &str, interface: u32, mac: Mac) -> Result<Slot, KernelError> {
        if let Some(enforced) = self.enforced.get(name) {
            return Ok(enforced.slot);
        }
        let is_it = |found: &Endpoint| (found.interface, found.mac) == (interface, mac);
        if let Some((slot, _)) = self.unclaimed.iter().find(|(_, found)| is_it(found)) {
            return Ok(Slot(*slot));
        }
        let taken: std::collections::BTreeSet<u32> =
            self.enforced.iter().map(|enforced| enforced.slot.0).chain(self.unclaimed.keys().copied()).collect();
        let free = (1..MAX_ENDPOINTS).find(|slot| !taken.contains(slot));
        free.map(Slot).ok_or(KernelError::Full(self.enforced.len()))
    }

    /// Ends an endpoint, and with it its flows; `false` where it is not known. Off a device that `still_passes` packets
    /// the programs do not come: a pod that is not known is not heard.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release(&mut self, host_interface: &str, still_passes: bool) -> Result<bool, KernelError> {
        let Some(enforced) = self.enforced.get(host_interface) else { return Ok(false) };
        self.end(enforced.slot)?;
        if !still_passes {
            let _quick = Expedite::on(&self.expedite);
            self.programs.detach(Hook::FromPod, host_interface)?;
            self.programs.detach(Hook::ToPod, host_interface)?;
        }
        self.enforced.remove(host_interface);
        Ok(true)
    }

    /// How many endpoints that an earlier agent has left are claimed by no record, though their interfaces are there.
    pub fn unclaimed_and_there(&self) -> usize {
        // nix 0.30 gives an empty name for an index that there is not.
        let is_there = |endpoint: &&Endpoint| if_indextoname(endpoint.interface).is_ok_and(|name| !name.is_empty());
        self.unclaimed.values().filter(is_there).count()
    }

    /// Ends all endpoints that no record has claimed since the agent started; says how many.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release_unclaimed(&mut self) -> Result<usize, KernelError> {
        let slots: Vec<u32> = self.unclaimed.keys().copied().collect();
        for slot in &slots {
            self.end(Slot(*slot))?;
            self.unclaimed.remove(slot);
        }
        for hook in [Hook::FromPod, Hook::ToPod] {
            for device in self.programs.attached(hook) {
                let is_there = nix::net::if_::if_nametoindex(device.as_str()).is_ok();
                if !is_there && self.enforced.get(&device).is_none() {
                    self.programs.detach(hook, &device)?;
                }
            }
        }
        Ok(slots.len())
    }

    /// Ends all endpoints whose interface is gone; gives their names.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn release_vanished(&mut self) -> Result<Vec<String>, KernelError> {
        let vanished = self.enforced.iter().filter(|enforced| !enforced.is_there());
        let names: Vec<String> = vanished.map(|enforced| enforced.record.host_interface.clone()).collect();
        for name in &names {
            self.release(name, false)?;
        }
        Ok(names)
    }

    /// Takes an address from an endpoint, and gives it back to whom it was before.
    fn give_back(&mut self, net: IpNet) -> Result<(), KernelError> {
        self.addresses.give_back(net);
        self.refresh([net])
    }

    fn end(&mut self, slot: Slot) -> Result<(), KernelError> {
        for net in self.addresses.of_endpoint(slot) {
            self.give_back(net)?;
        }
        self.change_endpoint(slot, |endpoint| *endpoint = Endpoint::default())
    }

    /// Changes what is known of an endpoint, and has its flows judged again.
    pub(super) fn change_endpoint(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut Endpoint),
    ) -> Result<(), KernelError> {
        let action = || format!("writing endpoint {}", slot.0);
        let before = self.endpoints.get(&slot.0, 0).doing(action)?;
        let mut endpoint = before;
        change(&mut endpoint);
        if endpoint == before {
            return Ok(());
        }
        // Before its revision: a packet in between that is judged by either is judged again.
        self.endpoints.set(slot.0, endpoint, 0).doing(action)?;
        self.bump(RevisionSlot::of_endpoint(slot))
    }

    /// How many endpoints are in force.
    pub fn enforced(&self) -> usize {
        self.enforced.len()
    }

    /// The endpoints that are in force.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let status = |enforced: &Enforced| EndpointStatus {
            record: enforced.record.clone(),
            slot: enforced.slot.0,
            revision: self.revision(enforced.slot).unwrap_or_default(),
        };
        self.enforced.iter().map(status).collect()
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let octets: Vec<u8> = text.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
    Some(Mac::new(octets.try_into().ok()?))
}
