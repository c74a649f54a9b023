//! Sockets that are connected to somebody who is gone.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_UDP, SockDiagDestroy, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

use crate::channel::Channel;
use crate::{NetlinkError, within};

/// How often is looked for those that are meant, at most: while some are ended others may be connected.
const ROUNDS: usize = 4;

/// Disconnects the UDP sockets of this thread's network namespace that are meant, by the address and port that they are
/// connected to, IPv4 addresses in IPv6 sockets taken for what they are, and by their cookies; says how many. Whoever uses one learns of it (ECONNABORTED), and
/// can connect it again. There being none is no error.
///
/// # Errors
/// Where the kernel refuses; one that is built without `CONFIG_INET_DIAG_DESTROY` does, where there are any
/// ([`NetlinkError::is_unsupported`]).
pub fn disconnect_udp(is_meant: impl Fn(SocketAddr, u64) -> bool) -> Result<usize, NetlinkError> {
    let mut channel = Channel::open(NETLINK_SOCK_DIAG)?;
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let before = ended;
        for family in [AF_INET, AF_INET6] {
            for socket in
                connected(&mut channel, family)?.into_iter().filter(|socket| is_meant(remote(socket), cookie(socket)))
            {
                ended += usize::from(destroy(&mut channel, family, socket)?);
            }
        }
        if ended == before {
            break;
        }
    }
    Ok(ended)
}

/// As [`disconnect_udp`], in the network namespace at a path.
///
/// # Errors
/// As [`disconnect_udp`], and where the namespace cannot be entered; [`NetlinkError::is_absent`] where it is gone.
pub fn disconnect_udp_at(
    namespace: &Path,
    is_meant: impl Fn(SocketAddr, u64) -> bool + Send,
) -> Result<usize, NetlinkError> {
    // Nobody writes to a pipe that is given in place of a namespace: not waited for.
    let entered = File::options().read(true).custom_flags(O_NONBLOCK).open(namespace);
    entered.and_then(|file| within(&file, || disconnect_udp(is_meant))).map_err(|source| NetlinkError {
        action: "entering the network namespace",
        object: namespace.display().to_string(),
        source,
    })?
}

/// The UDP sockets of a family that are connected.
fn connected(channel: &mut Channel, family: u8) -> Result<Vec<SocketId>, NetlinkError> {
    let any = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
    let request = SockDiagMessage::InetRequest(request(family, any));
    let answers =
        channel.dump("listing", "connected UDP sockets", request).map_err(|error| explained(error, "UDP_DIAG"))?;
    let sockets = answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => {
            let InetResponseHeader { socket_id, .. } = response.header;
            Some(socket_id)
        }
        _ => None,
    });
    Ok(sockets.collect())
}

/// Ends one; `false` where it is gone, or is no longer what it was.
fn destroy(channel: &mut Channel, family: u8, socket: SocketId) -> Result<bool, NetlinkError> {
    let object = format!("UDP socket connected to {}", remote(&socket));
    let message = SockDiagDestroy::new(SockDiagMessage::InetRequest(request(family, socket)));
    match channel.request("disconnecting", object, message, 0) {
        Ok(()) => Ok(true),
        Err(error) if [Errno::ENOENT, Errno::ESTALE].iter().any(|gone| is(&error, *gone)) => Ok(false),
        Err(error) => Err(explained(error, "INET_DIAG_DESTROY")),
    }
}

fn request(family: u8, socket_id: SocketId) -> InetRequest {
    // What UDP has of states is whether a socket is connected.
    let (states, extensions) = (StateFlags::ESTABLISHED, ExtensionFlags::empty());
    InetRequest { family, protocol: IPPROTO_UDP, extensions, states, socket_id }
}

fn remote(socket: &SocketId) -> SocketAddr {
    (socket.destination_address.to_canonical(), socket.destination_port).into()
}

/// A socket's cookie, of which the kernel gives the lower half first.
fn cookie(socket: &SocketId) -> u64 {
    let [a, b, c, d, e, f, g, h] = socket.cookie;
    u64::from(u32::from_ne_bytes([e, f, g, h])) << 32 | u64::from(u32::from_ne_bytes([a, b, c, d]))
}

fn is(error: &NetlinkError, errno: Errno) -> bool {
    error.source.raw_os_error() == Some(errno as i32)
}

/// Says which option a kernel was built without, where that is why it refuses.
fn explained(mut error: NetlinkError, option: &str) -> NetlinkError {
    if is(&error, Errno::ENOENT) || is(&error, Errno::EOPNOTSUPP) {
        let what = format!("this kernel has no CONFIG_{option}; take one that was built with it");
        error.source = io::Error::new(io::ErrorKind::Unsupported, what);
    }
    error
}
