//! What load balancers are told.

use super::*;

fn balanced(policy: &str, number: u16) -> Event {
    let ports = json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]);
    service(
        "web",
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": number, "ports": ports }),
    )
}

fn endpoints(endpoints: Value) -> Event {
    let ports = json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 8081 }]);
    slice_of(json!({ "service": "web", "number": 1, "endpoints": endpoints, "ports": ports }))
}

fn told(world: &World) -> Vec<(u16, usize)> {
    world.index.health().map(|health| (health.port, health.local_endpoints)).collect()
}

#[test]
fn only_ready_endpoints_of_this_node_count_and_each_once() {
    let mut world = World::new();
    assert!(world.are([balanced("Local", 32000)]).health);
    assert_eq!(told(&world), [(32000, 0)]);
    let all = json!([
        ready("10.1.0.1", "here"),
        ready("10.1.0.2", "here"),
        ready("10.1.0.3", "there"),
        draining("10.1.0.4", "here"),
        unready("10.1.0.5", "here"),
    ]);
    assert!(world.are([endpoints(all)]).health);
    assert_eq!(told(&world), [(32000, 2)], "whatever the number of its ports");
    let delta = world.are([endpoints(json!([ready("10.1.0.1", "here"), ready("10.1.0.2", "here")]))]);
    assert!(!delta.health && !delta.ports.is_empty(), "the others were not counted");
    assert!(world.are([balanced("Local", 32001)]).health);
    assert_eq!(told(&world), [(32001, 2)]);
    assert!(world.are([gone(Kind::EndpointSlice, "web-1")]).health);
    assert_eq!(told(&world), [(32001, 0)]);
    assert!(world.are([gone(Kind::Service, "web")]).health);
    assert_eq!(told(&world), []);
}

#[test]
fn nobody_asks_where_every_node_will_do() {
    let mut world = World::with([balanced("Cluster", 32000)]);
    assert_eq!(told(&world), []);
    world.are([service(
        "web",
        json!({ "type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000 }),
    )]);
    assert_eq!(told(&world), [], "there is no load balancer");
    world.are([balanced("Local", 0)]);
    assert_eq!(told(&world), []);
    assert_eq!(world.problems().len(), 1, "{:?}", world.problems());
}

#[test]
fn a_pod_with_addresses_of_both_families_is_one_endpoint() {
    let families = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "clusterIPs": ["10.96.0.1", "fd00:96::1"],
    });
    let v6 = json!({ "service": "web", "number": 2, "addressType": "IPv6", "endpoints": [ready("fd00:1::1", "here")] });
    let world =
        World::with([service("web", families), slice("web", 1, json!([ready("10.1.0.1", "here")])), slice_of(v6)]);
    assert_eq!(told(&world), [(32000, 1)]);
}
