//! ClusterNetworkPolicies. What becomes of rules that are not understood is said with the
//! [types](crate::cluster_policy).

use crate::block::Block;
use crate::cluster_policy::{
    ClusterNetworkPolicy, ClusterNetworkPolicyEgressPeer, ClusterNetworkPolicyIngressPeer, ClusterNetworkPolicyPort,
    ClusterNetworkPolicyProtocol, ClusterNetworkPolicySelector, ClusterNetworkPolicySpec, ClusterNetworkPolicySubject,
    ClusterNetworkPolicyTransport, NamespacedPod, Unknown,
};
use crate::labels;
use crate::name::{Kind, ObjectError, ObjectName};
use crate::object::policy::{Action, Note, Peer, Peers, Policy, PolicyObject, PolicyRule, Scope, Severity, Tier};
use crate::path::{FieldError, Path};
use crate::reading::{Reading, Strictness};
use crate::selector::Selector;
use crate::traffic::{Ports, Traffic, Transport};

/// The greatest number of rules, peers, protocols and networks in one list.
const MOST: usize = 25;
/// The greatest length of a rule's name.
const LONGEST: usize = 100;

impl Policy for ClusterNetworkPolicy {
    fn read(&self, strictness: Strictness) -> Result<PolicyObject, ObjectError> {
        let name = ObjectName::of(Kind::ClusterNetworkPolicy, &self.metadata)?;
        read(&name, &self.spec, strictness).map_err(|error| name.wrong(error.field, error.what))
    }
}

fn read(
    name: &ObjectName,
    spec: &ClusterNetworkPolicySpec,
    strictness: Strictness,
) -> Result<PolicyObject, FieldError> {
    let root = Path::root("spec");
    let priority = match spec.priority {
        Some(priority @ 0..=1000) => priority as u16,
        Some(other) => return Err(root.field("priority").wrong(format!("{other} is not 0 to 1000"))),
        None => return Err(root.field("priority").wrong("is required")),
    };
    let tier = match spec.tier.as_str() {
        "Admin" => Tier::Admin(priority),
        "Baseline" => Tier::Baseline(priority),
        other => return Err(root.field("tier").wrong(format!("{other:?} is neither Admin nor Baseline"))),
    };
    let mut doubts = Doubts { open: Vec::new(), reading: Reading::new(strictness) };
    doubts.unknown(&spec.unknown, &root)?;
    let (scope, pods) = read_subject(&spec.subject, &root.field("subject"), &mut doubts)?;
    doubts.conclude("it has no effect");

    let list = root.field("ingress");
    at_most(spec.ingress.len(), &list)?;
    let mut ingress = Vec::new();
    for (index, rule) in spec.ingress.iter().enumerate() {
        let text = Text { action: &rule.action, name: &rule.name, unknown: &rule.unknown, protocols: &rule.protocols };
        ingress.push(read_rule(&text, (&rule.from, "from"), read_ingress_peer, &list.index(index), &mut doubts)?);
    }
    let list = root.field("egress");
    at_most(spec.egress.len(), &list)?;
    let mut egress = Vec::new();
    for (index, rule) in spec.egress.iter().enumerate() {
        let path = list.index(index);
        let has_no_pods = |peer: &ClusterNetworkPolicyEgressPeer| {
            peer.nodes.is_some() || peer.networks.is_some() || peer.domain_names.is_some()
        };
        let is_named = |protocol: &ClusterNetworkPolicyProtocol| protocol.destination_named_port.is_some();
        if rule.to.iter().any(has_no_pods) && rule.protocols.iter().flatten().any(is_named) {
            return Err(path.wrong("nodes, networks and domainNames have no named ports"));
        }
        let text = Text { action: &rule.action, name: &rule.name, unknown: &rule.unknown, protocols: &rule.protocols };
        egress.push(read_rule(&text, (&rule.to, "to"), read_egress_peer, &path, &mut doubts)?);
    }
    let (isolates, rules, notes) = ([false; 2], [ingress, egress], doubts.reading.notes);
    Ok(PolicyObject { name: name.clone(), tier, scope, pods, isolates, rules, notes })
}

