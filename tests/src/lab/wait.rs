//! Waiting for what tells nobody when it comes to pass.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How long anything may take: far longer than on the slowest machine, so that only what never comes is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Attempts something until it succeeds; gives what it gives. For what has no event to wait for: other programs, and
/// answers that have to be asked for.
///
/// # Errors
/// The last attempt's, where none succeeds.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = attempt();
        if outcome.is_ok() || Instant::now() > deadline {
            return outcome.with_context(|| format!("it never came to pass that {what}"));
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until something is so.
///
/// # Errors
/// Where it never is, or cannot be told.
pub fn until_so(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, || {
        ensure!(is_so()?, "it is not so");
        Ok(())
    })
}
