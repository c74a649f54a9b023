//! What the agent knows of verdicts: of those that were given, and of those that would be.

use std::net::IpAddr;

use sluice_abi::{Ipv6, PolicyMode, RuleSetId};
use sluice_api::{DenialStatus, FlowStatus, PodRef, PolicyVerdict};
use sluice_policy::question::{self, Expected, PolicyRef, Probe, SideAnswer, party};
use sluice_policy::{Index, Party};

use crate::kernel::{Denied, Listed};

/// Something that policies have denied, as clients are told of it.
pub fn denial(index: &Index, denied: &Denied) -> DenialStatus {
    let Denied { record, key, packets, idle_seconds } = denied;
    let peer = address(key.peer);
    let PolicyVerdict { policy, reason } = verdict(index, key.policy).unwrap_or_else(|| PolicyVerdict {
        policy: None,
        reason: "no policy that could be named: the pod is not known, or its policies do not fit".into(),
    });
    DenialStatus {
        pod: record.as_ref().and_then(|record| record.pod.clone()),
        direction: key.direction.name().into(),
        verdict: match key.mode {
            PolicyMode::Enforce => "denied",
            PolicyMode::Audit => "audited",
        }
        .into(),
        peer,
        peer_pod: index.pod_at(peer).map(|pod| PodRef {
            namespace: pod.name.namespace.clone(),
            name: pod.name.name.clone(),
            uid: Some(pod.uid.clone()).filter(|uid| !uid.is_empty()),
        }),
        protocol: key.protocol.0 as u8,
        port: key.port.get(),
        packets: *packets,
        idle_seconds: *idle_seconds,
        policy,
        reason,
    }
}

/// A flow, as clients are told of it.
pub fn flow(index: &Index, listed: Listed) -> FlowStatus {
    let Listed { status, reasons: [egress, ingress] } = listed;
    FlowStatus { egress: verdict(index, egress), ingress: verdict(index, ingress), ..status }
}

/// What a reason's number stands for; `None`: it is 0.
fn verdict(index: &Index, number: u32) -> Option<PolicyVerdict> {
    let reason = index.reason(number);
    (number != 0).then(|| PolicyVerdict {
        policy: reason.and_then(PolicyRef::of).and_then(|policy| serde_json::to_value(policy).ok()),
        reason: reason.map_or_else(|| "a policy that is gone, or has changed since".into(), ToString::to_string),
    })
}

/// An address, as keys of denials have it.
fn address(peer: Ipv6) -> IpAddr {
    IpAddr::V6(peer.into()).to_canonical()
}

