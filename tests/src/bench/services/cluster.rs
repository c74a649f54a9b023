//! Clusters of many services: every worker's server is behind every so many-th of them.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

/// Who makes connections at the same time.
pub const WORKERS: usize = 2;
/// The port that services are at, and the first worker's server.
pub const PORT: u16 = 8080;

/// The cluster IP of a service.
pub fn vip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0000 + 10 + number as u32)
}

/// The place of one of a worker's services among so many, by a random number.
pub fn any(count: usize, worker: usize, random: usize) -> SocketAddr {
    let number = random % (count / WORKERS) * WORKERS + worker;
    SocketAddr::new(vip(number).into(), PORT)
}

/// The port that serves a service.
pub fn target(number: usize) -> u16 {
    PORT + (number % WORKERS) as u16
}

/// A Service.
pub fn service(number: usize) -> Value {
    let name = format!("s{number}");
    let address = vip(number);
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "default", "name": name, "uid": name, "resourceVersion": "1" },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ports": [{ "port": PORT, "targetPort": target(number), "protocol": "TCP" }],
        },
    })
}

/// The EndpointSlice of a service.
pub fn slice(number: usize, addresses: &[Ipv4Addr]) -> Value {
    let ready = json!({ "ready": true, "serving": true, "terminating": false });
    let endpoints = addresses.iter().map(|address| json!({ "addresses": [address], "conditions": ready }));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": format!("s{number}-a"),
            "uid": format!("s{number}-a"),
            "resourceVersion": "1",
            "labels": { "kubernetes.io/service-name": format!("s{number}") },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": [{ "name": "", "port": target(number), "protocol": "TCP" }],
    })
}
