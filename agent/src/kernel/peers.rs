//! Whom sockets were connected to by the name of a service: read beside the writer, on a thread of its own.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError};
use sluice_abi::{Backend, BackendId, IpAddress, Ipv4, Ipv6, PeerName, ServiceId, SocketKey, SocketPeer, maps};

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::open;

/// The tables of sockets, and of whom they may be connected to.
pub struct Peers {
    of4: OfFamily<Ipv4>,
    of6: OfFamily<Ipv6>,
}

/// Those of one family.
struct OfFamily<A: IpAddress>
where
    Backend<A>: Pod,
{
    sockets: HashMap<MapData, SocketKey<A>, SocketPeer<A>>,
    backends: Array<MapData, Backend<A>>,
}

/// A socket, by its cookie, and whom it talks to.
pub type Connected = (u64, SocketAddr);

impl Peers {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            of4: OfFamily { sockets: open(pins, maps::SOCKETS4)?, backends: open(pins, maps::BACKENDS4)? },
            of6: OfFamily { sockets: open(pins, maps::SOCKETS6)?, backends: open(pins, maps::BACKENDS6)? },
        })
    }

    /// The sockets that were given backends which are gone by now, whether the sockets are there still or not.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn of_gone(&self) -> Result<HashSet<Connected>, KernelError> {
        let mut found = HashSet::new();
        self.of4.collect(&mut found)?;
        self.of6.collect(&mut found)?;
        Ok(found)
    }
}

impl<A: IpAddress> OfFamily<A>
where
    SocketKey<A>: Pod,
    SocketPeer<A>: Pod,
    Backend<A>: Pod,
{
    fn collect(&self, found: &mut HashSet<Connected>) -> Result<(), KernelError> {
        let action = || "looking for sockets of backends that are gone".to_owned();
        for key in self.sockets.keys() {
            let key = key.doing(action)?;
            if key.name != PeerName::BACKEND {
                continue;
            }
            let BackendId(id) = match self.sockets.get(&key, 0) {
                Ok(peer) => peer.backend,
                // Others have come in its place.
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error).doing(action),
            };
            // Looked at after the socket was: whom it was given was there before.
            let backend = match self.backends.get(&id, 0) {
                Ok(backend) => Some(backend),
                // The table was larger.
                Err(MapError::OutOfBounds { .. } | MapError::KeyNotFound) => None,
                Err(error) => return Err(error).doing(action),
            };
            if !backend.is_some_and(|backend| is_there(&key, &backend)) {
                found.insert((key.socket, SocketAddr::new(ip(key.address), key.port.get())));
            }
        }
        Ok(())
    }
}

/// Whether a backend is whom a socket was given. Another service may have one of the same address: that is another backend.
fn is_there<A: IpAddress>(key: &SocketKey<A>, backend: &Backend<A>) -> bool {
    backend.service != ServiceId::NONE && (backend.address, backend.port) == (key.address, key.port)
}

fn ip<A: IpAddress>(address: A) -> IpAddr {
    let words = address.words();
    if A::BITS == 32 { IpAddr::V4(Ipv4(words[0]).into()) } else { IpAddr::V6(Ipv6(words).into()) }
}

#[cfg(test)]
mod tests {
    use sluice_abi::{Membership, Port};

    use super::*;

    #[test]
    fn a_backend_is_there_as_long_as_it_serves_and_is_no_other() {
        let (own, other) = (Ipv4::from(std::net::Ipv4Addr::new(10, 1, 0, 1)), Ipv4(7));
        let key = SocketKey { socket: 1, address: own, port: Port::new(53), name: PeerName::BACKEND, tail: [] };
        let backend = |address, port, service| {
            let (port, service) = (Port::new(port), ServiceId(service));
            is_there(&key, &Backend { address, port, membership: Membership::NONE, service })
        };
        assert!(backend(own, 53, 9));
        assert!(!backend(own, 53, 0), "it serves nothing any longer");
        assert!(!backend(other, 53, 9) && !backend(own, 54, 9), "its place is another's");
    }
}
