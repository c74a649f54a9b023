//! Something for each of many CIDRs, of both families.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A map from CIDRs without host bits. Its order puts a CIDR before those inside it.
#[derive(Clone, Debug)]
pub struct Prefixes<T> {
    map: BTreeMap<IpNet, T>,
    /// How many CIDRs there are of each length, so that only those are tried.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), lengths: Default::default() }
    }
}

fn family(net: &IpNet) -> usize {
    usize::from(net.addr().is_ipv6())
}

/// The CIDR of another, shorter length around one.
fn shortened(net: &IpNet, length: u8) -> Option<IpNet> {
    let net = match net {
        IpNet::V4(net) => IpNet::V4(Ipv4Net::new(net.addr(), length).ok()?),
        IpNet::V6(net) => IpNet::V6(Ipv6Net::new(net.addr(), length).ok()?),
    };
    Some(net.trunc())
}

impl<T> Prefixes<T> {
    /// What there is for a CIDR.
    pub fn get(&self, net: &IpNet) -> Option<&T> {
        self.map.get(net)
    }

    /// What there is for a CIDR, to be changed.
    pub fn get_mut(&mut self, net: &IpNet) -> Option<&mut T> {
        self.map.get_mut(net)
    }

    /// Puts something in place of what there is for a CIDR, which is given back.
    pub fn insert(&mut self, net: IpNet, value: T) -> Option<T> {
        let before = self.map.insert(net, value);
        if before.is_none() {
            *self.lengths[family(&net)].entry(net.prefix_len()).or_default() += 1;
        }
        before
    }

    /// Takes out what there is for a CIDR.
    pub fn remove(&mut self, net: &IpNet) -> Option<T> {
        let before = self.map.remove(net)?;
        let lengths = &mut self.lengths[family(net)];
        if let Some(count) = lengths.get_mut(&net.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&net.prefix_len());
            }
        }
        Some(before)
    }

    /// What there is for the CIDRs around one, itself among them; the shortest first.
    pub fn around(&self, net: &IpNet) -> impl DoubleEndedIterator<Item = (IpNet, &T)> {
        self.lengths[family(net)].range(..=net.prefix_len()).filter_map(move |(length, _)| {
            let outer = shortened(net, *length)?;
            Some((outer, self.map.get(&outer)?))
        })
    }

    /// What there is for the longest CIDR around one, itself among them.
    pub fn longest(&self, net: &IpNet) -> Option<(IpNet, &T)> {
        self.around(net).next_back()
    }

    /// The CIDRs inside one, itself among them.
    pub fn inside(&self, net: &IpNet) -> impl Iterator<Item = (&IpNet, &T)> {
        self.map.range(*net..=IpNet::from(net.broadcast()))
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &T)> {
        self.map.iter()
    }

    /// How many CIDRs there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn around_and_inside() {
        let mut prefixes = Prefixes::default();
        for text in
            ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.1.1.1/32", "11.0.0.0/8", "::/0", "fd00::/8"]
        {
            assert_eq!(prefixes.insert(net(text), text), None);
        }
        let around = |text| prefixes.around(&net(text)).map(|(_, text)| *text).collect::<Vec<_>>();
        assert_eq!(around("10.1.0.0/16"), ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"]);
        assert_eq!(around("fd00::1/128"), ["::/0", "fd00::/8"]);
        let inside = |text| prefixes.inside(&net(text)).map(|(_, text)| *text).collect::<Vec<_>>();
        assert_eq!(inside("10.0.0.0/8"), ["10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "10.1.1.1/32"]);
        assert_eq!(inside("10.0.0.0/16"), ["10.0.0.0/16"]);
        assert_eq!(inside("::/0"), ["::/0", "fd00::/8"]);
        assert_eq!(prefixes.longest(&net("10.1.1.1/32")).map(|(_, text)| *text), Some("10.1.1.1/32"));
        prefixes.remove(&net("10.1.1.1/32"));
        assert_eq!(prefixes.longest(&net("10.1.1.1/32")).map(|(_, text)| *text), Some("10.1.0.0/16"));
    }
}
