//! Ports that processes of the node listen at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluice_service::Transport;

/// The ports of TCP and UDP that processes in this network namespace listen at, and at which addresses.
pub fn listening() -> BTreeMap<(Transport, u16), BTreeSet<IpAddr>> {
    let tables = [("tcp", Transport::Tcp), ("tcp6", Transport::Tcp), ("udp", Transport::Udp), ("udp6", Transport::Udp)];
    let mut ports: BTreeMap<_, BTreeSet<IpAddr>> = BTreeMap::new();
    for (table, transport) in tables {
        // A kernel without IPv6 has no such table.
        let Ok(text) = fs::read_to_string(format!("/proc/thread-self/net/{table}")) else { continue };
        for (address, port) in text.lines().skip(1).filter_map(|line| listener(line, transport)) {
            ports.entry((transport, port)).or_default().insert(address);
        }
    }
    ports
}

/// Where somebody listens, by a line of such a table (Documentation/networking/proc_net_tcp.rst).
fn listener(line: &str, transport: Transport) -> Option<(IpAddr, u16)> {
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
    if state == wanted { Some((ip(address)?, u16::from_str_radix(port, 16).ok()?)) } else { None }
}

/// An address in words of the machine's order.
fn ip(text: &str) -> Option<IpAddr> {
    let words = (0..text.len()).step_by(8).map(|at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok());
    let octets: Vec<u8> = words.map(|word| word.map(u32::to_ne_bytes)).collect::<Option<Vec<_>>>()?.concat();
    let v4 = || Some(Ipv4Addr::from(<[u8; 4]>::try_from(&*octets).ok()?).into());
    let v6 = || Some(Ipv6Addr::from(<[u8; 16]>::try_from(&*octets).ok()?).to_canonical());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_listen_are_found_and_at_which_address() {
        let line =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000");
        let at = |address: &str| Some((address.parse::<IpAddr>().expect("an address"), 30_080));
        // As the words of this machine have it.
        let v4 = |address: [u8; 4]| format!("{:08X}:7580", u32::from_ne_bytes(address));
        let v6 =
            |address: [[u8; 4]; 4]| address.map(|word| format!("{:08X}", u32::from_ne_bytes(word))).concat() + ":7580";
        assert_eq!(listener(&line(&v4([0; 4]), "0A"), Transport::Tcp), at("0.0.0.0"));
        assert_eq!(listener(&line(&v4([127, 0, 0, 1]), "0A"), Transport::Tcp), at("127.0.0.1"));
        assert_eq!(listener(&line(&v6([[0; 4], [0; 4], [0; 4], [0, 0, 0, 1]]), "0A"), Transport::Tcp), at("::1"));
        let mapped = v6([[0; 4], [0; 4], [0, 0, 255, 255], [127, 0, 0, 1]]);
        assert_eq!(listener(&line(&mapped, "0A"), Transport::Tcp), at("127.0.0.1"));
        assert_eq!(listener(&line(&v4([10, 0, 0, 10]), "01"), Transport::Tcp), None, "a connection");
        assert_eq!(listener(&line(&v6([[0; 4]; 4]), "07"), Transport::Udp), at("::"));
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let port = (Transport::Tcp, address.port());
        assert_eq!(listening().get(&port), Some(&BTreeSet::from([address.ip()])));
        drop(listener);
        assert_eq!(listening().get(&port), None);
    }
}
