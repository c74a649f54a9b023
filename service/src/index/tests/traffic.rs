//! Whom clients are sent to.

use super::*;

/// Services of all four pairs of traffic policies, internal and external.
fn policies(internal: &str, external: &str, ports: Value) -> Event {
    service(
        "web",
        json!({ "type": "NodePort", "ports": ports, "internalTrafficPolicy": internal, "externalTrafficPolicy": external }),
    )
}

fn sent(internal: &str, external: &str, endpoints: Value) -> [Vec<String>; 3] {
    let ports = json!([{ "port": 80, "nodePort": 30080 }]);
    let world = World::with([policies(internal, external, ports), slice("web", 1, endpoints)]);
    let port = world.port(80);
    [inside(port), inside_external(port), outside(port)]
}

#[test]
fn policies_say_who_may_answer() {
    let both = json!([ready("10.1.0.1", "here"), ready("10.1.0.2", "there")]);
    let (all, here) = (["10.1.0.1", "10.1.0.2"].map(String::from).to_vec(), vec!["10.1.0.1".to_owned()]);
    assert_eq!(sent("Cluster", "Cluster", both.clone()), [all.clone(), all.clone(), all.clone()]);
    assert_eq!(sent("Cluster", "Local", both.clone()), [all.clone(), all.clone(), here.clone()]);
    assert_eq!(sent("Local", "Cluster", both.clone()), [here.clone(), all.clone(), all.clone()]);
    assert_eq!(sent("Local", "Local", both), [here.clone(), all, here]);
}

#[test]
fn who_finds_nobody_here_is_not_answered_and_who_finds_nobody_at_all_is_told() {
    let (there, drop, reject) = (vec!["10.1.0.2".to_owned()], vec!["drop".to_owned()], vec!["reject".to_owned()]);
    let elsewhere = json!([ready("10.1.0.2", "there")]);
    assert_eq!(sent("Cluster", "Local", elsewhere.clone()), [there.clone(), there.clone(), drop.clone()]);
    assert_eq!(sent("Local", "Cluster", elsewhere.clone()), [drop.clone(), there.clone(), there.clone()]);
    assert_eq!(sent("Local", "Local", elsewhere), [drop.clone(), there, drop]);
    for policy in ["Cluster", "Local"] {
        for endpoints in [json!([]), json!([unready("10.1.0.1", "here")])] {
            assert_eq!(sent(policy, policy, endpoints), [reject.clone(), reject.clone(), reject.clone()]);
        }
    }
}

#[test]
fn an_external_policy_counts_only_for_services_that_can_be_asked_from_outside() {
    let endpoints = json!([ready("10.1.0.2", "there")]);
    let outside_of = |spec: Value| {
        let world = World::with([service("web", spec), slice("web", 1, endpoints.clone())]);
        outside(world.port(80))
    };
    for type_ in ["NodePort", "LoadBalancer"] {
        assert_eq!(outside_of(json!({ "type": type_, "externalTrafficPolicy": "Local" })), ["drop"]);
    }
    assert_eq!(outside_of(json!({ "externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.1"] })), ["drop"]);
    assert_eq!(outside_of(json!({ "externalTrafficPolicy": "Local" })), ["10.1.0.2"]);
}

#[test]
fn those_that_drain_answer_where_nobody_is_ready_here_and_anywhere_apart() {
    let endpoints = json!([draining("10.1.0.1", "here"), ready("10.1.0.2", "there"), draining("10.1.0.3", "there")]);
    let [here, all] = [vec!["10.1.0.1".to_owned()], vec!["10.1.0.2".to_owned()]];
    assert_eq!(sent("Local", "Local", endpoints), [here.clone(), all, here]);
    let endpoints = json!([draining("10.1.0.1", "here"), unready("10.1.0.2", "there"), draining("10.1.0.3", "there")]);
    let every = ["10.1.0.1", "10.1.0.3"].map(String::from).to_vec();
    assert_eq!(sent("Cluster", "Cluster", endpoints), [every.clone(), every.clone(), every]);
}

fn hinted(address: &str, node: &str, nodes: &[&str], zones: &[&str]) -> Value {
    let list = |names: &[&str]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
    with(ready(address, node), "hints", json!({ "forNodes": list(nodes), "forZones": list(zones) }))
}

/// Whom clients of `here`, which is in z1, are sent to.
fn led(endpoints: Value) -> Vec<String> {
    let world = World::with([service("web", json!({})), slice("web", 1, endpoints)]);
    inside(world.port(80))
}

