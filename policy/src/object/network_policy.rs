//! NetworkPolicies (`networking.k8s.io/v1`).

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::block::Block;
use crate::labels;
use crate::name::{Kind, ObjectError, ObjectName};
use crate::object::policy::{Action, Peer, Peers, Policy, PolicyObject, PolicyRule, Scope, Tier};
use crate::path::{FieldError, Path};
use crate::reading::{Reading, Strictness};
use crate::selector::Selector;
use crate::traffic::{Ports, Traffic, Transport};

impl Policy for NetworkPolicy {
    fn read(&self, strictness: Strictness) -> Result<PolicyObject, ObjectError> {
        let name = ObjectName::of(Kind::NetworkPolicy, &self.metadata)?;
        let missing = NetworkPolicySpec::default();
        let spec = self.spec.as_ref().unwrap_or(&missing);
        read(&name, spec, Reading::new(strictness)).map_err(|error| name.wrong(error.field, error.what))
    }
}

fn read(name: &ObjectName, spec: &NetworkPolicySpec, mut reading: Reading) -> Result<PolicyObject, FieldError> {
    let root = Path::root("spec");
    let pods = match &spec.pod_selector {
        Some(selector) => Selector::of(selector, &root.field("podSelector"))?,
        None => Selector::everything(),
    };
    let namespace = name.namespace.as_str();
    let list = root.field("ingress");
    let mut ingress = Vec::new();
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        let text = Text { peers: rule.from.as_deref(), field: "from", ports: rule.ports.as_deref() };
        ingress.push(read_rule(namespace, &text, &list.index(index), &mut reading)?);
    }
    let list = root.field("egress");
    let mut egress = Vec::new();
    for (index, rule) in spec.egress.iter().flatten().enumerate() {
        let text = Text { peers: rule.to.as_deref(), field: "to", ports: rule.ports.as_deref() };
        egress.push(read_rule(namespace, &text, &list.index(index), &mut reading)?);
    }
    let isolates = isolated(spec, &root.field("policyTypes"))?;
    // Rules of a direction that is not listed are ignored.
    let kept = |isolates: bool, rules: Vec<PolicyRule>| if isolates { rules } else { Vec::new() };
    Ok(PolicyObject {
        name: name.clone(),
        tier: Tier::Namespaced,
        scope: Scope::Named(namespace.into()),
        pods,
        isolates,
        rules: [kept(isolates[0], ingress), kept(isolates[1], egress)],
        notes: reading.notes,
    })
}

/// Which directions a policy isolates. Without `policyTypes` it is ingress, and egress where there are rules for it.
fn isolated(spec: &NetworkPolicySpec, path: &Path<'_>) -> Result<[bool; 2], FieldError> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return Ok([true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())]);
    }
    if types.len() > 2 {
        return Err(path.wrong("must not list more than two"));
    }
    let mut isolates = [false; 2];
    for (index, name) in types.iter().enumerate() {
        match name.as_str() {
            "Ingress" => isolates[0] = true,
            "Egress" => isolates[1] = true,
            other => return Err(path.index(index).wrong(format!("{other:?} is neither Ingress nor Egress"))),
        }
    }
    Ok(isolates)
}

/// A rule as it is written.
struct Text<'a> {
    peers: Option<&'a [NetworkPolicyPeer]>,
    /// Where they stand.
    field: &'a str,
    ports: Option<&'a [NetworkPolicyPort]>,
}

fn read_rule(
    namespace: &str,
    text: &Text<'_>,
    path: &Path<'_>,
    reading: &mut Reading,
) -> Result<PolicyRule, FieldError> {
    let list = path.field("ports");
    let ports = text.ports.unwrap_or_default();
    let traffic = if ports.is_empty() {
        Traffic::Any
    } else {
        let read = |(index, port)| read_port(port, &list.index(index));
        Traffic::Listed(ports.iter().enumerate().map(read).collect::<Result<_, _>>()?)
    };
    let list = path.field(text.field);
    let peers = text.peers.unwrap_or_default();
    let peers = if peers.is_empty() {
        Peers::Anyone
    } else {
        let read = |(index, peer)| read_peer(namespace, peer, &list.index(index), reading);
        Peers::listed(peers.iter().enumerate().map(read).collect::<Result<_, _>>()?)
    };
    Ok(PolicyRule { action: Action::Accept, peers, traffic, name: String::new() })
}

