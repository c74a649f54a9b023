//! Being told of changes.

use std::io;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::NetlinkError;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A device came or changed.
    Link,
    /// A device is gone: its name.
    LinkGone(String),
    /// An address came, changed or went.
    Address,
    /// A route, or a rule that chooses among tables of them, came, changed or went.
    Route,
    /// More has changed than the kernel could tell: look at everything.
    Overrun,
}

/// A socket that is told of changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

/// Groups of rtnetlink: links, addresses, routes and rules of both families (include/uapi/linux/rtnetlink.h).
const GROUPS: [u32; 7] = [1, 5, 9, 7, 11, 8, 19];

impl Monitor {
    /// Starts to listen.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            for group in GROUPS {
                socket.add_membership(group)?;
            }
            Ok(Self { socket })
        };
        open().map_err(|source| NetlinkError {
            action: "listening for",
            object: "changes of the network".into(),
            source,
        })
    }

    /// Waits for changes.
    ///
    /// # Errors
    /// Where the socket breaks.
    pub fn wait(&self) -> Result<Vec<Change>, NetlinkError> {
        let bytes = match self.socket.recv_from_full() {
            Ok((bytes, _)) => bytes,
            // ENOBUFS: the kernel had more to say than the socket could hold.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {
                return Ok(vec![Change::Overrun]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            Err(source) => {
                return Err(NetlinkError { action: "waiting for", object: "changes of the network".into(), source });
            }
        };
        let mut changes = Vec::new();
        let mut rest = &bytes[..];
        while rest.len() >= 16 {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                changes.push(Change::Overrun);
                break;
            };
            let length = (message.header.length as usize).next_multiple_of(4).clamp(16, rest.len());
            rest = &rest[length..];
            let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
            changes.extend(match message {
                RouteNetlinkMessage::NewLink(_) => Some(Change::Link),
                RouteNetlinkMessage::DelLink(link) => {
                    link.attributes.into_iter().find_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) => Some(Change::LinkGone(name)),
                        _ => None,
                    })
                }
                RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Some(Change::Address),
                RouteNetlinkMessage::NewRoute(_)
                | RouteNetlinkMessage::DelRoute(_)
                | RouteNetlinkMessage::NewRule(_)
                | RouteNetlinkMessage::DelRule(_) => Some(Change::Route),
                _ => None,
            });
        }
        Ok(changes)
    }
}
