//! Doing things in another network namespace.

use std::os::fd::AsFd;
use std::{io, thread};

use nix::sched::{CloneFlags, setns, unshare};

/// Runs `work` on a thread of its own in a new network namespace, which ends with it; the caller's thread stays where it is.
///
/// # Errors
/// As [`within`].
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| unshare(CloneFlags::CLONE_NEWNET), work)
}

/// Runs `work` on a thread of its own in a network namespace; the caller's thread stays where it is.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel has no thread to spare. A panic of `work` goes on in the caller.
pub fn within<T: Send>(namespace: impl AsFd + Send, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| setns(namespace, CloneFlags::CLONE_NEWNET), work)
}

fn on_a_thread<T: Send>(
    enter: impl FnOnce() -> nix::Result<()> + Send,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, move || {
            enter()?;
            Ok(work())
        })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
