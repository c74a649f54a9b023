//! What can go wrong.

use std::io;

/// The kernel refused an operation, or could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{action} {object}: {source}")]
pub struct NetlinkError {
    /// What was attempted.
    pub action: &'static str,
    /// On what.
    pub object: String,
    /// Why it failed.
    pub source: io::Error,
}

impl NetlinkError {
    /// Whether what was asked for does not exist.
    pub fn is_absent(&self) -> bool {
        use nix::errno::Errno;
        let errno = self.source.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::ENXIO))
    }

    /// Whether that is a route's way to say no: there is none, or it is one that refuses (unreachable, prohibited, a black
    /// hole).
    pub fn is_no_route(&self) -> bool {
        use nix::errno::Errno;
        let errno = self.source.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL | Errno::EAGAIN))
    }

    /// Whether the kernel was built without it.
    pub fn is_unsupported(&self) -> bool {
        use nix::errno::Errno;
        let errno = self.source.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT))
            || self.source.kind() == io::ErrorKind::Unsupported
    }

    /// Whether what was to be made exists already.
    pub fn is_present(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}
