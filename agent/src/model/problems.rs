//! What is wrong, told once.

use std::collections::BTreeSet;

/// Problems of one origin, each for itself: what is wrong and what to do.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Makes these the problems, and logs what has changed.
    pub fn set(&mut self, now: Vec<String>) {
        for problem in missing(&self.0, &now) {
            tracing::warn!("{problem}");
        }
        for problem in missing(&now, &self.0) {
            tracing::info!("no problem any more: {problem}");
        }
        self.0 = now;
    }

    /// All of them.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

/// Those of `now` that are not in `before`.
fn missing<'a>(before: &[String], now: &'a [String]) -> Vec<&'a String> {
    let before: BTreeSet<&String> = before.iter().collect();
    now.iter().filter(|problem| !before.contains(problem)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_changed_is_told() {
        let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(missing(&list(&["a", "b"]), &list(&["b", "c"])), ["c"]);
        let mut problems = Problems::default();
        problems.set(list(&["a", "b"]));
        problems.set(list(&["b"]));
        assert_eq!(problems.all(), ["b"]);
    }
}