/// What is not understood.
struct Doubts {
    /// What it is not known of yet what becomes of it.
    open: Vec<FieldError>,
    reading: Reading,
}

impl Doubts {
    fn add(&mut self, path: &Path<'_>, what: &str) {
        self.open.push(path.wrong(what));
    }

    /// Whether there are unknown fields here.
    ///
    /// # Errors
    /// In strict reading, if so.
    fn unknown(&mut self, unknown: &Unknown, path: &Path<'_>) -> Result<bool, FieldError> {
        for name in unknown.keys() {
            let field = path.field(name);
            match self.reading.strictness {
                Strictness::Strict => return Err(field.unknown()),
                Strictness::AsServed => self.add(&field, "this field is not supported"),
            }
        }
        Ok(!unknown.is_empty())
    }

    /// This becomes of it.
    fn conclude(&mut self, conclusion: &str) {
        let note = |FieldError { field, what }| Note {
            severity: Severity::Error,
            field,
            what: format!("{what}; {conclusion}"),
        };
        self.reading.notes.extend(self.open.drain(..).map(note));
    }
}

fn at_most(count: usize, path: &Path<'_>) -> Result<(), FieldError> {
    if count > MOST { Err(path.wrong(format!("has {count} entries, more than {MOST}"))) } else { Ok(()) }
}

fn some_at_most(count: usize, path: &Path<'_>) -> Result<(), FieldError> {
    if count == 0 { Err(path.wrong("must not be empty")) } else { at_most(count, path) }
}

/// At most one of these fields may be set.
fn at_most_one(are_set: &[bool], path: &Path<'_>) -> Result<(), FieldError> {
    let count = are_set.iter().filter(|is_set| **is_set).count();
    if count > 1 { Err(path.wrong("must have exactly one field")) } else { Ok(()) }
}

fn read_subject(
    subject: &ClusterNetworkPolicySubject,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<(Scope, Selector), FieldError> {
    doubts.unknown(&subject.unknown, path)?;
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => {
            let namespaces = read_selector(namespaces, &path.field("namespaces"), doubts)?;
            Ok((Scope::Labelled(namespaces), Selector::everything()))
        }
        (None, Some(pods)) => {
            let path = path.field("pods");
            read_pods(pods, &path, doubts)
        }
        (None, None) => Err(path.wrong("must have namespaces or pods")),
        (Some(_), Some(_)) => Err(path.wrong("must not have both namespaces and pods")),
    }
}

fn read_pods(pods: &NamespacedPod, path: &Path<'_>, doubts: &mut Doubts) -> Result<(Scope, Selector), FieldError> {
    doubts.unknown(&pods.unknown, path)?;
    let mut read = |selector: &Option<ClusterNetworkPolicySelector>, field| {
        let path = path.field(field);
        let selector = selector.as_ref().ok_or_else(|| path.wrong("is required; {} selects all"))?;
        read_selector(selector, &path, doubts)
    };
    let namespaces = read(&pods.namespace_selector, "namespaceSelector")?;
    Ok((Scope::Labelled(namespaces), read(&pods.pod_selector, "podSelector")?))
}

fn read_selector(
    selector: &ClusterNetworkPolicySelector,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<Selector, FieldError> {
    doubts.unknown(&selector.unknown, path)?;
    Selector::of(&selector.labels, path)
}

/// A rule as it is written, but for its peers.
struct Text<'a> {
    action: &'a str,
    name: &'a str,
    unknown: &'a Unknown,
    protocols: &'a Option<Vec<ClusterNetworkPolicyProtocol>>,
}

