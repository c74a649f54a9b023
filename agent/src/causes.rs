//! What errors do not say of themselves: why they came about.

use std::error::Error;

/// An error with all that caused it; what it says itself already, once.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Self>>);

    #[test]
    fn every_cause_is_said_once() {
        let last = Link("no such name", None);
        let middle = Link("connecting", Some(Box::new(last)));
        let error = Link("listing pods: connecting", Some(Box::new(middle)));
        assert_eq!(of(&error), "listing pods: connecting: no such name");
    }
}
