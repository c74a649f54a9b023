//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2` (network-policy-api v0.2.0), as it is written.
//!
//! These types take whatever stands in an object and judge nothing: a value out of range must not end the watch of all
//! the others. [`PolicyObject`](crate::object::PolicyObject) judges.
//!
//! Fields that this version does not know are kept in `unknown`; in manifests they are errors. What becomes of a rule that has one, or a peer or
//! protocol that is not supported (`domainNames`), follows the API's own words for peers without a known field:
//!
//! * a rule that **accepts** matches no traffic at all, its other peers and protocols included: it is the rule that fails
//!   closed.
//! * a rule that **denies or passes** becomes a rule that denies everything in its direction: what it was meant to match
//!   cannot be told, so nothing may get past it.
//!
//! Either is reported with the object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The API group and version.
pub const API_VERSION: &str = "policy.networking.k8s.io/v1alpha2";
/// The kind.
pub const KIND: &str = "ClusterNetworkPolicy";

/// Fields that this version does not know, by name.
pub type Unknown = BTreeMap<String, Value>;

/// A cluster-wide policy, above or below all NetworkPolicies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// [`API_VERSION`].
    #[serde(default = "api_version")]
    pub api_version: String,
    /// [`KIND`].
    #[serde(default = "kind")]
    pub kind: String,
    /// Name and the like; without a namespace.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it says.
    #[serde(default)]
    pub spec: ClusterNetworkPolicySpec,
    /// What implementations say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ClusterNetworkPolicyStatus>,
}

impl Default for ClusterNetworkPolicy {
    fn default() -> Self {
        Self {
            api_version: api_version(),
            kind: kind(),
            metadata: ObjectMeta::default(),
            spec: ClusterNetworkPolicySpec::default(),
            status: None,
        }
    }
}

fn api_version() -> String {
    API_VERSION.to_owned()
}

fn kind() -> String {
    KIND.to_owned()
}

impl k8s_openapi::Resource for ClusterNetworkPolicy {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = "policy.networking.k8s.io";
    const KIND: &'static str = KIND;
    const VERSION: &'static str = "v1alpha2";
    const URL_PATH_SEGMENT: &'static str = "clusternetworkpolicies";
    type Scope = k8s_openapi::ClusterResourceScope;
}

impl k8s_openapi::Metadata for ClusterNetworkPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a policy says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin`, above all NetworkPolicies, or `Baseline`, below them.
    pub tier: String,
    /// 0 to 1000; within a tier, lower values come first.
    pub priority: Option<i64>,
    /// The pods that it applies to.
    pub subject: ClusterNetworkPolicySubject,
    /// Rules for what these pods receive, the first that matches counts.
    pub ingress: Vec<ClusterNetworkPolicyIngressRule>,
    /// Rules for what these pods send, the first that matches counts.
    pub egress: Vec<ClusterNetworkPolicyEgressRule>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What implementations say of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyStatus {
    /// One of each type.
    pub conditions: Vec<Condition>,
}

/// The pods that a policy applies to: exactly one field is set. Host-network pods are never among them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicySubject {
    /// All pods of these namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ClusterNetworkPolicySelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespacedPod {
    /// The namespaces; empty: all. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<ClusterNetworkPolicySelector>,
    /// The pods in them; empty: all. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<ClusterNetworkPolicySelector>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterNetworkPolicySelector {
    /// What it says of labels; empty: selects everything.
    #[serde(flatten)]
    pub labels: LabelSelector,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl From<LabelSelector> for ClusterNetworkPolicySelector {
    fn from(labels: LabelSelector) -> Self {
        Self { labels, unknown: Unknown::new() }
    }
}

/// A rule for what the policy's pods receive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyIngressRule {
    /// A name for people, of 100 characters at most.
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Who sends it: any of these, at least one.
    pub from: Vec<ClusterNetworkPolicyIngressPeer>,
    /// What is sent: any of these; missing: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// A rule for what the policy's pods send.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyEgressRule {
    /// A name for people, of 100 characters at most.
    pub name: String,
    /// `Accept`, `Deny` or `Pass`.
    pub action: String,
    /// Who it is sent to: any of these, at least one.
    pub to: Vec<ClusterNetworkPolicyEgressPeer>,
    /// What is sent: any of these; missing: anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<ClusterNetworkPolicyProtocol>>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Who sends: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyIngressPeer {
    /// All pods of these namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ClusterNetworkPolicySelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Who is sent to: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyEgressPeer {
    /// All pods of these namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ClusterNetworkPolicySelector>,
    /// Some pods of some namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// Nodes, by all addresses in their status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<ClusterNetworkPolicySelector>,
    /// CIDRs; they match pods' addresses too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<String>>,
    /// Domain names. Not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_names: Option<Vec<String>>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What is sent: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyProtocol {
    /// TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ClusterNetworkPolicyTransport>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<ClusterNetworkPolicyTransport>,
    /// SCTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sctp: Option<ClusterNetworkPolicyTransport>,
    /// A container port of the receiving pod, by its name: its number and protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What of a transport protocol is sent. The API has a type for each protocol; all have the same one field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyTransport {
    /// The ports that it is sent to. Required for as long as there is no other field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<ClusterNetworkPolicyPort>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Ports: exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyPort {
    /// One port, 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
    /// Several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<ClusterNetworkPolicyPortRange>,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// Consecutive ports, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkPolicyPortRange {
    /// The first, 1 to 65535.
    pub start: i64,
    /// The last; greater than the first.
    pub end: i64,
    /// What this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_is_read_and_written_as_it_stands() {
        let text = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": { "name": "sensitive" },
            "spec": {
                "tier": "Admin",
                "priority": 10,
                "subject": { "namespaces": { "matchLabels": { "sensitive": "true" } } },
                "ingress": [{
                    "name": "monitoring",
                    "action": "Accept",
                    "from": [{ "pods": {
                        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "monitoring" } },
                        "podSelector": {},
                    } }],
                    "protocols": [
                        { "tcp": { "destinationPort": { "number": 9090 } } },
                        { "udp": { "destinationPort": { "range": { "start": 1, "end": 9 } } } },
                        { "destinationNamedPort": "metrics" },
                    ],
                }],
                "egress": [{
                    "name": "",
                    "action": "Deny",
                    "to": [
                        { "nodes": {} },
                        { "networks": ["0.0.0.0/0", "::/0"] },
                        { "domainNames": ["*.kubernetes.io"] },
                    ],
                }],
            },
        });
        let policy: ClusterNetworkPolicy = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(policy.spec.ingress[0].protocols.as_ref().unwrap().len(), 3);
        assert_eq!(policy.spec.egress[0].to[1].networks.as_ref().unwrap().len(), 2);
        assert_eq!(serde_json::to_value(&policy).unwrap(), text);
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let policy: ClusterNetworkPolicy = serde_json::from_value(json!({
            "spec": {
                "tier": "Admin",
                "egress": [{ "action": "Accept", "to": [{ "services": ["a"] }, { "namespaces": { "notSameLabels": ["b"] } }], "protocols": [{ "icmp": { "type": 8 } }] }],
            },
        }))
        .unwrap();
        let rule = &policy.spec.egress[0];
        assert!(rule.to[0].unknown.contains_key("services"));
        assert!(rule.to[1].namespaces.as_ref().unwrap().unknown.contains_key("notSameLabels"));
        assert!(rule.protocols.as_ref().unwrap()[0].unknown.contains_key("icmp"));
        assert_eq!((policy.api_version.as_str(), policy.kind.as_str()), (API_VERSION, KIND));
    }
}
