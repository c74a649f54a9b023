//! Packets that are made by hand, about which no socket is asked.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

use crate::packet::{Ip, Recipe, Transport};

/// Where an Ethernet header ends.
const ETHERNET: usize = 14;

/// Somebody who sends such packets.
pub struct Raw {
    socket: OwnedFd,
    source: IpAddr,
}

impl Raw {
    /// Somebody in the place that this thread is in, whose packets say that they are from this address.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn here(source: IpAddr) -> Result<Self> {
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
            .context("opening a raw socket (are you root?)")?;
        Ok(Self { socket, source })
    }

    /// The same, as from another address of its family.
    #[must_use]
    pub fn posing_as(self, source: IpAddr) -> Self {
        Self { source, ..self }
    }

    /// Sends a packet with nothing in it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn send(&self, to: IpAddr, transport: Transport) -> Result<()> {
        let ip = match (self.source, to) {
            (IpAddr::V4(source), IpAddr::V4(to)) => Ip::v4(source, to),
            (IpAddr::V6(source), IpAddr::V6(to)) => Ip::v6(source, to),
            (source, to) => bail!("{source} and {to} are of two families"),
        };
        let packet = Recipe { mac: [0; 6], ip, transport, payload: 0 }.build();
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(self.socket.as_raw_fd(), &packet[ETHERNET..], &to, MsgFlags::empty()).context("sending a packet")?;
        Ok(())
    }
}
