//! The events that wait for the model.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use super::Event;

/// Events, in order; of changes, all that wait one behind the other are one event, which came in with the first of them.
pub struct Inbox {
    events: Receiver<Event>,
    /// What was found behind changes.
    next: Option<Event>,
}

impl Inbox {
    /// What is sent there.
    pub fn new(events: Receiver<Event>) -> Self {
        Self { events, next: None }
    }

    /// Waits for the next event, until something else is due.
    ///
    /// # Errors
    /// Where it is due, or nobody sends any more.
    pub fn next(&mut self, due: Option<Instant>) -> Result<Event, RecvTimeoutError> {
        let first = match (self.next.take(), due) {
            (Some(event), _) => event,
            (None, None) => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected)?,
            (None, Some(due)) => self.events.recv_timeout(due.saturating_duration_since(Instant::now()))?,
        };
        let Event::Changes(mut changes, since) = first else { return Ok(first) };
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Changes(more, _) => changes.extend(more),
                Event::Call(..)
                | Event::Measure(_)
                | Event::Host(_)
                | Event::Unserved(_)
                | Event::Leftovers(_)
                | Event::Configurations(_)
                | Event::Shared(_)
                | Event::Exhausted(_)
                | Event::End(_)
                | Event::Dead(_) => {
                    self.next = Some(event);
                    break;
                }
            }
        }
        Ok(Event::Changes(changes, since))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::source::Change;

    #[test]
    fn changes_that_wait_are_one_event_and_nothing_overtakes() {
        let (events, inbox) = mpsc::channel();
        let problem = |text: &str| Event::Changes(vec![Change::Problems(vec![text.into()])], Instant::now());
        let sent = [problem("1"), problem("2"), Event::Host(Vec::new()), problem("3"), problem("4")];
        sent.into_iter().for_each(|event| events.send(event).expect("is received"));
        drop(events);
        let mut inbox = Inbox::new(inbox);
        let mut counts = Vec::new();
        while let Ok(event) = inbox.next(None) {
            counts.push(if let Event::Changes(changes, _) = event { changes.len() } else { 0 });
        }
        assert_eq!(counts, [2, 0, 2]);
    }

    #[test]
    fn what_is_due_is_not_missed() {
        let (_events, inbox) = mpsc::channel();
        assert!(matches!(Inbox::new(inbox).next(Some(Instant::now())), Err(RecvTimeoutError::Timeout)));
    }
}
