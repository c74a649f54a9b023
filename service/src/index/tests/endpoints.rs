//! Which endpoints a port has.

use super::*;

#[test]
fn slices_are_merged_and_each_has_its_own_ports() {
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "metrics", "port": 9090 }]);
    let one = json!({ "service": "web", "number": 1, "endpoints": [ready("10.1.0.2", "there"), ready("10.1.0.1", "here")], "ports": [
        { "name": "http", "port": 8080 }, { "name": "metrics", "port": 9091 },
    ] });
    let two = json!({ "service": "web", "number": 2, "endpoints": [ready("10.1.0.3", "there")], "ports": [
        { "name": "http", "port": 8888 }, { "name": "unknown", "port": 1 },
    ] });
    let mut world = World::with([slice_of(one), service("web", json!({ "ports": ports })), slice_of(two)]);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*", "10.1.0.2:8080", "10.1.0.3:8888"]);
    assert_eq!(backends(world.port(9090)), ["10.1.0.1:9091*", "10.1.0.2:9091"]);
    let delta = world.are([gone(Kind::EndpointSlice, "web-2")]);
    assert_eq!(delta.ports.len(), 1);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*", "10.1.0.2:8080"]);
}

#[test]
fn a_port_without_a_name_is_the_one_without_a_name() {
    let slice =
        json!({ "service": "web", "number": 1, "endpoints": [ready("10.1.0.1", "here")], "ports": [{ "port": 8080 }] });
    assert_eq!(backends(World::with([service("web", json!({})), slice_of(slice)]).port(80)), ["10.1.0.1:8080*"]);
}

#[test]
fn what_is_not_said_of_an_endpoint_is_good() {
    let endpoints = json!([
        { "addresses": ["10.1.0.1"] },
        { "addresses": ["10.1.0.2"], "conditions": {} },
        { "addresses": ["10.1.0.3"], "conditions": { "ready": false } },
        { "addresses": ["10.1.0.4"], "conditions": { "ready": false, "terminating": true } },
        { "addresses": ["10.1.0.5"], "conditions": { "ready": false, "serving": false, "terminating": true } },
        { "addresses": ["10.1.0.6", "10.1.0.7"] },
        // A Service that publishes addresses which are not ready.
        { "addresses": ["10.1.0.8"], "conditions": { "ready": true, "serving": false, "terminating": true } },
    ]);
    let world = World::with([service("web", json!({})), slice("web", 1, endpoints)]);
    let port = world.port(80);
    let shown = ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.4:8080", "10.1.0.6:8080", "10.1.0.8:8080"];
    assert_eq!(backends(port), shown, "of several addresses the first");
    assert_eq!(inside(port), ["10.1.0.1", "10.1.0.2", "10.1.0.6", "10.1.0.8"]);
}

#[test]
fn of_what_slices_say_of_one_endpoint_here_comes_before_elsewhere_and_ready_before_draining() {
    let mut world = World::with([
        service("web", json!({})),
        slice(
            "web",
            1,
            json!([ready("10.1.0.1", "there"), draining("10.1.0.2", "there"), unready("10.1.0.3", "here")]),
        ),
        slice("web", 2, json!([draining("10.1.0.1", "here"), ready("10.1.0.2", "there"), ready("10.1.0.3", "there")])),
    ]);
    let port = world.port(80);
    assert_eq!(backends(port), ["10.1.0.1:8080*", "10.1.0.2:8080", "10.1.0.3:8080"]);
    assert_eq!(inside(port), ["10.1.0.2", "10.1.0.3"]);
    world.are([gone(Kind::EndpointSlice, "web-2")]);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080", "10.1.0.2:8080"], "what the other says is not forgotten");
}

#[test]
fn an_endpoint_that_moves_between_slices_is_never_gone() {
    let mut world = World::with([
        service("web", json!({})),
        slice("web", 1, json!([ready("10.1.0.1", "here"), ready("10.1.0.2", "here")])),
        slice("web", 2, json!([])),
    ]);
    let first = || slice("web", 1, json!([ready("10.1.0.1", "here")]));
    let second = || slice("web", 2, json!([ready("10.1.0.2", "here")]));
    let delta = world.are([first(), second()]);
    assert_eq!(delta, Delta::default(), "nothing follows from it");
    let delta = world.are([first(), slice("web", 2, json!([])), second()]);
    assert_eq!(delta, Delta::default(), "what was said last counts");
}

#[test]
fn a_slice_may_come_to_name_another_service_or_none() {
    let endpoints = json!([ready("10.1.0.1", "here")]);
    let labelled = |labels: Value| {
        let metadata = json!({ "name": "s", "namespace": "x", "labels": labels });
        let ports = json!([{ "port": 8080 }]);
        let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        Event::from(&slice)
    };
    let named = |name: &str| labelled(json!({ "kubernetes.io/service-name": name }));
    let mut world = World::with([
        service("a", json!({ "ports": [{ "port": 1 }] })),
        service("b", json!({ "ports": [{ "port": 2 }] })),
        named("a"),
    ]);
    assert_eq!((backends(world.port(1)).len(), backends(world.port(2)).len()), (1, 0));
    world.are([named("b")]);
    assert_eq!((backends(world.port(1)).len(), backends(world.port(2)).len()), (0, 1));
    for labels in [
        json!({}),
        json!({ "kubernetes.io/service-name": "" }),
        json!({ "kubernetes.io/service-name": "b", "service.kubernetes.io/headless": "" }),
    ] {
        world.are([labelled(labels)]);
        assert_eq!(backends(world.port(2)).len(), 0);
        world.are([named("b")]);
        assert_eq!(backends(world.port(2)).len(), 1);
    }
}

#[test]
fn addresses_that_nobody_can_be_sent_to_are_left_out_and_told_of() {
    let endpoints = json!([
        ready("127.0.0.1", "here"), ready("169.254.0.1", "here"), ready("224.0.0.1", "here"), ready("0.0.0.0", "here"),
        ready("fd00::1", "here"), ready("10.1.0", "here"), { "addresses": [] }, ready("10.1.0.1", "here"),
    ]);
    let ports = json!([
        { "port": 8080 }, { "name": "none" }, { "name": "great", "port": 70000 },
        { "name": "odd", "port": 1, "protocol": "ICMP" },
    ]);
    let slice = json!({ "service": "web", "number": 1, "endpoints": endpoints, "ports": ports });
    let mut world = World::with([service("web", json!({})), slice_of(slice)]);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*"]);
    let problems = world.problems();
    assert_eq!(problems.len(), 10, "{problems:#?}");
    let family =
        "EndpointSlice x/web-1: endpoints[4].addresses[0]: fd00::1 is of another family than its slice; it is left out";
    assert!(problems.iter().any(|problem| problem == family), "{problems:#?}");
    world.are([gone(Kind::EndpointSlice, "web-1")]);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn names_of_hosts_are_no_endpoints() {
    let fqdn = |kind: &str| {
        slice_of(
            json!({ "service": "web", "number": 1, "addressType": kind, "endpoints": [{ "addresses": ["example.com"] }] }),
        )
    };
    let mut world = World::with([service("web", json!({})), fqdn("FQDN")]);
    assert_eq!((backends(world.port(80)).len(), world.problems().len()), (0, 0));
    world.are([slice("web", 1, json!([ready("10.1.0.1", "here")])), fqdn("IPv5")]);
    assert_eq!(world.problems(), ["EndpointSlice x/web-1: addressType: \"IPv5\" is not IPv4, IPv6 or FQDN"]);
    assert_eq!(backends(world.port(80)), ["10.1.0.1:8080*"], "what was known of it still holds");
}
