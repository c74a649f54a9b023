//! Sockets that are connected to somebody who is gone.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use anyhow::Result;
use sluice_netlink::{disconnect_udp, disconnect_udp_at};
use sluice_tests::lab::Place;

/// A namespace that has the addresses of a Service.
fn place(name: &str) -> Result<Place> {
    let place = Place::make(&format!("slt{}-{name}", std::process::id()))?;
    for address in ["10.96.0.10/32", "10.96.0.11/32", "fd96::10/128"] {
        place.ip(&format!("address add {address} dev lo nodad"))?;
    }
    Ok(place)
}

fn connected(place: &Place, own: &str, to: &str) -> Result<UdpSocket> {
    place.inside(|| {
        let socket = UdpSocket::bind(own)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })
}

/// Whether its owner has been told that it is not connected any more.
fn is_aborted(socket: &UdpSocket) -> bool {
    let told = socket.recv(&mut [0; 1]).map_err(|error| error.kind());
    assert!(matches!(told, Err(ErrorKind::ConnectionAborted | ErrorKind::WouldBlock)), "{told:?}");
    told == Err(ErrorKind::ConnectionAborted)
}

#[test]
fn udp_sockets_are_disconnected_from_whom_is_meant_and_from_nobody_else() -> Result<()> {
    let (here, elsewhere) = (place("here")?, place("elsewhere")?);
    let gone: [SocketAddr; 2] = ["10.96.0.10:53".parse()?, "[fd96::10]:53".parse()?];
    let meant = [
        connected(&here, "0.0.0.0:0", "10.96.0.10:53")?,
        connected(&here, "0.0.0.0:0", "10.96.0.10:53")?,
        connected(&here, "[::]:0", "[fd96::10]:53")?,
        connected(&here, "[::]:0", "[::ffff:10.96.0.10]:53")?,
    ];
    let others = [
        connected(&here, "0.0.0.0:0", "10.96.0.10:54")?,
        connected(&here, "0.0.0.0:0", "10.96.0.11:53")?,
        connected(&here, "[::]:0", "[fd96::10]:54")?,
        connected(&elsewhere, "0.0.0.0:0", "10.96.0.10:53")?,
    ];
    // Not connected to anybody, but at the very address.
    let server = here.inside(|| Ok(UdpSocket::bind("10.96.0.10:53")?))?;
    server.set_nonblocking(true)?;
    let disconnect = || disconnect_udp_at(&here.path(), |remote, _| gone.contains(&remote));
    assert_eq!(disconnect()?, meant.len());
    assert!(meant.iter().all(is_aborted));
    assert!(!others.iter().any(is_aborted) && !is_aborted(&server));
    assert_eq!(disconnect()?, 0);

    // Whoever has learnt of it goes on.
    here.inside(|| Ok(meant[0].connect("10.96.0.10:53")?))?;
    meant[0].send(b"?")?;
    assert_eq!(server.recv(&mut [0; 8])?, 1);
    assert_eq!(here.inside(|| Ok(disconnect_udp(|remote, _| remote == gone[0])?))?, 1);
    Ok(())
}

#[test]
fn many_sockets_are_disconnected_at_once() -> Result<()> {
    /// More than the kernel tells of at once.
    const MANY: usize = 700;
    let place = place("many")?;
    let sockets: Vec<UdpSocket> =
        (0..MANY).map(|_| connected(&place, "0.0.0.0:0", "10.96.0.10:53")).collect::<Result<_>>()?;
    assert_eq!(disconnect_udp_at(&place.path(), |remote, _| remote.port() == 53)?, MANY);
    assert!(sockets.iter().all(is_aborted));
    Ok(())
}

#[test]
fn a_namespace_that_is_gone_is_told_from_one_that_cannot_be_entered() -> Result<()> {
    let place = place("gone")?;
    let path = place.path();
    drop(place);
    let gone = disconnect_udp_at(&path, |_, _| true).expect_err("it is gone");
    assert!(gone.is_absent() && gone.to_string().contains(&path.display().to_string()), "{gone}");
    let none = disconnect_udp_at("/proc/version".as_ref(), |_, _| true).expect_err("it is none");
    assert!(!none.is_absent(), "{none}");
    Ok(())
}
