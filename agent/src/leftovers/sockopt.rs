//! Which chains there are in the tables of iptables as it was before nf_tables, of which the kernel tells by options of
//! sockets (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h, netfilter/x_tables.h).
#![allow(unsafe_code, reason = "no crate has these options of sockets, which read their buffer before they fill it")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::AsRawFd;

use nix::libc::{SOL_IP, SOL_IPV6, getsockopt, socklen_t};
use socket2::{Domain, Socket, Type};

/// What is asked for: how large a table is, and all of it (`IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`, and those of IPv6).
const INFO: c_int = 64;
const ENTRIES: c_int = 65;

/// Bytes of a table's name.
const NAME: usize = 32;
/// `struct ipt_getinfo`, and where in it the table's size is.
const INFO_LENGTH: usize = 84;
const INFO_SIZE: usize = 80;
/// What is before the entries in `struct ipt_get_entries`.
const ENTRIES_HEADER: usize = 40;
/// What is before the data of `struct xt_entry_target`: its length, 29 bytes of name, its revision.
const TARGET_HEADER: usize = 32;
/// The target of an entry that begins a chain, and bytes of the chain's name.
const BEGINNING: &str = "ERROR";
const CHAIN_NAME: usize = 30;

/// How often a table is asked for that changes meanwhile.
const ATTEMPTS: usize = 16;

/// A family of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The socket to ask, and the level of its options.
    fn socket(self) -> io::Result<(Socket, c_int)> {
        let (domain, level) = match self {
            Self::V4 => (Domain::IPV4, SOL_IP),
            Self::V6 => (Domain::IPV6, SOL_IPV6),
        };
        Ok((Socket::new(domain, Type::DGRAM, None)?, level))
    }

    /// Where in an entry it is said where its target is; behind that, where the next entry is.
    fn offsets(self) -> usize {
        match self {
            Self::V4 => 88,
            Self::V6 => 140,
        }
    }
}

/// The chains of a table that there is, but for those that are there by themselves.
///
/// # Errors
/// Where the kernel refuses, or the table goes on changing. One that there is not may be made by asking.
pub fn chains(family: Family, table: &str) -> io::Result<Vec<String>> {
    for _ in 0..ATTEMPTS {
        match entries(family, table) {
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EAGAIN as i32) => {}
            entries => return Ok(names(family, &entries?)),
        }
    }
    Err(io::Error::new(io::ErrorKind::Interrupted, "it changed each time that it was asked for"))
}

/// All entries of a table.
fn entries(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let (socket, level) = family.socket()?;
    let mut info = vec![0; INFO_LENGTH];
    info.splice(..table.len().min(NAME - 1), table.bytes().take(NAME - 1));
    let name = info[..NAME].to_vec();
    ask(&socket, level, INFO, &mut info)?;
    let size = &info[INFO_SIZE..];
    let length = u32::from_ne_bytes(size.try_into().unwrap_or_default()) as usize;
    let mut entries = [&name, size].concat();
    entries.resize(ENTRIES_HEADER + length, 0);
    ask(&socket, level, ENTRIES, &mut entries)?;
    Ok(entries.split_off(ENTRIES_HEADER))
}

/// Asks for an option, with a buffer that says more of what is asked for.
fn ask(socket: &Socket, level: c_int, option: c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = buffer.len() as socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes there, all of which are initialized.
    let result =
        unsafe { getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast::<c_void>(), &mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The chains that begin among some entries.
fn names(family: Family, entries: &[u8]) -> Vec<String> {
    let number = |entry: &[u8], at: usize| {
        let bytes = entry.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(u16::from_ne_bytes(bytes)))
    };
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let mut names = Vec::new();
    let mut rest = entries;
    while let Some((target, next)) = number(rest, family.offsets()).zip(number(rest, family.offsets() + 2)) {
        if let Some(target) = rest.get(target..next)
            && target.len() >= TARGET_HEADER + CHAIN_NAME
            && text(&target[2..TARGET_HEADER - 1]) == BEGINNING
        {
            names.push(text(&target[TARGET_HEADER..TARGET_HEADER + CHAIN_NAME]));
        }
        match rest.get(next..) {
            Some(behind) if next > 0 => rest = behind,
            _ => break,
        }
    }
    // The last one begins nothing.
    names.pop();
    names
}
