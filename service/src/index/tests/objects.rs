//! What makes no sense is told of, and the rest counts.

use super::*;

/// What is told of a Service, field by field; and how many ports it has.
fn told(spec: Value) -> (Vec<String>, usize) {
    let world = World::with([service("web", spec)]);
    let fields = world.index.problems().into_iter().map(|problem| problem.field).collect();
    (fields, world.index.ports().count())
}

#[test]
fn wrong_addresses_are_left_out() {
    let (fields, ports) = told(json!({
        "clusterIPs": ["10.96.0.1", "fd00::"], "ipFamilies": ["IPv4", "IPv4"], "externalIPs": ["127.0.0.1", "a", "169.254.1.1"],
    }));
    assert_eq!(fields, ["spec.clusterIPs[1]", "spec.externalIPs[0]", "spec.externalIPs[1]", "spec.externalIPs[2]"]);
    assert_eq!(ports, 1);
    assert_eq!(told(json!({ "clusterIPs": ["10.96.0.1", "10.96.0.2"] })), (vec!["spec.clusterIPs[1]".into()], 1));
    assert_eq!(told(json!({ "clusterIP": "10.96.0" })), (vec!["spec.clusterIPs[0]".into()], 0));
}

#[test]
fn wrong_ports_are_left_out() {
    let (fields, ports) = told(json!({ "ports": [
        { "name": "a", "port": 80 },
        { "name": "b", "port": 0 },
        { "name": "c", "port": 80 },
        { "name": "a", "port": 81 },
        { "name": "d", "port": 82, "protocol": "ICMP" },
        { "name": "E", "port": 83 },
        { "name": "f", "port": 84, "nodePort": 70000 },
        { "name": "g", "port": 80, "protocol": "UDP" },
    ] }));
    let expected = ["[1].port", "[2]", "[3]", "[4].protocol", "[5].name", "[6].nodePort"];
    assert_eq!(fields, expected.map(|field| format!("spec.ports{field}")));
    assert_eq!(ports, 3, "a, f without its node port, and g");
}

#[test]
fn words_that_there_are_not_count_as_what_is_usual() {
    let config = json!({ "clientIP": { "timeoutSeconds": 0 } });
    let (fields, ports) = told(json!({
        "type": "Loadbalancer", "internalTrafficPolicy": "local", "sessionAffinity": "ClientIP", "sessionAffinityConfig": config,
    }));
    let affinity = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    assert_eq!(fields, ["spec.internalTrafficPolicy", affinity, "spec.type"]);
    assert_eq!(ports, 1);
    assert_eq!(told(json!({ "sessionAffinity": "client" })).0, ["spec.sessionAffinity"]);
}

#[test]
fn where_no_source_range_is_left_load_balancers_let_nobody_in() {
    let balanced = |ranges: Value| {
        let spec = json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ranges });
        let object = json!({ "spec": spec, "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } } });
        let world = World::with([whole_service("web", object)]);
        let ranges = world.port(80).source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
        (places(world.port(80)).len(), ranges, world.problems().len())
    };
    assert_eq!(balanced(json!(["10.0.0.0/8", "10.0.0.0"])), (2, vec!["10.0.0.0/8".into()], 1));
    assert_eq!(balanced(json!(["10.0.0.0"])), (1, vec![], 1));
}

#[test]
fn an_object_without_a_sensible_name_is_told_of_until_it_is_gone() {
    let named = |name: &str| {
        let service: Service =
            serde_json::from_value(json!({ "metadata": { "namespace": "x", "name": name } })).unwrap();
        Event::from(&service)
    };
    let mut world = World::with([named("Web")]);
    assert_eq!(world.problems().len(), 1);
    world.are([gone(Kind::Service, "Web")]);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn what_was_wrong_is_forgotten_once_it_is_mended() {
    let mut world = World::with([service("web", json!({ "externalIPs": ["a"] }))]);
    let version = world.index.problems_version();
    world.are([service("web", json!({ "externalIPs": ["a"] }))]);
    assert_eq!(world.index.problems_version(), version, "there is nothing new to tell");
    let delta = world.are([service("web", json!({ "externalIPs": [] }))]);
    assert_eq!((delta, world.problems()), (Delta::default(), vec![]));
    assert!(world.index.problems_version() != version);
}
