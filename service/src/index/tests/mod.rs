//! Seen from the node `here`, in zone `z1`.

mod change;
mod endpoints;
mod frontends;
mod health;
mod objects;
mod random;
mod standalone;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use sluice_policy::{Family, Kind, ObjectName, Transport};

use super::{Delta, Event, HostPort, Index, View};
use crate::tables::{Choice, Frontend, FrontendKind, Place, PortName, ServicePort};

/// An index, and what its deltas have led to.
struct World {
    index: Index,
    written: BTreeMap<PortName, Arc<ServicePort>>,
}

impl World {
    fn new() -> Self {
        Self::seen(false)
    }

    fn standalone() -> Self {
        Self::seen(true)
    }

    fn seen(standalone: bool) -> Self {
        let index = Index::new(View { node: "here".into(), standalone });
        let mut world = Self { index, written: BTreeMap::new() };
        world.are([node("here", "z1")]);
        world
    }

    /// With these events, one after the other.
    fn with(events: impl IntoIterator<Item = Event>) -> Self {
        let mut world = Self::new();
        for event in events {
            world.are([event]);
        }
        world
    }

    /// Applies events as one change, and writes what has changed.
    fn are(&mut self, events: impl IntoIterator<Item = Event>) -> Delta {
        let delta = self.index.apply_all(events);
        for (name, port) in &delta.ports {
            let before = match port {
                Some(port) => self.written.insert(name.clone(), port.clone()),
                None => Some(self.written.remove(name).expect("what is gone was there")),
            };
            assert!(before.as_ref() != port.as_ref(), "{name:?} has not changed");
        }
        assert!(self.written.iter().eq(self.index.ports()), "deltas lead elsewhere");
        delta
    }

    /// The only port with such a number.
    fn port(&self, number: u16) -> &ServicePort {
        let mut ports = self.index.ports().filter(|(name, _)| name.number == number);
        let (_, port) = ports.next().expect("there is such a port");
        assert_eq!(ports.next(), None, "there are several");
        port
    }

    fn of_family(&self, family: Family) -> &ServicePort {
        let mut ports = self.index.ports().filter(|(name, _)| name.family == family);
        ports.next().expect("there is such a port").1
    }

    /// What is wrong, as it is told.
    fn problems(&self) -> Vec<String> {
        self.index.problems().iter().map(ToString::to_string).collect()
    }

    /// The names of Services that have changed.
    fn changed(delta: &Delta) -> Vec<String> {
        delta.ports.iter().map(|(name, _)| name.name.to_string()).collect()
    }
}

fn node(name: &str, zone: &str) -> Event {
    let addresses = json!([
        { "type": "Hostname", "address": name },
        { "type": "InternalIP", "address": "192.0.2.1" },
        { "type": "InternalIP", "address": "2001:db8::1" },
    ]);
    let metadata = json!({ "name": name, "labels": { "topology.kubernetes.io/zone": zone } });
    let node: Node =
        serde_json::from_value(json!({ "metadata": metadata, "status": { "addresses": addresses } })).unwrap();
    Event::from(&node)
}

/// A Service with fields of `object` at its top; its cluster IP is 10.96.0.1, if it does not say another.
fn whole_service(name: &str, mut object: Value) -> Event {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!("x");
    let spec = object["spec"].as_object_mut().expect("a Service has a spec");
    if !spec.contains_key("clusterIP") && !spec.contains_key("clusterIPs") {
        spec.insert("clusterIP".into(), json!("10.96.0.1"));
    }
    if !spec.contains_key("ports") {
        spec.insert("ports".into(), json!([{ "port": 80 }]));
    }
    let service: Service = serde_json::from_value(object).unwrap();
    Event::from(&service)
}

fn service(name: &str, spec: Value) -> Event {
    whole_service(name, json!({ "spec": spec }))
}

/// The slice of a Service, named after it and a number, whose endpoints listen on 8080.
fn slice(service: &str, number: u8, endpoints: Value) -> Event {
    slice_of(json!({ "service": service, "number": number, "endpoints": endpoints }))
}

