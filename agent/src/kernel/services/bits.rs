//! How many have set a bit: it is set with the first of them, and cleared with the last.

use std::collections::HashMap;

use sluice_abi::FrontendBit;

/// Bits that are set, and how often.
#[derive(Debug, Default)]
pub struct Bits(HashMap<FrontendBit, u32>);

impl Bits {
    /// One more; `true` where it is the first.
    pub fn add(&mut self, bit: FrontendBit) -> bool {
        let count = self.0.entry(bit).or_default();
        *count += 1;
        *count == 1
    }

    /// One less; `true` where it was the last.
    pub fn remove(&mut self, bit: FrontendBit) -> bool {
        let Some(count) = self.0.get_mut(&bit) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(&bit);
        }
        is_last
    }

    /// The words of the table that are not 0.
    pub fn words(&self) -> HashMap<u32, u64> {
        let mut words: HashMap<u32, u64> = HashMap::new();
        for bit in self.0.keys() {
            let (word, mask) = bit.place();
            *words.entry(word).or_default() |= mask;
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_set_as_long_as_somebody_needs_it() {
        let mut bits = Bits::default();
        let [one, other] = [FrontendBit(1), FrontendBit(64 * 3 + 2)];
        assert!(bits.add(one) && !bits.add(one) && bits.add(other));
        assert_eq!(bits.words(), [(0, 2), (3, 4)].into());
        assert!(!bits.remove(one) && bits.remove(one) && !bits.remove(one) && bits.add(one));
    }
}
