//! Links that end when they are told to. Without their pin they end too, but by work that the kernel puts off until the file is
//! gone for all readers (`bpf_free_inode` and `bpf_link_put`, Linux 5.10 and later).
#![allow(
    unsafe_code,
    reason = "aya 0.14 ends links only by closing them, which does nothing to a link that was pinned"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_cmd};
use nix::libc::{SYS_bpf, c_int, syscall};

/// A link that was pinned, whatever becomes of its pin.
pub struct Held(OwnedFd);

impl Held {
    /// Opens the link that is pinned there, if one is.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn of(pin: &Path) -> io::Result<Option<Self>> {
        let pin = CString::new(pin.as_os_str().as_bytes())?;
        let mut asked = nothing();
        asked.__bindgen_anon_4.pathname = pin.as_ptr() as u64;
        match bpf(bpf_cmd::BPF_OBJ_GET, &asked) {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
            Ok(descriptor) => Ok(Some(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes its program off: when this returns, no packet and no call begins it any more.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn end(self) -> io::Result<()> {
        let mut asked = nothing();
        asked.link_detach.link_fd = self.0.as_raw_fd().cast_unsigned();
        bpf(bpf_cmd::BPF_LINK_DETACH, &asked).map(drop)
    }
}

fn nothing() -> bpf_attr {
    // SAFETY: all of its members are numbers, of which zero is one.
    unsafe { std::mem::zeroed() }
}

/// `bpf(2)`, for commands that only read what they are given.
fn bpf(command: bpf_cmd, asked: &bpf_attr) -> io::Result<c_int> {
    // SAFETY: the kernel reads as many bytes as there are, and what they point to lives as long as the caller's borrow.
    let result = unsafe { syscall(SYS_bpf, command as c_int, std::ptr::from_ref(asked), size_of::<bpf_attr>()) };
    match c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
