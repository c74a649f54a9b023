//! CIDRs with excepts, those that make no sense among them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index as Place, select};
use serde_json::{Value, json};
use sluice_policy::object::Policy;
use sluice_policy::{
    Evaluator, Event, Family, Index, Kind, Limits, ObjectName, Party, PodName, Protocol, Strictness, Verdict, View,
};
use sluice_policy_oracle::cidr::contains;

use crate::draw::Draws;

/// Addresses around which everything happens, the first bits of them all that differs far off.
const PLACES: [&str; 6] =
    ["10.0.0.0", "10.128.0.1", "255.255.255.255", "fd00::", "fd00:0:0:8000::1", "::ffff:10.0.0.0"];

/// An address and a length, whatever they are.
#[derive(Clone, Copy, Debug)]
struct Net {
    address: IpAddr,
    length: u8,
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Net {
    fn bits(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Its first and last address.
    fn ends(&self) -> [IpAddr; 2] {
        let span = u128::MAX.checked_shr(128 - u32::from(self.bits() - self.length.min(self.bits()))).unwrap_or(0);
        match self.address {
            IpAddr::V4(address) => {
                let (bits, span) = (address.to_bits(), span as u32);
                [Ipv4Addr::from_bits(bits & !span).into(), Ipv4Addr::from_bits(bits | span).into()]
            }
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                [Ipv6Addr::from_bits(bits & !span).into(), Ipv6Addr::from_bits(bits | span).into()]
            }
        }
    }

    /// Its ends, and what is beside them.
    fn landmarks(&self) -> Vec<IpAddr> {
        let beside = |address: IpAddr, step: i8| -> IpAddr {
            match address {
                IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(step.into())).into(),
                IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(step.into())).into(),
            }
        };
        let [first, last] = self.ends();
        vec![first, last, beside(first, -1), beside(last, 1)]
    }

    /// Whether it is a CIDR as it should be: no bits beyond the prefix, and no IPv4 written as IPv6.
    fn is_cidr(&self) -> bool {
        let is_mapped = matches!(self.address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        self.length <= self.bits() && self.ends()[0] == self.address && !is_mapped
    }

    fn is_strictly_inside(&self, outer: &Self) -> bool {
        self.length > outer.length && contains(&outer.to_string(), self.address)
    }
}

#[derive(Clone, Debug)]
struct Block {
    outer: Net,
    excepts: Vec<Net>,
}

impl Block {
    fn makes_sense(&self) -> bool {
        self.outer.is_cidr()
            && self.excepts.iter().all(|except| except.is_cidr() && except.is_strictly_inside(&self.outer))
    }

    fn has(&self, address: IpAddr) -> bool {
        let is_in = |net: &Net| contains(&net.to_string(), address);
        is_in(&self.outer) && !self.excepts.iter().any(is_in)
    }

    fn manifest(&self) -> Value {
        let excepts: Vec<String> = self.excepts.iter().map(Net::to_string).collect();
        json!({ "ipBlock": { "cidr": self.outer.to_string(), "except": excepts } })
    }
}

/// A CIDR at or near one of the [`PLACES`], rarely one that is none.
fn net() -> impl Strategy<Value = Net> {
    let length = prop_oneof![8 => 0..=32_u8, 4 => 0..=128_u8, 1 => any::<u8>()];
    (select(&PLACES[..]), any::<u8>(), length, prop::bool::weighted(0.03)).prop_map(|(place, last, length, is_left)| {
        let address = match place.parse::<IpAddr>().unwrap_or_else(|error| panic!("{place}: {error}")) {
            IpAddr::V4(address) => IpAddr::from(Ipv4Addr::from_bits(address.to_bits() ^ u32::from(last))),
            IpAddr::V6(address) => IpAddr::from(Ipv6Addr::from_bits(address.to_bits() ^ u128::from(last))),
        };
        let net = Net { address, length };
        if is_left { net } else { Net { address: net.ends()[0], length: length.min(net.bits()) } }
    })
}

