//! What tests have in common.

use sluice_api::{EndpointRecord, PodRef};
use sluice_policy::PodName;

/// An endpoint that is no pod's, without addresses.
pub fn endpoint(host_interface: &str) -> EndpointRecord {
    EndpointRecord {
        container_id: host_interface.into(),
        interface: "eth0".into(),
        netns: "/proc/1/ns/net".into(),
        host_interface: host_interface.into(),
        mac: "02:00:00:00:00:01".into(),
        addresses: Vec::new(),
        network: "sluice".into(),
        pod: None,
        port_mappings: Vec::new(),
        ipam: None,
    }
}

/// An endpoint of a pod.
pub fn endpoint_of(pod: &PodName, uid: &str, host_interface: &str, address: &str) -> EndpointRecord {
    EndpointRecord {
        addresses: vec![address.parse().expect("an address")],
        pod: Some(PodRef { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: Some(uid.into()) }),
        ..endpoint(host_interface)
    }
}
