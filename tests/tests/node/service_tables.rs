//! The tables of services, written by the agent's writer into maps of the kernel's, and read as programs know them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use aya::maps::{LpmTrie, Map, MapData};
use sluice_abi::{
    Backend, BackendId, FRONTEND_BITS, Frontend, FrontendBit, FrontendFlags, FrontendKey, Ipv4, Ipv6, MAGLEV_SIZE,
    Membership, Port, Position, Protocol, RangePath, ServiceId, SetId, maps,
};
use sluice_agent::kernel::services::{Owed, Room, Writer};
use sluice_service::{Choice, Family, FrontendKind, Place, PortName, ServicePort, Transport};
use sluice_tests::service_maps::Tables;

const SMALL: Room = Room { backends: 1_000, sets: 500, members: 4_000, frontends: 1_000, maglev: 10 };
const LARGE: Room = Room { backends: 1 << 19, sets: 1 << 18, members: 1 << 21, frontends: 1 << 20, maglev: 16_384 };

fn name(number: usize, family: Family) -> PortName {
    PortName {
        namespace: "default".into(),
        name: format!("web{number}").into(),
        port: "".into(),
        number: 80,
        transport: Transport::Tcp,
        family,
    }
}

fn port(frontends: &[(Place, u16, FrontendKind)], backends: &[(IpAddr, u16)], local: &[u32]) -> ServicePort {
    let all = Choice::Among((0..backends.len() as u32).collect());
    ServicePort {
        frontends: frontends.iter().map(|&(at, port, kind)| sluice_service::Frontend { at, port, kind }).collect(),
        backends: backends
            .iter()
            .map(|&(address, port)| sluice_service::Backend { address, port, is_local: false })
            .collect(),
        inside: all.clone(),
        inside_external: all.clone(),
        outside: if local.is_empty() { all } else { Choice::Among(local.into()) },
        affinity: Some(600),
        source_ranges: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn programs_find_what_was_written() {
    let tables = Tables::new(SMALL).unwrap();
    let own = BTreeSet::from([ip("10.9.0.1")]);
    let mut writer = Writer::open(tables.maps().unwrap(), SMALL, own.clone(), true).unwrap();
    let (web, six) = (name(1, Family::V4), name(1, Family::V6));
    let mut v4 = port(
        &[
            (Place::Address(ip("10.96.0.1")), 80, FrontendKind::ClusterIp),
            (Place::Address(ip("203.0.113.7")), 8_080, FrontendKind::LoadBalancer),
            (Place::Node, 30_080, FrontendKind::NodePort),
        ],
        &[(ip("10.0.0.1"), 80), (ip("10.0.0.2"), 80), (ip("10.9.0.1"), 9_090)],
        &[1, 2],
    );
    v4.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    let v6 = port(&[(Place::Address(ip("fd00:96::1")), 80, FrontendKind::ClusterIp)], &[(ip("fd00::5"), 81)], &[]);
    let (v4, v6) = (Arc::new(v4), Arc::new(v6));
    let all = [(web.clone(), v4), (six.clone(), v6)];
    writer.take_over(all.clone()).unwrap();
    assert!(matches!(writer.owed(), Owed::Of(owed) if owed.contains(&ip("203.0.113.7")) && owed.len() == 4));

    let (sets, members) = (tables.array::<Position>(maps::SETS).unwrap(), tables.array::<u32>(maps::MEMBERS).unwrap());
    let of_set = |set: SetId| -> Vec<BackendId> {
        let Position(start) = sets.get(&set.0, 0).unwrap();
        let count = members.get(&start, 0).unwrap();
        (1..=count).map(|at| BackendId(members.get(&(start + at), 0).unwrap())).collect()
    };
    let key = |address: &str, port, protocol| {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        FrontendKey { address: Ipv4::from(address), protocol, port: Port::new(port), pad: 0 }
    };
    let frontends = tables.hash::<FrontendKey<Ipv4>, Frontend>(maps::FRONTENDS4).unwrap();
    let cluster_ip = frontends.get(&key("10.96.0.1", 80, Protocol::TCP), 0).unwrap();
    let balancer = frontends.get(&key("203.0.113.7", 8_080, Protocol::TCP), 0).unwrap();
    let node_port = frontends.get(&key("0.0.0.0", 30_080, Protocol::TCP), 0).unwrap();
    let rest = frontends.get(&key("10.96.0.1", 0, Protocol(0)), 0).unwrap();
    assert_eq!(frontends.iter().count(), 4);
    assert_eq!((cluster_ip.inside, cluster_ip.outside), (balancer.inside, balancer.inside));
    assert_eq!((node_port.outside, rest.inside), (balancer.outside, SetId::NONE));
    assert_eq!((cluster_ip.flags, rest.flags), (FrontendFlags::CLUSTER_IP, FrontendFlags::CLUSTER_IP));
    assert_eq!(balancer.flags, FrontendFlags::SOURCE_RANGES.with(FrontendFlags::MAGLEV));
    assert_eq!((node_port.flags, node_port.affinity), (FrontendFlags::MAGLEV, 600));

    let backends = tables.array::<Backend<Ipv4>>(maps::BACKENDS4).unwrap();
    let of_backend = |id: &BackendId| {
        let Backend { address, port, membership, service } = backends.get(&id.0, 0).unwrap();
        assert_eq!(service, cluster_ip.service);
        (std::net::Ipv4Addr::from(address).to_string(), port.get(), membership)
    };
    let inside: Vec<_> = of_set(cluster_ip.inside).iter().map(of_backend).collect();
    let both = Membership::CLUSTER_IP.with(Membership::INSIDE).with(Membership::OUTSIDE);
    let near = Membership::CLUSTER_IP.with(Membership::INSIDE);
    let server = |address: &str, port, membership| (address.to_owned(), port, membership);
    let local = [server("10.0.0.2", 80, both), server("10.9.0.1", 9_090, both)];
    assert_eq!((&inside[0], &inside[1..]), (&server("10.0.0.1", 80, near), &local[..]));
    assert!(of_set(balancer.outside).iter().map(of_backend).eq(local.clone()));
    let maglev =
        tables.hash::<SetId, [BackendId; MAGLEV_SIZE]>(maps::MAGLEV).unwrap().get(&balancer.outside, 0).unwrap();
    assert!(maglev.iter().map(of_backend).all(|server| local.contains(&server)));

    let ranges: LpmTrie<MapData, RangePath<Ipv4>, u32> =
        Map::from_map_data(tables.data(maps::SOURCE_RANGES4).unwrap()).unwrap().try_into().unwrap();
    let client = |service, text: &str| {
        let address: std::net::Ipv4Addr = text.parse().unwrap();
        ranges.get(&aya::maps::lpm_trie::Key::new(64, RangePath { service, address: address.into() }), 0).is_ok()
    };
    assert!(client(balancer.service, "192.0.2.77") && !client(balancer.service, "192.0.3.77"));
    assert!(!client(ServiceId(77), "192.0.2.77"));

    let bits = tables.array::<u64>(maps::FRONTEND_BITS).unwrap();
    let is_set = |bit: FrontendBit| bits.get(&bit.place().0, 0).unwrap() & bit.place().1 != 0;
    assert!(is_set(FrontendBit::of_address(key("10.96.0.1", 0, Protocol(0)).address)));
    assert!(is_set(FrontendBit::of_port(Port::new(30_080), Protocol::TCP)));
    assert!(is_set(FrontendBit::of_host_backend(Port::new(9_090), Protocol::TCP)), "of the node's own process");
    assert!(!is_set(FrontendBit::of_port(Port::new(80), Protocol::TCP)));

    let six_key = FrontendKey {
        address: Ipv6::from("fd00:96::1".parse::<std::net::Ipv6Addr>().unwrap()),
        protocol: Protocol::TCP,
        port: Port::new(80),
        pad: 0,
    };
    let found = tables.hash::<FrontendKey<Ipv6>, Frontend>(maps::FRONTENDS6).unwrap().get(&six_key, 0).unwrap();
    let [BackendId(id)] = of_set(found.outside)[..] else { panic!("one backend") };
    let backend = tables.array::<Backend<Ipv6>>(maps::BACKENDS6).unwrap().get(&id, 0).unwrap();
    assert_eq!((std::net::Ipv6Addr::from(backend.address).to_string().as_str(), backend.port.get()), ("fd00::5", 81));

    // Who comes next finds it as it is to be, and keeps everybody's numbers; then all goes.
    writer.paid();
    drop(writer);
    let mut writer = Writer::open(tables.maps().unwrap(), SMALL, own, true).unwrap();
    writer.take_over(all).unwrap();
    assert!(matches!(writer.owed(), Owed::Of(owed) if owed.is_empty()));
    assert_eq!(frontends.get(&key("10.96.0.1", 80, Protocol::TCP), 0).unwrap(), cluster_ip);
    writer.apply([(web, None), (six, None)]).unwrap();
    assert_eq!((frontends.iter().count(), ranges.iter().count()), (0, 0));
    assert!((0..FRONTEND_BITS / 64).all(|at| bits.get(&at, 0).unwrap() == 0));
    assert!((1..SMALL.backends).all(|id| backends.get(&id, 0).unwrap().service == ServiceId::NONE));
}

/// Of a large cluster: 44,000 services with 250,000 endpoints, one of them with 5,000. Prints what it takes.
#[test]
#[ignore = "takes a while, and tells only times"]
fn a_large_cluster() {
    let tables = Tables::new(LARGE).unwrap();
    let open = || Writer::open(tables.maps().unwrap(), LARGE, BTreeSet::new(), false).unwrap();
    let served = |number: usize, from: usize, count: usize| {
        let address = |base: u32, at: usize| IpAddr::V4((base + at as u32).into());
        let backends: Vec<_> = (from..from + count).map(|at| (address(0x0a00_0000, at), 80)).collect();
        let mut frontends = vec![(Place::Address(address(0xac10_0000, number)), 80, FrontendKind::ClusterIp)];
        if number.is_multiple_of(20) {
            frontends.push((Place::Node, 30_000 + (number / 20) as u16, FrontendKind::NodePort));
        }
        Arc::new(port(&frontends, &backends, &(0..count as u32).collect::<Vec<_>>()))
    };
    let mut next = 0;
    let ports: Vec<_> = (0..44_000)
        .map(|number| {
            let count = if number == 0 { 5_000 } else { 5 + usize::from(number % 2 == 0) };
            next += count;
            (name(number, Family::V4), served(number, next - count, count))
        })
        .collect();
    let timed = |what: &str, action: &mut dyn FnMut()| {
        let (start, resident) = (Instant::now(), resident());
        action();
        println!("{what}: {:?}, {} KiB more", start.elapsed(), resident_since(resident));
    };
    let mut writer = open();
    timed(&format!("{next} endpoints from nothing"), &mut || writer.take_over(ports.clone()).unwrap());
    writer.paid();
    timed("one endpoint less of 5,000", &mut || {
        writer.apply([(name(0, Family::V4), Some(served(0, 0, 4_999)))]).unwrap()
    });
    timed("one endpoint less of 5", &mut || writer.apply([(name(1, Family::V4), Some(served(1, 5_000, 4)))]).unwrap());
    writer.paid();
    drop(writer);
    let mut writer = None;
    timed("reading it back", &mut || writer = Some(open()));
    let mut writer = writer.unwrap();
    timed("taking it over", &mut || writer.take_over(ports.clone()).unwrap());
    timed("all gone", &mut || writer.apply(ports.iter().map(|(name, _)| (name.clone(), None))).unwrap());
}

fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn resident_since(before: i64) -> i64 {
    resident() - before
}
