//! Ports that processes of the node listen at.

use std::collections::BTreeSet;
use std::fs;

use sluice_service::Transport;

/// A port of a protocol.
pub type Listening = (Transport, u16);

/// The ports of TCP and UDP that processes in this network namespace listen at; on an address of the node, not the loopback.
pub fn listening() -> BTreeSet<Listening> {
    let tables = [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)];
    let mut ports = BTreeSet::new();
    for (table, transport) in tables {
        // A kernel without IPv6 has no such table.
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{table}")) else { continue };
        ports.extend(text.lines().skip(1).filter_map(|line| port(line, transport)).map(|port| (transport, port)));
    }
    ports
}

/// The port of a line of such a table, if somebody listens there (Documentation/networking/proc_net_tcp.rst).
fn port(line: &str, transport: Transport) -> Option<u16> {
    /// States: of a TCP socket that listens, of a UDP socket that is not connected.
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut fields = line.split_whitespace().skip(1);
    let (local, _remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let wanted = match transport {
        Transport::Tcp => LISTEN,
        Transport::Udp => UNCONNECTED,
        Transport::Sctp => return None,
    };
    let (address, port) = local.split_once(':')?;
    // Words of addresses are in the machine's order; the first octet of a loopback's is the last of little-endian ones.
    let is_loopback = (address.len() == 8 && address.ends_with("7F")) || address == "00000000000000000000000001000000";
    if state != wanted || is_loopback { None } else { u16::from_str_radix(port, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_listen_where_others_reach_them_are_found() {
        let line =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000");
        assert_eq!(port(&line("00000000:7580", "0A"), Transport::Tcp), Some(30_080));
        assert_eq!(port(&line("0100007F:7580", "0A"), Transport::Tcp), None, "the node's own only");
        assert_eq!(port(&line("00000000000000000000000001000000:7580", "0A"), Transport::Tcp), None);
        assert_eq!(port(&line("0A00000A:7580", "01"), Transport::Tcp), None, "a connection");
        assert_eq!(port(&line("00000000000000000000000000000000:7580", "07"), Transport::Udp), Some(30_080));
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind(("0.0.0.0", 0)).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        assert!(listening().contains(&(Transport::Tcp, port)));
        drop(listener);
        assert!(!listening().contains(&(Transport::Tcp, port)));
    }
}
