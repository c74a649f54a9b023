//! Translation where a socket is told whom to talk to: once for a connection, and no packet of it has to be translated.
//!
//! What cannot be served is left as it is: the packets that come of it are answered as those of anybody else.

use sluice_abi::{Frontend, FrontendFlags, IpAddress, PeerName, Port, Protocol, Side, SocketKey, SocketPeer};

use crate::service::{self, Choice, Locality, ServiceTables, Target};

/// What a socket is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Talk<A> {
    /// The socket's cookie.
    pub socket: u64,
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// Whether that is the node's own.
    pub is_host: bool,
    /// Whether node ports are served at that namespace's loopback addresses.
    pub serves_loopback: bool,
    /// Its protocol.
    pub protocol: Protocol,
    /// Whom it is to talk to.
    pub address: A,
    /// At which port.
    pub port: Port,
}

impl<A: IpAddress> Talk<A> {
    #[inline(always)]
    fn frontend<T: ServiceTables<A>>(&self, tables: &T) -> Option<Frontend> {
        let Self { address, port, protocol, .. } = *self;
        let is_itself = address.is_loopback() || address.is_unspecified();
        // A pod's own loopback is none of the node's.
        if is_itself && !self.is_host {
            return None;
        }
        let locality = || match is_itself {
            true if self.serves_loopback => Locality::NodePorts,
            true => Locality::Node,
            false => Locality::of(tables.address(address)),
        };
        // Whose ranges name clients must see their addresses, which sockets do not have yet.
        service::find(address, port, protocol, locality, tables)
            .filter(|frontend| !frontend.flags.has(FrontendFlags::SOURCE_RANGES))
    }

    #[inline(always)]
    fn choose<T: ServiceTables<A>>(&self, frontend: &Frontend, tables: &T) -> Option<Target<A>> {
        let client = [self.namespace as u32, (self.namespace >> 32) as u32, 0, 0];
        match service::choose(frontend, Side::Inside, client, 0, tables) {
            Choice::Backend(target, _) => Some(target),
            Choice::Reject | Choice::Drop => None,
        }
    }

    #[inline(always)]
    fn by_name(&self) -> SocketKey<A> {
        key(self.socket, self.address, self.port, PeerName::SERVICE)
    }

    /// Remembers what the process calls a backend.
    #[inline(always)]
    fn remember<T: ServiceTables<A>>(&self, target: &Target<A>, tables: &T) {
        let Self { address, port, .. } = *self;
        let name = SocketPeer { address, port, pad: 0, backend: target.backend };
        tables.remember_peer(&key(self.socket, target.address, target.port, PeerName::BACKEND), &name);
    }
}

#[inline(always)]
fn key<A: IpAddress>(socket: u64, address: A, port: Port, name: PeerName) -> SocketKey<A> {
    SocketKey { socket, address, port, name, tail: A::Tail::default() }
}

/// Whom a socket is to be connected to, where that is a service's backend.
#[inline(always)]
pub fn connect<A: IpAddress, T: ServiceTables<A>>(talk: &Talk<A>, tables: &T) -> Option<Target<A>> {
    let frontend = talk.frontend(tables)?;
    let target = talk.choose(&frontend, tables)?;
    talk.remember(&target, tables);
    Some(target)
}

/// Whom a datagram is to be sent to, where that is a service's backend: the same as before, as long as it serves.
#[inline(always)]
pub fn send<A: IpAddress, T: ServiceTables<A>>(talk: &Talk<A>, tables: &T) -> Option<Target<A>> {
    let frontend = talk.frontend(tables)?;
    if let Some(SocketPeer { address, port, backend, .. }) = tables.peer(&talk.by_name()) {
        let before = Target { address, port, backend };
        if service::serves(&before, frontend.service, tables) {
            return Some(before);
        }
    }
    let target = talk.choose(&frontend, tables)?;
    let peer = SocketPeer { address: target.address, port: target.port, pad: 0, backend: target.backend };
    tables.remember_peer(&talk.by_name(), &peer);
    talk.remember(&target, tables);
    Some(target)
}

/// What a socket's process calls whom it talks to, where that is a service's backend. Where two programs ask, one after the
/// other, as while an agent replaces another's, the second is told of nothing.
#[inline(always)]
pub fn name<A: IpAddress, T: ServiceTables<A>>(socket: u64, address: A, port: Port, tables: &T) -> Option<(A, Port)> {
    tables.peer(&key(socket, address, port, PeerName::BACKEND)).map(|peer| (peer.address, peer.port))
}
