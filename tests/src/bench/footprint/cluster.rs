//! A large cluster, of which only its numbers are kept: its objects are written out when they are asked for.

use std::env;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;

use super::objects;
use super::template::Template;
use crate::lab::Node;

/// Pods of a namespace: apps of as many replicas each, and some of Jobs that have run to their end.
const PODS: usize = 150;
const APPS: usize = 10;
const REPLICAS: usize = 14;
/// Namespaces whose pods have policies, one in so many.
const WITH_POLICIES: usize = 5;
/// Addresses of a pod and its successors on their node.
const SUCCESSORS: u32 = 8;
/// Nodes where nobody says how many, and for how many there is a namespace.
const NODES: usize = 5_000;
const NODES_A_NAMESPACE: usize = 5;
/// The smallest: policies are in some namespaces only.
const FEWEST: usize = NODES_A_NAMESPACE * WITH_POLICIES;
/// What says it.
const WANTED: &str = "SLUICE_NODES";

/// How large a cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes. The first is one of a lab.
    pub nodes: usize,
    /// Namespaces, of 150 pods and 10 Services each.
    pub namespaces: usize,
}

impl Size {
    /// 5,000 nodes, 150,000 pods and 10,000 Services, or in proportion to as many nodes as `SLUICE_NODES` wants.
    ///
    /// # Errors
    /// Where that is no number, or too small.
    pub fn wanted() -> Result<Self> {
        let nodes = match env::var(WANTED) {
            Ok(text) => text.parse().with_context(|| format!("{WANTED}={text} is no number of nodes"))?,
            Err(_) => NODES,
        };
        ensure!(nodes >= FEWEST, "{WANTED}={nodes}: at least {FEWEST}");
        Ok(Self { nodes, namespaces: nodes / NODES_A_NAMESPACE })
    }

    /// Pods, those among them that have ended.
    pub fn pods(self) -> usize {
        self.namespaces * PODS
    }

    /// Pods that have not.
    pub fn living(self) -> usize {
        self.namespaces * APPS * REPLICAS
    }
}

/// A list of objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum List {
    /// Nodes.
    Nodes,
    /// Pods.
    Pods,
    /// Namespaces.
    Namespaces,
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// NetworkPolicies.
    Policies,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Nodes, Self::Pods, Self::Namespaces, Self::Services, Self::Slices, Self::Policies];

    /// Where the API server has it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Nodes => "/api/v1/nodes",
            Self::Pods => "/api/v1/pods",
            Self::Namespaces => "/api/v1/namespaces",
            Self::Services => "/api/v1/services",
            Self::Slices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Policies => "/apis/networking.k8s.io/v1/networkpolicies",
        }
    }

    /// What it is called in the ids of rows.
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// What has become of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It is there, and has no node yet.
    Pending,
    /// It has one, and no containers yet.
    Scheduled,
    /// It runs.
    Running,
    /// It has been told to end.
    Terminating,
    /// Its containers have ended.
    Stopped,
    /// It has run to its end by itself.
    Ended,
}

/// The cluster.
pub struct Cluster {
    /// How large it is.
    pub size: Size,
    own: Own,
    templates: Templates,
    /// Of each pod, its how many-th successor there is.
    successors: Vec<AtomicU32>,
}

/// The node of the lab.
struct Own {
    name: String,
    address: IpAddr,
    pods: IpNet,
}

struct Templates {
    pods: [Template; 6],
    node: Template,
    namespace: Template,
    service: Template,
    slice: Template,
    endpoint: Template,
    policy: Template,
    reservation: Template,
}

impl Cluster {
    /// A cluster in which a node of a lab is the first.
    ///
    /// # Errors
    /// Where that has no pod CIDR.
    pub fn around(node: &Node, size: Size) -> Result<Self> {
        let pods = node.pod_cidrs[0].parse().context("reading the pod CIDR of the lab's node")?;
        Ok(Self::new(Own { name: node.name.clone(), address: node.addresses[0], pods }, size))
    }

    fn new(own: Own, size: Size) -> Self {
        let pods = [
            objects::pending_pod(),
            objects::scheduled_pod(),
            objects::pod(),
            objects::terminating_pod(),
            objects::stopped_pod(),
            objects::ended_pod(),
        ];
        let templates = Templates {
            pods: pods.each_ref().map(Template::of),
            node: Template::of(&objects::node()),
            namespace: Template::of(&objects::namespace()),
            service: Template::of(&objects::service()),
            slice: Template::of(&objects::slice()),
            endpoint: Template::of(&objects::endpoint()),
            policy: Template::of(&objects::policy()),
            reservation: Template::of(&objects::reservation()),
        };
        let successors = (0..size.pods()).map(|_| AtomicU32::new(0)).collect();
        Self { size, own, templates, successors }
    }

