//! How often upstream's tests of policies had to ask again, by what they log. They forgive a plugin that is slow: a probe that is
//! not answered as the policies say is sent every second until it is, and then all pairs of pods are probed once more.

use std::mem::take;

/// Comparisons of who reaches whom with what policies say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// Those that came out right.
    pub right: usize,
    /// How often something was asked again in all of them.
    pub again: usize,
}

impl Comparisons {
    /// Those that a test's log tells of.
    pub fn of_log(log: &str) -> Self {
        let mut seen = Self::default();
        // In the comparison that goes on.
        let mut again = 0_usize;
        for line in log.lines() {
            if line.contains(" probe #1 :: ") || line.contains("(SECOND TRY)") {
                again += 1;
            } else if is_of_itself(line) {
                again = again.saturating_sub(1);
            } else if line.contains("] server ") && line.ends_with(" ready") {
                // The pods' servers are being waited for: there are no policies yet.
                again = 0;
            } else if line.contains("VALIDATION SUCCESSFUL") {
                seen.right += 1;
                seen.again += take(&mut again);
            }
        }
        seen.again += again;
        seen
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self { right: self.right + other.right, again: self.again + other.again }
    }
}

/// Whether a line says that a pod's probe of itself was never answered as expected: policies do not apply to those, and the
/// tests do not count them.
fn is_of_itself(line: &str) -> bool {
    let pair = line.split_once("Validation of ").and_then(|(_, pair)| pair.split_once(" FAILED")?.0.split_once(" -> "));
    pair.is_some_and(|(from, to)| from == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> (usize, usize) {
        let log =
            lines.iter().map(|line| format!("I1127 09:26:01.386577    7105 it.go:71] {line}\n")).collect::<String>();
        let Comparisons { right, again } = Comparisons::of_log(&log);
        (right, again)
    }

    const RIGHT: &str = "VALIDATION SUCCESSFUL";
    const DENIED_LATE: &str = " probe #1 :: connectivity not expected :: x-1/a -> 10.79.1.2";
    const ALLOWED_LATE: &str = "probe #1 :: connectivity expected :: x-1/a -> 10.79.1.2 :: stderr - TIMEOUT";

    #[test]
    fn what_is_asked_again_is_counted_once_a_probe() {
        assert_eq!(of(&["Starting probe from pod a to 10.79.1.2", RIGHT, RIGHT]), (2, 0));
        assert_eq!(of(&[DENIED_LATE, " probe #2 :: connectivity not expected :: x-1/a -> 10.79.1.2", RIGHT]), (1, 1));
        assert_eq!(of(&[ALLOWED_LATE, RIGHT, RIGHT, DENIED_LATE]), (2, 2), "also where the test fails then");
        let second = "failed first probe 1 wrong results ... retrying (SECOND TRY)";
        assert_eq!(of(&[ALLOWED_LATE, "Validation of x-1/a -> y-2/a FAILED !!!", second, RIGHT]), (1, 2));
    }

    #[test]
    fn a_pod_to_itself_and_servers_that_are_not_there_yet_are_not() {
        assert_eq!(of(&[DENIED_LATE, "Validation of x-1/a -> x-1/a FAILED !!!", RIGHT]), (1, 0));
        let start = "waiting for HTTP servers (ports 80 and/or 81) to become ready";
        let not_yet = "server 81->80,TCP is not ready";
        assert_eq!(of(&[start, ALLOWED_LATE, not_yet, "server 81->80,TCP is ready", RIGHT]), (1, 0));
        assert_eq!(of(&[start, "server 81->80,TCP is ready", ALLOWED_LATE, RIGHT]), (1, 1));
    }
}
