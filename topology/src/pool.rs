//! Pod CIDRs out of a pool, where the cluster hands out none: blocks that the agents take for their nodes.
//!
//! A block is taken by an object whose name says which block it is, and which can be made only once. So nobody takes what
//! another has. Blocks of different sizes, after a change of the settings, have different names though they overlap: of
//! these the one that was made earlier holds, and all agents see them in the same order. What is outside the pool is
//! nobody's, whoever says so.

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
    /// The second in which it was taken: of two that overlap the earlier one holds.
    pub since: i64,
}

/// All that are taken.
#[derive(Debug, Default)]
pub struct Claims(BTreeMap<IpNet, Claim>);

/// Those that hold, and those that do not for they are outside the pool.
#[derive(Debug, Default)]
pub struct Held {
    holding: BTreeMap<IpNet, Claim>,
    /// By name and UID.
    by_node: BTreeMap<(String, String), Vec<IpNet>>,
    /// Those that count for nothing.
    pub outside: Vec<Claim>,
}

/// A node that may lack blocks.
#[derive(Clone, Copy, Debug)]
pub struct Claiming<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Addresses that its pods have.
    pub in_use: &'a [IpAddr],
    /// Blocks that it had before.
    pub had: &'a [IpNet],
}

/// What a node still lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Blocks to take: those in which its pods have addresses, and one of each family without.
    pub blocks: Vec<IpNet>,
    /// Blocks that are still those of the Node of its name that was before it: they will be free.
    pub awaited: Vec<IpNet>,
    /// What others have though its pods have addresses there.
    pub lost: Vec<Claim>,
    /// The families of which there is no free block: whether it is IPv4.
    pub exhausted: Vec<bool>,
}

impl Lack {
    /// Whether there is something that it will have.
    pub fn is_pending(&self) -> bool {
        !self.blocks.is_empty() || !self.awaited.is_empty()
    }
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

    /// What of them holds.
    pub fn held(&self, pool: &Pool) -> Held {
        let (inside, outside): (Vec<&Claim>, Vec<&Claim>) = self.0.values().partition(|claim| pool.has(claim.block));
        let mut held = Held { outside: outside.into_iter().cloned().collect(), ..Held::default() };
        let (mut order, mut taken) = (inside, BTreeSet::new());
        order.sort_by_key(|claim| (claim.since, claim.block));
        for claim in order {
            if !overlaps(&taken, claim.block) {
                taken.insert(claim.block);
                held.holding.insert(claim.block, claim.clone());
                held.by_node.entry((claim.node.clone(), claim.uid.clone())).or_default().push(claim.block);
            }
        }
        held.by_node.values_mut().for_each(|blocks| blocks.sort_unstable());
        held
    }
}

