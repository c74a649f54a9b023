//! Pod CIDRs out of a pool, where the cluster hands out none: blocks that the agents take for their nodes.
//!
//! A block is taken by an object whose name says which block it is, and which can be made only once. So nobody takes what
//! another has. Blocks of different sizes, after a change of the settings, have different names though they overlap: of
//! these the one that was made earlier holds, and all agents see them in the same order.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::NodeObject;

/// Most blocks that are looked at for a free one. There are not as many nodes.
const MOST: u128 = 1 << 18;

/// Addresses of which each node gets a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// All of them.
    pub cidr: IpNet,
    /// Length of the prefix of a block.
    pub block: u8,
}

/// All ranges. A node gets one block of each family that is among them, of the first range that has a free one.
#[derive(Clone, Debug, Default)]
pub struct Pool(pub Vec<Range>);

/// That a block is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The block.
    pub block: IpNet,
    /// Its node,
    pub node: String,
    /// and that node's UID: another node of the same name has another one.
    pub uid: String,
    /// The version at which it was taken: of two that overlap the lower one holds.
    pub version: u64,
}

/// All that are taken.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<IpNet, Claim>);

/// What a node still lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Blocks to take, one of each family without.
    pub blocks: Vec<IpNet>,
    /// The families of which there is no free block: whether it is IPv4.
    pub exhausted: Vec<bool>,
}

impl Claims {
    /// A block is taken.
    pub fn insert(&mut self, claim: Claim) {
        self.0.insert(claim.block, claim);
    }

    /// A block is free again.
    pub fn remove(&mut self, block: IpNet) {
        self.0.remove(&block);
    }

    /// Which node, by name and UID, has which blocks.
    pub fn by_node(&self) -> BTreeMap<(String, String), Vec<IpNet>> {
        let mut order: Vec<&Claim> = self.0.values().collect();
        order.sort_by_key(|claim| (claim.version, claim.block));
        let mut holding = BTreeSet::new();
        let mut nodes: BTreeMap<_, Vec<IpNet>> = BTreeMap::new();
        for claim in order {
            if !overlaps(&holding, claim.block) {
                holding.insert(claim.block);
                nodes.entry((claim.node.clone(), claim.uid.clone())).or_default().push(claim.block);
            }
        }
        nodes.values_mut().for_each(|blocks| blocks.sort_unstable());
        nodes
    }
}

impl Pool {
    /// The blocks in which there are addresses: those that their node had.
    pub fn blocks_of(&self, addresses: &[IpAddr]) -> Vec<IpNet> {
        let block = |address: &IpAddr| {
            let range = self.0.iter().find(|range| range.cidr.contains(address))?;
            IpNet::new(*address, range.block).ok().map(|net| net.trunc())
        };
        let blocks: BTreeSet<IpNet> = addresses.iter().filter_map(block).collect();
        blocks.into_iter().collect()
    }

    /// What a node lacks that has some blocks: first those are looked at that it had before, then whichever is free, from
    /// another place on for each node, so that nodes which come at once do not all want the same. What is taken is no choice, nor
    /// what others have in any case.
    pub fn lack(&self, node: &str, has: &[IpNet], had: &[IpNet], claims: &Claims, others: BTreeSet<IpNet>) -> Lack {
        let mut taken = others;
        taken.extend(claims.0.keys());
        let mut lack = Lack::default();
        for v4 in [true, false] {
            let of_family = |net: &&IpNet| net.addr().is_ipv4() == v4;
            let mut ranges = self.0.iter().filter(|range| range.cidr.addr().is_ipv4() == v4).peekable();
            if ranges.peek().is_none() || has.iter().any(|net| of_family(&net)) {
                continue;
            }
            let is_free = |block: &IpNet| !overlaps(&taken, *block);
            let before = had.iter().filter(of_family).copied();
            match before.chain(ranges.flat_map(|range| range.blocks(node))).find(is_free) {
                Some(block) => lack.blocks.push(block),
                None => lack.exhausted.push(v4),
            }
        }
        lack
    }
}

impl Range {
    /// How many blocks there are.
    fn count(&self) -> u128 {
        1u128.checked_shl(u32::from(self.block.saturating_sub(self.cidr.prefix_len()))).unwrap_or(u128::MAX)
    }

    /// Its blocks, as many as are looked at, in the order in which a node does so.
    fn blocks(self, node: &str) -> impl Iterator<Item = IpNet> {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let (count, first) = (self.count(), u128::from(hasher.finish()) % self.count());
        (0..count.min(MOST)).filter_map(move |step| self.nth((first + step) % count))
    }

    fn nth(&self, index: u128) -> Option<IpNet> {
        let address = match self.cidr.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(index << (32 - u32::from(self.block))).ok()?;
                IpAddr::V4(Ipv4Addr::from(u32::from(base) | offset))
            }
            IpAddr::V6(base) => {
                let offset = index.checked_shl(128 - u32::from(self.block)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(base) | offset))
            }
        };
        IpNet::new(address, self.block).ok()
    }
}

/// What of nodes nobody else may have: pod CIDRs that the cluster has given, and their own addresses.
pub fn kept_from_pool<'a>(nodes: impl IntoIterator<Item = &'a NodeObject>) -> BTreeSet<IpNet> {
    let nets =
        |node: &'a NodeObject| node.pod_cidrs.iter().copied().chain(node.addresses.iter().copied().map(IpNet::from));
    nodes.into_iter().flat_map(nets).collect()
}

