//! What changes cost, counted.

use super::*;

/// So many Services of two ports with two slices each.
fn cluster(count: u32) -> World {
    let mut world = World::new();
    let ports = json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]);
    let services = (0..count).map(|number| {
        let ip = std::net::Ipv4Addr::from(0x0a60_0000 + number).to_string();
        service(&format!("s{number}"), json!({ "clusterIP": ip, "ports": ports }))
    });
    let slices = (0..count).flat_map(|number| {
        let name = format!("s{number}");
        (0..2).map(move |slice| two_ports(&name, slice, 10))
    });
    world.are(services.chain(slices));
    world
}

fn two_ports(service: &str, number: u8, endpoints: u8) -> Event {
    let ports = json!([{ "name": "a", "port": 8080 }, { "name": "b", "port": 8081 }]);
    let endpoints: Vec<Value> = (0..endpoints).map(|host| ready(&format!("10.1.{number}.{host}"), "there")).collect();
    slice_of(json!({ "service": service, "number": number, "endpoints": endpoints, "ports": ports }))
}

#[test]
fn a_start_looks_at_each_port_once() {
    assert_eq!(cluster(500).index.compiled(), 1000);
}

#[test]
fn a_slice_costs_its_services_ports_and_no_others() {
    let mut world = cluster(500);
    let mut cost = |events: Vec<Event>| {
        let before = world.index.compiled();
        let changed = world.are(events).ports.len() as u64;
        (world.index.compiled() - before, changed)
    };
    assert_eq!(cost(vec![two_ports("s7", 1, 11)]), (2, 2));
    assert_eq!(cost(vec![two_ports("s7", 1, 11)]), (0, 0), "it says what it said");
    assert_eq!(cost(vec![two_ports("s7", 0, 9), two_ports("s8", 0, 9), two_ports("s7", 1, 9)]), (4, 4));
    let one = json!({ "service": "s9", "number": 9, "endpoints": [ready("10.1.9.9", "here")], "ports": [{ "name": "b", "port": 8081 }] });
    assert_eq!(cost(vec![slice_of(one)]), (1, 1), "only the port that it has endpoints of");
    assert_eq!(cost(vec![gone(Kind::Service, "s3")]), (2, 2));
    assert_eq!(cost(vec![two_ports("nobody", 0, 9)]), (0, 0), "it waits for its Service");
}

#[test]
fn services_that_are_gone_leave_nothing() {
    let mut world = cluster(3);
    let twin = json!({ "clusterIP": "10.96.0.0", "ports": [{ "name": "a", "port": 80 }] });
    world.are([service("twin", twin), Event::HostPorts("x/p".into(), vec![host_port(80, "10.1.0.1:80")])]);
    world.are([gone(Kind::Service, "twin"), Event::HostPorts("x/p".into(), Vec::new())]);
    let all = (0..3).flat_map(|number| {
        let slices = (0..2).map(move |slice| gone(Kind::EndpointSlice, &format!("s{number}-{slice}")));
        slices.chain([gone(Kind::Service, &format!("s{number}"))])
    });
    world.are(all.collect::<Vec<_>>());
    world.are([gone(Kind::Service, "s1"), gone(Kind::EndpointSlice, "s1-1")]);
    let Index { services, slices, ports, frontends, .. } = &world.index;
    assert_eq!((services.len(), slices.len(), ports.len()), (0, 0, 0));
    assert_eq!(format!("{frontends:?}"), format!("{:?}", super::super::frontends::Frontends::default()));
}

#[test]
fn claims_are_small() {
    assert_eq!(size_of::<super::super::endpoints::Claim>(), 40);
    assert_eq!(size_of::<crate::tables::Backend>(), 20);
}
