//! A device of the scene as the other side of the cable sees it: frames in and out.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// An end of a cable.
pub struct Wire {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Wire {
    /// Holds the device of this name.
    ///
    /// # Errors
    /// Where there is none, or the kernel refuses.
    pub fn of(device: &str) -> Result<Self> {
        let mut devices = nix::ifaddrs::getifaddrs().context("listing devices")?;
        let address = devices
            .find_map(|found| found.address?.as_link_addr().copied().filter(|_| found.interface_name == device))
            .with_context(|| format!("no device {device}"))?;
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
            .context("opening a packet socket (are you root?)")?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("binding to {device}"))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10)).context("setting a timeout")?;
        Ok(Self { socket, address })
    }

    /// The device's link-layer address.
    pub fn mac(&self) -> [u8; 6] {
        self.address.addr().unwrap_or_default()
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// Waits for a frame of this kind.
    ///
    /// # Errors
    /// Where none comes for long.
    pub fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let mut frame = vec![0; 4096];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).context("waiting for a frame")?;
            if wanted(&frame[..length]) {
                frame.truncate(length);
                return Ok(frame);
            }
        }
    }

    /// How many frames of this kind have come or gone that nobody has received yet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn waiting(&self, wanted: impl Fn(&[u8]) -> bool) -> Result<usize> {
        let mut frame = vec![0; 4096];
        let mut count = 0;
        loop {
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => count += usize::from(wanted(&frame[..length])),
                Err(Errno::EAGAIN) => return Ok(count),
                Err(error) => return Err(error).context("counting frames"),
            }
        }
    }
}
