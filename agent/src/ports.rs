//! Ports of the node that both a Service and a process have: who comes from outside reaches the Service.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use sluice_service::Transport;

use crate::host;

/// Node ports and host ports, and whose they are.
pub type Claimed = BTreeMap<(Transport, u16), String>;

/// Between two looks at what processes listen at: nobody tells of that.
const LOOK: Duration = Duration::from_secs(60);
/// Changes of Services come in swarms: so long is waited for the rest of one.
const QUIET: Duration = Duration::from_millis(200);

/// Looks for them whenever Services claim others, and from time to time; until nobody tells or listens any more.
pub fn watch(claimed: &Receiver<Claimed>, tell: impl Fn(Vec<String>) -> bool) {
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
        if !tell(shared(&current)) {
            return;
        }
    }
}

fn shared(claimed: &Claimed) -> Vec<String> {
    if claimed.is_empty() {
        return Vec::new();
    }
    let listening = host::listening();
    let shared = claimed.iter().filter(|(port, _)| listening.contains(port));
    shared
        .map(|((transport, port), whose)| {
            format!(
                "port {port}/{} of the node is {whose}'s, and a process of the node listens there too: clients outside do not \
                 reach the process; give one of them another port",
                transport.name()
            )
        })
        .collect()
}
