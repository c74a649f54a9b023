//! What errors do not say of themselves: why they came about.

use std::error::Error;
use std::iter;

/// An error, then what caused it, then what caused that.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// An error with all that caused it; what it says itself already, once.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in chain(error).skip(1) {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
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
