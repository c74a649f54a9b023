//! When the host's changes are acted on, and what failed is tried again.

use std::time::{Duration, Instant};

/// Changes of the host's network come in swarms: so long is waited for the rest of one,
const QUIET: Duration = Duration::from_millis(20);
/// but no longer than this in all.
const LONGEST: Duration = Duration::from_millis(500);
/// Until what failed is tried again for the first time; each time twice as long,
const RETRY_FIRST: Duration = Duration::from_millis(250);
/// up to this.
const RETRY_LAST: Duration = Duration::from_secs(30);

/// Rest between two rounds through the flow tables where there are many flows,
const REAP: Duration = Duration::from_secs(5);
/// and at most where there are few;
const REAP_LAST: Duration = Duration::from_secs(30);
/// so many: too few to fill a table, or to take all ports.
const FEW_FLOWS: usize = 10_000;
/// How many times as long as a round has taken of the CPU is rested after it then: tables are walked from end to end, however
/// little is in them, and large ones take a tenth of a second.
const REST: u32 = 100;

/// How long to rest after a round through the flow tables that has left so many flows.
pub fn reap_after(took: Duration, flows: usize) -> Duration {
    if flows > FEW_FLOWS { REAP } else { (took * REST).clamp(REAP, REAP_LAST) }
}

/// What is due when.
#[derive(Debug, Default)]
pub struct Pace {
    /// The first and the last change of the swarm that is going on.
    swarm: Option<(Instant, Instant)>,
    /// When to try again, and how long that has been waited for.
    retry: Option<(Instant, Duration)>,
}

impl Pace {
    /// The host has changed.
    pub fn changed(&mut self, now: Instant) {
        let first = self.swarm.map_or(now, |(first, _)| first);
        self.swarm = Some((first, now));
    }

    /// Something has failed, or could not be done in full.
    pub fn failed(&mut self, now: Instant) {
        let wait = self.retry.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_LAST));
        self.retry = Some((now + wait, wait));
    }

    /// All is as it should be.
    pub fn succeeded(&mut self) {
        self.retry = None;
    }

    /// When the next thing is due; `None`: nothing is.
    pub fn next(&self) -> Option<Instant> {
        let swarm = self.swarm.map(|(first, last)| (last + QUIET).min(first + LONGEST));
        let retry = self.retry.map(|(at, _)| at);
        swarm.into_iter().chain(retry).min()
    }

    /// Whether the swarm is over: it is to be acted on now.
    pub fn swarm_is_over(&mut self, now: Instant) -> bool {
        let over = self.swarm.is_some_and(|(first, last)| now >= (last + QUIET).min(first + LONGEST));
        if over {
            self.swarm = None;
        }
        over
    }

    /// Whether it is time to try again.
    pub fn is_retry_due(&self, now: Instant) -> bool {
        self.retry.is_some_and(|(at, _)| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walking_large_tables_with_little_in_them_takes_no_more_than_its_share() {
        let milliseconds = Duration::from_millis;
        assert_eq!(reap_after(milliseconds(1), 10), milliseconds(5_000));
        assert_eq!(reap_after(milliseconds(100), 10), milliseconds(10_000));
        assert_eq!(reap_after(milliseconds(1_000), 10), milliseconds(30_000));
        assert_eq!(reap_after(milliseconds(1_000), 100_000), milliseconds(5_000), "flows have to go");
    }

    #[test]
    fn a_swarm_ends_when_it_is_quiet_or_has_lasted_too_long() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.next(), None);
        pace.changed(start);
        assert!(!pace.swarm_is_over(start));
        assert!(pace.swarm_is_over(start + QUIET) && pace.next().is_none());

        let mut now = start;
        while now < start + LONGEST {
            assert!(!pace.swarm_is_over(now));
            pace.changed(now);
            now += QUIET / 2;
        }
        assert!(pace.swarm_is_over(now), "however much goes on changing");
    }

    #[test]
    fn what_failed_is_tried_again_ever_less_often_until_it_succeeds() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            pace.failed(now);
            let next = pace.next().expect("it is tried again");
            assert!(!pace.is_retry_due(now) && pace.is_retry_due(next));
            waits.push(next - now);
            now = next;
        }
        assert_eq!((waits[0], waits[9]), (RETRY_FIRST, RETRY_LAST));
        assert!(waits.is_sorted());
        pace.succeeded();
        assert_eq!(pace.next(), None);
        pace.failed(now);
        assert_eq!(pace.next(), Some(now + RETRY_FIRST));
    }
}
