//! What the agents of a small cluster take while nothing happens.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::bench::process::Process;
use crate::bench::report::{Row, Target};
use crate::kubernetes::Cluster;

/// For how long they are looked at.
const IDLE: Duration = Duration::from_secs(30);
/// Where the lab's API server listens.
const API_SERVER: &str = ":6443";

/// Looks at the agents of all nodes.
///
/// # Errors
/// Where one is not there, or ends meanwhile.
pub fn idle(cluster: &Cluster, nodes: &[String]) -> Result<Vec<Row>> {
    let agents = nodes.iter().map(|node| Agent::of(cluster, node)).collect::<Result<Vec<_>>>()?;
    let look = || agents.iter().map(Agent::look).collect::<Result<Vec<_>>>();
    anstream::println!("looking at idle agents for {} s", IDLE.as_secs());
    let (begun, before) = (Instant::now(), look()?);
    // Not a wait for anything, but what is measured.
    thread::sleep(IDLE);
    let (after, seconds) = (look()?, begun.elapsed().as_secs_f64());
    let mut rows = Vec::new();
    for ((agent, before), after) in agents.iter().zip(before).zip(after) {
        let mut row = |what: &str, value: f64, unit| {
            rows.push(Row::new(&format!("footprint_idle.{}.{what}", agent.node), value, unit, Target::None));
        };
        row("anonymous", agent.process.memory("RssAnon")?, "MiB");
        row("resident", agent.process.memory("VmRSS")?, "MiB");
        row("processor", (after.processor - before.processor) / seconds * 100.0, "% of a core");
        row("received", (after.received - before.received) as f64 / seconds, "bytes/s");
    }
    Ok(rows)
}

/// The agent of a node.
struct Agent<'a> {
    cluster: &'a Cluster,
    node: &'a str,
    process: Process,
}

/// What one has taken until now.
struct Taken {
    /// Seconds of a processor,
    processor: f64,
    /// and bytes from the API server, inside TLS.
    received: i64,
}

impl<'a> Agent<'a> {
    fn of(cluster: &'a Cluster, node: &'a str) -> Result<Self> {
        let process = Process::within(&cluster.first_process(node)?.join("ns/net"), "sluice-agent")?;
        Ok(Self { cluster, node, process })
    }

    fn look(&self) -> Result<Taken> {
        let sockets = self.cluster.on(self.node, &["ss", "-tnieHO", "dport", "=", API_SERVER])?;
        let received = received(&sockets, &self.process.sockets()?);
        Ok(Taken { processor: self.process.processor_time()?, received })
    }
}

/// Bytes that these sockets have received, by what `ss` says of all.
fn received(said: &str, sockets: &BTreeSet<u64>) -> i64 {
    let number = |line: &str, name: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':')?.parse::<u64>().ok())
    };
    let own = said.lines().filter(|line| number(line, "ino").is_some_and(|inode| sockets.contains(&inode)));
    own.filter_map(|line| i64::try_from(number(line, "bytes_received")?).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_ones_own_sockets() {
        let said = "ESTAB 0 0 10.77.0.11:40000 10.77.0.1:6443 ino:7 sk:1 cgroup:/ cubic bytes_sent:9 bytes_received:100 segs_out:3\n\
                    ESTAB 0 0 10.77.0.11:40001 10.77.0.1:6443 ino:8 sk:2 cubic bytes_received:20\n\
                    SYN-SENT 0 1 10.77.0.11:40002 10.77.0.1:6443 ino:9 sk:3 cubic";
        assert_eq!(received(said, &[7, 9].into()), 100);
        assert_eq!(received(said, &[7, 8].into()), 120);
    }
}
