//! The endpoints in force: found by the host side's name, and by the pod that they are of.

use std::collections::BTreeMap;

use sluice_abi::Slot;
use sluice_api::EndpointRecord;
use sluice_policy::PodName;

/// An endpoint that is in force.
#[derive(Clone, Debug)]
pub(super) struct Enforced {
    pub slot: Slot,
    /// Index of its host side.
    pub interface: u32,
    pub record: EndpointRecord,
    /// Whose it is, if it is a pod's.
    pub pod: Option<PodName>,
}

impl Enforced {
    /// Whether the interface is there, and no other of the same name.
    pub fn is_there(&self) -> bool {
        nix::net::if_::if_nametoindex(self.record.host_interface.as_str()) == Ok(self.interface)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// By the host side's name.
    endpoints: BTreeMap<String, Enforced>,
    /// Pods that have any: their slots.
    slots: BTreeMap<PodName, Vec<Slot>>,
}

impl InForce {
    /// Puts one in, or in place of the one of the same host side.
    pub fn insert(&mut self, endpoint: Enforced) {
        let name = endpoint.record.host_interface.clone();
        self.remove(&name);
        if let Some(pod) = &endpoint.pod {
            self.slots.entry(pod.clone()).or_default().push(endpoint.slot);
        }
        self.endpoints.insert(name, endpoint);
    }

    /// Takes one out.
    pub fn remove(&mut self, host_interface: &str) {
        let Some(Enforced { slot, pod: Some(pod), .. }) = self.endpoints.remove(host_interface) else { return };
        if let Some(slots) = self.slots.get_mut(&pod) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                self.slots.remove(&pod);
            }
        }
    }

    /// The one of a host side.
    pub fn get(&self, host_interface: &str) -> Option<&Enforced> {
        self.endpoints.get(host_interface)
    }

    /// All, sorted by the host side's name.
    pub fn iter(&self) -> impl Iterator<Item = &Enforced> + Clone {
        self.endpoints.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The slots of a pod's.
    pub fn slots(&self, pod: &PodName) -> &[Slot] {
        self.slots.get(pod).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use sluice_api::PodRef;

    use super::*;

    #[test]
    fn a_pod_has_the_slots_of_its_own_endpoints() {
        let (db, web) = (PodName::new("x", "db"), PodName::new("x", "web"));
        let endpoint = |interface: &str, pod: Option<&PodName>, slot| {
            let record = EndpointRecord {
                pod: pod.map(|pod| PodRef { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: None }),
                ..crate::fixture::endpoint(interface)
            };
            Enforced { slot: Slot(slot), interface: slot, record, pod: pod.cloned() }
        };
        let mut in_force = InForce::default();
        for (interface, pod, slot) in [("sl1", Some(&db), 1), ("sl2", Some(&db), 2), ("sl3", None, 3)] {
            in_force.insert(endpoint(interface, pod, slot));
        }
        assert_eq!((in_force.slots(&db), in_force.len()), (&[Slot(1), Slot(2)][..], 3));
        // The same again, and for another pod.
        in_force.insert(endpoint("sl1", Some(&db), 1));
        in_force.insert(endpoint("sl2", Some(&web), 2));
        assert_eq!((in_force.slots(&db), in_force.slots(&web)), (&[Slot(1)][..], &[Slot(2)][..]));
        for interface in ["sl1", "sl3", "sl9"] {
            in_force.remove(interface);
        }
        assert_eq!((in_force.slots(&db), in_force.slots(&web), in_force.len()), (&[][..], &[Slot(2)][..], 1));
    }
}
