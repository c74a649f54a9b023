//! Ports that processes of the node listen at.

use std::collections::BTreeMap;
use std::fs;

use sluice_service::Transport;

/// Who reaches a process that listens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Audience {
    /// The node's own processes: it listens at a loopback address.
    Node,
    /// Others too.
    All,
}

/// The ports of TCP and UDP that processes in this network namespace listen at, and for whom at most.
pub fn listening() -> BTreeMap<(Transport, u16), Audience> {
    let tables = [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)];
    let mut ports = BTreeMap::new();
    for (table, transport) in tables {
        // A kernel without IPv6 has no such table.
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{table}")) else { continue };
        for (port, audience) in text.lines().skip(1).filter_map(|line| port(line, transport)) {
            let most = ports.entry((transport, port)).or_insert(audience);
            *most = audience.max(*most);
        }
    }
    ports
}

/// The port of a line of such a table, if somebody listens there, and for whom (Documentation/networking/proc_net_tcp.rst).
fn port(line: &str, transport: Transport) -> Option<(u16, Audience)> {
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
    let audience = if is_loopback { Audience::Node } else { Audience::All };
    if state == wanted { Some((u16::from_str_radix(port, 16).ok()?, audience)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_listen_are_found_and_who_reaches_them() {
        let line =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000");
        let (by_all, by_node) = (Some((30_080, Audience::All)), Some((30_080, Audience::Node)));
        assert_eq!(port(&line("00000000:7580", "0A"), Transport::Tcp), by_all);
        assert_eq!(port(&line("0100007F:7580", "0A"), Transport::Tcp), by_node);
        assert_eq!(port(&line("00000000000000000000000001000000:7580", "0A"), Transport::Tcp), by_node);
        assert_eq!(port(&line("0A00000A:7580", "01"), Transport::Tcp), None, "a connection");
        assert_eq!(port(&line("00000000000000000000000000000000:7580", "07"), Transport::Udp), by_all);
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let listen = |at: &str, port| std::net::TcpListener::bind((at, port)).expect("a socket");
        let local = listen("127.0.0.1", 0);
        let port = (Transport::Tcp, local.local_addr().expect("an address").port());
        assert_eq!(listening().get(&port), Some(&Audience::Node));
        let other = listen("127.0.0.2", port.1);
        assert_eq!(listening().get(&port), Some(&Audience::Node));
        drop((local, other));
        let everywhere = listen("0.0.0.0", port.1);
        assert_eq!(listening().get(&port), Some(&Audience::All));
        drop(everywhere);
        assert_eq!(listening().get(&port), None);
    }
}
