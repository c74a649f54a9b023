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
        ],
        0..=3,
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

fn a_change() -> impl Strategy<Value = Change> {
    prop_oneof![3 => a_service(), 6 => a_slice(), 2 => a_pod(), 1 => a_node()]
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
