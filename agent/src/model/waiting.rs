//! Endpoints that wait for their pods to become known.

use std::time::{Duration, Instant};

use sluice_api::EndpointRecord;
use sluice_policy::PodName;

/// How long one waits. The runtime knows the pod, from another server of the API, which may be some seconds ahead; the
/// plugin has twice as much patience.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An endpoint that waits, with whom to answer.
#[derive(Debug)]
pub struct Wait<R> {
    /// The endpoint.
    pub record: EndpointRecord,
    /// Its pod's name.
    pub pod: PodName,
    /// Its pod's UID; empty: unknown.
    pub uid: String,
    /// Who is to be answered.
    pub reply: R,
    /// When it has waited for too long.
    pub until: Instant,
}

/// All that wait, in the order in which they came.
#[derive(Debug)]
pub struct Waiting<R>(Vec<Wait<R>>);

impl<R> Default for Waiting<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R> Waiting<R> {
    /// Has one wait.
    pub fn push(&mut self, wait: Wait<R>) {
        self.0.push(wait);
    }

    /// When the first one has waited for too long.
    pub fn next(&self) -> Option<Instant> {
        self.0.iter().map(|wait| wait.until).min()
    }

    /// Takes out those whose wait is over.
    pub fn take(&mut self, is_over: impl Fn(&Wait<R>) -> bool) -> Vec<Wait<R>> {
        self.0.extract_if(.., |wait| is_over(wait)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::endpoint;

    fn wait(interface: &str, until: Instant) -> Wait<&str> {
        Wait {
            pod: PodName::new("x", interface),
            uid: String::new(),
            reply: "whoever asked",
            record: endpoint(interface),
            until,
        }
    }

    #[test]
    fn those_whose_wait_is_over_are_taken_and_the_others_stay() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        assert_eq!(waiting.next(), None);
        for (interface, seconds) in [("sl1", 2), ("sl2", 1), ("sl3", 3)] {
            waiting.push(wait(interface, now + Duration::from_secs(seconds)));
        }
        let first = waiting.next().expect("somebody waits");
        let names = |waits: Vec<Wait<_>>| waits.into_iter().map(|wait| wait.record.host_interface).collect::<Vec<_>>();
        assert_eq!(names(waiting.take(|wait| wait.until <= first)), ["sl2"]);
        assert_eq!(names(waiting.take(|wait| wait.pod.name == "sl3")), ["sl3"]);
        assert_eq!(names(waiting.take(|_| true)), ["sl1"]);
    }
}
