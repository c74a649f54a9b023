//! What is wrong, told once.

use std::collections::BTreeMap;

/// Where a problem comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Something that cannot be read.
    Source,
    /// The ways between nodes.
    Ways,
    /// Objects of policies, and the tables of these.
    Policies,
}

/// All problems, each for itself: what is wrong and what to do.
#[derive(Debug, Default)]
pub struct Problems(BTreeMap<Origin, Vec<String>>);

impl Problems {
    /// Makes these the problems of an origin, and logs what has changed.
    pub fn set(&mut self, origin: Origin, now: Vec<String>) {
        let before = self.0.insert(origin, now).unwrap_or_default();
        let now = &self.0[&origin];
        for problem in missing(&before, now) {
            tracing::warn!("{problem}");
        }
        for problem in missing(now, &before) {
            tracing::info!("solved: {problem}");
        }
    }

    /// All problems.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.0.values().flatten()
    }
}

/// Those of `now` that are not in `before`.
fn missing<'a>(before: &[String], now: &'a [String]) -> Vec<&'a String> {
    let before: std::collections::BTreeSet<&String> = before.iter().collect();
    now.iter().filter(|problem| !before.contains(problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_have_their_own_problems_and_changes_are_seen() {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut problems = Problems::default();
        problems.set(Origin::Ways, list(&["a"]));
        problems.set(Origin::Source, list(&["b", "c"]));
        problems.set(Origin::Source, list(&["c"]));
        assert_eq!(problems.all().collect::<Vec<_>>(), ["c", "a"]);
        assert_eq!(missing(&list(&["a", "b"]), &list(&["b", "c"])), ["c"]);
    }
}
