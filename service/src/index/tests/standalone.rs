//! Without anybody who makes EndpointSlices.

use super::*;

fn spec(name: &str, node: &str) -> Value {
    let ports = json!([
        { "containerPort": 8080, "name": "http" }, { "containerPort": 5353, "name": "http", "protocol": "UDP" },
    ]);
    json!({ "nodeName": node, "containers": [{ "name": name, "ports": ports }] })
}

/// A pod that a Service selects.
fn web(name: &str, address: &str, node: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web", "tier": "front" } }, "spec": spec(name, node), "status": { "podIPs": [{ "ip": address }] } })
}

fn selecting(extra: Value) -> Event {
    let mut spec = json!({ "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] });
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    service("web", spec)
}

fn world(service: Event, pods: &[(&str, Value)]) -> World {
    let mut world = World::standalone();
    world.are([service]);
    for (name, object) in pods {
        world.are([pod(name, object.clone())]);
    }
    world
}

#[test]
fn a_service_has_the_pods_that_it_selects() {
    let other = json!({ "metadata": { "labels": { "app": "db" } }, "spec": spec("c", "here"), "status": { "podIP": "10.1.0.9" } });
    let mut world = world(
        selecting(json!({})),
        &[("a", web("a", "10.1.0.1", "here")), ("b", web("b", "10.1.0.2", "there")), ("c", other)],
    );
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*", "10.1.0.2:8080"]);
    let delta = world.are([gone(Kind::Pod, "a")]);
    assert_eq!((delta.ports.len(), backends(world.port(80))), (1, vec!["10.1.0.2:8080".into()]));
    let mut unlabelled = web("b", "10.1.0.2", "there");
    unlabelled["metadata"] = json!({});
    world.are([pod("b", unlabelled)]);
    assert_eq!(inside(world.port(80)), ["reject"]);
    let more = json!({ "selector": { "app": "web", "tier": "back" } });
    world.are([pod("b", web("b", "10.1.0.2", "there")), selecting(more)]);
    assert_eq!(backends(world.port(80)), [""; 0], "all labels must be there");
    world.are([selecting(json!({ "selector": null }))]);
    assert_eq!(backends(world.port(80)), [""; 0], "without a selector somebody else names its endpoints");
}

#[test]
fn pods_listen_on_ports_by_number_or_name() {
    let pods = [("a", web("a", "10.1.0.1", "here"))];
    let target = |port: Value| {
        let world = world(selecting(json!({ "ports": [port] })), &pods);
        backends(world.port(80))
    };
    assert_eq!(target(json!({ "port": 80 })), ["10.1.0.1:80*"]);
    assert_eq!(target(json!({ "port": 80, "targetPort": 81 })), ["10.1.0.1:81*"]);
    assert_eq!(target(json!({ "port": 80, "targetPort": "http" })), ["10.1.0.1:8080*"]);
    assert_eq!(target(json!({ "port": 80, "targetPort": "http", "protocol": "UDP" })), ["10.1.0.1:5353*"]);
    assert_eq!(target(json!({ "port": 80, "targetPort": "other" })), [""; 0]);
}

#[test]
fn a_pod_is_ready_unless_its_status_says_otherwise() {
    let with_status = |ready: Option<&str>, terminating: bool, phase: &str| {
        let mut object = web("a", "10.1.0.1", "here");
        object["status"]["phase"] = json!(phase);
        if let Some(ready) = ready {
            object["status"]["conditions"] = json!([{ "type": "Ready", "status": ready }]);
        }
        if terminating {
            object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        }
        object
    };
    let sent = |publishes: bool, object: Value| {
        let standby = web("b", "10.1.0.2", "there");
        let world =
            world(selecting(json!({ "publishNotReadyAddresses": publishes })), &[("a", object), ("b", standby)]);
        (backends(world.port(80)).len(), inside(world.port(80)).len())
    };
    assert_eq!(sent(false, with_status(None, false, "Running")), (2, 2));
    assert_eq!(sent(false, with_status(Some("True"), false, "Running")), (2, 2));
    assert_eq!(sent(false, with_status(Some("False"), false, "Running")), (1, 1));
    assert_eq!(sent(true, with_status(Some("False"), false, "Running")), (2, 2));
    assert_eq!(sent(false, with_status(Some("True"), true, "Running")), (2, 1), "it drains");
    assert_eq!(sent(true, with_status(Some("True"), true, "Running")), (2, 2));
    assert_eq!(sent(true, with_status(Some("True"), false, "Succeeded")), (1, 1));
}

#[test]
fn a_pod_in_its_nodes_network_has_its_address() {
    let mut object = web("a", "10.1.0.1", "here");
    object["spec"]["hostNetwork"] = json!(true);
    object["status"] = json!({});
    let world = world(selecting(json!({ "clusterIPs": ["10.96.0.1", "fd00:96::1"] })), &[("a", object)]);
    assert_eq!(backends(world.of_family(Family::V4)), ["192.0.2.1:8080*"]);
    assert_eq!(backends(world.of_family(Family::V6)), ["2001:db8::1:8080*"]);
}

#[test]
fn as_soon_as_a_slice_names_the_service_slices_count() {
    let mut world = world(selecting(json!({})), &[("a", web("a", "10.1.0.1", "here"))]);
    world.are([slice("web", 1, json!([]))]);
    assert_eq!(backends(world.port(80)), [""; 0]);
    world.are([slice("web", 1, json!([ready("10.9.9.9", "here")]))]);
    assert_eq!(backends(world.port(80)), ["10.9.9.9:8080*"]);
    world.are([gone(Kind::EndpointSlice, "web-1")]);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*"]);
}

#[test]
fn elsewhere_pods_do_not_count() {
    let mut world = World::new();
    world.are([selecting(json!({})), pod("a", web("a", "10.1.0.1", "here"))]);
    assert_eq!(backends(world.port(80)), [""; 0]);
}

#[test]
fn a_pod_costs_the_services_that_select_it() {
    let mut world = world(selecting(json!({})), &[("a", web("a", "10.1.0.1", "here"))]);
    world.are((2..100).map(|number| {
        service(&format!("s{number}"), json!({ "clusterIP": format!("10.96.0.{number}"), "selector": { "app": "db" } }))
    }));
    let before = world.index.compiled();
    world.are([pod("b", web("b", "10.1.0.2", "here"))]);
    assert_eq!(world.index.compiled() - before, 1);
}
