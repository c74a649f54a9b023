//! Requests and their answers.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc::MSG_TRUNC;

use crate::NetlinkError;

/// Room for one answer: the kernel's dumps come in pieces of at most 32 KiB (net/netlink/af_netlink.c, up to 6.18).
const ROOM: usize = 64 * 1024;

/// How often a dump is asked for where something changes each time while the kernel makes it.
const DUMPS: usize = 16;

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// Requests to be sent together.
    queue: Option<Queue>,
}

/// Requests that wait to be sent.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// What each is about, in the order of their sequence numbers.
    objects: Vec<(&'static str, String)>,
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
            Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(ROOM), queue: None })
        };
        open().map_err(|source| NetlinkError { action: "opening", object: "a netlink socket".into(), source })
    }

    /// Has everything that `requests` asks to be done sent as one, and waits until all of it is. A request in it gives no
    /// answer of its own, and one that fails does not keep the kernel from those behind it.
    ///
    /// # Errors
    /// That of the first request that failed.
    pub fn together(
        &mut self,
        requests: impl FnOnce(&mut Self) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.queue = Some(Queue::default());
        let asked = requests(self);
        let Queue { bytes, objects } = self.queue.take().unwrap_or_default();
        asked?;
        let Some((action, object)) = objects.first().cloned() else { return Ok(()) };
        let first = self.sequence.wrapping_sub(objects.len() as u32).wrapping_add(1);
        let mut failed = None;
        let mut left = objects.len();
        self.socket
            .send(&bytes, 0)
            .and_then(|_| {
                self.receive(|header, payload| {
                    let at = header.sequence_number.wrapping_sub(first) as usize;
                    let Some((action, object)) = objects.get(at) else { return Ok(false) };
                    let NetlinkPayload::Error(answer) = payload else { return Ok(false) };
                    if answer.code.is_some() && failed.is_none() {
                        failed = Some(NetlinkError { action, object: object.clone(), source: answer.to_io() });
                    }
                    left -= 1;
                    Ok(left == 0)
                })
            })
            .map_err(|source| NetlinkError { action, object, source })?;
        failed.map_or(Ok(()), Err)
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let packet = self.packet(message, flags);
        self.socket.send(&packet, 0)?;
        Ok(())
    }

    /// A request with the next sequence number, as it is sent.
    fn packet(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(message);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        // Messages are padded to four bytes.
        let mut bytes = vec![0; packet.buffer_len().next_multiple_of(4)];
        packet.serialize(&mut bytes);
        bytes
    }

    /// Receives until `take` says that it was the last.
    fn receive(
        &mut self,
        mut take: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<bool>,
    ) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let length = self.socket.recv(&mut self.buffer, MSG_TRUNC)?;
            if length > self.buffer.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer too large for this socket's buffer"));
            }
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
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
    fn answer(
        &mut self,
        mut take: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let own = self.sequence;
        // Others are what is left of an earlier request that failed half-way.
        self.receive(|header, payload| if header.sequence_number == own { take(header, payload) } else { Ok(false) })
    }

    /// Asks for something to be done; waits until it is.
    pub(crate) fn request(
        &mut self,
        action: &'static str,
        object: impl std::fmt::Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        if let Some(mut queue) = self.queue.take() {
            queue.bytes.extend(self.packet(message, NLM_F_ACK | flags));
            queue.objects.push((action, object.to_string()));
            self.queue = Some(queue);
            return Ok(());
        }
        self.send(message, NLM_F_ACK | flags)
            .and_then(|()| {
                self.answer(|_, payload| match payload {
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
    pub(crate) fn dump(
        &mut self,
        action: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let whole = (0..DUMPS).find_map(|_| self.dump_once(message.clone()).transpose());
        let interrupted =
            || Err(io::Error::new(io::ErrorKind::Interrupted, "it changed each time that it was asked for"));
        whole.unwrap_or_else(interrupted).map_err(|source| NetlinkError { action, object: "all".into(), source })
    }

    /// As [`dump`](Self::dump); `None` where something has changed meanwhile, so that parts may be missing.
    fn dump_once(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut answers = Vec::new();
        let mut whole = true;
        self.send(message, NLM_F_DUMP)?;
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
