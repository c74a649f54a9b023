//! Doing things in another network namespace.

use std::os::fd::AsFd;
use std::{io, thread};

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a thread of its own in a network namespace; the caller's thread stays where it is.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel has no thread to spare. A panic of `work` goes on in the caller.
pub fn within<T: Send>(namespace: impl AsFd + Sync, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = &namespace;
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
