//! What a large cluster takes to know.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_service::object::{
    Condition, EndpointObject, PortObject, ServiceObject, SliceName, SliceObject, SlicePort, Target,
};
use sluice_service::{Event, Family, Index, ServiceName, Transport, View};

const SERVICES: u32 = 9_000;
const ENDPOINTS: u32 = 250_000;
const NODES: u32 = 5_000;
/// As many endpoints as one slice has at most.
const SLICE: u32 = 100;

/// What this process has in memory, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("reads its own status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

fn address(base: u32, number: u32) -> IpAddr {
    Ipv4Addr::from(base + number).into()
}

fn name(number: u32) -> ServiceName {
    ServiceName::new(&format!("namespace-{}", number % 300), &format!("a-service-of-some-name-{number}"))
}

fn service(number: u32) -> Event {
    let port = PortObject {
        name: "http".into(),
        number: 80,
        transport: Transport::Tcp,
        node_port: number.is_multiple_of(10).then_some(30_000 + (number / 10) as u16),
        target: Target::Number(8080),
    };
    Event::Service(Box::new(ServiceObject {
        name: name(number),
        created: i64::from(number),
        cluster_ips: vec![address(0x0a60_0000, number)],
        ports: vec![port],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        is_internal_local: false,
        is_external_local: false,
        affinity: None,
        health_check_port: None,
        selector: Default::default(),
        publishes_not_ready: false,
        notes: Vec::new(),
    }))
}

/// Most Services are small; the first has what is left, a fifth of all.
fn slices() -> impl Iterator<Item = Event> {
    let small = ENDPOINTS * 4 / 5 / SERVICES;
    let large = ENDPOINTS - small * SERVICES;
    let sizes = (0..SERVICES).map(move |service| (service, if service == 0 { large + small } else { small }));
    let mut made = 0;
    sizes.flat_map(move |(service, size)| {
        let slices: Vec<Event> = (0..size.div_ceil(SLICE))
            .map(|number| {
                let endpoints = SLICE.min(size - number * SLICE);
                made += endpoints;
                slice(service, number, made - endpoints..made)
            })
            .collect();
        slices
    })
}

fn slice(service: u32, number: u32, endpoints: std::ops::Range<u32>) -> Event {
    let service = name(service);
    let endpoint = |endpoint| EndpointObject {
        address: address(0x0b00_0000, endpoint),
        node: Some(format!("node-{}", endpoint % NODES).into()),
        condition: Condition::Ready,
        for_nodes: Arc::default(),
        for_zones: [format!("zone-{}", endpoint % 3).into()].into(),
    };
    let slice: Arc<str> = format!("{}-{number:05}", service.name).into();
    Event::Slice(SliceObject {
        name: SliceName { namespace: service.namespace.clone(), name: slice },
        service: Some(service),
        family: Family::V4,
        ports: vec![SlicePort { name: "http".into(), transport: Transport::Tcp, number: 8080 }],
        endpoints: endpoints.map(endpoint).collect(),
        notes: Vec::new(),
    })
}

#[test]
fn a_large_cluster_takes_some_tens_of_megabytes() {
    let mut index = Index::new(View { node: "node-0".into(), standalone: false });
    let before = resident();
    let delta = index.apply_all((0..SERVICES).map(service).chain(slices()));
    assert_eq!(delta.ports.len(), SERVICES as usize);
    drop(delta);
    let taken = (resident() - before) >> 20;
    assert_eq!(index.ports().map(|(_, port)| port.backends.len()).sum::<usize>(), ENDPOINTS as usize);
    eprintln!("{SERVICES} Services with {ENDPOINTS} endpoints: {taken} MiB");
    assert!(taken < 60, "{taken} MiB");
    // One slice of the largest, which has hundreds.
    let compiled = index.compiled();
    let Event::Slice(mut one) = slice(0, 7, 0..1) else { unreachable!("it is a slice") };
    one.endpoints.clear();
    assert_eq!(index.apply(Event::Slice(one)).ports.len(), 1);
    assert_eq!(index.compiled() - compiled, 1);
}
