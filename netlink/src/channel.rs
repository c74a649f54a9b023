//! Requests and answers of any of netlink's protocols.

use std::fmt::{Debug, Display};
use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use nix::libc::MSG_TRUNC;

use crate::NetlinkError;

/// Room for one answer: the kernel's dumps come in pieces of at most 32 KiB (net/netlink/af_netlink.c, up to 6.18).
const ROOM: usize = 64 * 1024;

/// How often a dump is asked for where something changes each time while the kernel makes it.
const DUMPS: usize = 16;

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens a socket of a protocol in this thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            // Kernels before 4.20 do not know it, and answer dumps less strictly.
            socket.set_netlink_get_strict_chk(true).ok();
            Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(ROOM) })
        };
        open().map_err(|source| NetlinkError { action: "opening", object: "a netlink socket".into(), source })
    }

    /// The number of the last request.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// A request with the next sequence number, as it is sent.
    pub fn packet<M: NetlinkSerializable>(&mut self, message: M, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        // Messages are padded to four bytes.
        let mut bytes = vec![0; packet.buffer_len().next_multiple_of(4)];
        packet.serialize(&mut bytes);
        bytes
    }

    /// Sends requests.
    ///
    /// # Errors
    /// Where the kernel does not take them.
    pub fn send(&self, packets: &[u8]) -> io::Result<()> {
        self.socket.send(packets, 0).map(drop)
    }

    /// Receives until `take` says that it was the last.
    ///
    /// # Errors
    /// Those of `take`, and where what comes in makes no sense.
    pub fn receive<M: NetlinkDeserializable>(
        &mut self,
        mut take: impl FnMut(NetlinkHeader, NetlinkPayload<M>) -> io::Result<bool>,
    ) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let length = self.socket.recv(&mut self.buffer, MSG_TRUNC)?;
            if length > self.buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer too large for this socket's buffer"));
            }
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length.max(16).min(rest.len())..];
                if take(message.header, message.payload)? {
                    return Ok(());
                }
            }
        }
    }

    /// Receives the answer to the last request until `take` says that it was all of it.
    fn answer<M: NetlinkDeserializable>(
        &mut self,
        mut take: impl FnMut(NetlinkHeader, NetlinkPayload<M>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let own = self.sequence;
        // Others are what is left of an earlier request that failed half-way.
        self.receive(|header, payload| if header.sequence_number == own { take(header, payload) } else { Ok(false) })
    }

    /// Asks for something to be done; waits until it is.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn request<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        action: &'static str,
        object: impl Display,
        message: M,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let packet = self.packet(message, NLM_F_ACK | flags);
        self.send(&packet)
            .and_then(|()| {
                self.answer::<M>(|_, payload| match payload {
                    NetlinkPayload::Error(error) => error.code.map_or(Ok(true), |_| Err(error.to_io())),
                    _ => Ok(false),
                })
            })
            .map_err(|source| NetlinkError { action, object: object.to_string(), source })
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn get<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        action: &'static str,
        object: impl Display,
        message: M,
    ) -> Result<Option<M>, NetlinkError> {
        let mut answer = None;
        let packet = self.packet(message, NLM_F_ACK);
        self.send(&packet)
            .and_then(|()| {
                self.answer(|_, payload| match payload {
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

    /// Asks for all objects of a kind, as they are at one time.
    ///
    /// # Errors
    /// Where the kernel refuses, or they never stand still.
    pub fn dump<M: NetlinkSerializable + NetlinkDeserializable + Clone>(
        &mut self,
        action: &'static str,
        object: impl Display,
        message: M,
    ) -> Result<Vec<M>, NetlinkError> {
        let whole = (0..DUMPS).find_map(|_| self.dump_once(message.clone()).transpose());
        let interrupted =
            || Err(io::Error::new(io::ErrorKind::Interrupted, "it changed each time that it was asked for"));
        whole.unwrap_or_else(interrupted).map_err(|source| NetlinkError { action, object: object.to_string(), source })
    }

    /// As [`dump`](Self::dump); `None` where something has changed meanwhile, so that parts may be missing.
    fn dump_once<M: NetlinkSerializable + NetlinkDeserializable>(&mut self, message: M) -> io::Result<Option<Vec<M>>> {
        let mut answers = Vec::new();
        let mut whole = true;
        let packet = self.packet(message, NLM_F_DUMP);
        self.send(&packet)?;
        self.answer(|header, payload| {
            whole &= header.flags & NLM_F_DUMP_INTR == 0;
            match payload {
                NetlinkPayload::Done(_) => Ok(true),
                NetlinkPayload::Error(error) => error.code.map_or(Ok(true), |_| Err(error.to_io())),
                NetlinkPayload::InnerMessage(message) => {
                    answers.push(message);
                    Ok(false)
                }
                _ => Ok(false),
            }
        })?;
        Ok(whole.then_some(answers))
    }
}
