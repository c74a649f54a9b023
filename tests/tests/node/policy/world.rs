//! What the cluster says: the objects of a scenario, as manifests.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The objects of a scenario, beside the nodes and pods that are there anyway. Fields are in YAML's flow style.
#[derive(Clone, Default)]
pub struct World {
    pub(super) namespaces: BTreeMap<String, Metadata>,
    pub(super) nodes: BTreeMap<String, Metadata>,
    pub(super) pods: BTreeMap<String, PodText>,
    pub(super) more: Vec<String>,
}

/// Labels and annotations.
#[derive(Clone, Default)]
pub struct Metadata {
    labels: String,
    annotations: String,
}

impl Metadata {
    pub(super) fn text(&self) -> String {
        format!("labels: {{{}}}, annotations: {{{}}}", self.labels, self.annotations)
    }
}

/// What a pod's manifest says beside where it is.
#[derive(Clone, Default)]
pub(super) struct PodText {
    pub labels: String,
    pub ports: String,
    pub phase: String,
    pub is_terminating: bool,
    pub is_gone: bool,
}

/// Only what is there anyway.
pub fn world() -> World {
    World::default()
}

impl World {
    /// These pods have labels.
    pub fn pods(mut self, names: &str, labels: &str) -> Self {
        for name in names.split_whitespace() {
            self.pods.entry(name.into()).or_default().labels = labels.into();
        }
        self
    }

    /// A pod has container ports.
    pub fn ports(mut self, pod: &str, ports: &[&str]) -> Self {
        self.pods.entry(pod.into()).or_default().ports = ports.join(", ");
        self
    }

    /// A pod is in another phase than `Running`.
    pub fn phase(mut self, pod: &str, phase: &str) -> Self {
        self.pods.entry(pod.into()).or_default().phase = phase.into();
        self
    }

    /// A pod is being deleted.
    pub fn terminating(mut self, pod: &str) -> Self {
        self.pods.entry(pod.into()).or_default().is_terminating = true;
        self
    }

    /// A pod has no manifest.
    pub fn without(mut self, pod: &str) -> Self {
        self.pods.entry(pod.into()).or_default().is_gone = true;
        self
    }

    /// A namespace has labels.
    pub fn namespace(mut self, name: &str, labels: &str) -> Self {
        self.namespaces.entry(name.into()).or_default().labels = labels.into();
        self
    }

    /// A node has labels.
    pub fn node(mut self, name: &str, labels: &str) -> Self {
        self.nodes.entry(name.into()).or_default().labels = labels.into();
        self
    }

    /// The policies of a namespace's pods are only tried.
    pub fn auditing_namespace(mut self, name: &str) -> Self {
        self.namespaces.entry(name.into()).or_default().annotations = AUDIT.into();
        self
    }

    /// The policies of a node's pods are only tried.
    pub fn auditing_node(mut self, name: &str) -> Self {
        self.nodes.entry(name.into()).or_default().annotations = AUDIT.into();
        self
    }

    /// A NetworkPolicy, by its namespace and name, with this spec.
    pub fn policy(self, name: &str, spec: &str) -> Self {
        let (namespace, name) = name.split_once('/').expect("namespace/name");
        self.object(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{{spec}}}\n"
        ))
    }

    /// A ClusterNetworkPolicy of a tier, with a priority, and the rest of its spec.
    pub fn cluster_policy(self, name: &str, tier: &str, priority: u16, spec: &str) -> Self {
        self.object(&format!(
            "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{tier: {tier}, priority: {priority}, {spec}}}\n"
        ))
    }

    /// Any other object.
    pub fn object(mut self, manifest: &str) -> Self {
        self.more.push(manifest.into());
        self
    }
}

const AUDIT: &str = "sluice.dev/policy-mode: audit";

impl PodText {
    /// A pod's manifest.
    pub fn manifest(&self, (namespace, name): (&str, &str), node: &str, addresses: &[std::net::IpAddr]) -> String {
        let phase = if self.phase.is_empty() { "Running" } else { &self.phase };
        let deletion = if self.is_terminating { ", deletionTimestamp: \"2024-01-01T00:00:00Z\"" } else { "" };
        let mut ips = String::new();
        for address in addresses {
            let _ = write!(ips, "{{ip: \"{address}\"}}, ");
        }
        format!(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, namespace: {namespace}, labels: {{{}}}{deletion}}}\n\
             spec: {{nodeName: {node}, containers: [{{name: c, ports: [{}]}}]}}\n\
             status: {{phase: {phase}, podIPs: [{ips}]}}\n",
            self.labels, self.ports
        )
    }
}