    /// How many objects a list has.
    pub fn count(&self, list: List) -> usize {
        match list {
            List::Nodes => self.size.nodes,
            List::Pods => self.size.pods(),
            List::Namespaces => self.size.namespaces,
            List::Services | List::Slices => self.size.namespaces * APPS,
            List::Policies => self.size.namespaces / WITH_POLICIES * APPS,
        }
    }

    /// Writes an object of a list, as it is.
    pub fn write(&self, list: List, number: usize, version: u64, out: &mut String) {
        match list {
            List::Nodes => self.write_node(number, version, out),
            List::Pods if Self::has_ended(number) => self.write_pod(number, Life::Ended, version, out),
            List::Pods => self.write_pod(number, Life::Running, version, out),
            List::Namespaces => self.write_named(&self.templates.namespace, (number, 0), version, out),
            List::Services => self.write_named(&self.templates.service, of_app(number), version, out),
            List::Slices => self.write_slice(number, None, version, out),
            List::Policies => {
                let (namespace, app) = of_app(number);
                self.write_named(&self.templates.policy, (namespace * WITH_POLICIES, app), version, out);
            }
        }
    }

    /// Where etcd has an object of a list.
    pub fn key(&self, list: List, number: usize) -> String {
        let (namespace, app) = of_app(number);
        match list {
            List::Nodes => format!("/registry/minions/{}", self.node_name(number)),
            List::Pods => format!("/registry/pods/ns-{}/{}", number / PODS, self.pod_name(number)),
            List::Namespaces => format!("/registry/namespaces/ns-{number}"),
            List::Services => format!("/registry/services/specs/ns-{namespace}/app-{app}"),
            List::Slices => format!("/registry/endpointslices/ns-{namespace}/app-{app}-x7k2p"),
            List::Policies => format!("/registry/networkpolicies/ns-{}/app-{app}", namespace * WITH_POLICIES),
        }
    }

    /// Writes what reserves the address of a Service, which agents do not list; gives where etcd has it.
    pub fn write_reservation(&self, service: usize, out: &mut String) -> String {
        self.write_named(&self.templates.reservation, of_app(service), 0, out);
        format!("/registry/ipaddresses/{}", service_address(service))
    }

    /// Whether a pod has run to its end.
    pub fn has_ended(pod: usize) -> bool {
        pod % PODS >= APPS * REPLICAS
    }

    /// The Service of a pod, by its number.
    pub fn service_of(pod: usize) -> usize {
        pod / PODS * APPS + pod % PODS % APPS
    }

