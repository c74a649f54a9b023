//! Where Services and host ports are asked for, and who is where several claim one place.

use super::*;

#[test]
fn each_kind_of_frontend_is_there() {
    let ports = json!([{ "port": 80, "nodePort": 30080 }]);
    let ingress = json!([
        { "ip": "203.0.113.1" },
        { "ip": "203.0.113.2", "ipMode": "VIP" },
        { "ip": "203.0.113.3", "ipMode": "Proxy" },
        { "hostname": "lb.example.com" },
    ]);
    let spec = json!({ "type": "LoadBalancer", "ports": ports, "externalIPs": ["198.51.100.1"], "loadBalancerClass": "example.com/other" });
    let object = json!({ "spec": spec, "status": { "loadBalancer": { "ingress": ingress } } });
    let world = World::with([whole_service("web", object)]);
    let all = [
        "cluster 10.96.0.1 80",
        "external 198.51.100.1 80",
        "balancer 203.0.113.1 80",
        "balancer 203.0.113.2 80",
        "node 30080",
    ];
    assert_eq!(places(world.port(80)), all);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn services_without_a_cluster_ip_of_ours_have_none() {
    for (spec, problems) in [
        (json!({ "clusterIP": "None" }), 0),
        (json!({ "type": "ExternalName", "externalName": "example.com" }), 0),
        (json!({ "type": "NodePort", "clusterIP": "", "ports": [{ "port": 80, "nodePort": 30080 }] }), 1),
    ] {
        let world = World::with([service("web", spec), slice("web", 1, json!([ready("10.1.0.1", "here")]))]);
        assert_eq!(world.index.ports().count(), 0);
        assert_eq!(world.problems().len(), problems, "{:?}", world.problems());
    }
    let labels = json!({ "labels": { "service.kubernetes.io/service-proxy-name": "other" } });
    let foreign = || whole_service("web", json!({ "metadata": labels, "spec": {} }));
    assert_eq!(World::with([foreign()]).index.ports().count(), 0);
    let mut world = World::with([service("web", json!({}))]);
    assert_eq!(world.index.ports().count(), 1);
    world.are([foreign()]);
    assert_eq!(world.index.ports().count(), 0, "another proxy has it now");
}

#[test]
fn each_family_has_a_port_of_its_own() {
    let spec = json!({
        "clusterIPs": ["fd00:96::1", "10.96.0.1"], "ipFamilies": ["IPv6", "IPv4"],
        "ports": [{ "port": 80, "nodePort": 30080 }], "externalIPs": ["2001:db8::9", "198.51.100.1"],
    });
    let v6 = json!({
        "service": "web", "number": 2, "addressType": "IPv6", "endpoints": [ready("fd00:1::1", "here")],
        "ports": [{ "name": "", "port": 8081 }],
    });
    let world = World::with([service("web", spec), slice("web", 1, json!([ready("10.1.0.1", "here")])), slice_of(v6)]);
    let (v4, v6) = (world.of_family(Family::V4), world.of_family(Family::V6));
    assert_eq!(places(v4), ["cluster 10.96.0.1 80", "external 198.51.100.1 80", "node 30080"]);
    assert_eq!(places(v6), ["external 2001:db8::9 80", "cluster fd00:96::1 80", "node 30080"]);
    assert_eq!((backends(v4), backends(v6)), (vec!["10.1.0.1:8080*".into()], vec!["fd00:1::1:8081*".into()]));
    assert_eq!(world.problems(), [""; 0], "one node port of two families is no conflict");
    let single = World::with([service("web", json!({ "clusterIP": "fd00:96::1" }))]);
    assert!(single.index.ports().all(|(name, _)| name.family == Family::V6), "without lists its own family counts");
}

#[test]
fn one_number_may_be_several_ports_of_different_protocols() {
    let ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "dns-tcp", "port": 53, "nodePort": 30053 },
        { "name": "sctp", "port": 53, "protocol": "SCTP" },
    ]);
    let slice = json!({ "service": "dns", "number": 1, "endpoints": [ready("10.1.0.1", "here")], "ports": [
        { "name": "dns", "port": 5353, "protocol": "UDP" },
        { "name": "dns-tcp", "port": 5354, "protocol": "TCP" },
        { "name": "sctp", "port": 5355, "protocol": "TCP" },
    ] });
    let world = World::with([service("dns", json!({ "ports": ports })), slice_of(slice)]);
    let shown: Vec<(Transport, Vec<String>)> =
        world.index.ports().map(|(name, port)| (name.transport, backends(port))).collect();
    let expected = [
        (Transport::Udp, vec!["10.1.0.1:5353*".to_owned()]),
        (Transport::Tcp, vec!["10.1.0.1:5354*".to_owned()]),
        (Transport::Sctp, vec![]),
    ];
    assert_eq!(shown, expected, "the last one's endpoints are of another protocol");
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn ports_change_in_place() {
    let mut world = World::with([
        service("web", json!({ "ports": [{ "name": "a", "port": 80, "nodePort": 30080 }] })),
        slice_of(
            json!({ "service": "web", "number": 1, "endpoints": [ready("10.1.0.1", "here")], "ports": [{ "name": "a", "port": 1 }] }),
        ),
    ]);
    let delta = world.are([service("web", json!({ "ports": [{ "name": "a", "port": 81, "nodePort": 30080 }] }))]);
    assert_eq!(
        delta.ports.iter().map(|(name, port)| (name.number, port.is_some())).collect::<Vec<_>>(),
        [(80, false), (81, true)]
    );
    assert_eq!(places(world.port(81)), ["cluster 10.96.0.1 81", "node 30080"]);
    assert_eq!(backends(world.port(81)), ["10.1.0.1:1*"]);
    world.are([service("web", json!({ "ports": [{ "name": "b", "port": 81 }] }))]);
    assert_eq!(places(world.port(81)), ["cluster 10.96.0.1 81"], "without a node port");
    assert_eq!(backends(world.port(81)), [""; 0], "endpoints are found by the port's name");
    world.are([gone(Kind::Service, "web")]);
    assert_eq!(world.index.ports().count(), 0);
}

