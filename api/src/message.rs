//! Requests and responses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::record::{EndpointRecord, PodRef};

/// The version of this protocol. An agent refuses other versions with [`ErrorKind::Version`].
pub const VERSION: u32 = 1;

/// One line from a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub request: Call,
}

/// What a client can ask.
#[allow(clippy::large_enum_variant, reason = "made once, sent, and gone")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Put an endpoint under control of the kernel programs. Answered with [`Answer::Done`] once it is in force.
    /// Asking again for the same record changes nothing.
    Enforce(EndpointRecord),
    /// An endpoint is gone. One that is not known is no error.
    Release {
        /// Name of the host side of its veth pair.
        host_interface: String,
    },
    /// Whether the agent can serve ADD, and what it is: [`Answer::Status`].
    Status {},
    /// The endpoints of this node: [`Answer::Endpoints`].
    Endpoints {},
    /// The nodes of the cluster: [`Answer::Nodes`].
    Nodes {},
    /// The flow table, at most `limit` flows, forward entries only: [`Answer::Flows`].
    Flows {
        /// Greatest number of flows in the answer.
        limit: usize,
    },
    /// Counters by program and reason, those that are not 0: [`Answer::Counters`].
    Counters {},
    /// What policies have denied, or would have in audit mode, the last first, at most `limit`: [`Answer::Denials`].
    Denials {
        /// Greatest number of denials in the answer.
        limit: usize,
    },
    /// The ports of Services, and who serves them: [`Answer::Services`].
    Services {},
    /// Why somebody can talk to somebody, or cannot: [`Answer::Explained`].
    Explain {
        /// Who sends: namespace/name, or an address.
        from: String,
        /// Who receives: namespace/name, or an address.
        to: String,
        /// What is sent, such as `80/TCP` or `ICMP`.
        port: String,
    },
}

/// One line from the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How a request went.
#[allow(clippy::large_enum_variant, reason = "made once, sent, and gone")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok(Answer),
    /// It was not.
    Error(Failure),
}

/// What the agent answers.
#[allow(clippy::large_enum_variant, reason = "made once, sent, and gone")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done; nothing more to say.
    Done,
    /// To [`Call::Status`].
    Status(Status),
    /// To [`Call::Endpoints`].
    Endpoints(Vec<EndpointStatus>),
    /// To [`Call::Nodes`].
    Nodes(Vec<NodeStatus>),
    /// To [`Call::Flows`].
    Flows(Vec<FlowStatus>),
    /// To [`Call::Counters`].
    Counters(Vec<Counter>),
    /// To [`Call::Denials`].
    Denials(Vec<DenialStatus>),
    /// To [`Call::Services`].
    Services(Vec<ServicePortStatus>),
    /// To [`Call::Explain`]: for each address family that both ends have, what `sluicectl policy explain -o json` prints.
    Explained(Vec<serde_json::Value>),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what was attempted, on what, and what to do.
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Not now: try again later (CNI error 11).
    Unavailable,
    /// The request makes no sense.
    Invalid,
    /// No room: a table or the node is full.
    Exhausted,
    /// The kernel or the disk refused.
    Internal,
    /// The protocol's version is not spoken.
    Version,
}

/// The agent's own state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it can serve ADD.
    pub ready: bool,
    /// Where not ready: what it waits for.
    pub waiting_for: Option<String>,
    /// Version of the agent.
    pub agent_version: String,
    /// Name of this node.
    pub node: String,
    /// Addresses of this node.
    pub addresses: Vec<IpAddr>,
    /// Pod CIDRs of this node.
    pub pod_cidrs: Vec<String>,
    /// Interfaces to the outside.
    pub uplinks: Vec<String>,
    /// MTU of new pods, bytes.
    pub mtu: u32,
    /// Number of endpoints.
    pub endpoints: usize,
    /// Numbers of objects that the source has told of.
    #[serde(default)]
    pub objects: ObjectCounts,
    /// What the policies take that concern this node.
    #[serde(default)]
    pub policy: PolicyStatus,
    /// Objects or settings that could not be used, each with what is wrong and what to do.
    pub problems: Vec<String>,
    /// What there is not and need not be: what that means, and how to have it.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How many objects a source has told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectCounts {
    /// Nodes.
    pub nodes: usize,
    /// Pods with addresses of their own.
    pub pods: usize,
    /// Namespaces.
    pub namespaces: usize,
    /// Policies, of either kind.
    #[serde(default)]
    pub policies: usize,
    /// Ports of Services and host ports that are served here, each family by itself.
    #[serde(default)]
    pub service_ports: usize,
}

/// A port of a Service, or a host port, of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePortStatus {
    /// The Service's namespace; empty: it is a host port.
    pub namespace: String,
    /// The Service's name; of a host port, whose it is.
    pub name: String,
    /// The port's name; empty: it has none.
    pub port: String,
    /// Its number.
    pub number: u16,
    /// Its protocol: `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Where clients reach it.
    pub frontends: Vec<FrontendStatus>,
    /// Who may serve.
    pub backends: Vec<BackendStatus>,
    /// Seconds that a client stays with its backend; `None`: it does not.
    pub affinity: Option<u32>,
    /// Who may use its load balancers; empty: everybody.
    pub source_ranges: Vec<String>,
}