#[test]
fn hints_are_followed_if_all_who_are_ready_have_them_and_they_lead_somewhere() {
    let one = |nodes: &[&str], zones: &[&str]| hinted("10.1.0.1", "there", nodes, zones);
    let other = |nodes: &[&str], zones: &[&str]| hinted("10.1.0.2", "here", nodes, zones);
    let (first, both) = (["10.1.0.1"], ["10.1.0.1", "10.1.0.2"]);
    assert_eq!(led(json!([one(&["here"], &[]), other(&["there"], &[])])), first);
    assert_eq!(led(json!([one(&["here"], &[]), other(&[], &[])])), both, "not all have them");
    assert_eq!(led(json!([one(&["there"], &[]), other(&["there"], &[])])), both, "they lead nobody of here anywhere");
    assert_eq!(led(json!([one(&[], &["z1", "z3"]), other(&[], &["z2"])])), first);
    assert_eq!(led(json!([one(&[], &["z1"]), other(&[], &[])])), both);
    assert_eq!(led(json!([one(&[], &["z2"]), other(&[], &["z3"])])), both);
    // Nodes before zones, and zones where nodes do not help.
    assert_eq!(led(json!([one(&["here"], &["z2"]), other(&["there"], &["z1"])])), first);
    assert_eq!(led(json!([one(&["there"], &["z1"]), other(&["there"], &["z2"])])), first);
    assert_eq!(led(json!([one(&["here"], &["z1"]), other(&[], &["z2"])])), first);
    // Those that are not ready have no say.
    assert_eq!(led(json!([one(&["here"], &[]), draining("10.1.0.2", "here")])), first);
    let unhinted = json!([
        draining("10.1.0.1", "here"),
        with(draining("10.1.0.2", "here"), "hints", json!({ "forNodes": [{ "name": "here" }] }))
    ]);
    assert_eq!(led(unhinted), both);
}

#[test]
fn hints_do_not_concern_who_may_only_be_answered_here() {
    let ports = json!([{ "port": 80, "nodePort": 30080 }]);
    let endpoints = json!([hinted("10.1.0.1", "there", &[], &["z1"]), hinted("10.1.0.2", "here", &[], &["z2"])]);
    let world = World::with([policies("Cluster", "Local", ports), slice("web", 1, endpoints)]);
    let port = world.port(80);
    assert_eq!([inside(port), inside_external(port), outside(port)], [["10.1.0.1"], ["10.1.0.1"], ["10.1.0.2"]]);
}

#[test]
fn a_node_may_move_to_another_zone() {
    let endpoints = json!([hinted("10.1.0.1", "there", &[], &["z1"]), hinted("10.1.0.2", "here", &[], &["z2"])]);
    let mut world = World::with([service("web", json!({})), slice("web", 1, endpoints)]);
    assert_eq!(inside(world.port(80)), ["10.1.0.1"]);
    assert_eq!(world.are([node("there", "z2")]), Delta::default(), "another node does not concern this one");
    world.are([node("here", "z2")]);
    assert_eq!(inside(world.port(80)), ["10.1.0.2"]);
    world.are([gone(Kind::Node, "here")]);
    assert_eq!(inside(world.port(80)), ["10.1.0.1", "10.1.0.2"], "nobody knows where it is");
}

#[test]
fn clients_keep_their_backends_for_as_long_as_the_service_says() {
    let of = |spec: Value| World::with([service("web", spec)]).port(80).affinity;
    assert_eq!(of(json!({})), None);
    assert_eq!(of(json!({ "sessionAffinity": "None" })), None);
    assert_eq!(of(json!({ "sessionAffinity": "ClientIP" })), Some(10_800));
    let config = json!({ "clientIP": { "timeoutSeconds": 60 } });
    assert_eq!(of(json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config })), Some(60));
}

fn ranges(listed: Value) -> (Vec<String>, Vec<String>) {
    let spec = json!({ "type": "LoadBalancer", "clusterIPs": ["10.96.0.1", "fd00:96::1"], "loadBalancerSourceRanges": listed });
    let ingress = json!([{ "ip": "203.0.113.1" }, { "ip": "2001:db8:1::1" }]);
    let object = json!({ "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } });
    let world = World::with([whole_service("web", object)]);
    let of = |family| world.of_family(family).source_ranges.iter().map(ToString::to_string).collect();
    (of(Family::V4), of(Family::V6))
}

#[test]
fn load_balancers_let_in_whom_the_service_says() {
    assert_eq!(ranges(json!([])), (vec![], vec![]));
    let (v4, v6) = ranges(json!([" 10.0.0.0/8 ", "198.51.100.7/24", "2001:db8:2::/48", "10.0.0.0/8"]));
    assert_eq!((v4, v6), (vec!["10.0.0.0/8".into(), "198.51.100.0/24".into()], vec!["2001:db8:2::/48".into()]));
    assert_eq!(ranges(json!(["10.0.0.0/8"])).1, [""; 0], "of the other family, everybody");
    let (v4, _) = ranges(json!(["192.0.2.0/24"]));
    assert_eq!(v4, ["192.0.2.0/24", "203.0.113.1/32"], "with this node, the load balancer's own address");
}
