//! Ends what sockets of UDP have with backends that are gone: they were translated when they were connected, and would talk
//! to nobody from now on. Who uses one is told, and connects it again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use sluice_netlink::{NetlinkError, disconnect_udp, disconnect_udp_at};

use crate::kernel::Peers;

/// The network namespaces of this node's pods, where such sockets may be.
pub type Pods = Vec<PathBuf>;

/// Does so whenever it is told that backends may be gone, until nobody tells any more.
pub fn run(peers: &Peers, told: &Receiver<Pods>) {
    while let Ok(pods) = told.recv() {
        // One look for all that came in meanwhile.
        let pods = told.try_iter().last().unwrap_or(pods);
        match peers.of_gone() {
            Ok(connected) if connected.is_empty() => {}
            Ok(connected) => {
                let is_meant = |remote: SocketAddr, cookie| connected.contains(&(cookie, remote));
                let own = disconnect_udp(is_meant);
                let of_pods = pods.iter().map(|namespace| disconnect_udp_at(namespace, is_meant));
                let count = std::iter::once(own).chain(of_pods).map(count).sum::<usize>();
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
