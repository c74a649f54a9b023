//! What was seen in many turns.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::probe::Probe;
use crate::bench::report::{Row, Target, median};

/// How much later than the API server's own word the last agent may have it in force.
const BEYOND: Target = Target::AtMost(50.0);

/// When packets of a client were treated otherwise.
pub struct Enforced {
    /// On its own node,
    pub near: Instant,
    /// and on the last of all others.
    pub far: Instant,
}

impl Enforced {
    /// Of flows to servers in the order of their nodes, from that of number `own`, by when each changed.
    ///
    /// # Errors
    /// Where one did not change.
    pub fn of(flows: &[Probe], own: usize, when: impl Fn(&Probe) -> Result<Instant>) -> Result<Self> {
        let mut instants = flows.iter().map(when).collect::<Result<Vec<_>>>()?;
        let near = instants.remove(own);
        Ok(Self { near, far: instants.into_iter().max().unwrap_or(near) })
    }
}

/// Delays by what they are of, in milliseconds.
pub struct Series {
    id: String,
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Series {
    /// None yet.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), values: BTreeMap::new() }
    }

    /// Notes one.
    pub fn note(&mut self, what: &'static str, from: Instant, to: Instant) {
        self.values.entry(what).or_default().push(milliseconds(from, to));
    }

    /// Notes when something was in force, that could be seen so since an instant, and when the API server told of it.
    pub fn note_enforced(&mut self, from: Instant, seen: Instant, told: Instant, enforced: &Enforced) {
        self.note("same_node", from, enforced.near);
        self.note("other_nodes", from, enforced.far);
        self.note("api_server", from, told);
        // What is in force before anybody can see it is no later than that.
        self.note("beyond_api_server", told.max(seen), enforced.far);
    }

    /// Says what was noted last.
    pub fn say(&self, turn: usize, turns: usize) {
        let last = self.values.iter().filter_map(|(what, values)| Some(format!("{what} {:.1}", values.last()?)));
        anstream::println!("{} {turn}/{turns}: {} ms", self.id, last.collect::<Vec<_>>().join(", "));
    }

    /// The middle and the worst of each.
    pub fn rows(self) -> Vec<Row> {
        let Self { id, values } = self;
        let rows = values.into_iter().flat_map(|(what, mut values)| {
            let middle = median(&mut values);
            let worst = values.last().copied().unwrap_or(f64::NAN);
            let target = if what == "beyond_api_server" { BEYOND } else { Target::None };
            [
                Row::new(&format!("{id}.{what}"), middle, "ms", target),
                Row::new(&format!("{id}.{what}.worst"), worst, "ms", Target::None),
            ]
        });
        rows.collect()
    }
}

/// From one instant to another, which may have been before.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    let later = to.saturating_duration_since(from).as_secs_f64();
    let earlier = from.saturating_duration_since(to).as_secs_f64();
    (later - earlier) * 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_before_counts_as_less_than_nothing() {
        let mut series = Series::new("delays");
        let now = Instant::now();
        for (from, to) in
            [(5, 2), (0, 1), (0, 7)].map(|(from, to)| (Duration::from_millis(from), Duration::from_millis(to)))
        {
            series.note("label", now + from, now + to);
        }
        let rows = series.rows().into_iter().map(|row| (row.id, row.value.round())).collect::<Vec<_>>();
        assert_eq!(rows, [("delays.label".into(), 1.0), ("delays.label.worst".into(), 7.0)]);
        assert_eq!(milliseconds(now + Duration::from_millis(3), now).round(), -3.0);
    }
}
