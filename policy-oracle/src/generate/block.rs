//! CIDRs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::networking::v1::IPBlock;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::alphabet::landmarks;
use crate::cidr;
use crate::probe::Family;

/// The lengths of prefixes that part the [`landmarks`] in different ways, the longest first.
fn lengths(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => vec![32, 31, 30, 29, 28, 24, 16, 8, 0],
        Family::V6 => vec![128, 127, 126, 125, 124, 64, 32, 8, 0],
    }
}

/// The CIDR of this length that an address is in.
fn around(address: IpAddr, length: u8) -> String {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            format!("{}/{length}", Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            format!("{}/{length}", Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

fn family() -> impl Strategy<Value = Family> {
    select(Family::BOTH.to_vec())
}

/// A CIDR.
pub(super) fn network() -> impl Strategy<Value = String> {
    (family(), any::<Index>(), any::<Index>())
        .prop_map(|(family, address, length)| around(*address.get(&landmarks(family)), *length.get(&lengths(family))))
}

/// A CIDR with excepts: each lies in it and is smaller, but they overlap each other as they like.
pub(super) fn ip_block() -> impl Strategy<Value = IPBlock> {
    let drawn = (family(), any::<Index>(), any::<Index>());
    let excepts = prop_oneof![1 => Just(Vec::new()), 2 => vec(any::<(Index, Index)>(), 1..=3)];
    (drawn, excepts).prop_map(|((family, address, length), excepts)| {
        let (landmarks, lengths) = (landmarks(family), lengths(family));
        let (address, length) = (*address.get(&landmarks), *length.get(&lengths));
        let block = around(address, length);
        let inside: Vec<IpAddr> = landmarks.into_iter().filter(|it| cidr::contains(&block, *it)).collect();
        let longer: Vec<u8> = lengths.into_iter().filter(|it| *it > length).collect();
        let except = |(address, length): (Index, Index)| around(*address.get(&inside), *length.get(&longer));
        let excepts: Vec<String> =
            if longer.is_empty() { Vec::new() } else { excepts.into_iter().map(except).collect() };
        IPBlock { cidr: block, except: (!excepts.is_empty()).then_some(excepts) }
    })
}