/// The same, with fields of its own.
fn slice_of(mut object: Value) -> Event {
    let mut take = |field: &str| object.as_object_mut().unwrap().remove(field).unwrap();
    let (service, number) = (take("service"), take("number"));
    let name = format!("{}-{number}", service.as_str().unwrap());
    object["metadata"] = json!({ "name": name, "namespace": "x", "labels": { "kubernetes.io/service-name": service } });
    let fields = object.as_object_mut().unwrap();
    fields.entry("addressType").or_insert(json!("IPv4"));
    fields.entry("ports").or_insert(json!([{ "name": "", "port": 8080, "protocol": "TCP" }]));
    let slice: EndpointSlice = serde_json::from_value(object).unwrap();
    Event::from(&slice)
}

fn pod(name: &str, object: Value) -> Event {
    let mut object = object;
    object["metadata"]["name"] = json!(name);
    object["metadata"]["namespace"] = json!("x");
    let pod: Pod = serde_json::from_value(object).unwrap();
    Event::from(&pod)
}

fn gone(kind: Kind, name: &str) -> Event {
    let namespace = if kind.is_namespaced() { "x" } else { "" };
    Event::Removed(ObjectName::new(kind, namespace, name))
}

/// The node has these addresses, and serves node ports there.
fn served_at(addresses: &[&str]) -> Event {
    own_addresses(addresses, true)
}

fn own_addresses(addresses: &[&str], serve_node_ports: bool) -> Event {
    Event::OwnAddresses(addresses.iter().map(|address| (address.parse().unwrap(), serve_node_ports)).collect())
}

/// A ready endpoint on a node.
fn ready(address: &str, node: &str) -> Value {
    json!({ "addresses": [address], "nodeName": node, "conditions": { "ready": true, "serving": true } })
}

fn with(mut endpoint: Value, field: &str, value: Value) -> Value {
    endpoint[field] = value;
    endpoint
}

/// One that terminates, and serves nevertheless.
fn draining(address: &str, node: &str) -> Value {
    let conditions = json!({ "ready": false, "serving": true, "terminating": true });
    with(ready(address, node), "conditions", conditions)
}

/// One that is to answer nobody.
fn unready(address: &str, node: &str) -> Value {
    with(ready(address, node), "conditions", json!({ "ready": false, "serving": false }))
}

/// Backends, local ones with a star.
fn backends(port: &ServicePort) -> Vec<String> {
    let shown = port.backends.iter();
    shown.map(|it| format!("{}:{}{}", it.address, it.port, if it.is_local { "*" } else { "" })).collect()
}

/// The addresses that a choice is among.
fn whom(port: &ServicePort, choice: &Choice) -> Vec<String> {
    match choice {
        Choice::Among(indices) => {
            assert!(!indices.is_empty() && indices.is_sorted());
            indices.iter().map(|index| port.backends[*index as usize].address.to_string()).collect()
        }
        Choice::Reject => vec!["reject".into()],
        Choice::Drop => vec!["drop".into()],
    }
}

/// Whom clients of a port's cluster IP are sent to.
fn inside(port: &ServicePort) -> Vec<String> {
    whom(port, &port.inside)
}

fn outside(port: &ServicePort) -> Vec<String> {
    whom(port, &port.outside)
}

fn inside_external(port: &ServicePort) -> Vec<String> {
    whom(port, &port.inside_external)
}

/// Where a port is asked for.
fn places(port: &ServicePort) -> Vec<String> {
    let shown = |frontend: &Frontend| {
        let kind = match frontend.kind {
            FrontendKind::ClusterIp => "cluster",
            FrontendKind::LoadBalancer => "balancer",
            FrontendKind::ExternalIp => "external",
            FrontendKind::NodePort => "node",
            FrontendKind::HostPort => "host",
        };
        match frontend.at {
            Place::Address(address) => format!("{kind} {address} {}", frontend.port),
            Place::Node => format!("{kind} {}", frontend.port),
        }
    };
    port.frontends.iter().map(shown).collect()
}

fn host_port(port: u16, backend: &str) -> HostPort {
    HostPort { host_ip: None, port, transport: Transport::Tcp, backend: backend.parse().unwrap() }
}
