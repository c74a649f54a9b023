//! Ports of the node that both a Service and a process have: who comes from outside reaches the Service, and so do the node's own
//! processes where their sockets are translated, even at a loopback address.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sluice_service::Transport;

use crate::host::{self, Audience};

/// Node ports and host ports, and whose they are.
pub type Claimed = BTreeMap<(Transport, u16), String>;

/// Between two looks at what processes listen at: nobody tells of that.
const LOOK: Duration = Duration::from_secs(60);
/// Changes of Services come in swarms: so long is waited for the rest of one.
const QUIET: Duration = Duration::from_millis(200);

/// Looks for them whenever Services claim others, and from time to time; until nobody tells or listens any more.
pub fn watch(claimed: &Receiver<Claimed>, are_sockets_translated: bool, tell: impl Fn(Vec<String>) -> bool) {
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
        if !tell(shared(&current, are_sockets_translated)) {
            return;
        }
    }
}

fn shared(claimed: &Claimed, are_sockets_translated: bool) -> Vec<String> {
    if claimed.is_empty() {
        return Vec::new();
    }
    let listening = host::listening();
    let shared = claimed.iter().filter_map(|(port, whose)| Some((port, whose, listening.get(port)?)));
    shared
        .filter_map(|((transport, port), whose, audience)| {
            let (at, who) = match audience {
                Audience::All => ("there too", "clients outside"),
                Audience::Node if are_sockets_translated => ("at a loopback address there", "the node's other processes"),
                // Nobody else is served at loopback addresses.
                Audience::Node => return None,
            };
            Some(format!(
                "port {port}/{} of the node is {whose}'s, and a process of the node listens {at}: {who} do not reach the process; \
                 give one of them another port",
                transport.name()
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_process_that_listens_at_a_node_port_is_told_of_even_at_a_loopback_address() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let claimed = |transport| Claimed::from([((transport, port), "Service default/web".to_owned())]);
        let [problem] = &shared(&claimed(Transport::Tcp), true)[..] else { panic!("it is not told of") };
        assert!(problem.contains(&format!("port {port}/TCP of the node is Service default/web's")), "{problem}");
        assert!(problem.contains("loopback") && problem.contains("the node's other processes"), "{problem}");
        assert_eq!(shared(&claimed(Transport::Sctp), true), [""; 0]);
        assert_eq!(shared(&claimed(Transport::Tcp), false), [""; 0], "packets to it are not translated");
        drop(listener);
        let _everywhere = TcpListener::bind(("0.0.0.0", port)).expect("a socket");
        let [problem] = &shared(&claimed(Transport::Tcp), false)[..] else { panic!("it is not told of") };
        assert!(problem.contains("clients outside do not reach the process"), "{problem}");
    }
}
