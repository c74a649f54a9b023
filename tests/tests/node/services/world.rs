//! What the cluster says of Services: objects, as manifests.

use std::collections::BTreeMap;
use std::fmt::Write;

use sluice_tests::lab::Families;

/// The objects of a scenario, beside the nodes and pods that are there anyway. Fields are in YAML's flow style.
#[derive(Clone, Default)]
pub struct World {
    pub(super) services: BTreeMap<String, ServiceText>,
    pub(super) slices: Vec<SliceText>,
    pub(super) pods: BTreeMap<String, PodText>,
    /// Nodes' labels.
    pub(super) nodes: BTreeMap<String, String>,
    pub(super) more: Vec<String>,
}

/// A Service.
#[derive(Clone)]
pub(super) struct ServiceText {
    /// What its cluster IPs end with.
    pub number: u8,
    pub metadata: String,
    pub spec: String,
    pub ingress: String,
}

/// EndpointSlices, one of each family.
#[derive(Clone)]
pub(super) struct SliceText {
    pub name: String,
    pub service: String,
    pub ports: String,
    /// Who is in it, and what else is said of each.
    pub endpoints: Vec<(String, String)>,
}

/// What a pod's manifest says beside where it is.
#[derive(Clone, Default)]
pub(super) struct PodText {
    pub labels: String,
    pub ports: String,
    pub is_unready: bool,
}

/// Only what is there anyway.
pub fn world() -> World {
    World::default()
}

/// Ports of a Service, each `PORT>TARGET` or `PORT>TARGET@NODEPORT`, over TCP and UDP: `tPORT` and `uPORT` are their names.
pub fn ports(text: &str) -> String {
    let mut ports = String::new();
    for word in text.split_whitespace() {
        let (port, target) = word.split_once('>').expect("PORT>TARGET");
        let (target, node_port) = target.split_once('@').unwrap_or((target, "0"));
        for (letter, protocol) in [('t', "TCP"), ('u', "UDP")] {
            let _ = write!(
                ports,
                "{{name: {letter}{port}, port: {port}, targetPort: {target}, nodePort: {node_port}, protocol: {protocol}}}, "
            );
        }
    }
    format!("ports: [{ports}]")
}

impl World {
    /// Whether it has no Services.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// A Service in the namespace `default`, whose cluster IPs end with a number, with more of its spec.
    pub fn service(mut self, name: &str, number: u8, spec: &str) -> Self {
        let service = ServiceText { number, metadata: String::new(), spec: spec.into(), ingress: String::new() };
        self.services.insert(name.into(), service);
        self
    }

    /// The last-named Service's metadata say this too.
    pub fn marked(mut self, service: &str, metadata: &str) -> Self {
        self.of(service).metadata = metadata.into();
        self
    }

    /// The Services of another, too.
    pub fn and(mut self, other: Self) -> Self {
        self.services.extend(other.services);
        self
    }

    /// A load balancer has these addresses for a Service.
    pub fn balanced(mut self, service: &str, ingress: &str) -> Self {
        self.of(service).ingress = ingress.into();
        self
    }

    /// The manifests of its Services, in a cluster of these families.
    pub fn manifests_of_services(&self, families: Families) -> String {
        let services = self.services.iter();
        services.map(|(name, service)| format!("---\n{}", service.manifest(name, families))).collect()
    }

    fn of(&mut self, service: &str) -> &mut ServiceText {
        self.services.get_mut(service).unwrap_or_else(|| panic!("there is no service {service}"))
    }

    /// EndpointSlices of a Service, one of each family, with its ports `PORT>TARGET`, and who is in them, each with what
    /// else is said of it.
    pub fn slice(mut self, name: &str, service: &str, ports: &str, endpoints: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for word in ports.split_whitespace() {
            let (port, target) = word.split_once('>').expect("PORT>TARGET");
            for (letter, protocol) in [('t', "TCP"), ('u', "UDP")] {
                let _ = write!(text, "{{name: {letter}{port}, port: {target}, protocol: {protocol}}}, ");
            }
        }
        let endpoints = endpoints.iter().map(|(who, more)| ((*who).to_owned(), (*more).to_owned())).collect();
        self.slices.push(SliceText { name: name.into(), service: service.into(), ports: text, endpoints });
        self
    }

    /// These pods have labels.
    pub fn pods(mut self, names: &str, labels: &str) -> Self {
        for name in names.split_whitespace() {
            self.pods.entry(name.into()).or_default().labels = labels.into();
        }
        self
    }

    /// A pod has container ports.
    pub fn container_ports(mut self, pod: &str, ports: &str) -> Self {
        self.pods.entry(pod.into()).or_default().ports = ports.into();
        self
    }

    /// A pod is not ready.
    pub fn unready(mut self, pod: &str) -> Self {
        self.pods.entry(pod.into()).or_default().is_unready = true;
        self
    }

    /// A node has labels.
    pub fn node(mut self, name: &str, labels: &str) -> Self {
        self.nodes.insert(name.into(), labels.into());
        self
    }

    /// All other objects of another scenario too.
    pub fn more_of(mut self, other: &Self) -> Self {
        self.more.extend(other.more.iter().cloned());
        self
    }

    /// Any other object.
    pub fn object(mut self, manifest: &str) -> Self {
        self.more.push(manifest.into());
        self
    }
}

impl ServiceText {
    fn manifest(&self, name: &str, families: Families) -> String {
        let Self { number, metadata, spec, ingress } = self;
        let (v4, v6) = (format!("10.96.0.{number}"), format!("fd00:96::{number}"));
        let (policy, names, addresses) = match families {
            Families::V4 => ("SingleStack", vec!["IPv4"], vec![v4]),
            Families::V6 => ("SingleStack", vec!["IPv6"], vec![v6]),
            Families::Dual => ("RequireDualStack", vec!["IPv4", "IPv6"], vec![v4, v6]),
        };
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, {metadata}}}\n\
             spec: {{clusterIP: {:?}, clusterIPs: {addresses:?}, ipFamilyPolicy: {policy}, ipFamilies: {names:?}, {spec}}}\n\
             status: {{loadBalancer: {{ingress: [{ingress}]}}}}\n",
            addresses[0]
        )
    }
}