#[test]
fn what_is_both_a_load_balancers_and_an_external_ip_is_as_strict_as_the_first() {
    let spec = json!({ "externalIPs": ["203.0.113.1", "203.0.113.1"] });
    let object = json!({ "spec": spec, "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } } });
    let world = World::with([whole_service("web", object)]);
    assert_eq!(places(world.port(80)), ["cluster 10.96.0.1 80", "balancer 203.0.113.1 80"]);
    assert_eq!(world.problems(), [""; 0]);
}

fn made(name: &str, second: u8, spec: Value) -> Event {
    let time = format!("2024-01-01T00:00:{second:02}Z");
    whole_service(name, json!({ "metadata": { "creationTimestamp": time }, "spec": spec }))
}

#[test]
fn the_older_of_two_services_has_what_both_claim_and_the_next_gets_it() {
    let spec = |ip: &str| json!({ "clusterIP": ip, "externalIPs": ["198.51.100.1"], "ports": [{ "port": 80, "nodePort": 30080 }] });
    let mut world = World::with([made("young", 9, spec("10.96.0.9")), made("old", 1, spec("10.96.0.1"))]);
    let delta = world.are([made("middle", 5, spec("10.96.0.5"))]);
    assert_eq!(World::changed(&delta), ["middle"], "it does not concern those who have what they had");
    let of = |world: &World, name: &str| {
        let mut ports = world.index.ports();
        places(ports.find(|(port, _)| *port.name == *name).expect("it is there").1)
    };
    assert_eq!(of(&world, "old"), ["cluster 10.96.0.1 80", "external 198.51.100.1 80", "node 30080"]);
    assert_eq!(of(&world, "middle"), ["cluster 10.96.0.5 80"]);
    assert_eq!(of(&world, "young"), ["cluster 10.96.0.9 80"]);
    let expected = [
        "Service x/middle: spec.externalIPs: 198.51.100.1:80/TCP is already Service x/old's; until that gives it up, this one is not asked there",
        "Service x/middle: spec.ports.nodePort: the node's port 30080/TCP is already Service x/old's; until that gives it up, this one is not asked there",
    ];
    assert_eq!(world.problems()[..2], expected);
    assert_eq!(world.problems().len(), 4);

    let version = world.index.problems_version();
    let delta = world.are([gone(Kind::Service, "old")]);
    assert_eq!(World::changed(&delta), ["middle", "old"], "in the same change");
    assert_eq!(of(&world, "middle"), ["cluster 10.96.0.5 80", "external 198.51.100.1 80", "node 30080"]);
    assert!(world.index.problems_version() != version && world.problems().len() == 2);
    world.are([made("middle", 5, json!({ "clusterIP": "10.96.0.5" }))]);
    assert_eq!(of(&world, "young"), ["cluster 10.96.0.9 80", "external 198.51.100.1 80", "node 30080"]);
    assert_eq!(world.problems(), [""; 0]);
    // The same name, made anew, is no longer the older one.
    world.are([made("middle", 5, spec("10.96.0.5"))]);
    world.are([gone(Kind::Service, "middle"), made("middle", 59, spec("10.96.0.5"))]);
    assert_eq!(of(&world, "middle"), ["cluster 10.96.0.5 80"]);
    let twins = World::with([made("b", 1, spec("10.96.0.1")), made("a", 1, spec("10.96.0.1"))]);
    assert_eq!((of(&twins, "a").len(), of(&twins, "b").len()), (3, 0), "of one age, in the order of their names");
}

#[test]
fn frontends_can_be_exchanged_in_one_change() {
    let at = |name: &str, ip: &str| service(name, json!({ "clusterIP": ip }));
    let mut world = World::with([at("a", "10.96.0.1"), at("b", "10.96.0.2")]);
    world.are([at("a", "10.96.0.2"), at("b", "10.96.0.1")]);
    let shown: Vec<Vec<String>> = world.index.ports().map(|(_, port)| places(port)).collect();
    assert_eq!(shown, [["cluster 10.96.0.2 80"], ["cluster 10.96.0.1 80"]]);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn host_ports_lead_to_their_pods() {
    let mut world = World::new();
    let loopback = HostPort { host_ip: Some("127.0.0.1".parse().unwrap()), ..host_port(8080, "10.1.0.1:81") };
    let wide = HostPort { host_ip: Some("::".parse().unwrap()), ..host_port(8080, "[fd00::1]:80") };
    let ports = vec![host_port(8080, "10.1.0.1:80"), loopback, wide];
    world.are([Event::HostPorts("x/a".into(), ports.clone())]);
    let shown: Vec<(Vec<String>, Vec<String>)> =
        world.index.ports().map(|(_, port)| (places(port), backends(port))).collect();
    let expected =
        [("host 8080", "10.1.0.1:80*"), ("host 8080", "fd00::1:80*"), ("host 127.0.0.1 8080", "10.1.0.1:81*")];
    assert_eq!(shown, expected.map(|(place, backend)| (vec![place.to_owned()], vec![backend.to_owned()])));
    for (_, port) in world.index.ports() {
        let all = [&port.inside, &port.inside_external, &port.outside];
        assert!(all.iter().all(|choice| **choice == Choice::Among([0].into())));
    }
    assert_eq!(world.are([Event::HostPorts("x/a".into(), ports)]), Delta::default(), "nothing has changed");
    world.are([Event::HostPorts("x/a".into(), Vec::new())]);
    assert_eq!(world.index.ports().count(), 0);
}

#[test]
fn the_first_of_two_pods_has_a_host_port_and_services_come_before_them() {
    let mut world = World::new();
    let wants = |who: &str, backend: &str| Event::HostPorts(who.into(), vec![host_port(30080, backend)]);
    world.are([wants("x/late", "10.1.0.2:80")]);
    world.are([Event::HostPorts("x/late".into(), Vec::new()), wants("x/first", "10.1.0.1:80")]);
    world.are([wants("x/late", "10.1.0.2:80")]);
    let has = |world: &World| -> Vec<String> {
        let ports = world.index.ports().filter(|(_, port)| port.frontends.iter().any(|it| it.at == Place::Node));
        ports.map(|(name, _)| name.name.to_string()).collect()
    };
    assert_eq!(has(&world), ["x/first"]);
    let what = "Pod x/late: hostPort: the node's port 30080/TCP is already Pod x/first's; until that gives it up, this one is not asked there";
    assert_eq!(world.problems(), [what]);
    world.are([service("web", json!({ "ports": [{ "port": 80, "nodePort": 30080 }] }))]);
    assert_eq!(has(&world), ["web"], "which has it on all nodes");
    world.are([gone(Kind::Service, "web")]);
    assert_eq!(has(&world), ["x/first"]);
    world.are([Event::HostPorts("x/first".into(), Vec::new())]);
    assert_eq!(has(&world), ["x/late"]);
    assert_eq!(world.problems(), [""; 0]);
}

#[test]
fn the_first_has_an_address_of_the_node_whether_it_claims_that_or_the_nodes_port() {
    let at_address = |second, ip: &str| {
        made("at", second, json!({ "clusterIP": "10.96.0.1", "externalIPs": [ip], "ports": [{ "port": 30080 }] }))
    };
    let at_node = |second| {
        made("node", second, json!({ "clusterIP": "10.96.0.2", "ports": [{ "port": 80, "nodePort": 30080 }] }))
    };
    let all = ["cluster 10.96.0.1 30080", "external 192.0.2.1 30080"];
    let mut world = World::with([at_node(1), at_address(2, "192.0.2.1")]);
    assert_eq!(places(world.port(30080)), all, "it is another node's address");
    let delta = world.are([served_at(&["192.0.2.1", "2001:db8::1"])]);
    assert_eq!(World::changed(&delta), ["at"]);
    assert_eq!(places(world.port(30080)), all[..1]);
    let problem = |who: &str, field: &str, owner: &str| {
        [format!(
            "Service x/{who}: spec.{field}: 192.0.2.1:30080/TCP is already Service x/{owner}'s; until that gives it up, this one is not asked there"
        )]
    };
    assert_eq!(world.problems(), problem("at", "externalIPs", "node"));

    let delta = world.are([at_node(3)]);
    assert_eq!(World::changed(&delta), ["at"]);
    assert_eq!(places(world.port(30080)), all);
    assert_eq!(places(world.port(80)), ["cluster 10.96.0.2 80", "node 30080"], "at other addresses it is asked");
    assert_eq!(world.problems(), problem("node", "ports.nodePort", "at"));
    let version = world.index.problems_version();
    world.are([at_address(2, "192.0.2.9")]);
    assert_eq!((world.problems(), world.index.problems_version() != version), (vec![], true));

    world.are([at_node(1), at_address(2, "192.0.2.1")]);
    assert_eq!(places(world.port(30080)), all[..1]);
    let delta = world.are([gone(Kind::Service, "node")]);
    assert_eq!(World::changed(&delta), ["at", "node"]);
    assert_eq!((places(world.port(30080)), world.problems()), (all.map(str::to_owned).to_vec(), vec![]));
    world.are([at_node(1)]);
    world.are([served_at(&["2001:db8::1"])]);
    assert_eq!((places(world.port(30080)), world.problems()), (all.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn a_port_that_is_asked_at_the_node_and_at_one_of_its_addresses_has_no_rival() {
    let spec = json!({ "ports": [{ "port": 30080, "nodePort": 30080 }], "externalIPs": ["192.0.2.1"] });
    let world = World::with([served_at(&["192.0.2.1"]), service("web", spec)]);
    let all = ["cluster 10.96.0.1 30080", "external 192.0.2.1 30080", "node 30080"];
    assert_eq!((places(world.port(30080)), world.problems()), (all.map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn a_host_port_at_one_address_comes_after_node_ports_and_earlier_pods() {
    let mut world = World::with([served_at(&["192.0.2.1", "127.0.0.1"])]);
    let at = |ip: &str, port, backend| HostPort { host_ip: Some(ip.parse().unwrap()), ..host_port(port, backend) };
    let one = [at("192.0.2.1", 30080, "10.1.0.1:80"), at("127.0.0.1", 8080, "10.1.0.1:80")];
    world.are([Event::HostPorts("x/one".into(), one.to_vec())]);
    world.are([Event::HostPorts("x/two".into(), vec![host_port(8080, "10.1.0.2:80")])]);
    let has = |world: &World| -> Vec<String> {
        world
            .index
            .ports()
            .flat_map(|(name, port)| places(port).into_iter().map(|at| format!("{} {at}", name.name)))
            .collect()
    };
    assert_eq!(has(&world), ["x/one host 127.0.0.1 8080", "x/one host 192.0.2.1 30080", "x/two host 8080"]);
    let two = "Pod x/two: hostPort: 127.0.0.1:8080/TCP is already Pod x/one's; until that gives it up, this one is not asked there";
    assert_eq!(world.problems(), [two]);
    world.are([service("web", json!({ "ports": [{ "port": 80, "nodePort": 30080 }] }))]);
    assert_eq!(has(&world)[..2], ["x/one host 127.0.0.1 8080", "x/two host 8080"]);
    let one = "Pod x/one: hostPort: 192.0.2.1:30080/TCP is already Service x/web's; until that gives it up, this one is not asked there";
    assert_eq!(world.problems(), [one, two]);
    world.are([own_addresses(&["192.0.2.1", "127.0.0.1"], false)]);
    assert_eq!(has(&world)[..3], ["x/one host 127.0.0.1 8080", "x/one host 192.0.2.1 30080", "x/two host 8080"]);
    assert_eq!(world.problems(), [two], "host ports are at all addresses");
}

#[test]
fn host_ports_that_make_no_sense_are_left_out() {
    let mut world = World::new();
    let other = HostPort { host_ip: Some("2001:db8::1".parse().unwrap()), ..host_port(1, "10.1.0.1:80") };
    let ports = vec![other, host_port(2, "10.1.0.1:80"), host_port(2, "10.1.0.1:81")];
    world.are([Event::HostPorts("x/a".into(), ports)]);
    assert_eq!(backends(world.port(2)), ["10.1.0.1:80*"]);
    assert_eq!(world.problems().len(), 2, "{:?}", world.problems());
    world.are([Event::HostPorts("x/a".into(), Vec::new())]);
    assert_eq!(world.problems(), [""; 0]);
}
