//! Whom sockets were connected to by the name of a service: read beside the writer, on a thread of its own.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use aya::Pod;
use aya::maps::{HashMap, MapData};
use sluice_abi::{IpAddress, Ipv4, Ipv6, PeerName, SocketKey, SocketPeer, maps};

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::open;

type Sockets<A> = HashMap<MapData, SocketKey<A>, SocketPeer<A>>;

/// The tables of sockets.
pub struct Peers {
    sockets4: Sockets<Ipv4>,
    sockets6: Sockets<Ipv6>,
}

/// A socket, by its cookie, and whom it talks to.
pub type Connected = (u64, SocketAddr);

impl Peers {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self { sockets4: open(pins, maps::SOCKETS4)?, sockets6: open(pins, maps::SOCKETS6)? })
    }

    /// The sockets that were given one of these backends, whether they are there still or not.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn of(&self, backends: &BTreeSet<SocketAddr>) -> Result<HashSet<Connected>, KernelError> {
        let mut found = HashSet::new();
        collect(&self.sockets4, backends, &mut found)?;
        collect(&self.sockets6, backends, &mut found)?;
        Ok(found)
    }
}

fn collect<A>(
    sockets: &Sockets<A>,
    backends: &BTreeSet<SocketAddr>,
    found: &mut HashSet<Connected>,
) -> Result<(), KernelError>
where
    A: IpAddress,
    SocketKey<A>: Pod,
    SocketPeer<A>: Pod,
{
    for key in sockets.keys() {
        let key = key.doing(|| "looking for sockets of backends that are gone".into())?;
        let remote = SocketAddr::new(ip(key.address), key.port.get());
        if key.name == PeerName::BACKEND && backends.contains(&remote) {
            found.insert((key.socket, remote));
        }
    }
    Ok(())
}

fn ip<A: IpAddress>(address: A) -> IpAddr {
    let words = address.words();
    if A::BITS == 32 { IpAddr::V4(Ipv4(words[0]).into()) } else { IpAddr::V6(Ipv6(words).into()) }
}
