//! Consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016): nodes that
//! know the same backends send a client to the same one, and when one comes or goes, few clients of the others move.

use std::net::IpAddr;

use crate::tables::Backend;

/// How many entries a table has: a prime number, so that every step reaches all of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(usize);

impl Size {
    /// The smallest that has room for so many. A hundred for each backend spread clients to within a few per cent.
    pub const fn at_least(entries: usize) -> Self {
        let mut size = if entries < 2 { 2 } else { entries };
        while !is_prime(size) {
            size += 1;
        }
        Self(size)
    }

    /// How many there are.
    pub const fn get(self) -> usize {
        self.0
    }
}

const fn is_prime(number: usize) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number >= 2
}

/// For each entry, which of `backends` answers: some of those that `among` are indices of. Of none, there are no entries.
/// On every node it is the same backend, in whatever order they are known there.
pub fn table(backends: &[Backend], among: &[u32], size: Size) -> Vec<u32> {
    let size = size.get();
    let mut preferences: Vec<Preferences> =
        among.iter().map(|index| Preferences::of(*index, &backends[*index as usize], size)).collect();
    preferences.sort_unstable_by_key(|of| (of.address, of.port));
    let mut entries = vec![None; if preferences.is_empty() { 0 } else { size }];
    let mut free = entries.len();
    // Each in turn takes the entry that it likes best of those that are left.
    while free > 0 {
        let takers = free.min(preferences.len());
        for of in &mut preferences[..takers] {
            while entries[of.next].is_some() {
                of.next = (of.next + of.skip) % size;
            }
            entries[of.next] = Some(of.index);
        }
        free -= takers;
    }
    entries.into_iter().flatten().collect()
}

/// In which order a backend would have the entries.
struct Preferences {
    index: u32,
    address: IpAddr,
    port: u16,
    next: usize,
    skip: usize,
}

impl Preferences {
    fn of(index: u32, backend: &Backend, size: usize) -> Self {
        let Backend { address, port, is_local: _ } = *backend;
        let digest = digest(address, port);
        let next = (digest >> 32) as usize % size;
        let skip = (digest & 0xffff_ffff) as usize % (size - 1) + 1;
        Self { index, address, port, next, skip }
    }
}

/// The same on every node and in every version: the standard library's hashes promise neither.
fn digest(address: IpAddr, port: u16) -> u64 {
    let address = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    [(address >> 64) as u64, address as u64, u64::from(port)].into_iter().fold(0, |seed, word| mix(seed ^ word))
}

/// The finalizer of SplitMix64, of which every bit depends on every bit of `word`.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size::at_least(16_384);

    fn backends(count: u32) -> Vec<Backend> {
        let backend = |number: u32| Backend {
            address: IpAddr::from((0x0a01_0000 + number).to_be_bytes()),
            port: 8080,
            is_local: number.is_multiple_of(3),
        };
        (0..count).map(backend).collect()
    }

    /// Who answers, entry by entry.
    fn answers(backends: &[Backend]) -> Vec<IpAddr> {
        let all: Vec<u32> = (0..backends.len() as u32).collect();
        table(backends, &all, SIZE).into_iter().map(|index| backends[index as usize].address).collect()
    }

    #[test]
    fn sizes_are_prime() {
        assert_eq!([0, 3, 4, 16_384, 65_536].map(|least| Size::at_least(least).get()), [2, 3, 5, 16_411, 65_537]);
    }

    #[test]
    fn every_backend_has_as_many_entries_as_any_other() {
        let backends = backends(100);
        let mut counts = [0; 100];
        for answer in answers(&backends) {
            counts[backends.iter().position(|backend| backend.address == answer).unwrap()] += 1;
        }
        assert_eq!(counts.iter().sum::<usize>(), SIZE.get());
        assert!(counts.iter().all(|count| (164..=165).contains(count)), "{counts:?}");
    }

    #[test]
    fn neither_order_nor_node_matters() {
        let here = backends(50);
        let mut elsewhere: Vec<Backend> = here.iter().map(|backend| Backend { is_local: false, ..*backend }).collect();
        elsewhere.reverse();
        elsewhere.swap(3, 30);
        assert_eq!(answers(&here), answers(&elsewhere));
        // Agents of two versions are to agree too.
        assert_eq!(digest("10.1.0.1".parse().unwrap(), 80), 0x7a71_9327_4571_6b90);
        assert_eq!(digest("fd00::1".parse().unwrap(), 80), 0xa5aa_fcde_9932_f018);
    }

    #[test]
    fn few_clients_of_others_move_when_one_goes() {
        let before = backends(100);
        let gone = before[42].address;
        let mut after = before.clone();
        after.remove(42);
        let moved = |(old, new): &(IpAddr, IpAddr)| *old != gone && old != new;
        let moved = answers(&before).into_iter().zip(answers(&after)).filter(moved).count();
        // Entry by entry, modulo the number of backends, 99 % would.
        assert!(moved * 100 < SIZE.get() * 3, "{moved} of {}", SIZE.get());
    }

    #[test]
    fn only_those_chosen_answer_and_few_entries_are_enough() {
        let all = backends(10);
        let entries = table(&all, &[2, 7], SIZE);
        assert!(entries.iter().all(|index| [2, 7].contains(index)) && entries.contains(&2) && entries.contains(&7));
        assert!(table(&all, &[], SIZE).is_empty());
        assert_eq!(table(&all, &(0..10).collect::<Vec<u32>>(), Size::at_least(2)).len(), 2);
        assert_eq!(table(&all, &[4], Size::at_least(1)), [4u32, 4]);
    }
}
