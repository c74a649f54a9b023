//! Requests and their answers.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::NetlinkError;

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Kernels before 4.20 do not know it, and answer dumps less strictly.
            socket.set_netlink_get_strict_chk(true).ok();
            Ok(Self { socket, sequence: 0 })
        };
        open().map_err(|source| NetlinkError { action: "opening", object: "a netlink socket".into(), source })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut buffer = vec![0; packet.buffer_len()];
        packet.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        Ok(())
    }

    /// Receives until `take` says that it was the last.
    fn receive(
        &mut self,
        mut take: impl FnMut(NetlinkPayload<RouteNetlinkMessage>) -> io::Result<bool>,
    ) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages are padded to four bytes.
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(16).min(rest.len())..];
                // What is left of an earlier request that failed half-way.
                if message.header.sequence_number == self.sequence && take(message.payload)? {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for something to be done; waits until it is.
    pub(crate) fn request(
        &mut self,
        action: &'static str,
        object: impl std::fmt::Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_ACK | flags)
            .and_then(|()| {
                self.receive(|payload| match payload {
                    NetlinkPayload::Error(error) => error.code.map_or(Ok(true), |_| Err(error.to_io())),
                    _ => Ok(false),
                })
            })
            .map_err(|source| NetlinkError { action, object: object.to_string(), source })
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        action: &'static str,
        object: impl std::fmt::Display,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut answer = None;
        self.send(message, NLM_F_ACK)
            .and_then(|()| {
                self.receive(|payload| match payload {
                    NetlinkPayload::Error(error) => error.code.map_or(Ok(true), |_| Err(error.to_io())),
                    NetlinkPayload::InnerMessage(message) => {
                        answer = Some(message);
                        Ok(false)
                    }
                    _ => Ok(false),
                })
            })
            .map_err(|source| NetlinkError { action, object: object.to_string(), source })?;
        Ok(answer)
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(
        &mut self,
        action: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut answers = Vec::new();
        self.send(message, NLM_F_DUMP)
            .and_then(|()| {
                self.receive(|payload| match payload {
                    NetlinkPayload::Done(_) => Ok(true),
                    NetlinkPayload::Error(error) => error.code.map_or(Ok(true), |_| Err(error.to_io())),
                    NetlinkPayload::InnerMessage(message) => {
                        answers.push(message);
                        Ok(false)
                    }
                    _ => Ok(false),
                })
            })
            .map_err(|source| NetlinkError { action, object: "all".into(), source })?;
        Ok(answers)
    }
}