fn read_peer(
    namespace: &str,
    peer: &NetworkPolicyPeer,
    path: &Path<'_>,
    reading: &mut Reading,
) -> Result<Peer, FieldError> {
    let pods = peer.pod_selector.as_ref().map(|selector| Selector::of(selector, &path.field("podSelector")));
    let namespaces =
        peer.namespace_selector.as_ref().map(|selector| Selector::of(selector, &path.field("namespaceSelector")));
    match (pods.transpose()?, namespaces.transpose()?, &peer.ip_block) {
        (None, None, None) => Err(path.wrong("must have a podSelector, a namespaceSelector or an ipBlock")),
        (None, None, Some(block)) => {
            let excepts = block.except.as_deref().unwrap_or_default();
            Ok(Peer::Block(Block::of(&block.cidr, excepts, &path.field("ipBlock"), reading)?))
        }
        (_, _, Some(_)) => Err(path.wrong("must not have both an ipBlock and a selector")),
        (pods, Some(namespaces), None) => Ok(Peer::Pods(Scope::Labelled(namespaces), pods.unwrap_or_default())),
        (Some(pods), None, None) => Ok(Peer::Pods(Scope::Named(namespace.into()), pods)),
    }
}

fn read_port(port: &NetworkPolicyPort, path: &Path<'_>) -> Result<Ports, FieldError> {
    let transport = Transport::named(port.protocol.as_deref()).ok_or_else(|| {
        let what = format!("{:?} is not TCP, UDP or SCTP", port.protocol.as_deref().unwrap_or_default());
        path.field("protocol").wrong(what)
    })?;
    let number = |value: i32, field: &str| {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        port.ok_or_else(|| path.field(field).wrong(format!("{value} is no port: 1 to 65535")))
    };
    match (&port.port, port.end_port) {
        (None, None) => Ok(Ports::all(transport)),
        (None, Some(_)) => Err(path.field("endPort").wrong("must not stand without a port")),
        (Some(IntOrString::Int(first)), last) => {
            let first = number(*first, "port")?;
            let last = last.map_or(Ok(first), |last| number(last, "endPort"))?;
            if last < first {
                return Err(path.field("endPort").wrong(format!("{last} is below the port {first}")));
            }
            Ok(Ports::Range(transport, first, last))
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            Err(path.field("endPort").wrong("must not stand beside a port that is a name"))
        }
        (Some(IntOrString::String(name)), None) => {
            labels::check_port_name(name).map_err(|what| path.field("port").wrong(what))?;
            Ok(Ports::Named(Some(transport), name.as_str().into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Direction, Severity};
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Result<PolicyObject, String> {
        let policy: NetworkPolicy =
            serde_json::from_value(json!({ "metadata": { "name": "db", "namespace": "x" }, "spec": spec })).unwrap();
        policy.read(Strictness::Strict).map_err(|error| error.to_string())
    }

    #[test]
    fn policy_types_have_defaults() {
        let isolates = |spec| policy(spec).unwrap().isolates;
        assert_eq!(isolates(json!({})), [true, false]);
        assert_eq!(isolates(json!({ "egress": [] })), [true, false]);
        assert_eq!(isolates(json!({ "egress": [{}] })), [true, true]);
        assert_eq!(isolates(json!({ "policyTypes": ["Egress"] })), [false, true]);
        assert_eq!(isolates(json!({ "policyTypes": ["Egress", "Ingress"] })), [true, true]);
    }

    #[test]
    fn a_section_that_is_not_listed_is_ignored_but_must_make_sense() {
        let ignored = policy(json!({ "policyTypes": ["Ingress"], "ingress": [{}], "egress": [{}] })).unwrap();
        assert_eq!(ignored.rules(Direction::Egress), []);
        assert_eq!(ignored.rules(Direction::Ingress).len(), 1);
        assert!(policy(json!({ "policyTypes": ["Ingress"], "egress": [{ "to": [{}] }] })).is_err());
    }

    #[test]
    fn missing_and_empty_mean_anyone_and_anything_but_an_empty_selector_means_pods() {
        let rule = |rule: Value| policy(json!({ "ingress": [rule] })).unwrap().rules[0][0].clone();
        for open in [json!({}), json!({ "from": [], "ports": [] })] {
            assert_eq!((rule(open.clone()).peers, rule(open).traffic), (Peers::Anyone, Traffic::Any));
        }
        let everything = Selector::everything;
        assert_eq!(
            rule(json!({ "from": [{ "podSelector": {} }] })).peers,
            Peers::listed(vec![Peer::Pods(Scope::Named("x".into()), everything())])
        );
        assert_eq!(
            rule(json!({ "from": [{ "namespaceSelector": {} }] })).peers,
            Peers::listed(vec![Peer::Pods(Scope::Labelled(everything()), everything())])
        );
    }

    #[test]
    fn ports_have_defaults() {
        let ports =
            |port: Value| match &policy(json!({ "ingress": [{ "ports": [port] }] })).unwrap().rules[0][0].traffic {
                Traffic::Listed(ports) => ports[0].clone(),
                Traffic::Any => panic!("ports were listed"),
            };
        assert_eq!(ports(json!({})), Ports::all(Transport::Tcp));
        assert_eq!(ports(json!({ "port": 53, "protocol": "UDP" })), Ports::Range(Transport::Udp, 53, 53));
        assert_eq!(
            ports(json!({ "port": 1, "endPort": 65535, "protocol": "SCTP" })),
            Ports::Range(Transport::Sctp, 1, 65535)
        );
        assert_eq!(ports(json!({ "port": "web" })), Ports::Named(Some(Transport::Tcp), "web".into()));
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let block =
            |except: &str| json!([{ "podSelector": {} }, { "ipBlock": { "cidr": "10.0.0.0/8", "except": [except] } }]);
        let port = |port: Value| json!({ "ingress": [{ "ports": [{}, port] }] });
        for (spec, field) in [
            (json!({ "policyTypes": ["Both"] }), "spec.policyTypes[0]"),
            (json!({ "policyTypes": ["Ingress", "Egress", "Ingress"] }), "spec.policyTypes"),
            (json!({ "podSelector": { "matchLabels": { "a b": "" } } }), "spec.podSelector.matchLabels[a b]"),
            (json!({ "ingress": [{ "from": block("11.0.0.0/8") }] }), "spec.ingress[0].from[1].ipBlock.except[0]"),
            (json!({ "egress": [{ "to": [{}] }] }), "spec.egress[0].to[0]"),
            (
                json!({ "egress": [{ "to": [{ "podSelector": {}, "ipBlock": { "cidr": "10.0.0.0/8" } }] }] }),
                "spec.egress[0].to[0]",
            ),
            (port(json!({ "protocol": "ICMP" })), "spec.ingress[0].ports[1].protocol"),
            (port(json!({ "port": 0 })), "spec.ingress[0].ports[1].port"),
            (port(json!({ "port": 65536 })), "spec.ingress[0].ports[1].port"),
            (port(json!({ "port": "80" })), "spec.ingress[0].ports[1].port"),
            (port(json!({ "port": 80, "endPort": 79 })), "spec.ingress[0].ports[1].endPort"),
            (port(json!({ "port": 80, "endPort": 70000 })), "spec.ingress[0].ports[1].endPort"),
            (port(json!({ "port": "web", "endPort": 80 })), "spec.ingress[0].ports[1].endPort"),
            (port(json!({ "endPort": 80 })), "spec.ingress[0].ports[1].endPort"),
        ] {
            let error = policy(spec).expect_err("nonsense");
            assert!(error.starts_with(&format!("NetworkPolicy x/db: {field}: ")), "{error}");
        }
    }

    #[test]
    fn names_are_checked() {
        let policy: NetworkPolicy = serde_json::from_value(json!({ "metadata": { "name": "A" } })).unwrap();
        let error = policy.read(Strictness::AsServed).expect_err("no name");
        assert!(error.to_string().starts_with("NetworkPolicy default/A: metadata.name: "), "{error}");
    }
    #[test]
    fn a_block_with_host_bits_is_taken_and_noted_where_it_is_served() {
        let spec = json!({ "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.1/4", "except": ["10.0.0.1/8"] } }] }] });
        let whole = json!({ "metadata": { "name": "db", "namespace": "x" }, "spec": spec });
        let policy: NetworkPolicy = serde_json::from_value(whole).unwrap();
        let error = policy.read(Strictness::Strict).expect_err("it is not as it should be").to_string();
        assert!(error.starts_with("NetworkPolicy x/db: spec.egress[0].to[0].ipBlock.cidr: "), "{error}");
        let read = policy.read(Strictness::AsServed).unwrap();
        let Peers::Listed(peers) = &read.rules(Direction::Egress)[0].peers else { panic!("peers were listed") };
        let block = Block { cidr: "0.0.0.0/4".parse().unwrap(), excepts: ["10.0.0.0/8".parse().unwrap()].into() };
        assert_eq!(peers[..], [Peer::Block(block)]);
        let block = "spec.egress[0].to[0].ipBlock";
        let notes: Vec<(Severity, &str)> = read.notes.iter().map(|note| (note.severity, &*note.field)).collect();
        let (cidr, except) = (format!("{block}.cidr"), format!("{block}.except[0]"));
        assert_eq!(notes, [(Severity::Warning, &*cidr), (Severity::Warning, &*except)]);
    }
}