fn read_rule<P>(
    text: &Text<'_>,
    (peers, field): (&[P], &str),
    read_peer: impl Fn(&P, &Path<'_>, &mut Vec<Peer>, &mut Doubts) -> Result<(), FieldError>,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<PolicyRule, FieldError> {
    if text.name.chars().count() > LONGEST {
        return Err(path.field("name").wrong(format!("has more than {LONGEST} characters")));
    }
    let action = match text.action {
        "Accept" => Action::Accept,
        "Deny" => Action::Deny,
        "Pass" => Action::Pass,
        other => return Err(path.field("action").wrong(format!("{other:?} is not Accept, Deny or Pass"))),
    };
    doubts.unknown(text.unknown, path)?;

    let list = path.field(field);
    some_at_most(peers.len(), &list)?;
    let mut read = Vec::new();
    for (index, peer) in peers.iter().enumerate() {
        read_peer(peer, &list.index(index), &mut read, doubts)?;
    }
    let peers = Peers::listed(read);

    let list = path.field("protocols");
    let traffic = match text.protocols {
        None => Traffic::Any,
        Some(protocols) => {
            some_at_most(protocols.len(), &list)?;
            let mut ports = Vec::new();
            for (index, protocol) in protocols.iter().enumerate() {
                ports.extend(read_protocol(protocol, &list.index(index), doubts)?);
            }
            Traffic::Listed(ports.into())
        }
    };

    let rule = PolicyRule { action, peers, traffic, name: text.name.to_owned() };
    if doubts.open.is_empty() {
        return Ok(rule);
    }
    match action {
        Action::Accept => {
            doubts.conclude("to be safe, its rule accepts nothing");
            Ok(PolicyRule { peers: Peers::listed(Vec::new()), ..rule })
        }
        Action::Deny | Action::Pass => {
            doubts.conclude("to be safe, its rule denies everything in this direction");
            Ok(PolicyRule { action: Action::Deny, peers: Peers::Anyone, traffic: Traffic::Any, ..rule })
        }
    }
}

const NO_FIELD: &str = "no supported field is set";

/// Reads what both kinds of peers have.
fn read_pod_peer(
    namespaces: &Option<ClusterNetworkPolicySelector>,
    pods: &Option<NamespacedPod>,
    path: &Path<'_>,
    peers: &mut Vec<Peer>,
    doubts: &mut Doubts,
) -> Result<(), FieldError> {
    if let Some(namespaces) = namespaces {
        let namespaces = read_selector(namespaces, &path.field("namespaces"), doubts)?;
        peers.push(Peer::Pods(Scope::Labelled(namespaces), Selector::everything()));
    }
    if let Some(pods) = pods {
        let (scope, selector) = read_pods(pods, &path.field("pods"), doubts)?;
        peers.push(Peer::Pods(scope, selector));
    }
    Ok(())
}

fn read_ingress_peer(
    peer: &ClusterNetworkPolicyIngressPeer,
    path: &Path<'_>,
    peers: &mut Vec<Peer>,
    doubts: &mut Doubts,
) -> Result<(), FieldError> {
    let are_set = [peer.namespaces.is_some(), peer.pods.is_some()];
    at_most_one(&are_set, path)?;
    if doubts.unknown(&peer.unknown, path)? {
        return Ok(());
    }
    if !are_set.contains(&true) {
        doubts.add(path, NO_FIELD);
    }
    read_pod_peer(&peer.namespaces, &peer.pods, path, peers, doubts)
}

fn read_egress_peer(
    peer: &ClusterNetworkPolicyEgressPeer,
    path: &Path<'_>,
    peers: &mut Vec<Peer>,
    doubts: &mut Doubts,
) -> Result<(), FieldError> {
    let are_set = [
        peer.namespaces.is_some(),
        peer.pods.is_some(),
        peer.nodes.is_some(),
        peer.networks.is_some(),
        peer.domain_names.is_some(),
    ];
    at_most_one(&are_set, path)?;
    if doubts.unknown(&peer.unknown, path)? {
        return Ok(());
    }
    if !are_set.contains(&true) {
        doubts.add(path, NO_FIELD);
    }
    if peer.domain_names.is_some() {
        doubts.add(&path.field("domainNames"), "domain names are not supported");
    }
    if let Some(nodes) = &peer.nodes {
        peers.push(Peer::Nodes(read_selector(nodes, &path.field("nodes"), doubts)?));
    }
    if let Some(networks) = &peer.networks {
        let list = path.field("networks");
        some_at_most(networks.len(), &list)?;
        for (index, network) in networks.iter().enumerate() {
            let here = list.index(index);
            if networks[..index].contains(network) {
                return Err(here.wrong(format!("{network:?} is listed twice")));
            }
            peers.push(Peer::Block(Block::whole(network, &here, &mut doubts.reading)?));
        }
    }
    read_pod_peer(&peer.namespaces, &peer.pods, path, peers, doubts)
}

/// Reads a protocol; `None` where it is not understood.
fn read_protocol(
    protocol: &ClusterNetworkPolicyProtocol,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<Option<Ports>, FieldError> {
    let transports = [
        (Transport::Tcp, "tcp", &protocol.tcp),
        (Transport::Udp, "udp", &protocol.udp),
        (Transport::Sctp, "sctp", &protocol.sctp),
    ];
    let [tcp, udp, sctp] = transports.map(|(_, _, field)| field.is_some());
    at_most_one(&[tcp, udp, sctp, protocol.destination_named_port.is_some()], path)?;
    if doubts.unknown(&protocol.unknown, path)? {
        return Ok(None);
    }
    if let Some(name) = &protocol.destination_named_port {
        labels::check_port_name(name).map_err(|what| path.field("destinationNamedPort").wrong(what))?;
        return Ok(Some(Ports::Named(None, name.as_str().into())));
    }
    for (transport, field, set) in transports {
        if let Some(set) = set {
            return read_transport(transport, set, &path.field(field), doubts);
        }
    }
    doubts.add(path, NO_FIELD);
    Ok(None)
}

fn read_transport(
    transport: Transport,
    field: &ClusterNetworkPolicyTransport,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<Option<Ports>, FieldError> {
    if doubts.unknown(&field.unknown, path)? {
        return Ok(None);
    }
    let Some(port) = &field.destination_port else {
        doubts.add(path, NO_FIELD);
        return Ok(None);
    };
    let range = read_port(port, &path.field("destinationPort"), doubts)?;
    Ok(range.map(|(first, last)| Ports::Range(transport, first, last)))
}

fn read_port(
    port: &ClusterNetworkPolicyPort,
    path: &Path<'_>,
    doubts: &mut Doubts,
) -> Result<Option<(u16, u16)>, FieldError> {
    let number = |value: i64, path: &Path<'_>| {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        port.ok_or_else(|| path.wrong(format!("{value} is no port: 1 to 65535")))
    };
    at_most_one(&[port.number.is_some(), port.range.is_some()], path)?;
    if doubts.unknown(&port.unknown, path)? {
        return Ok(None);
    }
    match (port.number, &port.range) {
        (Some(value), _) => {
            let only = number(value, &path.field("number"))?;
            Ok(Some((only, only)))
        }
        (None, Some(range)) => {
            let path = path.field("range");
            let (first, last) = (number(range.start, &path.field("start"))?, number(range.end, &path.field("end"))?);
            if first >= last {
                return Err(path.wrong(format!("its start {first} is not below its end {last}")));
            }
            Ok((!doubts.unknown(&range.unknown, &path)?).then_some((first, last)))
        }
        (None, None) => {
            doubts.add(path, NO_FIELD);
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Direction;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Result<PolicyObject, String> {
        read_as(Strictness::AsServed, &spec)
    }

    fn read_as(strictness: Strictness, spec: &Value) -> Result<PolicyObject, String> {
        let mut whole = json!({ "tier": "Admin", "priority": 5, "subject": { "namespaces": {} } });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let policy: ClusterNetworkPolicy =
            serde_json::from_value(json!({ "metadata": { "name": "c" }, "spec": whole })).unwrap();
        policy.read(strictness).map_err(|error| error.to_string())
    }

    fn egress(action: &str, to: Value, protocols: Value) -> PolicyObject {
        let mut rule = json!({ "action": action, "to": to });
        if !protocols.is_null() {
            rule["protocols"] = protocols;
        }
        policy(json!({ "egress": [rule] })).unwrap()
    }

    #[test]
    fn all_forms_are_read() {
        let to = json!([
            { "namespaces": {} },
            { "pods": { "namespaceSelector": {}, "podSelector": { "matchLabels": { "a": "1" } } } },
            { "nodes": {} },
            { "networks": ["10.0.0.0/8", "fd00::/8"] },
        ]);
        let protocols = json!([
            { "tcp": { "destinationPort": { "number": 80 } } },
            { "udp": { "destinationPort": { "range": { "start": 1, "end": 65535 } } } },
        ]);
        let read = egress("Deny", to, protocols);
        let rule = &read.rules(Direction::Egress)[0];
        let Peers::Listed(peers) = &rule.peers else { panic!("peers were listed") };
        assert_eq!((rule.action, peers.len(), read.tier, read.notes.len()), (Action::Deny, 5, Tier::Admin(5), 0));
        let ports = [Ports::Range(Transport::Tcp, 80, 80), Ports::Range(Transport::Udp, 1, 65535)];
        assert_eq!(rule.traffic, Traffic::Listed(ports.into()));
        let named = egress("Accept", json!([{ "namespaces": {} }]), json!([{ "destinationNamedPort": "web" }]));
        assert_eq!(named.rules[1][0].traffic, Traffic::Listed([Ports::Named(None, "web".into())].into()));
    }

    #[test]
    fn what_is_not_understood_accepts_nothing() {
        let network = json!({ "networks": ["10.0.0.0/8"] });
        for doubtful in [
            json!({ "domainNames": ["a.b"] }),
            json!({ "services": {} }),
            json!({ "namespaces": { "notSameLabels": ["a"] } }),
            json!({ "nodes": { "matchLabel": {} } }),
            json!({ "pods": { "namespaceSelector": { "sameLabels": ["a"] }, "podSelector": {} } }),
            json!({}),
        ] {
            for to in [json!([doubtful]), json!([doubtful, network])] {
                let read = egress("Accept", to, Value::Null);
                assert_eq!((&read.rules[1][0].peers, read.notes.len()), (&Peers::listed(Vec::new()), 1));
                assert!(read.notes[0].field.starts_with("spec.egress[0].to[0]"));
            }
        }
        let web = json!({ "tcp": { "destinationPort": { "number": 80 } } });
        for doubtful in [json!({ "icmp": {} }), json!({ "tcp": {} }), json!({ "tcp": { "destinationPort": {} } })] {
            for protocols in [json!([doubtful]), json!([doubtful, web])] {
                let read = egress("Accept", json!([network]), protocols);
                assert_eq!((&read.rules[1][0].peers, read.notes.len()), (&Peers::listed(Vec::new()), 1));
            }
        }
        let rule = json!({ "action": "Accept", "to": [network], "sourcePorts": [1] });
        assert_eq!(policy(json!({ "egress": [rule] })).unwrap().rules[1][0].peers, Peers::listed(Vec::new()));
    }

    #[test]
    fn rules_to_deny_or_pass_what_is_not_understood_deny_everything() {
        for action in ["Deny", "Pass"] {
            for to in
                [json!([{ "domainNames": ["a.b"] }]), json!([{}]), json!([{ "namespaces": {} }, { "services": {} }])]
            {
                let read = egress(action, to, json!([{ "tcp": { "destinationPort": { "number": 80 } } }]));
                let rule = &read.rules[1][0];
                assert_eq!((rule.action, &rule.peers, &rule.traffic), (Action::Deny, &Peers::Anyone, &Traffic::Any));
                assert_eq!(read.notes.len(), 1);
            }
        }
    }

    #[test]
    fn unknown_fields_elsewhere_are_noted() {
        let read = policy(json!({ "log": true, "subject": { "namespaces": {}, "nodes": {} } })).unwrap();
        let fields: Vec<&str> = read.notes.iter().map(|note| note.field.as_str()).collect();
        assert_eq!(fields, ["spec.log", "spec.subject.nodes"]);
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let with = |to: Value, protocol: Value| json!({ "egress": [{ "action": "Deny", "to": [to], "protocols": [protocol] }] });
        let anyone = || json!({ "namespaces": {} });
        let port = |port: Value| with(anyone(), json!({ "tcp": { "destinationPort": port } }));
        let many: Vec<Value> = (0..26).map(|_| anyone()).collect();
        for (spec, field) in [
            (json!({ "tier": "Top" }), "spec.tier"),
            (json!({ "priority": 1001 }), "spec.priority"),
            (json!({ "priority": null }), "spec.priority"),
            (json!({ "subject": {} }), "spec.subject"),
            (json!({ "subject": { "namespaces": {}, "pods": {} } }), "spec.subject"),
            (json!({ "log": true }), "spec.log"),
            (json!({ "subject": { "namespaces": { "matchLabel": {} } } }), "spec.subject.namespaces.matchLabel"),
            (with(json!({ "services": {} }), json!({})), "spec.egress[0].to[0].services"),
            (
                with(anyone(), json!({ "tcp": { "destinationPorts": {} } })),
                "spec.egress[0].protocols[0].tcp.destinationPorts",
            ),
            (json!({ "ingress": [{ "action": "Allow", "from": [anyone()] }] }), "spec.ingress[0].action"),
            (json!({ "ingress": [{ "action": "Deny", "from": [] }] }), "spec.ingress[0].from"),
            (json!({ "ingress": [{ "action": "Deny", "from": many }] }), "spec.ingress[0].from"),
            (json!({ "subject": { "pods": { "namespaceSelector": {} } } }), "spec.subject.pods.podSelector"),
            (
                json!({ "ingress": [{ "action": "Deny", "from": [{ "pods": {} }] }] }),
                "spec.ingress[0].from[0].pods.namespaceSelector",
            ),
            (with(json!({ "pods": { "podSelector": {} } }), json!({})), "spec.egress[0].to[0].pods.namespaceSelector"),
            (
                json!({ "ingress": [{ "action": "Deny", "from": [anyone()], "name": "x".repeat(101) }] }),
                "spec.ingress[0].name",
            ),
            (
                json!({ "ingress": [{ "action": "Deny", "from": [anyone()], "protocols": [] }] }),
                "spec.ingress[0].protocols",
            ),
            (with(json!({ "namespaces": {}, "nodes": {} }), json!({})), "spec.egress[0].to[0]"),
            (with(json!({ "networks": [] }), json!({})), "spec.egress[0].to[0].networks"),
            (with(json!({ "networks": ["10.0.0.1/8"] }), json!({})), "spec.egress[0].to[0].networks[0]"),
            (with(json!({ "networks": ["::/0", "::/0"] }), json!({})), "spec.egress[0].to[0].networks[1]"),
            (with(json!({ "nodes": {} }), json!({ "destinationNamedPort": "web" })), "spec.egress[0]"),
            (
                with(anyone(), json!({ "destinationNamedPort": "80" })),
                "spec.egress[0].protocols[0].destinationNamedPort",
            ),
            (with(anyone(), json!({ "tcp": {}, "udp": {} })), "spec.egress[0].protocols[0]"),
            (port(json!({ "number": 0 })), "spec.egress[0].protocols[0].tcp.destinationPort.number"),
            (port(json!({ "number": 1, "range": {} })), "spec.egress[0].protocols[0].tcp.destinationPort"),
            (
                port(json!({ "range": { "start": 2, "end": 2 } })),
                "spec.egress[0].protocols[0].tcp.destinationPort.range",
            ),
        ] {
            let error = read_as(Strictness::Strict, &spec).expect_err("nonsense");
            assert!(error.starts_with(&format!("ClusterNetworkPolicy c: {field}: ")), "{error}");
        }
    }
    #[test]
    fn a_network_with_host_bits_is_taken_and_noted_where_it_is_served() {
        let read = egress("Deny", json!([{ "networks": ["10.0.0.1/8"] }]), Value::Null);
        let block = Block { cidr: "10.0.0.0/8".parse().unwrap(), excepts: [].into() };
        assert_eq!(read.rules[1][0].peers, Peers::listed(vec![Peer::Block(block)]));
        let note = &read.notes[0];
        assert_eq!((note.severity, &*note.field), (Severity::Warning, "spec.egress[0].to[0].networks[0]"));
    }
}
