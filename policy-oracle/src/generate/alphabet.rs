//! The few words that everything is made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::probe::Family;
use crate::selector::Labels;

/// The namespaces.
pub(super) const NAMESPACES: [&str; 3] = ["x", "y", "z"];
/// Names of ports.
pub(super) const PORT_NAMES: [&str; 3] = ["web", "dns", "admin"];
/// Numbers of ports.
pub(super) const PORTS: [u16; 4] = [80, 81, 53, 8080];
/// Ends of ranges of ports.
pub(super) const EDGES: [u16; 6] = [80, 1, 53, 81, 8080, 65535];
/// Protocols, as objects have them; missing, it is TCP.
pub(super) const PROTOCOLS: [Option<&str>; 4] = [None, Some("TCP"), Some("UDP"), Some("SCTP")];
/// How many places there are for pods' addresses.
pub(super) const SLOTS: u8 = 16;

/// The address of a pod in one of [`SLOTS`] places.
pub(super) fn pod_address(slot: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 1, 0, slot).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, slot.into()).into(),
    }
}

/// The address of a node within the cluster.
pub(super) fn node_address(node: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, node + 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(node) + 1).into(),
    }
}

/// The address by which a node is known outside.
pub(super) fn external_address(node: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, node + 1).into()
}

/// Addresses outside the cluster, two of which lie among the pods'.
pub(super) fn outside(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => [[203, 0, 113, 7], [10, 9, 9, 9], [10, 1, 0, 0], [10, 1, 0, 200]].map(IpAddr::from).to_vec(),
        Family::V6 => {
            let addresses =
                [0x2001_0db8_ffff << 80 | 7, 0xfd00_0009 << 96 | 9, 0xfd00_0001 << 96, 0xfd00_0001 << 96 | 200];
            addresses.map(|bits: u128| Ipv6Addr::from_bits(bits).into()).to_vec()
        }
    }
}

/// Addresses that are worth being in a CIDR or at its edge.
pub(super) fn landmarks(family: Family) -> Vec<IpAddr> {
    let pods = (1..=SLOTS).map(|slot| pod_address(slot, family));
    let nodes = (0..2).map(|node| node_address(node, family));
    pods.chain(nodes).chain(outside(family)).collect()
}

/// The namespace of something: most are in few.
pub(super) fn namespace_name() -> impl Strategy<Value = &'static str> {
    let [x, y, z] = NAMESPACES;
    prop_oneof![3 => Just(x), 2 => Just(y), 1 => Just(z)]
}

/// Labels of anything.
pub(super) fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(vec!["a".to_owned(), "b".into()]), select(vec!["1".to_owned(), "2".into()]), 0..=2)
}

/// A selector of anything.
pub(super) fn selector() -> impl Strategy<Value = LabelSelector> {
    let select = |match_labels: Labels, match_expressions: Vec<_>| LabelSelector {
        match_labels: (!match_labels.is_empty()).then_some(match_labels),
        match_expressions: (!match_expressions.is_empty()).then_some(match_expressions),
    };
    prop_oneof![
        4 => Just(LabelSelector::default()),
        2 => labels().prop_map(move |labels| select(labels, Vec::new())),
        3 => vec(expression(), 1..=2).prop_map(move |expressions| select(Labels::new(), expressions)),
        1 => (labels(), vec(expression(), 1..=2)).prop_map(move |(labels, expressions)| select(labels, expressions)),
    ]
}

/// A selector of namespaces, by their labels or by their names.
pub(super) fn namespace_selector() -> impl Strategy<Value = LabelSelector> {
    let by_name =
        (select(vec!["In", "NotIn"]), subsequence(NAMESPACES.to_vec(), 1..=2)).prop_map(|(operator, names)| {
            let expression = LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".into(),
                operator: operator.into(),
                values: Some(names.into_iter().map(str::to_owned).collect()),
            };
            LabelSelector { match_expressions: Some(vec![expression]), ..LabelSelector::default() }
        });
    prop_oneof![3 => selector(), 1 => by_name]
}

fn expression() -> impl Strategy<Value = LabelSelectorRequirement> {
    let keys = select(vec!["a", "b", "c"]);
    let operators = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    (keys, operators, subsequence(vec!["1", "2", "3"], 1..=2)).prop_map(|(key, operator, values)| {
        let takes_values = matches!(operator, "In" | "NotIn");
        LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: takes_values.then(|| values.into_iter().map(str::to_owned).collect()),
        }
    })
}
