//! How the agent's heap gives memory back: the first listing of a large cluster takes much more than what is kept of it.
#![allow(unsafe_code, reason = "the C library's allocator is told how to behave by a call of its own")]

/// Bytes that are free at the end of the heap before they are given back.
#[cfg(target_env = "gnu")]
const SLACK: i32 = 1 << 16;

/// Has all threads share one heap, of which little stays behind. To be called before there are other threads.
///
/// With a heap for each thread, what is freed in one is of no use to another: a third of the memory lay idle (`agent_rss` in
/// docs/performance.md).
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both are numbers that the allocator looks at when it next has something to do.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, SLACK);
    }
}