/// Why a flow is allowed or denied, for each family that both ends have.
///
/// # Errors
/// Where the question makes no sense, or has no answer.
pub fn explain(index: &Index, from: String, to: String, port: &str) -> Result<Vec<serde_json::Value>, String> {
    let probe = Probe { from, to, traffic: port.parse()?, expect: None };
    let (from, to) = (party(&probe.from)?, party(&probe.to)?);
    let mut explained = question::explain(&index.excerpt([&from, &to]), &probe)?;
    for explained in &mut explained {
        let (answer, reasoning) = (&mut explained.answer, &mut explained.reasoning);
        let sides =
            [(&from, &mut answer.egress, &mut reasoning.egress), (&to, &mut answer.ingress, &mut reasoning.ingress)];
        for (end, side, steps) in sides {
            if is_closed(index, end) {
                let reason = "its policies do not fit into the tables: all its traffic is denied until they do".into();
                *side = SideAnswer { verdict: Expected::Deny, policy: None, reason };
                answer.verdict = Expected::Deny;
                // None of its policies is asked.
                steps.clear();
            }
        }
    }
    explained.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// Whether an end is a pod of this node whose policies do not fit.
fn is_closed(index: &Index, end: &Party) -> bool {
    let pod = match end {
        Party::Pod(name) => index.pod(name),
        Party::Address(address) => index.pod_at(*address),
    };
    pod.is_some_and(|pod| pod.is_selectable() && index.rule_set(&pod.name) == Some(RuleSetId::CLOSED))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_abi::{DenialKey, PolicyDirection, Port, Protocol, Slot};
    use sluice_policy::{Event, Limits, View};

    use super::*;

    /// A pod on this node that is isolated, and one elsewhere.
    fn index(limits: Limits) -> Index {
        let pod = |name: &str, node: &str, address: &str| {
            json!({
                "metadata": { "name": name, "namespace": "x", "labels": { "app": name } },
                "spec": { "nodeName": node, "containers": [] }, "status": { "podIPs": [{ "ip": address }] },
            })
        };
        let policy = json!({
            "metadata": { "name": "closed", "namespace": "x" },
            "spec": { "podSelector": { "matchLabels": { "app": "db" } }, "ingress": [
                { "from": [{ "ipBlock": { "cidr": "192.0.2.0/24" } }], "ports": [{ "port": 80 }] },
            ] },
        });
        let pods = [pod("db", "n1", "10.1.0.5"), pod("web", "n2", "10.2.0.5")];
        let mut events: Vec<Event> = pods
            .into_iter()
            .map(|pod| Event::from(&serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod).expect("a pod")))
            .collect();
        let policy: k8s_openapi::api::networking::v1::NetworkPolicy = serde_json::from_value(policy).expect("a policy");
        events.push(Event::from(&policy));
        let mut index = Index::new(View::Node("n1".into()), limits);
        index.apply_all(events);
        index
    }

    #[test]
    fn an_explanation_has_both_ends_whatever_their_nodes() {
        let explain = |index: &Index, from: &str, to: &str| explain(index, from.into(), to.into(), "80/TCP");
        let answers = explain(&index(Limits::NONE), "x/web", "x/db").expect("answers");
        assert_eq!(answers[0]["verdict"], "deny");
        assert_eq!(answers[0]["ingress"]["policy"]["name"], "closed");
        assert_eq!(answers[0]["egress"]["verdict"], "allow");
        let none = Limits { rules: 0, prefixes: 0 };
        let answers = explain(&index(none), "192.0.2.7", "x/db").expect("answers");
        assert_eq!((&answers[0]["verdict"], &answers[0]["ingress"]["policy"]), (&json!("deny"), &json!(null)));
        assert_eq!(answers[0]["reasoning"]["ingress"], json!([]));
        assert!(explain(&index(none), "x/db", "nowhere").is_err());
    }

    #[test]
    fn a_denial_names_policy_and_peer() {
        let index = index(Limits::NONE);
        let number =
            (1..9).find(|number| index.reason(*number).is_some_and(|reason| reason.to_string().starts_with("no")));
        let key = DenialKey {
            endpoint: Slot(1),
            policy: number.expect("a reason"),
            direction: PolicyDirection::Ingress,
            mode: PolicyMode::Audit,
            peer: DenialKey::peer(sluice_abi::Ipv4::from(std::net::Ipv4Addr::new(10, 2, 0, 5))),
            protocol: Protocol::TCP,
            port: Port::new(443),
            pad: 0,
        };
        let denied = Denied { record: None, key, packets: 3, idle_seconds: 4 };
        let status = denial(&index, &denied);
        assert_eq!((status.verdict.as_str(), status.direction.as_str(), status.port), ("audited", "ingress", 443));
        assert_eq!(status.peer_pod.map(|pod| pod.name).as_deref(), Some("web"));
        assert_eq!(status.policy.expect("a policy")["name"], "closed");
        let gone = Denied { key: DenialKey { policy: 99, ..key }, ..denied };
        assert!(denial(&index, &gone).reason.contains("gone"));
        let closed = Denied { key: DenialKey { policy: 0, ..key }, ..gone };
        assert_eq!(denial(&index, &closed).policy, None);
        assert!(denial(&index, &closed).reason.contains("do not fit"));
        assert_eq!(verdict(&index, 0), None, "of what passes, no policy is missing");
    }
}
