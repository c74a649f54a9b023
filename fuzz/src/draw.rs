//! Inputs out of bytes.

use proptest::prelude::Rng;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many inputs there are to begin with.
const SEEDS: u8 = 32;

/// Bytes, of which every four draw one thing: a fuzzer that changes, copies or moves some changes, copies or moves things.
pub(crate) struct Draws<'a>(&'a [u8]);

impl<'a> Draws<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Draws another thing; `None` where no bytes are left.
    pub fn next<S: Strategy>(&mut self, strategy: &S) -> Option<S::Value> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(draw(strategy, *bytes))
    }

    /// Draws another thing, whether bytes are left or not.
    pub fn any<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        self.next(strategy).unwrap_or_else(|| draw(strategy, [0; 4]))
    }

    /// Draws so many things, or fewer where no bytes are left.
    pub fn up_to<S: Strategy>(&mut self, count: usize, strategy: &S) -> Vec<S::Value> {
        (0..count).map_while(|_| self.next(strategy)).collect()
    }
}

/// # Panics
/// Where the strategy gives up: one that is used here rejects nothing.
fn draw<S: Strategy>(strategy: &S, bytes: [u8; 4]) -> S::Value {
    let mut runner = TestRunner::new_with_rng(Config::default(), rng(bytes));
    match strategy.new_tree(&mut runner) {
        Ok(tree) => tree.current(),
        Err(reason) => panic!("nothing can be drawn: {reason}"),
    }
}

/// Inputs of this length that are as good as random.
pub(crate) fn seeds(length: usize) -> Vec<Vec<u8>> {
    let seed = |number| {
        let mut bytes = vec![0; length];
        rng([number; 4]).fill_bytes(&mut bytes);
        bytes
    };
    (0..SEEDS).map(seed).collect()
}

fn rng(bytes: [u8; 4]) -> TestRng {
    let mut seed = [0; 32];
    seed[..bytes.len()].copy_from_slice(&bytes);
    TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
}
