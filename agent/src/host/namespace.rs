//! The network namespace that the agent is in: `unsafe`, because the option has no other way to be read.
#![allow(unsafe_code, reason = "getsockopt with an option that no library knows")]

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// The namespace's cookie, as programs see it; `None` where the kernel does not tell (before Linux 5.14).
pub fn cookie() -> Option<u64> {
    // Of any family and protocol.
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::1", 0))).ok()?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: the option writes a u64, as long as is said.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            nix::libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    (result == 0).then_some(cookie)
}
