//! Pools: ranges of addresses of one family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Range;
use crate::error::{CniError, Code};

/// Ranges of addresses that are as good as one another.
#[derive(Clone, Debug)]
pub struct Pool {
    ranges: Vec<(IpAddr, IpAddr)>,
    name: String,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number, of the same family as another.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// First and last address of a subnet that a host can have: neither network nor broadcast, nor the subnet-router anycast
/// address of IPv6 (RFC 4291 section 2.6.1); of the smallest subnets, all (RFC 3021, RFC 6164).
fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = (number(subnet.network()), number(subnet.broadcast()));
    let (first, last) = match last - first {
        0 | 1 => (first, last),
        _ if subnet.addr().is_ipv4() => (first + 1, last - 1),
        _ => (first + 1, last),
    };
    (address(first, subnet.addr()), address(last, subnet.addr()))
}

impl Pool {
    /// The pool of a set of ranges.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] where they are of two families, or bounds lie outside their subnet.
    pub fn of(ranges: &[Range]) -> Result<Self, CniError> {
        let invalid = |message: String| CniError::new(Code::InvalidConfiguration, message);
        let mut bounds = Vec::new();
        for range in ranges {
            let (first, last) = usable(range.subnet);
            let (first, last) = (range.range_start.unwrap_or(first), range.range_end.unwrap_or(last));
            if !range.subnet.contains(&first) || !range.subnet.contains(&last) || number(first) > number(last) {
                return Err(invalid(format!("{first} to {last} is no range of the subnet {}", range.subnet)));
            }
            bounds.push((first, last));
        }
        let Some((first, _)) = bounds.first() else { return Err(invalid("an empty set of ranges in ipam".into())) };
        if bounds.iter().any(|(other, _)| other.is_ipv4() != first.is_ipv4()) {
            return Err(invalid("a set of ranges in ipam has both IPv4 and IPv6; make two sets of them".into()));
        }
        let name = ranges.iter().map(|range| range.subnet.to_string()).collect::<Vec<_>>().join(", ");
        Ok(Self { ranges: bounds, name })
    }

    /// The family of its addresses.
    pub fn is_ipv4(&self) -> bool {
        self.ranges[0].0.is_ipv4()
    }

    /// Whether an address is of this pool.
    pub fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|(first, last)| {
            address.is_ipv4() == first.is_ipv4() && (number(*first)..=number(*last)).contains(&number(address))
        })
    }

    /// All addresses, each once, those behind `last` first: so that what was given back is not given out at once.
    pub fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let (at, next) = last
            .and_then(|last| {
                let at = self.ranges.iter().position(|(first, end)| {
                    last.is_ipv4() == first.is_ipv4() && (number(*first)..=number(*end)).contains(&number(last))
                })?;
                Some((at, number(last) + 1))
            })
            .unwrap_or_else(|| (0, number(self.ranges[0].0)));
        let count = self.ranges.len();
        let rest = move |index: usize| {
            let (first, end) = self.ranges[(at + index) % count];
            let start = if index == 0 { next } else { number(first) };
            let stop = if index == count { next } else { number(end).saturating_add(1) };
            (start..stop).map(move |number| address(number, first))
        };
        (0..=count).flat_map(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnets: &[&str]) -> Pool {
        let range =
            |subnet: &&str| Range { subnet: subnet.parse().expect("a subnet"), range_start: None, range_end: None };
        Pool::of(&subnets.iter().map(range).collect::<Vec<_>>()).expect("a pool")
    }

    fn all(pool: &Pool, last: Option<&str>) -> Vec<String> {
        pool.after(last.map(|last| last.parse().expect("an address"))).map(|address| address.to_string()).collect()
    }

    #[test]
    fn hosts_only() {
        assert_eq!(all(&pool(&["10.0.0.0/30"]), None), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(all(&pool(&["10.0.0.0/31"]), None), ["10.0.0.0", "10.0.0.1"]);
        assert_eq!(all(&pool(&["fd00::/126"]), None), ["fd00::1", "fd00::2", "fd00::3"]);
    }

    #[test]
    fn rotation_visits_all_once() {
        let pool = pool(&["10.0.0.0/29", "10.0.1.0/30"]);
        let rotated = all(&pool, Some("10.0.0.3"));
        assert_eq!(
            rotated,
            ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.1.1", "10.0.1.2", "10.0.0.1", "10.0.0.2", "10.0.0.3"]
        );
        assert_eq!(all(&pool, Some("10.9.9.9")).len(), 8);
        assert_eq!(all(&pool, Some("10.0.1.2"))[0], "10.0.0.1");
    }

    #[test]
    fn nonsense_is_refused() {
        let range = |subnet: &str, start: &str| Range {
            subnet: subnet.parse().expect("a subnet"),
            range_start: Some(start.parse().expect("an address")),
            range_end: None,
        };
        assert!(Pool::of(&[]).is_err());
        assert!(Pool::of(&[range("10.0.0.0/24", "10.0.1.1")]).is_err());
        assert!(Pool::of(&[range("10.0.0.0/24", "fd00::1")]).is_err());
        assert!(Pool::of(&[range("10.0.0.0/24", "10.0.0.4"), range("fd00::/64", "fd00::4")]).is_err());
    }
}
