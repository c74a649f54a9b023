//! Counting what tests say of themselves.

/// How many tests went how.
#[derive(Clone, Copy, Default)]
pub struct Score {
    /// Those that passed.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
}

impl Score {
    /// Of one test.
    pub fn of(success: bool) -> Self {
        Self { passed: usize::from(success), failed: usize::from(!success) }
    }

    /// The counts of a line such as `test result: ok. 3 passed; 0 failed; ...`; of any other, none.
    pub fn of_line(line: &str) -> Self {
        let Some(counts) = line.strip_prefix("test result: ") else { return Self::default() };
        let number = |what: &str| {
            let words = counts.split([' ', ';', '.']).collect::<Vec<_>>();
            words.windows(2).find_map(|pair| if pair[1] == what { pair[0].parse().ok() } else { None }).unwrap_or(0)
        };
        Self { passed: number("passed"), failed: number("failed") }
    }

    /// Counts more tests.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::Score;

    #[test]
    fn results_are_counted() {
        let score = Score::of_line("test result: FAILED. 20 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((score.passed, score.failed), (20, 1));
        let score = Score::of_line("running 3 tests");
        assert_eq!((score.passed, score.failed), (0, 0));
    }
}
