//! Exchanges that can be watched: a client's first packet is sent, and whether it is answered is seen, not waited for.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, recv,
    send, setsockopt, socket,
};
use sluice_policy::Transport;
use sluice_policy::question::Traffic;

use super::Place;

/// One end of an exchange: an address that a place has.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where.
    pub place: &'a Place,
    /// Which of its addresses.
    pub address: IpAddr,
}

impl End<'_> {
    /// A socket that has this address, and nobody waits for.
    fn socket(&self, kind: SockType, protocol: Option<SockProtocol>, port: u16) -> Result<OwnedFd> {
        let family = if self.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let make = || {
            let made = socket(family, kind, flags, protocol)?;
            setsockopt(&made, ReuseAddr, &true)?;
            bind(made.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(self.address, port)))?;
            Ok(made)
        };
        self.place.inside(make).with_context(|| format!("a socket of {} with {} {port}", self.place.name, self.address))
    }
}

/// Somebody who answers.
pub enum Server {
    /// Whoever connects.
    Tcp(TcpListener),
    /// Datagrams, with the same.
    Udp(UdpSocket),
    /// Echoes: the kernel does it.
    Kernel,
}

impl Server {
    /// Has somebody listen.
    ///
    /// # Errors
    /// Where the address cannot be had, or the protocol not spoken.
    pub fn start(end: End<'_>, traffic: Traffic) -> Result<Self> {
        Ok(match traffic.transport {
            Some(Transport::Tcp) => {
                let made = end.socket(SockType::Stream, None, traffic.port)?;
                listen(&made, Backlog::MAXCONN)?;
                Self::Tcp(made.into())
            }
            Some(Transport::Udp) => Self::Udp(end.socket(SockType::Datagram, None, traffic.port)?.into()),
            Some(Transport::Sctp) => bail!("nobody here speaks SCTP"),
            None => Self::Kernel,
        })
    }

    /// Answers all that has come.
    ///
    /// # Errors
    /// Where an answer cannot be sent.
    pub fn serve(&self) -> Result<()> {
        // Connections are made, whether or not they are accepted.
        let Self::Udp(socket) = self else { return Ok(()) };
        let mut buffer = [0; 64];
        while let Some((length, peer)) = unless_blocked(socket.recv_from(&mut buffer))? {
            socket.send_to(&buffer[..length], peer).context("answering a datagram")?;
        }
        Ok(())
    }
}

/// Somebody who has asked.
pub enum Client {
    /// By a connection.
    Tcp(TcpStream),
    /// By a datagram.
    Udp(UdpSocket),
    /// By an echo with this identifier.
    Echo(OwnedFd, u16),
}

impl Client {
    /// Sends the first packet.
    ///
    /// # Errors
    /// Where this end cannot send it.
    pub fn ask(from: End<'_>, to: IpAddr, traffic: Traffic) -> Result<Self> {
        static LAST: AtomicU16 = AtomicU16::new(0);
        let (kind, protocol) = match (traffic.transport, to) {
            (Some(Transport::Tcp), _) => (SockType::Stream, None),
            (Some(Transport::Udp), _) => (SockType::Datagram, None),
            (Some(Transport::Sctp), _) => bail!("nobody here speaks SCTP"),
            (None, IpAddr::V4(_)) => (SockType::Raw, Some(SockProtocol::Icmp)),
            (None, IpAddr::V6(_)) => (SockType::Raw, Some(SockProtocol::IcmpV6)),
        };
        let made = from.socket(kind, protocol, 0)?;
        match connect(made.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, traffic.port))) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("sending to {to}")),
        }
        Ok(match traffic.transport {
            Some(Transport::Tcp) => Self::Tcp(made.into()),
            Some(_) => {
                let socket = UdpSocket::from(made);
                socket.send(b"anybody?").context("sending a datagram")?;
                Self::Udp(socket)
            }
            None => {
                let identifier = LAST.fetch_add(1, Ordering::Relaxed);
                send(made.as_raw_fd(), &echo(to, identifier), MsgFlags::empty()).context("sending an echo")?;
                Self::Echo(made, identifier)
            }
        })
    }

    /// Whether it has an answer by now.
    ///
    /// # Errors
    /// Where it was refused.
    pub fn is_answered(&self) -> Result<bool> {
        let mut buffer = [0; 128];
        match self {
            Self::Tcp(stream) => match (stream.take_error()?, stream.peer_addr()) {
                (Some(error), _) => Err(error).context("connecting"),
                (None, peer) => Ok(peer.is_ok()),
            },
            Self::Udp(socket) => Ok(unless_blocked(socket.recv(&mut buffer))?.is_some()),
            Self::Echo(socket, identifier) => loop {
                let received = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(Into::into);
                let Some(length) = unless_blocked(received)? else { return Ok(false) };
                if is_reply(&buffer[..length], *identifier) {
                    return Ok(true);
                }
            },
        }
    }
}

/// The result, if there is one yet.
fn unless_blocked<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("receiving"),
    }
}

/// A question for an echo. Over IPv6 the kernel writes the checksum.
fn echo(to: IpAddr, identifier: u16) -> [u8; 8] {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let [high, low] = identifier.to_be_bytes();
    // All other words are 0.
    let sum = (u32::from(kind) << 8) + u32::from(identifier);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    let [first, second] = if to.is_ipv4() { checksum.to_be_bytes() } else { [0, 0] };
    [kind, 0, first, second, high, low, 0, 0]
}

/// Whether a packet is the answer to it. Raw sockets get IPv4 packets with their headers, IPv6 packets without.
fn is_reply(packet: &[u8], identifier: u16) -> bool {
    let (kind, message) = match packet.first() {
        Some(0x45) => (0, &packet[20..]),
        _ => (129, packet),
    };
    message.len() >= 8 && message[0] == kind && message[4..6] == identifier.to_be_bytes()
}