    /// The controller makes another pod in place of one.
    pub fn replace(&self, pod: usize) {
        self.successors[pod].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a pod, as something has become of it.
    pub fn write_pod(&self, number: usize, life: Life, version: u64, out: &mut String) {
        self.templates.pods[life as usize].fill(out, |gap, out| {
            let (namespace, app) = (number / PODS, number % PODS % APPS);
            let node = number % self.size.nodes;
            let _ = match gap {
                "name" => write!(out, "{}", self.pod_name(number)),
                "uid" => write!(out, "{}", self.pod_uid(number)),
                "node" => write!(out, "{}", self.node_name(node)),
                "host" => write!(out, "{}", self.host(node)),
                "address" => write!(out, "{}", self.address(number)),
                "digits" => write!(out, "{number:012x}"),
                gap => write_common(gap, (namespace, app), version, out),
            };
        });
    }

    /// Writes the slice of a Service; one of its pods is no longer to be asked.
    pub fn write_slice(&self, service: usize, without: Option<usize>, version: u64, out: &mut String) {
        let (namespace, app) = of_app(service);
        self.templates.slice.fill(out, |gap, out| {
            let _ = match gap {
                "endpoints" => {
                    out.push('[');
                    let replicas = (0..REPLICAS).map(|replica| namespace * PODS + replica * APPS + app);
                    for (index, pod) in replicas.filter(|pod| Some(*pod) != without).enumerate() {
                        out.push_str(if index > 0 { "," } else { "" });
                        self.write_endpoint(pod, out);
                    }
                    out.push(']');
                    Ok(())
                }
                "uid" => write!(out, "{}", uid(2, service, 0)),
                gap => write_common(gap, (namespace, app), version, out),
            };
        });
    }

    fn write_endpoint(&self, pod: usize, out: &mut String) {
        self.templates.endpoint.fill(out, |gap, out| {
            let node = pod % self.size.nodes;
            let _ = match gap {
                "name" => write!(out, "{}", self.pod_name(pod)),
                "uid" => write!(out, "{}", self.pod_uid(pod)),
                "node" => write!(out, "{}", self.node_name(node)),
                "zone" => write!(out, "{}", zone(node)),
                "address" => write!(out, "{}", self.address(pod)),
                gap => write_common(gap, (pod / PODS, 0), 0, out),
            };
        });
    }

    fn write_node(&self, number: usize, version: u64, out: &mut String) {
        self.templates.node.fill(out, |gap, out| {
            let _ = match gap {
                "name" => write!(out, "{}", self.node_name(number)),
                "host" => write!(out, "{}", self.host(number)),
                "cidr" => write!(out, "{}", self.net(number)),
                "zone" => write!(out, "{}", zone(number)),
                "digits" => write!(out, "{number:012x}"),
                "uid" => write!(out, "{}", uid(1, number, 0)),
                gap => write_common(gap, (0, 0), version, out),
            };
        });
    }

    /// Writes an object that is known by its namespace, or by an app in it.
    fn write_named(&self, template: &Template, (namespace, app): (usize, usize), version: u64, out: &mut String) {
        let number = namespace * APPS + app;
        template.fill(out, |gap, out| {
            let _ = match gap {
                "name" => write!(out, "ns-{namespace}"),
                "address" => write!(out, "{}", service_address(number)),
                "uid" => write!(out, "{}", uid(3, number, 0)),
                "next" => write!(out, "app-{}", (app + 1) % APPS),
                gap => write_common(gap, (namespace, app), version, out),
            };
        });
    }

    fn pod_name(&self, pod: usize) -> String {
        let (namespace, app) = (pod / PODS, pod % PODS % APPS);
        let number = pod as u64 * u64::from(SUCCESSORS) + u64::from(self.successor(pod));
        // As random as the suffixes that the API server gives.
        let suffix = number.wrapping_mul(0x9e37_79b9) & 0xf_ffff;
        format!("app-{app}-{}-{suffix:05x}", hash(namespace, app))
    }

    fn pod_uid(&self, pod: usize) -> String {
        uid(0, pod, self.successor(pod))
    }

    fn successor(&self, pod: usize) -> u32 {
        self.successors[pod].load(Ordering::Relaxed)
    }

    fn node_name(&self, node: usize) -> String {
        if node == 0 { self.own.name.clone() } else { format!("node-{node}.region-1.example.com") }
    }

    fn host(&self, node: usize) -> IpAddr {
        if node == 0 { self.own.address } else { Ipv4Addr::from_bits(0xac10_0000 + node as u32).into() }
    }

    fn net(&self, node: usize) -> IpNet {
        let address = Ipv4Addr::from_bits(0x0a80_0000 + ((node as u32) << 8));
        if node == 0 { self.own.pods } else { IpNet::new_assert(address.into(), 24) }
    }

    fn address(&self, pod: usize) -> Ipv4Addr {
        let (node, place) = (pod % self.size.nodes, (pod / self.size.nodes) as u32);
        let IpAddr::V4(net) = self.net(node).network() else { unreachable!("the lab has IPv4 only") };
        Ipv4Addr::from_bits(net.to_bits() + 2 + place * SUCCESSORS + self.successor(pod) % SUCCESSORS)
    }
}

/// The namespace and the app of a Service or policy.
fn of_app(number: usize) -> (usize, usize) {
    (number / APPS, number % APPS)
}

fn service_address(service: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_000a + service as u32)
}

fn zone(node: usize) -> String {
    format!("region-1-{}", ["a", "b", "c"][node % 3])
}

fn uid(kind: u8, number: usize, successor: u32) -> String {
    format!("{number:08x}-{successor:04x}-4a7b-800{kind:x}-c3d95f0fe1a2")
}

fn hash(namespace: usize, app: usize) -> String {
    format!("{:09x}", (namespace * APPS + app + 1).wrapping_mul(0x9_e377_9b97) & 0xf_ffff_ffff)
}

