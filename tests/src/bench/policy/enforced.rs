//! How long a changed policy takes until live flows feel it: from the manifest that is put in its place to the last packet
//! that is told the old verdict.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::report::{Row, Target, median};
use crate::lab::{Families, Lab, Plan, Pod};

/// Pods that the policy selects.
const PODS: usize = 100;
/// Changes, each there and back.
const EDITS: usize = 11;
/// After so long nothing comes of a change any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures an edit that ends a flow to each pod, and the one that lets them go on.
///
/// # Errors
/// Where the lab does not start, or an edit comes to nothing.
pub fn run() -> Result<Vec<Row>> {
    let lab = Lab::named("sluice-bench", Plan { nodes: 1, families: Families::V4, ..Plan::default() })?;
    let client = lab.pod(1, "client")?;
    let servers: Vec<Pod> = (0..PODS).map(|number| lab.pod(1, &format!("s{number}"))).collect::<Result<_>>()?;
    lab.declare(&client, &[("role", "client")], &[])?;
    servers.iter().try_for_each(|server| lab.declare(server, &[("role", "server")], &[]))?;
    let mut flows = Flows::open(&client, &servers)?;
    lab.tell("policy.yaml", &policy("client"))?;
    flows.until(true)?;

    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..EDITS {
        for (may, times) in [false, true].into_iter().zip(&mut times) {
            let policy = policy(if may { "client" } else { "nobody" });
            let started = Instant::now();
            lab.tell("policy.yaml", &policy)?;
            times.push((flows.until(may)? - started).as_secs_f64() * 1e3);
        }
    }
    let [mut ended, mut begun] = times;
    let worst = ended.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Row::new("policy_edit_enforced", median(&mut ended), "ms", Target::AtMost(10.0)),
        Row::new("policy_edit_enforced.worst", worst, "ms", Target::None),
        Row::new("policy_edit_enforced.let_in", median(&mut begun), "ms", Target::None),
    ])
}

fn policy(from: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: servers}}\nspec: {{podSelector: \
         {{matchLabels: {{role: server}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{role: {from}}}}}}}]}}]}}\n"
    )
}

/// A flow of datagrams to each server.
struct Flows {
    client: UdpSocket,
    servers: Vec<(SocketAddr, UdpSocket)>,
    sent: u64,
}

impl Flows {
    fn open(client: &Pod, servers: &[Pod]) -> Result<Self> {
        let bound = |pod: &Pod| -> Result<(SocketAddr, UdpSocket)> {
            let address = IpAddr::V4([0, 0, 0, 0].into());
            let socket = pod.place.inside(|| Ok(UdpSocket::bind((address, 0))?))?;
            socket.set_nonblocking(true).context("opening a socket")?;
            Ok(((pod.addresses[0], socket.local_addr()?.port()).into(), socket))
        };
        let (_, client) = bound(client)?;
        let servers = servers.iter().map(bound).collect::<Result<_>>()?;
        Ok(Self { client, servers, sent: 0 })
    }

    /// Sends along all flows, time and again, until all packets arrive or none does; says when the last one was told
    /// otherwise, or when sending began.
    fn until(&mut self, arrive: bool) -> Result<Instant> {
        let begun = Instant::now();
        let mut last = begun;
        loop {
            let mut is_over = true;
            for at in 0..self.servers.len() {
                let now = Instant::now();
                if self.arrives(at)? != arrive {
                    (last, is_over) = (now, false);
                }
            }
            if is_over {
                return Ok(last);
            }
            ensure!(begun.elapsed() < PATIENCE, "a changed policy is not enforced");
        }
    }

    /// Sends a datagram, and looks whether it is there: the kernel carries it to the other pod before it answers the call.
    fn arrives(&mut self, at: usize) -> Result<bool> {
        let (address, server) = &self.servers[at];
        self.sent += 1;
        let question = self.sent.to_ne_bytes();
        self.client.send_to(&question, address).with_context(|| format!("sending to {address}"))?;
        let mut buffer = [0; 8];
        loop {
            match server.recv(&mut buffer) {
                Ok(_) if buffer == question => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => bail!("receiving at {address}: {error}"),
            }
        }
    }
}
