//! What does not fit.

use super::*;
use crate::kernel::services::writer::Writer;

fn small() -> Writer<Memory> {
    let room = Room { backends: 9, sets: 4, members: 18, frontends: 6, maglev: 1 };
    Writer::open(Memory::default(), room, own_addresses(), true).unwrap()
}

pub fn name(name: &str) -> PortName {
    PortName { name: name.into(), ..names().remove(0) }
}

/// A port at a cluster IP, served by pods of these numbers.
pub fn served(cluster_ip: u8, hosts: std::ops::Range<u8>) -> Arc<ServicePort> {
    let address = |network, host| IpAddr::from([10, network, 0, host]);
    let frontend = sluice_service::Frontend {
        at: sluice_service::Place::Address(address(96, cluster_ip)),
        port: 80,
        kind: FrontendKind::ClusterIp,
    };
    let backends: Vec<_> =
        hosts.map(|host| sluice_service::Backend { address: address(1, host), port: 80, is_local: false }).collect();
    let all = if backends.is_empty() { Choice::Reject } else { Choice::Among((0..backends.len() as u32).collect()) };
    Arc::new(ServicePort {
        frontends: vec![frontend],
        backends,
        inside: all.clone(),
        inside_external: all.clone(),
        outside: all,
        affinity: None,
        source_ranges: Vec::new(),
    })
}

fn external(cluster_ip: u8, hosts: std::ops::Range<u8>) -> Arc<ServicePort> {
    let mut port = ServicePort::clone(&served(cluster_ip, hosts));
    port.frontends[0].kind = FrontendKind::ExternalIp;
    Arc::new(port)
}

pub fn servers(writer: &Writer<Memory>, port: &ServicePort) -> Answer {
    ask(&writer.tables, &place(&name("any"), &port.frontends[0]), Side::Inside).unwrap().0
}

pub fn problems(writer: &Writer<Memory>) -> Vec<(String, String)> {
    writer.problems().map(|(name, text)| (name.name.to_string(), text)).collect()
}

pub fn answer_of(port: &ServicePort) -> Answer {
    answer(port, FrontendKind::ClusterIp, Side::Inside)
}

#[test]
fn a_port_that_does_not_fit_is_refused_alone_and_comes_once_there_is_room() {
    let mut writer = small();
    let (a, b, c) = (served(1, 0..4), served(2, 10..16), served(3, 20..22));
    let all = [("a", &a), ("b", &b), ("c", &c)];
    writer.apply(all.map(|(text, port)| (name(text), Some(port.clone())))).unwrap();
    let text = "6 more backends do not fit into the table; raise `service_backends`";
    assert_eq!((problems(&writer), writer.refused()), (vec![("b".to_owned(), text.to_owned())], 1));
    assert_eq!([&a, &b, &c].map(|port| servers(&writer, port)), [answer_of(&a), Answer::Nobody, answer_of(&c)]);
    // What is not enough for it leaves it refused.
    writer.apply([(name("c"), Some(served(3, 20..21)))]).unwrap();
    assert_eq!(servers(&writer, &b), Answer::Nobody);
    writer.apply([(name("a"), None)]).unwrap();
    assert_eq!((problems(&writer), servers(&writer, &b)), (vec![], answer_of(&b)));
    assert!(writer.tables.log.iter().any(|write| matches!(write, Write::Settle)), "what rested was waited for");
}

#[test]
fn a_port_that_grows_too_large_keeps_those_that_still_serve() {
    let mut writer = small();
    writer.apply([(name("a"), Some(served(1, 0..4)))]).unwrap();
    let more = served(1, 2..14);
    writer.apply([(name("a"), Some(more.clone()))]).unwrap();
    assert_eq!((problems(&writer).len(), servers(&writer, &more)), (1, answer_of(&served(1, 2..4))));
    writer.apply([(name("a"), Some(served(1, 2..8)))]).unwrap();
    assert_eq!((problems(&writer), servers(&writer, &more)), (vec![], answer_of(&served(1, 2..8))));
    writer.apply([(name("a"), Some(more))]).unwrap();
    writer.apply([(name("a"), None)]).unwrap();
    assert!(problems(&writer).is_empty() && writer.tables.frontends.is_empty());
}

#[test]
fn members_sets_frontends_and_tables_are_counted() {
    let mut writer = small();
    writer.apply([(name("a"), Some(served(1, 0..7)))]).unwrap();
    // Of sixteen words it has eight: the seven that come next fit beside them, and what comes then has to wait for the eight.
    writer.apply([(name("a"), Some(served(1, 0..6)))]).unwrap();
    writer.apply([(name("a"), Some(served(1, 0..7)))]).unwrap();
    assert_eq!((problems(&writer), servers(&writer, &served(1, 0..1))), (vec![], answer_of(&served(1, 0..7))));
    // Nine do not fit beside eight, and what serves goes on.
    writer.apply([(name("a"), Some(served(1, 0..8)))]).unwrap();
    let text = "a set of 8 backends does not fit into the table; raise `service_backends`";
    assert_eq!(problems(&writer), [("a".to_owned(), text.to_owned())]);
    assert_eq!(servers(&writer, &served(1, 0..1)), answer_of(&served(1, 0..7)));
    // Where half of that serves no longer, its place is taken once it is free.
    writer.apply([(name("a"), Some(served(1, 4..11)))]).unwrap();
    assert_eq!((problems(&writer), servers(&writer, &served(1, 0..1))), (vec![], answer_of(&served(1, 4..11))));

    let mut writer = small();
    let names = ["a", "b", "c", "d"];
    writer.apply(names.iter().zip(1..).map(|(text, ip)| (name(text), Some(served(ip, 0..0))))).unwrap();
    assert!(problems(&writer)[0].1.starts_with("2 more addresses and ports do not fit"), "{:?}", problems(&writer));
    let fours = names.iter().zip(1..).map(|(text, ip)| (name(text), Some(external(ip, 0..0))));
    writer.apply(fours).unwrap();
    assert!(problems(&writer)[0].1.starts_with("one more set"), "{:?}", problems(&writer));

    let mut writer = small();
    writer.apply([(name("a"), Some(external(1, 0..2))), (name("b"), Some(external(2, 4..6)))]).unwrap();
    assert!(problems(&writer).len() == 1 && problems(&writer)[0].1.starts_with("one more Maglev table"));
    assert_eq!(writer.refused(), 0, "it is served");
    assert_eq!(servers(&writer, &external(2, 0..0)), answer_of(&external(2, 4..6)), "spread at random");
    writer.apply([(name("a"), Some(served(1, 0..2)))]).unwrap();
    writer.apply([(name("b"), Some(external(2, 4..7)))]).unwrap();
    assert_eq!((problems(&writer), writer.tables.maglev.len()), (vec![], 1));
}