impl Held {
    /// The blocks of a node, by name and UID.
    pub fn of(&self, node: &str, uid: &str) -> &[IpNet] {
        self.by_node.get(&(node.to_owned(), uid.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Those of Nodes that had its name before.
    fn before(&self, node: &str, uid: &str) -> Vec<IpNet> {
        let older = self.holding.values().filter(|claim| claim.node == node && claim.uid != uid);
        older.map(|claim| claim.block).collect()
    }
}

impl Pool {
    /// Whether all of a block is of it.
    fn has(&self, block: IpNet) -> bool {
        self.0.iter().any(|range| range.cidr.contains(&block))
    }

    /// The blocks in which there are addresses: those that their node had.
    fn blocks_of(&self, addresses: &[IpAddr]) -> BTreeSet<IpNet> {
        let block = |address: &IpAddr| {
            let range = self.0.iter().find(|range| range.cidr.contains(address))?;
            IpNet::new(*address, range.block).ok().map(|net| net.trunc())
        };
        addresses.iter().filter_map(block).collect()
    }

    /// What a node lacks. Where it has no block of a family, and its pods have no addresses of one, first those are looked at that
    /// it had before, then whichever is free, from another place on for each node, so that nodes which come at once do not all want
    /// the same. What others have is no choice: what is held, whatever of theirs else is in the pool, and what has a block's name
    /// without being a claim.
    pub fn lack(&self, who: &Claiming<'_>, held: &Held, others: BTreeSet<IpNet>, named: &BTreeSet<IpNet>) -> Lack {
        let &Claiming { node, uid, in_use, had } = who;
        let (has, before) = (held.of(node, uid), held.before(node, uid));
        let mut taken = others;
        taken.extend(held.holding.keys());
        let is_free = |block: &IpNet| !named.contains(block) && !overlaps(&taken, *block);
        let covers = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|net| net.contains(address));
        let homeless: Vec<IpAddr> =
            in_use.iter().copied().filter(|it| !covers(has, it) && !covers(&before, it)).collect();
        let is_lost = |claim: &&Claim| homeless.iter().any(|address| claim.block.contains(address));
        let is_awaited = |block: &IpNet| {
            let has_other = has.iter().any(|net| net.addr().is_ipv4() == block.addr().is_ipv4());
            !has_other || in_use.iter().any(|address| block.contains(address))
        };
        let mut lack = Lack {
            blocks: self.blocks_of(&homeless).into_iter().filter(is_free).collect(),
            awaited: before.into_iter().filter(is_awaited).collect(),
            lost: held.holding.values().filter(is_lost).cloned().collect(),
            exhausted: Vec::new(),
        };
        for v4 in [true, false] {
            let of_family = |net: &&IpNet| net.addr().is_ipv4() == v4;
            let mut ranges = self.0.iter().filter(|range| range.cidr.addr().is_ipv4() == v4).peekable();
            let mut will_have = has.iter().chain(&lack.awaited).chain(&lack.blocks);
            if ranges.peek().is_none() || will_have.any(|net| of_family(&net)) {
                continue;
            }
            let earlier = had.iter().filter(of_family).copied();
            match earlier.chain(ranges.flat_map(|range| range.blocks(node))).find(is_free) {
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
    use std::slice::from_ref;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a CIDR")
    }

    fn pool(ranges: &[(&str, u8)]) -> Pool {
        Pool(ranges.iter().map(|(cidr, block)| Range { cidr: net(cidr), block: *block }).collect())
    }

    fn claim(block: &str, node: &str, since: i64) -> Claim {
        Claim { block: net(block), node: node.into(), uid: format!("u-{node}"), since }
    }

    fn claims(all: &[Claim]) -> Claims {
        Claims(all.iter().map(|claim| (claim.block, claim.clone())).collect())
    }

    fn blocks_of(held: &Held, node: &str) -> Vec<String> {
        held.of(node, &format!("u-{node}")).iter().map(ToString::to_string).collect()
    }

    /// What a node without pods lacks.
    fn lack(pool: &Pool, node: &str, claims: &Claims) -> Lack {
        let who = Claiming { node, uid: &format!("u-{node}"), in_use: &[], had: &[] };
        pool.lack(&who, &claims.held(pool), BTreeSet::new(), &BTreeSet::new())
    }

    #[test]
    fn nodes_take_all_blocks_and_none_twice() {
        let pool = pool(&[("10.78.0.0/20", 24), ("fd00:78::/48", 64)]);
        let mut taken = Claims::default();
        for index in 0..16 {
            let node = format!("n{index}");
            let lack = lack(&pool, &node, &taken);
            assert_eq!((lack.blocks.len(), lack.exhausted.len()), (2, 0));
            for block in lack.blocks {
                assert!(pool.has(block), "{block}");
                taken.insert(Claim { block, ..claim("10.0.0.0/8", &node, index) });
            }
        }
        assert_eq!(taken.held(&pool).by_node.len(), 16);
        let more = lack(&pool, "one more", &taken);
        assert_eq!((more.blocks.len(), more.exhausted), (1, vec![true]), "there are 16 of IPv4");
        taken.remove(net("10.78.7.0/24"));
        assert_eq!(lack(&pool, "one more", &taken).blocks[0], net("10.78.7.0/24"));
    }

    #[test]
    fn nodes_that_come_at_once_want_different_blocks() {
        let pool = pool(&[("10.78.0.0/16", 24)]);
        let want = |node: &str| lack(&pool, node, &Claims::default()).blocks[0];
        let wanted: BTreeSet<IpNet> = (0..32).map(|index| want(&format!("n{index}"))).collect();
        assert!(wanted.len() > 16, "{wanted:?}");
        assert_eq!(want("n1"), want("n1"));
    }

    #[test]
    fn who_has_a_block_lacks_none_of_its_family_and_what_he_had_comes_first() {
        let pool = pool(&[("10.78.0.0/16", 24), ("fd00:78::/48", 64)]);
        let v6 = claim("fd00:78::/64", "a", 1);
        let lack = |all: &[Claim], had: &[&str], others: &[&str], named: &[&str]| {
            let nets = |texts: &[&str]| texts.iter().map(|text| net(text)).collect::<Vec<_>>();
            let who = Claiming { node: "a", uid: "u-a", in_use: &[], had: &nets(had) };
            let [others, named] = [others, named].map(|it| nets(it).into_iter().collect::<BTreeSet<_>>());
            pool.lack(&who, &claims(all).held(&pool), others, &named).blocks
        };
        assert_eq!(lack(&[claim("10.78.1.0/25", "a", 1), v6.clone()], &[], &[], &[]), [], "though its size is another");
        let had = ["10.78.9.0/24"];
        assert_eq!(lack(from_ref(&v6), &had, &[], &[]), [net(had[0])]);
        assert_ne!(lack(&[v6.clone(), claim("10.78.9.128/25", "b", 1)], &had, &[], &[]), [net(had[0])]);
        assert_ne!(lack(from_ref(&v6), &had, &["10.78.9.7/32"], &[]), [net(had[0])]);
        assert_ne!(lack(from_ref(&v6), &had, &[], &had), [net(had[0])]);
        assert_eq!(lack(from_ref(&v6), &had, &[], &["10.78.0.0/16"]), [net(had[0])], "it has a name, and no more");
        assert!(lack(&[v6], &[], &["10.0.0.0/8"], &[]).is_empty(), "all is somebody's");
    }

    #[test]
    fn a_block_that_pods_have_addresses_in_is_wanted_whatever_else_there_is() {
        let pool = pool(&[("10.78.0.0/16", 24), ("fd00:78::/48", 64)]);
        let lack = |all: &[Claim], in_use: &[&str]| {
            let in_use: Vec<IpAddr> = in_use.iter().map(|text| text.parse().expect("an address")).collect();
            let who = Claiming { node: "a", uid: "u-a", in_use: &in_use, had: &[] };
            pool.lack(&who, &claims(all).held(&pool), BTreeSet::new(), &BTreeSet::new())
        };
        let in_use = ["10.78.3.7", "10.78.3.8", "fd00:78:0:5::1", "192.0.2.1"];
        let both = [net("10.78.3.0/24"), net("fd00:78:0:5::/64")];
        assert_eq!(lack(&[], &in_use).blocks, both);
        let other = claim("10.78.9.0/24", "a", 5);
        assert_eq!(lack(from_ref(&other), &in_use).blocks, both, "it has another, too");
        let smaller = claim("10.78.3.0/28", "a", 1);
        assert_eq!(lack(&[smaller, other.clone()], &in_use).blocks, both[1..], "it has where they are");
        let anothers = claim("10.78.3.0/25", "b", 2);
        let lost = lack(&[anothers.clone(), other.clone()], &in_use);
        assert_eq!((lost.blocks, lost.lost), (both[1..].to_vec(), vec![anothers]));
        let beside = lack(&[claim("10.78.3.128/25", "b", 2), other.clone()], &in_use);
        assert_eq!((beside.blocks, beside.lost), (both[1..].to_vec(), Vec::new()), "none of them is in that");

        let before = Claim { uid: "older".into(), ..claim("10.78.3.0/24", "a", 2) };
        let waits = lack(from_ref(&before), &in_use);
        assert_eq!((waits.blocks, waits.awaited, waits.lost), (both[1..].to_vec(), both[..1].to_vec(), Vec::new()));
        assert_eq!(lack(from_ref(&before), &[]).blocks.len(), 1, "of the other family");
        assert_eq!(lack(&[before.clone(), other.clone()], &in_use).awaited, both[..1]);
        assert!(!lack(&[before, other, claim("fd00:78::/64", "a", 5)], &[]).is_pending(), "it needs no more");
    }

    #[test]
    fn of_overlapping_blocks_the_earlier_holds() {
        let pool = pool(&[("10.78.0.0/16", 24)]);
        let both = claims(&[
            claim("10.78.0.0/24", "a", 7),
            claim("10.78.0.128/25", "b", 5),
            claim("10.78.1.0/24", "b", 9),
            claim("10.78.1.128/25", "c", 9),
        ]);
        let held = both.held(&pool);
        assert_eq!(blocks_of(&held, "a"), [""; 0]);
        assert_eq!(blocks_of(&held, "b"), ["10.78.0.128/25", "10.78.1.0/24"]);
        assert_eq!(blocks_of(&held, "c"), [""; 0]);
    }

    #[test]
    fn what_is_outside_the_pool_is_nobodys_and_keeps_nobody_from_anything() {
        let pool = pool(&[("10.78.0.0/24", 24)]);
        for outside in ["0.0.0.0/0", "10.78.0.0/23", "8.8.8.0/24", "fd00:78::/64"] {
            let all = claims(&[claim(outside, "a", 1), claim("10.78.0.0/24", "b", 2)]);
            let held = all.held(&pool);
            assert_eq!((blocks_of(&held, "a"), held.outside), (Vec::new(), vec![claim(outside, "a", 1)]));
            assert_eq!(blocks_of(&all.held(&pool), "b"), ["10.78.0.0/24"]);
            assert_eq!(lack(&pool, "c", &claims(&[claim(outside, "a", 1)])).blocks, [net("10.78.0.0/24")]);
        }
        let both = claims(&[claim("10.78.0.0/25", "a", 1), claim("10.78.0.0/24", "b", 2)]);
        assert_eq!(lack(&pool, "c", &both).exhausted, [true]);
    }

    #[test]
    fn a_huge_range_has_blocks_too() {
        let blocks = |cidr, block| Range { cidr: net(cidr), block }.blocks("a").take(3).collect::<BTreeSet<_>>();
        assert_eq!(blocks("::/0", 126).len(), 3);
        assert_eq!(blocks("0.0.0.0/0", 30).len(), 3);
        assert_eq!(blocks("10.0.0.0/24", 24), [net("10.0.0.0/24")].into());
    }
}