/// What is the same for all objects of an app.
fn write_common(gap: &str, (namespace, app): (usize, usize), version: u64, out: &mut String) -> std::fmt::Result {
    match gap {
        "version" => write!(out, "{version}"),
        "namespace" => write!(out, "ns-{namespace}"),
        "app" => write!(out, "app-{app}"),
        "hash" => write!(out, "{}", hash(namespace, app)),
        "team" => write!(out, "team-{}", namespace % 20),
        other => unreachable!("nothing is said of the gap {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{Namespace, Node as NodeApi, Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use k8s_openapi::api::networking::v1::NetworkPolicy;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    use super::*;

    fn cluster() -> Cluster {
        let pods = "10.1.1.0/24".parse().expect("a net");
        let own = Own { name: "n1".into(), address: Ipv4Addr::new(192, 0, 2, 1).into(), pods };
        Cluster::new(own, Size { nodes: 50, namespaces: 10 })
    }

    fn read<K: DeserializeOwned>(cluster: &Cluster, list: List, number: usize) -> K {
        let mut text = String::new();
        cluster.write(list, number, 7, &mut text);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn its_objects_are_those_of_the_api() {
        let cluster = cluster();
        let node: NodeApi = read(&cluster, List::Nodes, 1);
        let pod: Pod = read(&cluster, List::Pods, 1);
        let namespace: Namespace = read(&cluster, List::Namespaces, 1);
        let service: Service = read(&cluster, List::Services, 11);
        let slice: EndpointSlice = read(&cluster, List::Slices, 11);
        let policy: NetworkPolicy = read(&cluster, List::Policies, 0);
        assert_eq!(pod.spec.and_then(|spec| spec.node_name), node.metadata.name);
        assert_eq!(namespace.metadata.name, service.metadata.namespace);
        assert_eq!(slice.metadata.owner_references.map(|owners| owners[0].name.clone()), service.metadata.name);
        assert_eq!(slice.endpoints.len(), REPLICAS);
        assert_eq!(policy.metadata.namespace.as_deref(), Some("ns-0"));
        for life in [Life::Pending, Life::Scheduled, Life::Terminating, Life::Stopped, Life::Ended] {
            let mut text = String::new();
            cluster.write_pod(1, life, 7, &mut text);
            serde_json::from_str::<Pod>(&text).unwrap_or_else(|error| panic!("{life:?}: {error}: {text}"));
        }
    }

    #[test]
    fn etcd_has_objects_by_their_names() {
        let cluster = cluster();
        for list in List::ALL {
            let object: Value = read(&cluster, list, cluster.count(list) - 1);
            let name = |field: &str| object["metadata"][field].as_str().map(|name| format!("/{name}"));
            let names = name("namespace").unwrap_or_default() + &name("name").expect("a name");
            let key = cluster.key(list, cluster.count(list) - 1);
            assert!(key.ends_with(&names) && key.starts_with("/registry/"), "{key}: {names}");
        }
        let mut text = String::new();
        let key = cluster.write_reservation(11, &mut text);
        let (service, object): (Service, Value) =
            (read(&cluster, List::Services, 11), serde_json::from_str(&text).expect("it is JSON"));
        let address = service.spec.and_then(|spec| spec.cluster_ip).expect("a cluster IP");
        assert_eq!((key.rsplit('/').next(), object["metadata"]["name"].as_str()), (Some(&*address), Some(&*address)));
        assert_eq!(object["spec"]["parentRef"]["name"].as_str(), service.metadata.name.as_deref());
    }

    #[test]
    fn no_two_pods_are_the_same_and_all_are_as_large_as_real_ones() {
        let cluster = cluster();
        let mut seen = BTreeSet::new();
        for successors in 0..SUCCESSORS {
            for number in 0..cluster.size.pods() {
                let pod: Pod = read(&cluster, List::Pods, number);
                let address = pod.status.and_then(|status| status.pod_ip);
                assert!(seen.insert((None, address)), "pod {number} has another's address");
                assert!(seen.insert((pod.metadata.namespace, pod.metadata.name)), "pod {number} has another's name");
                if successors + 1 < SUCCESSORS {
                    cluster.replace(number);
                }
            }
        }
        let length = |list| {
            let mut text = String::new();
            cluster.write(list, 1, 7, &mut text);
            text.len()
        };
        assert!((5_000..8_500).contains(&length(List::Pods)), "{}", length(List::Pods));
        assert!((10_000..20_000).contains(&length(List::Nodes)), "{}", length(List::Nodes));
    }
}
