//! The socket for devices, addresses, routes and neighbours.

use netlink_packet_core::{NLM_F_ACK, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::NetlinkError;
use crate::channel::Channel;

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
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
        Ok(Self { channel: Channel::open(NETLINK_ROUTE)?, queue: None })
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
        let first = self.channel.sequence().wrapping_sub(objects.len() as u32).wrapping_add(1);
        let mut failed = None;
        let mut left = objects.len();
        self.channel
            .send(&bytes)
            .and_then(|()| {
                self.channel.receive::<RouteNetlinkMessage>(|header, payload| {
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

    /// Asks for something to be done; waits until it is.
    pub(crate) fn request(
        &mut self,
        action: &'static str,
        object: impl std::fmt::Display,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        if let Some(mut queue) = self.queue.take() {
            queue.bytes.extend(self.channel.packet(message, NLM_F_ACK | flags));
            queue.objects.push((action, object.to_string()));
            self.queue = Some(queue);
            return Ok(());
        }
        self.channel.request(action, object, message, flags)
    }

    /// Asks for one object.
    pub(crate) fn get(
        &mut self,
        action: &'static str,
        object: impl std::fmt::Display,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.channel.get(action, object, message)
    }

    /// Asks for all objects of a kind, as they are at one time.
    pub(crate) fn dump(
        &mut self,
        action: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.channel.dump(action, "all", message)
    }
}
