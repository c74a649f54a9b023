//! Whatever happens in whatever order, the same follows from the same objects.

use super::*;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// By name: `None` removes.
type Change = (ObjectName, Option<Event>);

fn a_service() -> impl Strategy<Value = Change> {
    let ports = subsequence(
        vec![
            json!({ "name": "a", "port": 80, "nodePort": 30080 }),
            json!({ "name": "b", "port": 81, "nodePort": 30080, "protocol": "UDP" }),
            json!({ "name": "c", "port": 82, "nodePort": 30082, "targetPort": "web" }),
            json!({ "name": "d", "port": 30080 }),
        ],
        0..=4,
    );
    let cluster_ips = select(vec![json!(["10.96.0.1"]), json!(["10.96.0.2", "fd00:96::1"]), json!(["None"])]);
    let external = subsequence(vec!["198.51.100.1", "2001:db8::9"], 0..=2);
    let policies = (select(&["Cluster", "Local"][..]), select(&["Cluster", "Local"][..]));
    let rest = (select(&["NodePort", "LoadBalancer"][..]), 0..3u8, any::<bool>());
    (select(&["s", "t", "u"][..]), proptest::option::weighted(0.8, (ports, cluster_ips, external, policies, rest)))
        .prop_map(|(name, fields)| {
            let event = fields.map(|(ports, ips, external, (internal, outside), (type_, second, selects))| {
                let selector = if selects { json!({ "app": "web" }) } else { json!({}) };
                let spec = json!({
                    "ports": ports, "clusterIPs": ips, "externalIPs": external, "type": type_, "selector": selector,
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": outside, "healthCheckNodePort": 32000,
                });
                let metadata = json!({ "creationTimestamp": format!("2024-01-01T00:00:0{second}Z") });
                whole_service(name, json!({ "metadata": metadata, "spec": spec }))
            });
            (ObjectName::new(Kind::Service, "x", name), event)
        })
}

fn endpoint(is_v4: bool) -> impl Strategy<Value = Value> {
    let zones = subsequence(vec![json!({ "name": "z1" }), json!({ "name": "z2" })], 0..=2);
    let nodes = subsequence(vec![json!({ "name": "here" }), json!({ "name": "there" })], 0..=2);
    (1..6u8, select(&["here", "there"][..]), any::<[Option<bool>; 3]>(), zones, nodes).prop_map(
        move |(host, node, [ready, serving, terminating], zones, nodes)| {
            let address = if is_v4 { format!("10.1.0.{host}") } else { format!("fd00:1::{host}") };
            let conditions = json!({ "ready": ready, "serving": serving, "terminating": terminating });
            let hints = json!({ "forZones": zones, "forNodes": nodes });
            json!({ "addresses": [address], "nodeName": node, "conditions": conditions, "hints": hints })
        },
    )
}

fn a_slice() -> impl Strategy<Value = Change> {
    let ports = subsequence(
        vec![
            json!({ "name": "a", "port": 8080 }),
            json!({ "name": "b", "port": 8081, "protocol": "UDP" }),
            json!({ "name": "c", "port": 8080 }),
        ],
        0..=3,
    );
    let fields = any::<bool>().prop_flat_map(|is_v4| (Just(is_v4), proptest::collection::vec(endpoint(is_v4), 0..5)));
    let all = (select(&["s", "t", "u"][..]), 0..3u8, ports, fields, 0..5u8);
    all.prop_map(|(service, number, ports, (is_v4, endpoints), fate)| {
        let address_type = if is_v4 { "IPv4" } else { "IPv6" };
        let object =
            json!({ "service": service, "number": number, "addressType": address_type, "endpoints": endpoints, "ports": ports });
        let name = ObjectName::new(Kind::EndpointSlice, "x", &format!("{service}-{number}"));
        (name, (fate > 0).then(|| slice_of(object)))
    })
}

fn a_pod() -> impl Strategy<Value = Change> {
    let object = (1..4u8, select(&["here", "there"][..]), select(&["web", "db"][..]), any::<bool>());
    (select(&["p", "q", "r"][..]), proptest::option::weighted(0.8, object)).prop_map(|(name, object)| {
        let event = object.map(|(host, node, app, is_ready)| {
            let conditions = json!([{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }]);
            let ports = json!([{ "name": "web", "containerPort": 8000 }]);
            pod(
                name,
                json!({
                    "metadata": { "labels": { "app": app } },
                    "spec": { "nodeName": node, "containers": [{ "name": "c", "ports": ports }] },
                    "status": { "podIP": format!("10.1.0.{host}"), "conditions": conditions },
                }),
            )
        });
        (ObjectName::new(Kind::Pod, "x", name), event)
    })
}

fn a_node() -> impl Strategy<Value = Change> {
    let zone = proptest::option::weighted(0.8, select(&["z1", "z2", "z3"][..]));
    zone.prop_map(|zone| (ObjectName::new(Kind::Node, "", "here"), zone.map(|zone| node("here", zone))))
}

