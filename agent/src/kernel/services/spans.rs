//! Where members of sets stand: spans of words, the smallest hole that is large enough first. What is given back rests until
//! nobody can still read it, and is then one with the holes beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Words, some of them somebody's.
#[derive(Debug)]
pub struct Spans {
    /// Holes, by where they start: where they end.
    holes: BTreeMap<u32, u32>,
    /// The same, by length.
    by_length: BTreeSet<(u32, u32)>,
    resting: Vec<Range<u32>>,
    resting_words: usize,
    free_words: usize,
    words: usize,
}

impl Spans {
    /// All words of a range, free.
    pub fn of(range: Range<u32>) -> Self {
        let mut this = Self {
            holes: BTreeMap::new(),
            by_length: BTreeSet::new(),
            resting: Vec::new(),
            resting_words: 0,
            free_words: 0,
            words: range.len(),
        };
        this.put_back(range);
        this
    }

    /// So many words beside each other.
    pub fn take(&mut self, length: u32) -> Option<Range<u32>> {
        let (_, start) = *self.by_length.range((length, 0)..).next()?;
        let end = self.remove(start);
        self.insert(start + length..end);
        Some(start..start + length)
    }

    /// These words, where all of them are free.
    pub fn claim(&mut self, range: Range<u32>) -> bool {
        let hole = self.holes.range(..=range.start).next_back().map(|(start, end)| *start..*end);
        let Some(hole) = hole.filter(|hole| range.end <= hole.end && !range.is_empty()) else { return false };
        self.remove(hole.start);
        self.insert(hole.start..range.start);
        self.insert(range.end..hole.end);
        true
    }

    /// Gives back what nobody has seen.
    pub fn put_back(&mut self, mut range: Range<u32>) {
        let before = self.holes.range(..range.start).next_back().filter(|(_, end)| **end == range.start);
        if let Some(start) = before.map(|(start, _)| *start) {
            self.remove(start);
            range.start = start;
        }
        if self.holes.contains_key(&range.end) {
            range.end = self.remove(range.end);
        }
        self.insert(range);
    }

    /// Gives back what somebody may still read.
    pub fn rest(&mut self, range: Range<u32>) {
        self.resting_words += range.len();
        self.resting.push(range);
    }

    /// Nobody reads any more what rests by now.
    pub fn rested(&mut self) {
        self.resting_words = 0;
        for range in std::mem::take(&mut self.resting) {
            self.put_back(range);
        }
    }

    /// How many words could be taken at once.
    pub fn longest(&self) -> usize {
        self.by_length.last().map_or(0, |(length, _)| *length as usize)
    }

    /// How many words rest.
    pub fn resting(&self) -> usize {
        self.resting_words
    }

    /// How many words are somebody's.
    pub fn used(&self) -> usize {
        self.words - self.free_words - self.resting_words
    }

    /// How many words there are.
    pub fn capacity(&self) -> usize {
        self.words
    }

    fn insert(&mut self, hole: Range<u32>) {
        if !hole.is_empty() {
            self.free_words += hole.len();
            self.by_length.insert((hole.end - hole.start, hole.start));
            self.holes.insert(hole.start, hole.end);
        }
    }

    fn remove(&mut self, start: u32) -> u32 {
        let end = self.holes.remove(&start).unwrap_or(start);
        self.free_words -= (end - start) as usize;
        self.by_length.remove(&(end - start, start));
        end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_smallest_hole_is_taken_and_neighbours_are_merged() {
        let mut spans = Spans::of(2..20);
        let taken = [4, 2, 3, 2].map(|length| spans.take(length).unwrap());
        assert_eq!(taken, [2..6, 6..8, 8..11, 11..13]);
        spans.put_back(2..6);
        spans.rest(8..11);
        assert_eq!((spans.take(3), spans.resting()), (Some(2..5), 3), "what rests is not taken");
        spans.rested();
        assert_eq!(spans.take(3), Some(8..11), "rather than of the long hole at the end");
        assert!(spans.claim(14..16) && !spans.claim(15..17) && !spans.claim(5..7));
        for range in [11..13, 8..11, 2..5, 6..8] {
            spans.put_back(range);
        }
        assert_eq!((spans.longest(), spans.take(13)), (12, None));
        spans.put_back(14..16);
        assert_eq!((spans.longest(), spans.used()), (18, 0), "all of it");
    }

    proptest! {
        #[test]
        fn no_word_is_two_peoples(steps in prop::collection::vec((0_u8..4, 0_u32..40, 1_u32..12), 0..200)) {
            let mut spans = Spans::of(2..60);
            let mut taken: Vec<Range<u32>> = Vec::new();
            let mut resting: Vec<Range<u32>> = Vec::new();
            for (step, at, length) in steps {
                let is_free = |word: &u32| !taken.iter().chain(&resting).any(|range| range.contains(word));
                let fits = (2..61 - length).any(|start| (start..start + length).all(|word| is_free(&word)));
                match step {
                    0 => {
                        let span = spans.take(length);
                        prop_assert_eq!(span.is_some(), fits);
                        if let Some(span) = span {
                            prop_assert!(span.len() == length as usize && span.clone().all(|word| is_free(&word)));
                            taken.push(span);
                        }
                    }
                    1 => {
                        let span = at..at + length;
                        let is_there = span.start >= 2 && span.end <= 60 && span.clone().all(|word| is_free(&word));
                        prop_assert_eq!(spans.claim(span.clone()), is_there);
                        if is_there {
                            taken.push(span);
                        }
                    }
                    2 if !taken.is_empty() => {
                        let span = taken.swap_remove(at as usize % taken.len());
                        if length < 6 {
                            spans.put_back(span);
                        } else {
                            spans.rest(span.clone());
                            resting.push(span);
                        }
                    }
                    _ => {
                        spans.rested();
                        resting.clear();
                    }
                }
                let sum = |ranges: &[Range<u32>]| ranges.iter().map(Range::len).sum::<usize>();
                prop_assert_eq!((spans.used(), spans.resting()), (sum(&taken), sum(&resting)));
            }
        }
    }
}
