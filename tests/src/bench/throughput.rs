//! How much iperf3 carries between pods, beside paths without any plugin and the reference bridge plugin, in turns.

use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::reference::Bridge;
use super::report::{Row, Target, median};
use crate::lab::{Families, Lab, Place, Plan, ip, until};

/// Seconds of a run, and runs.
const SECONDS: &str = "3";
const ROUNDS: usize = 5;

/// A path that iperf3 is run on.
struct Path<'a> {
    from: &'a Place,
    address: IpAddr,
    gigabits: Vec<f64>,
    _server: Server,
}

/// Measures all paths, in turns.
///
/// # Errors
/// Where iperf3 is missing or a path does not work.
pub fn run() -> Result<Vec<Row>> {
    let lab = Lab::named("sluice-bench", Plan { routing: "native", families: Families::V4, ..Plan::default() })?;
    let overlay = Lab::named("sluice-bench-o", Plan { routing: "vxlan", families: Families::V4, ..Plan::default() })?;
    let (a, b, c) = (lab.pod(1, "a")?, lab.pod(1, "b")?, lab.pod(2, "c")?);
    let (d, e) = (overlay.pod(1, "d")?, overlay.pod(2, "e")?);
    let bridge = Bridge::make("sluice-bench-ref")?;
    let (f, g) = (Place::make("sluice-bench-f")?, Place::make("sluice-bench-g")?);
    bridge.add(&f)?;
    let on_bridge = bridge.add(&g)?;
    let (h, i) = (Place::make("sluice-bench-h")?, Place::make("sluice-bench-i")?);
    ip(&format!("link add eth0 netns {} type veth peer name eth0 netns {}", h.name, i.name))?;
    for (place, address) in [(&h, "10.8.0.1/24"), (&i, "10.8.0.2/24")] {
        place.ip(&format!("addr add {address} dev eth0"))?;
        place.ip("link set eth0 up")?;
    }
    let routed = Routed::make()?;

    let mut paths = Vec::new();
    for (from, to, address) in [
        (&a.place, &b.place, b.addresses[0]),
        (&h, &i, "10.8.0.2".parse()?),
        (&f, &g, on_bridge),
        (&a.place, &c.place, c.addresses[0]),
        (&routed.places[0], &routed.places[4], "10.7.2.2".parse()?),
        (&d.place, &e.place, e.addresses[0]),
    ] {
        paths.push(Path { from, address, gigabits: Vec::new(), _server: Server::start(to, address)? });
    }
    for _ in 0..ROUNDS {
        for path in &mut paths {
            path.gigabits.push(gigabits(path.from, path.address)?);
        }
    }
    let mut medians = paths.iter_mut().map(|path| median(&mut path.gigabits));
    let mut next = || medians.next().unwrap_or(f64::NAN);
    let (same, veth, on_bridge, cross, routed, tunnel) = (next(), next(), next(), next(), next(), next());
    let row = |id, value, least, what, baseline| {
        Row::new(id, value, "Gbit/s", Target::RatioAtLeast(least)).against(what, baseline)
    };
    Ok(vec![
        row("throughput_same_node", same, 0.95, "bare veth pair", veth),
        row("throughput_same_node_vs_bridge", same, 1.0, "bridge plugin", on_bridge),
        row("throughput_cross_node", cross, 1.0, "routed veth path", routed),
        Row::new("throughput_cross_node_overlay", tunnel, "Gbit/s", Target::None).against("routed veth path", routed),
    ])
}

/// Two pods on two nodes on one switch, as in a lab, wired by hand with nothing but routes.
struct Routed {
    places: Vec<Place>,
}

impl Routed {
    fn make() -> Result<Self> {
        let names = ["a", "n1", "switch", "n2", "b"];
        let places: Vec<Place> =
            names.iter().map(|name| Place::make(&format!("sluice-bench-r{name}"))).collect::<Result<_>>()?;
        let [a, n1, switch, n2, b] = &places[..] else { unreachable!("five were made") };
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        for (node, pod, number) in [(n1, a, 1), (n2, b, 2)] {
            switch.ip(&format!("link add p{number} type veth peer name eth0 netns {}", node.name))?;
            switch.ip(&format!("link set p{number} master br0 up"))?;
            node.ip(&format!("addr add 10.7.0.{number}/24 dev eth0"))?;
            node.ip("link set eth0 up")?;
            node.ip(&format!("link add pod type veth peer name eth0 netns {}", pod.name))?;
            node.ip(&format!("addr add 10.7.{number}.1/24 dev pod"))?;
            node.ip("link set pod up")?;
            node.forward()?;
            node.ip(&format!("route add 10.7.{other}.0/24 via 10.7.0.{other}", other = 3 - number))?;
            pod.ip(&format!("addr add 10.7.{number}.2/24 dev eth0"))?;
            pod.ip("link set eth0 up")?;
            pod.ip(&format!("route add default via 10.7.{number}.1"))?;
        }
        Ok(Self { places })
    }
}

/// An iperf3 server; ends when dropped.
struct Server(Child);

impl Server {
    fn start(place: &Place, address: IpAddr) -> Result<Self> {
        let child = place
            .command("iperf3")
            .args(["-s", "-B", &address.to_string()])
            .stdout(Stdio::null())
            // It complains of the connections that only ask whether it listens.
            .stderr(Stdio::null())
            .spawn()
            .context("starting iperf3")?;
        let server = Self(child);
        // It says nothing when it listens: asked until it does.
        until("iperf3 listens", || place.inside(|| Ok(TcpStream::connect((address, 5201))?)))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gigabits(from: &Place, address: IpAddr) -> Result<f64> {
    let mut command: Command = from.command("iperf3");
    let output = command.args(["-c", &address.to_string(), "-t", SECONDS, "-J"]).output().context("starting iperf3")?;
    let report: Value = serde_json::from_slice(&output.stdout).context("reading what iperf3 says")?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("iperf3: {}", report["error"]))? / 1e9)
}
