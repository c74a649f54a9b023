//! Cluster IPs, and how many frontends there are at each.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// All of them.
#[derive(Debug, Default)]
pub struct ClusterIps {
    counts: HashMap<IpAddr, u32>,
    /// Those that may have come or gone.
    changed: BTreeSet<IpAddr>,
}

impl ClusterIps {
    /// One frontend more.
    pub fn add(&mut self, address: IpAddr) {
        let count = self.counts.entry(address).or_default();
        *count += 1;
        if *count == 1 {
            self.changed.insert(address);
        }
    }

    /// One less.
    pub fn remove(&mut self, address: IpAddr) {
        let Some(count) = self.counts.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&address);
            self.changed.insert(address);
        }
    }

    /// Whether it is one.
    pub fn has(&self, address: IpAddr) -> bool {
        self.counts.contains_key(&address)
    }

    /// Those that may have come or gone since the last call, and whether they are there.
    pub fn take_changes(&mut self) -> impl Iterator<Item = (IpAddr, bool)> + use<> {
        let changed: Vec<_> =
            std::mem::take(&mut self.changed).into_iter().map(|address| (address, self.has(address))).collect();
        changed.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_with_the_first_and_goes_with_the_last() {
        let [one, other]: [IpAddr; 2] = ["10.96.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        let mut ips = ClusterIps::default();
        ips.add(one);
        ips.add(one);
        ips.add(other);
        assert!(ips.take_changes().eq([(one, true), (other, true)]) && ips.has(one));
        ips.remove(one);
        ips.remove(other);
        assert!(ips.take_changes().eq([(other, false)]));
        ips.remove(one);
        ips.add(one);
        assert!(ips.take_changes().eq([(one, true)]), "as good as unchanged");
    }
}