/// Whether a net overlaps one of others: it contains one, or is in one.
pub fn overlaps(others: &BTreeSet<IpNet>, net: IpNet) -> bool {
    let inner = others.range(net..).next().is_some_and(|other| net.contains(other));
    let outer = |length| IpNet::new(net.addr(), length).is_ok_and(|outer| others.contains(&outer.trunc()));
    inner || (0..net.prefix_len()).any(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a CIDR")
    }

    fn pool(ranges: &[(&str, u8)]) -> Pool {
        Pool(ranges.iter().map(|(cidr, block)| Range { cidr: net(cidr), block: *block }).collect())
    }

    fn claim(block: &str, node: &str, version: u64) -> Claim {
        Claim { block: net(block), node: node.into(), uid: format!("u-{node}"), version }
    }

    fn claims(all: &[Claim]) -> Claims {
        Claims(all.iter().map(|claim| (claim.block, claim.clone())).collect())
    }

    fn blocks_of(claims: &Claims, node: &str) -> Vec<String> {
        let by_node = claims.by_node();
        let blocks = by_node.get(&(node.to_owned(), format!("u-{node}")));
        blocks.into_iter().flatten().map(ToString::to_string).collect()
    }

    #[test]
    fn nodes_take_all_blocks_and_none_twice() {
        let pool = pool(&[("10.78.0.0/20", 24), ("fd00:78::/48", 64)]);
        let mut taken = Claims::default();
        for index in 0..16 {
            let node = format!("n{index}");
            let lack = pool.lack(&node, &[], &[], &taken, BTreeSet::new());
            assert_eq!((lack.blocks.len(), lack.exhausted.len()), (2, 0));
            for block in lack.blocks {
                assert!(pool.0.iter().any(|range| range.cidr.contains(&block)), "{block}");
                taken.insert(Claim { block, ..claim("10.0.0.0/8", &node, index) });
            }
        }
        assert_eq!(taken.by_node().len(), 16);
        let lack = pool.lack("one more", &[], &[], &taken, BTreeSet::new());
        assert_eq!((lack.blocks.len(), lack.exhausted), (1, vec![true]), "there are 16 of IPv4");
        taken.remove(net("10.78.7.0/24"));
        assert_eq!(pool.lack("one more", &[], &[], &taken, BTreeSet::new()).blocks[0], net("10.78.7.0/24"));
    }

    #[test]
    fn nodes_that_come_at_once_want_different_blocks() {
        let pool = pool(&[("10.78.0.0/16", 24)]);
        let want = |node: &str| pool.lack(node, &[], &[], &Claims::default(), BTreeSet::new()).blocks[0];
        let wanted: BTreeSet<IpNet> = (0..32).map(|index| want(&format!("n{index}"))).collect();
        assert!(wanted.len() > 16, "{wanted:?}");
        assert_eq!(want("n1"), want("n1"));
    }

    #[test]
    fn who_has_a_block_lacks_none_of_its_family_and_what_he_had_comes_first() {
        let pool = pool(&[("10.78.0.0/16", 24), ("fd00:78::/48", 64)]);
        let lack = |has: &[&str], had: &[&str], claims: &Claims, others: &[&str]| {
            let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
            pool.lack("a", &nets(has), &nets(had), claims, nets(others).into_iter().collect()).blocks
        };
        let none = Claims::default();
        assert_eq!(lack(&["10.1.0.0/25", "fd00::/64"], &[], &none, &[]), [], "though they are from before");
        assert_eq!(lack(&["fd00:78::/64"], &["10.78.9.0/24"], &none, &[]), [net("10.78.9.0/24")]);
        let anothers = claims(&[claim("10.78.9.128/25", "b", 1)]);
        assert_ne!(lack(&["fd00:78::/64"], &["10.78.9.0/24"], &anothers, &[]), [net("10.78.9.0/24")]);
        assert_ne!(lack(&["fd00:78::/64"], &["10.78.9.0/24"], &none, &["10.78.9.7/32"]), [net("10.78.9.0/24")]);
        assert!(lack(&["fd00:78::/64"], &[], &none, &["10.0.0.0/8"]).is_empty(), "all is somebody's");
        let had =
            pool.blocks_of(&["10.78.3.7", "10.78.3.8", "fd00:78:0:5::1", "192.0.2.1"].map(|it| it.parse().unwrap()));
        assert_eq!(had, [net("10.78.3.0/24"), net("fd00:78:0:5::/64")]);
    }

    #[test]
    fn of_overlapping_blocks_the_earlier_holds() {
        let both = claims(&[
            claim("10.78.0.0/24", "a", 7),
            claim("10.78.0.128/25", "b", 5),
            claim("10.78.1.0/24", "b", 9),
            claim("10.78.1.128/25", "c", 10),
        ]);
        assert_eq!(blocks_of(&both, "a"), [""; 0]);
        assert_eq!(blocks_of(&both, "b"), ["10.78.0.128/25", "10.78.1.0/24"]);
        assert_eq!(blocks_of(&both, "c"), [""; 0]);
    }

    #[test]
    fn a_huge_range_has_blocks_too() {
        let blocks = |cidr, block| Range { cidr: net(cidr), block }.blocks("a").take(3).collect::<BTreeSet<_>>();
        assert_eq!(blocks("::/0", 126).len(), 3);
        assert_eq!(blocks("0.0.0.0/0", 30).len(), 3);
        assert_eq!(blocks("10.0.0.0/24", 24), [net("10.0.0.0/24")].into());
    }
}