/// An except of a block, most often inside it: where it begins is drawn, and how much longer it is.
fn except(outer: Net) -> impl Strategy<Value = Net> {
    (net(), any::<u8>(), any::<bool>(), prop::bool::weighted(0.97)).prop_map(
        move |(other, longer, is_last, is_inside)| {
            let room = outer.bits().saturating_sub(outer.length);
            if !is_inside || room == 0 {
                return other;
            }
            let length = outer.length + 1 + longer % room;
            let address = outer.ends()[usize::from(is_last)];
            Net { address: Net { address, length }.ends()[0], length }
        },
    )
}

fn policy(name: &str, blocks: &[Block]) -> Event {
    let to: Vec<Value> = blocks.iter().map(Block::manifest).collect();
    let policy = json!({
        "metadata": { "namespace": "x", "name": name },
        "spec": { "podSelector": { "matchLabels": { "of": name } }, "egress": [{ "to": to }] },
    });
    let policy = serde_json::from_value::<NetworkPolicy>(policy).unwrap_or_else(|error| panic!("{error}"));
    policy.read(Strictness::Strict).map_or_else(Event::Invalid, Event::Policy)
}

/// A pod for a policy, at addresses that no block is about but those of everything.
fn pod(name: &str, last: usize) -> Event {
    let pod = json!({
        "metadata": { "namespace": "x", "name": name, "labels": { "of": name } },
        "status": { "podIPs": [{ "ip": format!("192.0.2.{last}") }, { "ip": format!("2001:db8::{last}") }] },
    });
    Event::from(&serde_json::from_value::<Pod>(pod).unwrap_or_else(|error| panic!("{error}")))
}

/// Whether an event was refused; it is, where one of these blocks makes no sense.
fn is_refused(event: &Event, blocks: &[Block]) -> bool {
    let wrong = blocks.iter().position(|block| !block.makes_sense());
    match (event, wrong) {
        (Event::Invalid(error), Some(at)) => {
            assert!(error.field.starts_with(&format!("spec.egress[0].to[{at}].ipBlock.")), "{error} in {blocks:?}");
            true
        }
        (Event::Invalid(error), None) => panic!("{error}, but {blocks:?} makes sense"),
        (_, Some(at)) => panic!("{:?} is taken", blocks[at]),
        (_, None) => false,
    }
}

/// Pods with policies about some blocks, each about one of them and one about all, reach the addresses in them only.
pub(crate) fn check(data: &[u8]) {
    let mut draws = Draws::new(data);
    let (removed, counts) = draws.any(&(any::<Place>(), vec(0..4_usize, 1..5)));
    let blocks: Vec<Block> = counts
        .into_iter()
        .map(|excepts| {
            let outer = draws.any(&net());
            Block { outer, excepts: draws.up_to(excepts, &except(outer)) }
        })
        .collect();
    let others = draws.up_to(4, &net());
    let mut index = Index::new(View::Everything, Limits::NONE);
    let mut policies: Vec<(String, Vec<Block>)> = Vec::new();
    let lists = blocks.iter().map(|block| vec![block.clone()]).chain([blocks.clone()]);
    for (number, list) in lists.enumerate() {
        let name = format!("p{number}");
        let event = policy(&name, &list);
        if is_refused(&event, &list) {
            continue;
        }
        index.apply(event);
        index.apply(pod(&name, number + 1));
        policies.push((name, list));
    }
    let nets = blocks.iter().flat_map(|block| block.excepts.iter().chain([&block.outer])).chain(&others);
    let addresses: Vec<IpAddr> = nets.flat_map(Net::landmarks).collect();
    ask(&index, &policies, &addresses);
    if !policies.is_empty() {
        let (name, _) = policies.remove(removed.index(policies.len()));
        index.apply(Event::Removed(ObjectName::new(Kind::NetworkPolicy, "x", &name)));
        ask(&index, &policies, &addresses);
    }
}

fn ask(index: &Index, policies: &[(String, Vec<Block>)], addresses: &[IpAddr]) {
    let evaluator = Evaluator::new(index);
    for (name, blocks) in policies {
        for address in addresses {
            let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
            let from = Party::Pod(PodName::new("x", name));
            let answer = evaluator.probe(&from, &Party::Address(*address), Protocol::TCP, 80, family);
            let found = answer.unwrap_or_else(|error| panic!("{error}")).egress.verdict == Verdict::Allow;
            let expected = blocks.iter().any(|block| block.has(*address));
            assert_eq!(found, expected, "{address} by {name}, of {blocks:?}");
        }
    }
}
