//! Text that may be manifests of Services and their endpoints.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use sluice_manifest_reader::{Object, parse};
use sluice_policy::{Kind, ObjectError, manifest};
use sluice_service::{Choice, Event, Index, ServicePort, View};

struct Read(Event);

impl Object for Read {
    fn read(api_version: &str, kind: &str, object: Value) -> Option<Result<Self, String>> {
        let read = read(Kind::of(api_version, kind)?, object).transpose()?;
        Some(read.map(Self).map_err(|error| error.to_string()))
    }
}

fn read(kind: Kind, object: Value) -> Result<Option<Event>, ObjectError> {
    Ok(Some(match kind {
        Kind::Service => Event::from(&manifest::read::<Service>(kind, object)?),
        Kind::EndpointSlice => Event::from(&manifest::read::<EndpointSlice>(kind, object)?),
        Kind::Node => Event::from(&manifest::read::<Node>(kind, object)?),
        Kind::Pod => Event::from(&manifest::read::<Pod>(kind, object)?),
        Kind::Namespace | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => return Ok(None),
    }))
}

/// Compiling any text, one object after the other, panics nowhere; what follows from it makes sense; and all at once leads to
/// the same.
pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let events: Vec<Event> =
        parse(&text).into_iter().filter_map(|(_, read)| read.ok()).map(|Read(event)| event).collect();
    for standalone in [false, true] {
        let view = View { node: "a".into(), standalone };
        let (mut one, mut all) = (Index::new(view.clone()), Index::new(view));
        for event in &events {
            one.apply(event.clone());
        }
        all.apply_all(events.iter().cloned());
        assert!(one.ports().eq(all.ports()), "changes one by one lead elsewhere");
        let mut places = BTreeSet::new();
        for (name, port) in one.ports() {
            makes_sense(port);
            for frontend in &port.frontends {
                let place = (frontend.at, frontend.port, name.transport, name.family);
                assert!(places.insert(place), "{place:?} is two's");
            }
        }
        for problem in one.problems() {
            assert!(!problem.what.is_empty(), "{problem:?} says nothing");
        }
    }
}

fn makes_sense(port: &ServicePort) {
    assert!(port.frontends.is_sorted() && port.backends.is_sorted(), "{port:?}");
    for choice in [&port.inside, &port.inside_external, &port.outside] {
        let is_right = match choice {
            Choice::Among(indices) => {
                !indices.is_empty() && indices.iter().all(|index| (*index as usize) < port.backends.len())
            }
            Choice::Reject => port.backends.is_empty(),
            Choice::Drop => port.backends.iter().all(|backend| !backend.is_local),
        };
        assert!(is_right, "{choice:?} of {port:?}");
    }
}

/// Manifests that have all that matters, and what is not as it should be.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    const SERVICE: &str = "\
kind: Service
metadata: {name: web, namespace: x, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  type: LoadBalancer
  clusterIPs: [10.96.0.1, 'fd00:96::1']
  ipFamilies: [IPv4, IPv6]
  externalIPs: [198.51.100.1, nonsense]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  healthCheckNodePort: 32000
  loadBalancerSourceRanges: [192.0.2.0/24, ' 10.0.0.0/8 ']
  sessionAffinity: ClientIP
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: web, nodePort: 30080}, {name: dns, port: 80, protocol: UDP}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.1, ipMode: VIP}, {ip: 203.0.113.2, ipMode: Proxy}]}}
";
    const SLICE: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: x, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP}]
endpoints:
- {addresses: [10.1.0.1], nodeName: a, conditions: {ready: true}, hints: {forZones: [{name: z}], forNodes: [{name: a}]}}
- {addresses: [10.1.0.2], nodeName: b, conditions: {ready: false, serving: true, terminating: true}}
- {addresses: ['fd00::1']}
";
    const POD: &str = "\
kind: Pod
metadata: {name: p, namespace: x, labels: {app: web}}
spec: {nodeName: a, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}
";
    const NODE: &str = "\
kind: Node
metadata: {name: a, labels: {topology.kubernetes.io/zone: z}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
";
    let twin = SERVICE.replace("name: web, ", "name: twin, ");
    let sets = [vec![SERVICE, SLICE, POD, NODE], vec![NODE, POD, SERVICE], vec![SLICE, SERVICE, &twin]];
    sets.into_iter().map(|set| set.join("---\n").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_manifests() {
        let read = seeds().into_iter().flat_map(|seed| parse::<Read>(&String::from_utf8(seed).unwrap()));
        let mut count = 0;
        for (line, result) in read {
            let Read(event) = result.unwrap_or_else(|what| panic!("line {line}: {what}"));
            assert!(!matches!(event, Event::Invalid(_)), "{event:?}");
            count += 1;
        }
        assert_eq!(count, 10);
    }
}