fn addresses() -> impl Strategy<Value = Change> {
    let addresses = (subsequence(vec!["198.51.100.1", "2001:db8::9"], 0..=2), any::<bool>());
    addresses.prop_map(|(addresses, serve_node_ports)| {
        (ObjectName::new(Kind::Node, "", "its addresses"), Some(own_addresses(&addresses, serve_node_ports)))
    })
}

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![3 => a_service(), 6 => a_slice(), 2 => a_pod(), 1 => a_node(), 1 => addresses()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn all_orders_lead_to_the_same(
        batches in proptest::collection::vec(proptest::collection::vec(a_change(), 1..5), 1..25),
        standalone in any::<bool>(),
    ) {
        let mut world = World::seen(standalone);
        let mut objects = BTreeMap::from([(ObjectName::new(Kind::Node, "", "here"), node("here", "z1"))]);
        for batch in batches {
            for (name, event) in &batch {
                match event {
                    Some(event) => objects.insert(name.clone(), event.clone()),
                    None => objects.remove(name),
                };
            }
            // That deltas lead to what is there, it looks after itself.
            world.are(batch.into_iter().map(|(name, event)| event.unwrap_or(Event::Removed(name))));
            let mut fresh = Index::new(View { node: "here".into(), standalone });
            for event in objects.values().rev() {
                fresh.apply(event.clone());
            }
            prop_assert!(fresh.ports().eq(world.index.ports()));
            prop_assert!(fresh.health().eq(world.index.health()));
            prop_assert_eq!(fresh.problems(), world.index.problems());
            for (name, port) in world.index.ports().filter(|_| !standalone) {
                let expected = kube_proxy::sends(&objects, name);
                prop_assert_eq!([inside(port), inside_external(port), outside(port)], expected, "{:?}", name);
            }
        }
        // Nobody has what somebody else has.
        let mut had = std::collections::BTreeSet::new();
        for (name, port) in world.index.ports() {
            for frontend in &port.frontends {
                prop_assert!(had.insert((frontend.at, frontend.port, name.transport, name.family)));
            }
        }
    }
}

/// What kube-proxy does with the same objects, read off its rules one by one.
mod kube_proxy {
    use std::net::IpAddr;

    use super::*;
    use crate::object::{Condition, EndpointObject, ServiceObject};

    type Objects = BTreeMap<ObjectName, Event>;

    /// Whom clients of a port are sent to: of its cluster IP, of its other frontends from here, and from elsewhere.
    pub fn sends(objects: &Objects, name: &PortName) -> [Vec<String>; 3] {
        let Some(Event::Service(service)) = objects.get(&name.object()) else { panic!("{name:?} is of no Service") };
        let Some(Event::Node(node)) = objects.get(&ObjectName::new(Kind::Node, "", "here")) else {
            return chosen(service, &endpoints(objects, name), None);
        };
        chosen(service, &endpoints(objects, name), node.zone.as_deref())
    }

    /// Its endpoints: of twins, that of this node, then the readier.
    fn endpoints(objects: &Objects, name: &PortName) -> Vec<EndpointObject> {
        let mut all: BTreeMap<(IpAddr, u16), Vec<EndpointObject>> = BTreeMap::new();
        for event in objects.values() {
            let Event::Slice(slice) = event else { continue };
            if slice.service.as_ref() != Some(&name.service()) || slice.family != name.family {
                continue;
            }
            for port in slice.ports.iter().filter(|port| port.name == name.port && port.transport == name.transport) {
                for endpoint in &slice.endpoints {
                    all.entry((endpoint.address, port.number)).or_default().push(endpoint.clone());
                }
            }
        }
        let first = |twins: Vec<EndpointObject>| {
            let rank = |it: &EndpointObject| {
                let nodes = if it.for_nodes.is_empty() { 0 } else { 1 + u8::from(!has(&it.for_nodes, "here")) };
                let zones = Some(it.for_zones.clone()).filter(|zones| !zones.is_empty());
                (!is_here(it), it.condition, nodes, zones)
            };
            twins.into_iter().min_by_key(rank).expect("somebody claims it")
        };
        all.into_values().map(first).collect()
    }

    fn is_here(endpoint: &EndpointObject) -> bool {
        endpoint.node.as_deref() == Some("here")
    }

    fn has(names: &[Box<str>], name: &str) -> bool {
        names.iter().any(|other| **other == *name)
    }

    fn chosen(service: &ServiceObject, endpoints: &[EndpointObject], zone: Option<&str>) -> [Vec<String>; 3] {
        let ready: Vec<&EndpointObject> = endpoints.iter().filter(|it| it.condition == Condition::Ready).collect();
        let draining: Vec<&EndpointObject> = endpoints.iter().filter(|it| it.condition != Condition::Ready).collect();
        let for_here = |it: &&&EndpointObject| has(&it.for_nodes, "here");
        let for_zone = |it: &&&EndpointObject| zone.is_some_and(|zone| has(&it.for_zones, zone));
        let by_node = ready.iter().all(|it| !it.for_nodes.is_empty()) && ready.iter().any(|it| for_here(&it));
        let by_zone = ready.iter().all(|it| !it.for_zones.is_empty()) && ready.iter().any(|it| for_zone(&it));
        let near: Vec<&EndpointObject> = match (by_node, by_zone) {
            (true, _) => ready.iter().filter(for_here).copied().collect(),
            (false, true) => ready.iter().filter(for_zone).copied().collect(),
            (false, false) => ready.clone(),
        };
        let cluster = if near.is_empty() { draining.clone() } else { near };
        let here = |list: &[&EndpointObject]| -> Vec<String> {
            list.iter().filter(|it| is_here(it)).map(|it| it.address.to_string()).collect()
        };
        let mut local = if here(&ready).is_empty() { here(&draining) } else { here(&ready) };
        let mut cluster: Vec<String> = cluster.iter().map(|it| it.address.to_string()).collect();
        if endpoints.is_empty() {
            (local, cluster) = (vec!["reject".into()], vec!["reject".into()]);
        } else if local.is_empty() {
            local = vec!["drop".into()];
        }
        let of = |is_local| if is_local { local.clone() } else { cluster.clone() };
        [of(service.is_internal_local), cluster.clone(), of(service.is_external_local)]
    }
}
