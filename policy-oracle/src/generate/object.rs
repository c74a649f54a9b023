//! Namespaces, nodes and pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Node, NodeAddress, NodeStatus, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use proptest::collection::btree_map;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::alphabet::{
    PORT_NAMES, PORTS, PROTOCOLS, external_address, labels, namespace_name, node_address, pod_address,
};
use crate::probe::Family;
use crate::selector::Labels;

/// How a pod has addresses.
#[derive(Clone, Debug)]
pub(super) enum Network {
    /// Its own, of these families in this order.
    Own(Vec<Family>),
    /// Its node's.
    Host,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It runs.
    Running,
    /// It runs, but shall end.
    Terminating,
    /// It has ended, well or not.
    Completed(bool),
    /// It has no addresses yet.
    Pending,
}

/// A pod that has no place in a cluster yet.
#[derive(Clone, Debug)]
pub(super) struct PodDraft {
    namespace: &'static str,
    node: Index,
    labels: Labels,
    network: Network,
    pub(super) stage: Stage,
    containers: Vec<Ports>,
    init: Option<(bool, Ports)>,
}

/// Ports of a container by their names: number and protocol.
type Ports = BTreeMap<&'static str, (u16, Option<&'static str>)>;

/// A namespace.
pub(super) fn namespace(name: &str, labels: Labels) -> Namespace {
    Namespace {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() },
        ..Namespace::default()
    }
}

/// A node.
pub(super) fn node(index: u8, labels: Labels) -> Node {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    let addresses = vec![
        address("Hostname", format!("n{index}")),
        address("InternalIP", node_address(index, Family::V4).to_string()),
        address("InternalIP", node_address(index, Family::V6).to_string()),
        address("ExternalIP", external_address(index).to_string()),
    ];
    Node {
        metadata: ObjectMeta { name: Some(format!("n{index}")), labels: Some(labels), ..ObjectMeta::default() },
        status: Some(NodeStatus { addresses: Some(addresses), ..NodeStatus::default() }),
        ..Node::default()
    }
}

/// A pod, without a place yet.
pub(super) fn pod() -> impl Strategy<Value = PodDraft> {
    let network = prop_oneof![
        3 => Just(Network::Own(vec![Family::V4, Family::V6])),
        1 => Just(Network::Own(vec![Family::V6, Family::V4])),
        2 => Just(Network::Own(vec![Family::V4])),
        2 => Just(Network::Own(vec![Family::V6])),
        1 => Just(Network::Host),
    ];
    let stage = prop_oneof![
        8 => Just(Stage::Running),
        1 => Just(Stage::Terminating),
        1 => any::<bool>().prop_map(Stage::Completed),
        1 => Just(Stage::Pending),
    ];
    let containers = proptest::collection::vec(ports(), 1..=2);
    let init = option::weighted(0.2, (any::<bool>(), ports()));
    (namespace_name(), any::<Index>(), labels(), network, stage, containers, init).prop_map(
        |(namespace, node, labels, network, stage, containers, init)| PodDraft {
            namespace,
            node,
            labels,
            network,
            stage,
            containers,
            init,
        },
    )
}

/// Names are unique within a container only: another one of the same pod may give them to other ports.
fn ports() -> impl Strategy<Value = Ports> {
    btree_map(select(PORT_NAMES.to_vec()), (select(PORTS.to_vec()), select(PROTOCOLS.to_vec())), 0..=2)
}

impl PodDraft {
    /// Gives this pod its place: the number in its name, one of so many nodes, and one of the
    /// [`SLOTS`](super::alphabet::SLOTS), which only host-network and pending pods do without.
    pub(super) fn place(&self, number: usize, nodes: usize, slot: u8) -> Pod {
        let node = self.node.index(nodes);
        let addresses = match &self.network {
            _ if self.stage == Stage::Pending => Vec::new(),
            Network::Own(families) => families.iter().map(|family| pod_address(slot, *family)).collect(),
            Network::Host => Family::BOTH.map(|family| node_address(node as u8, family)).to_vec(),
        };
        let phase = match self.stage {
            Stage::Running | Stage::Terminating => "Running",
            Stage::Completed(true) => "Succeeded",
            Stage::Completed(false) => "Failed",
            Stage::Pending => "Pending",
        };
        let containers = self.containers.iter().enumerate();
        let init = self.init.iter().map(|(is_sidecar, ports)| Container {
            restart_policy: is_sidecar.then(|| "Always".into()),
            ..container("init".into(), ports)
        });
        let mut pod = Pod {
            metadata: ObjectMeta {
                namespace: Some(self.namespace.into()),
                name: Some(format!("p{number}")),
                labels: Some(self.labels.clone()),
                deletion_timestamp: (self.stage == Stage::Terminating).then_some(Time(Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: containers.map(|(index, ports)| container(format!("c{index}"), ports)).collect(),
                init_containers: Some(init.collect()),
                node_name: Some(format!("n{node}")),
                host_network: matches!(self.network, Network::Host).then_some(true),
                ..PodSpec::default()
            }),
            status: Some(PodStatus { phase: Some(phase.into()), ..PodStatus::default() }),
        };
        set_addresses(&mut pod, &addresses);
        pod
    }
}

/// Gives a pod addresses, instead of those that it has.
pub(super) fn set_addresses(pod: &mut Pod, addresses: &[IpAddr]) {
    let status = pod.status.get_or_insert_default();
    status.pod_ip = addresses.first().map(IpAddr::to_string);
    let all: Vec<PodIP> = addresses.iter().map(|address| PodIP { ip: address.to_string() }).collect();
    status.pod_ips = (!all.is_empty()).then_some(all);
}

fn container(name: String, ports: &Ports) -> Container {
    let ports = ports.iter().map(|(name, (number, protocol))| ContainerPort {
        name: Some((*name).into()),
        container_port: (*number).into(),
        protocol: protocol.map(str::to_owned),
        ..ContainerPort::default()
    });
    Container { name, ports: Some(ports.collect()), ..Container::default() }
}