/// Where clients reach a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendStatus {
    /// The address; `None`: any at which this node serves node ports.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalIP` or `HostPort`.
    pub kind: String,
    /// What becomes of clients of this node: `served`, `rejected` or `dropped`.
    pub inside: String,
    /// What becomes of all others.
    pub outside: String,
}

/// Who may serve a port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub is_local: bool,
    /// Whom it is given to: `cluster_ip`, `inside`, `outside`. None: only to who has it already.
    pub serves: Vec<String>,
}

/// The policies that concern this node, and how much of the tables they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Policies that select a pod of this node.
    pub policies: usize,
    /// What they come to: rule sets of pods,
    pub rule_sets: usize,
    /// and identities of those whom their rules are about.
    pub identities: usize,
    /// Rules in the tables,
    pub rules: usize,
    /// and how many there is room for.
    pub rules_limit: usize,
    /// Prefixes in the tables,
    pub prefixes: usize,
    /// and how many there is room for.
    pub prefixes_limit: usize,
    /// Pods of this node that are denied everything, because there is no room for their policies.
    pub closed: usize,
    /// Pods of this node whose policies are only tried: what they deny is told of, and let through.
    pub audited: usize,
}

/// An endpoint of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// What the plugin wrote of it.
    #[serde(flatten)]
    pub record: EndpointRecord,
    /// Its slot in the kernel's tables.
    pub slot: u32,
    /// The revision that its flows must have been judged under.
    pub revision: u32,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pods' addresses.
    pub pod_cidrs: Vec<String>,
    /// `local`, `native` or `vxlan`.
    pub routing: String,
}

/// A flow, as its opener sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// IP protocol number.
    pub protocol: u8,
    /// Address that opened it.
    pub source: IpAddr,
    /// Port that opened it.
    pub source_port: u16,
    /// Address that it was opened to.
    pub destination: IpAddr,
    /// Port that it was opened to.
    pub destination_port: u16,
    /// Where its packets enter: `host`, `net`, `overlay`, or the interface of a pod.
    pub scope: String,
    /// Where its packets go: `pod`, `neighbour`, `overlay`, `stack`.
    pub deliver: String,
    /// Source address and port behind translation, where translated.
    pub translated_source: Option<(IpAddr, u16)>,
    /// Destination address and port behind translation, where translated.
    pub translated_destination: Option<(IpAddr, u16)>,
    /// Whether it was answered.
    pub established: bool,
    /// Packets and bytes in the direction in which it was opened.
    pub sent: (u64, u64),
    /// Packets and bytes of the answers.
    pub received: (u64, u64),
    /// Seconds since its last packet in either direction.
    pub idle_seconds: u64,
    /// The pod that opened it, where it is of this node.
    pub pod: Option<PodRef>,
    /// What policies said when it was last judged: `allowed`, or `audited` where they would have denied it.
    pub verdict: String,
    /// What of whose policies said so, of the pod that opened it; `None`: no policy does, or it is not of this node.
    pub egress: Option<PolicyVerdict>,
    /// The same of the pod that it was opened to.
    pub ingress: Option<PolicyVerdict>,
}

/// What has decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyVerdict {
    /// The policy, and what of it, as answers of `sluicectl policy matrix` have it; of several that isolate the pod, the
    /// first. `None`: one that is gone.
    pub policy: Option<serde_json::Value>,
    /// The same in words.
    pub reason: String,
}

/// Something that policies have denied, or would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DenialStatus {
    /// The pod whose policies were asked; `None`: it is gone, or was never named.
    pub pod: Option<PodRef>,
    /// `ingress` or `egress`, as that pod sees it.
    pub direction: String,
    /// `denied`, or `audited`: it passed, because the node or namespace only audits.
    pub verdict: String,
    /// The other end.
    pub peer: IpAddr,
    /// The pod that has this address now, where one has.
    pub peer_pod: Option<PodRef>,
    /// IP protocol number.
    pub protocol: u8,
    /// Port that it was sent to; 0 where the protocol has none.
    pub port: u16,
    /// Packets; of what passed, the first of each flow, and of each time that it was judged again.
    pub packets: u64,
    /// Seconds since the last one.
    pub idle_seconds: u64,
    /// The policy that said so, and what of it, as answers of `sluicectl policy matrix` have it; of several that isolate the
    /// pod, the first. `None`: no policy does, or one that is gone.
    pub policy: Option<serde_json::Value>,
    /// Why, in words.
    pub reason: String,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// The program that counted.
    pub hook: String,
    /// What it counted.
    pub reason: String,
    /// Whether this is a reason to drop.
    pub drop: bool,
    /// How often.
    pub packets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_what_the_architecture_says() {
        let status = Request { version: VERSION, request: Call::Status {} };
        assert_eq!(serde_json::to_string(&status).expect("serializes"), r#"{"version":1,"request":{"status":{}}}"#);
        let done = Response { version: VERSION, outcome: Outcome::Ok(Answer::Done) };
        assert_eq!(serde_json::to_string(&done).expect("serializes"), r#"{"version":1,"ok":"done"}"#);
        let failed = Response {
            version: VERSION,
            outcome: Outcome::Error(Failure { kind: ErrorKind::Unavailable, message: "starting".into() }),
        };
        let text = r#"{"version":1,"error":{"kind":"unavailable","message":"starting"}}"#;
        assert_eq!(serde_json::to_string(&failed).expect("serializes"), text);
        assert_eq!(serde_json::from_str::<Response>(text).expect("parses"), failed);
    }
}
