//! Source ports of translated flows that run out: a problem while it goes on.

use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use crate::kernel::Tally;

/// Between two looks: programs tell nobody.
const LOOK: Duration = Duration::from_secs(5);
/// So many looks, a minute, without another drop, and it is over.
const QUIET: u32 = 12;

/// Looks again and again at what was dropped for it, and tells what is wrong whenever that has changed, until nobody listens
/// any more. `ports` are those that can be had.
pub fn watch(dropped: &Tally, ports: &RangeInclusive<u16>, tell: impl Fn(Vec<String>) -> bool) {
    let mut drops = Drops::default();
    let mut is_told = false;
    loop {
        match dropped.read() {
            Ok(total) => {
                let goes_on = drops.go_on(total);
                if goes_on != is_told && !tell(goes_on.then(|| problem(ports)).into_iter().collect()) {
                    return;
                }
                is_told = goes_on;
            }
            Err(error) => tracing::warn!(%error, "whether source ports run out is not known"),
        }
        thread::sleep(LOOK);
    }
}

/// What is wrong, and what to do. No numbers of packets: it is one problem for as long as it lasts.
fn problem(ports: &RangeInclusive<u16>) -> String {
    format!(
        "source ports run out: flows that need another source address find none of the ports {} to {} free towards their \
         destination, and are dropped (ports_exhausted); `sluicectl flows` says whose they are; have clients keep their \
         connections, spread the destination over more addresses, or widen masquerade.port_first to masquerade.port_last",
        ports.start(),
        ports.end()
    )
}

/// What was dropped at each look.
#[derive(Debug, Default)]
struct Drops {
    /// In all, at the last look; `None`: at none. The count is older than the agent.
    last: Option<u64>,
    /// How many looks it is still worth telling.
    looks: u32,
}

impl Drops {
    /// Whether packets are being dropped, by how many were in all.
    fn go_on(&mut self, total: u64) -> bool {
        let is_more = self.last.replace(total).is_some_and(|last| total > last);
        self.looks = if is_more { QUIET } else { self.looks.saturating_sub(1) };
        self.looks > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_before_the_agent_started_is_over() {
        let mut drops = Drops::default();
        assert!(!drops.go_on(7) && !drops.go_on(7));
    }

    #[test]
    fn it_goes_on_until_nothing_was_dropped_for_a_while() {
        let mut drops = Drops::default();
        drops.go_on(7);
        assert!(drops.go_on(8));
        for look in 1..QUIET {
            assert!(drops.go_on(8), "look {look}");
        }
        assert!(!drops.go_on(8), "it was quiet for long enough");
        assert!(drops.go_on(9) && drops.go_on(10), "and again");
    }

    #[test]
    fn the_problem_says_which_ports_and_what_to_do() {
        let problem = problem(&(1024..=29_999));
        for part in ["1024 to 29999", "ports_exhausted", "masquerade.port_last"] {
            assert!(problem.contains(part), "{problem}");
        }
    }
}
