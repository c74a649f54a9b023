//! Ports of the node that both a Service and a process have: who comes from outside reaches the Service, and so do the node's own
//! processes where their sockets are translated, even at a loopback address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ipnet::IpNet;
use sluice_service::Transport;
use sluice_topology::serves_node_ports;

use crate::host;

/// Node ports and host ports, and whose they are.
pub type Claimed = BTreeMap<(Transport, u16), Claim>;

/// That a port of the node is somebody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Whose.
    pub whose: String,
    /// Whether it is a host port: these are served at all addresses.
    pub is_host_port: bool,
}

/// Where the node's own processes are served that ask a loopback address.
pub struct Loopbacks {
    /// Whether at any: where sockets are translated.
    pub are_served: bool,
    /// Node ports, at these nets' (see [`serves_node_ports`]).
    pub nets: Vec<IpNet>,
}

impl Loopbacks {
    fn serve(&self, claim: &Claim, address: IpAddr) -> bool {
        self.are_served && (claim.is_host_port || serves_node_ports(&self.nets, address))
    }
}

/// Between two looks at what processes listen at: nobody tells of that.
const LOOK: Duration = Duration::from_secs(60);
/// Changes of Services come in swarms: so long is waited for the rest of one.
const QUIET: Duration = Duration::from_millis(200);

/// Looks for them whenever Services claim others, and from time to time; until nobody tells or listens any more.
pub fn watch(claimed: &Receiver<Claimed>, loopbacks: &Loopbacks, tell: impl Fn(Vec<String>) -> bool) {
    let mut current = Claimed::new();
    loop {
        match claimed.recv_timeout(LOOK) {
            Ok(now) => {
                current = now;
                while let Ok(now) = claimed.recv_timeout(QUIET) {
                    current = now;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if !tell(shared(&current, loopbacks)) {
            return;
        }
    }
}

fn shared(claimed: &Claimed, loopbacks: &Loopbacks) -> Vec<String> {
    if claimed.is_empty() {
        return Vec::new();
    }
    let listening = host::listening();
    let shared = claimed.iter().filter_map(|(port, claim)| {
        let mut addresses = listening.get(port)?.iter();
        let (at, who) = if addresses.clone().any(|address| !address.is_loopback()) {
            ("there too".into(), "clients outside")
        } else {
            let address = addresses.find(|address| loopbacks.serve(claim, **address))?;
            (format!("there too, at {address}"), "the node's other processes")
        };
        let ((transport, port), whose) = (port, &claim.whose);
        Some(format!(
            "port {port}/{} of the node is {whose}'s, and a process of the node listens {at}: {who} do not reach the process; \
             give one of them another port",
            transport.name()
        ))
    });
    shared.collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_that_listens_at_a_node_port_is_told_of_even_at_a_loopback_address() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let told = |transport, is_host_port, are_served, net: &str| {
            let claim = Claim { whose: "Service default/web".into(), is_host_port };
            let nets = vec![net.parse().expect("a CIDR")];
            shared(&Claimed::from([((transport, port), claim)]), &Loopbacks { are_served, nets })
        };
        let [problem] = &told(Transport::Tcp, false, true, "127.0.0.0/8")[..] else { panic!("it is not told of") };
        assert!(problem.contains(&format!("port {port}/TCP of the node is Service default/web's")), "{problem}");
        assert!(problem.contains("at 127.0.0.1: the node's other processes do not"), "{problem}");
        assert_eq!(told(Transport::Sctp, false, true, "127.0.0.0/8"), [""; 0]);
        assert_eq!(
            told(Transport::Tcp, false, false, "127.0.0.0/8"),
            [""; 0],
            "its clients' sockets are not translated"
        );
        assert_eq!(told(Transport::Tcp, false, true, "192.0.2.0/24"), [""; 0], "node ports are not served there");
        assert_eq!(told(Transport::Tcp, true, true, "192.0.2.0/24").len(), 1, "host ports are");
        drop(listener);
        let _everywhere = TcpListener::bind(("0.0.0.0", port)).expect("a socket");
        let [problem] = &told(Transport::Tcp, false, false, "192.0.2.0/24")[..] else { panic!("it is not told of") };
        assert!(problem.contains("clients outside do not reach the process"), "{problem}");
    }
}
