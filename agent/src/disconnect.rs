//! Ends what sockets of UDP have with backends that are gone: they were translated when they were connected, and would talk
//! to nobody from now on. Who uses one is told, and connects it again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use sluice_netlink::{NetlinkError, disconnect_udp, disconnect_udp_at};

use crate::kernel::Peers;

/// Backends of UDP that are gone, and the network namespaces of this node's pods, where sockets of theirs may be.
pub struct Ended {
    /// Address and port of each.
    pub backends: BTreeSet<SocketAddr>,
    /// Where.
    pub namespaces: Vec<PathBuf>,
}

/// Does so, until nobody tells of any more.
pub fn run(peers: &Peers, told: &Receiver<Ended>) {
    while let Ok(mut ended) = told.recv() {
        // One look for all that came in meanwhile.
        for more in told.try_iter() {
            ended.backends.extend(more.backends);
            ended.namespaces = more.namespaces;
        }
        match peers.of(&ended.backends) {
            Ok(connected) if connected.is_empty() => {}
            Ok(connected) => {
                let is_meant = |remote: SocketAddr, cookie| connected.contains(&(cookie, remote));
                let own = disconnect_udp(is_meant);
                let pods = ended.namespaces.iter().map(|namespace| disconnect_udp_at(namespace, is_meant));
                let count = std::iter::once(own).chain(pods).map(count).sum::<usize>();
                if count > 0 {
                    tracing::debug!(count, "disconnected sockets from backends that are gone");
                }
            }
            Err(error) => tracing::warn!(%error, "sockets stay connected to backends that are gone"),
        }
    }
}

fn count(ended: Result<usize, NetlinkError>) -> usize {
    ended.unwrap_or_else(|error| {
        // A pod that is gone has no sockets.
        if !error.is_absent() {
            tracing::warn!(%error, "sockets stay connected to backends that are gone");
        }
        0
    })
}
