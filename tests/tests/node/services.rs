//! Services: clients in pods, on nodes and outside, by every kind of address, with and without translation of sockets.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use sluice_tests::lab::serving::{Heard, Server, ask, ask_datagram, ask_in_vain};
use sluice_tests::lab::{Lab, Place, Plan, Pod, until};

/// The port that pods serve at.
const TARGET: u16 = 8080;
const PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;

/// Three nodes, a pod that serves on each of the first two, and one that only asks on the first and the last.
struct Stage {
    lab: Lab,
    servers: Vec<(Pod, Server)>,
    near: Pod,
    far: Pod,
}

/// How the nodes of a stage are.
#[derive(Clone, Copy, Debug)]
struct How {
    routing: &'static str,
    /// Whether sockets are translated.
    sockets: bool,
    xdp: bool,
}

const EVERY_WAY: [How; 4] = [
    How { routing: "native", sockets: true, xdp: false },
    How { routing: "native", sockets: false, xdp: true },
    How { routing: "vxlan", sockets: true, xdp: false },
    How { routing: "vxlan", sockets: false, xdp: false },
];

impl Stage {
    fn set(how: How) -> Result<Self> {
        let mut lab = Lab::start(Plan { nodes: 3, routing: how.routing, ..Plan::default() })?;
        let xdp = if how.xdp { "driver" } else { "off" };
        for node in &mut lab.nodes {
            node.restart_with(&format!("socket_lb: {}\nxdp: {xdp}\n", how.sockets))?;
        }
        if how.xdp {
            lab.plug_as_hardware()?;
        }
        let mut servers = Vec::new();
        for node in 1..=2 {
            let name = format!("web{node}");
            let pod = lab.pod(node, &name)?;
            lab.declare(&pod, &[("app", "web")], &[TARGET])?;
            let server = Server::start(&pod.place, TARGET, &name)?;
            servers.push((pod, server));
        }
        let (near, far) = (lab.pod(1, "asker1")?, lab.pod(3, "asker3")?);
        for pod in [&near, &far] {
            lab.declare(pod, &[("app", "client")], &[])?;
        }
        Ok(Self { lab, servers, near, far })
    }

    /// Tells of the service `web`, with more of its spec, and waits until all nodes serve it.
    fn serve(&self, spec: &str) -> Result<()> {
        self.lab.tell(
            "web.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  clusterIP: {V4}\n  \
                 clusterIPs: [{V4}, '{V6}']\n  ipFamilyPolicy: RequireDualStack\n  ipFamilies: [IPv4, IPv6]\n  selector: {{app: web}}\n  \
                 ports:\n  - {{name: tcp, port: {PORT}, targetPort: {TARGET}, nodePort: {NODE_PORT}}}\n  \
                 - {{name: udp, port: {PORT}, targetPort: {TARGET}, nodePort: {NODE_PORT}, protocol: UDP}}\n{spec}"
            ),
        )
    }

    /// Everybody in the cluster, by name.
    fn insiders(&self) -> Vec<&Place> {
        let pods = self.servers.iter().map(|(pod, _)| &pod.place).chain([&self.near.place, &self.far.place]);
        pods.chain(self.lab.nodes.iter().map(|node| &node.place)).collect()
    }

    /// Asks again until both servers have answered; fails where anything else does.
    fn is_served_by_both(&self, from: &Place, address: IpAddr, port: u16) -> Result<()> {
        for transport in ["TCP", "UDP", "UDP connected"] {
            let mut heard = Vec::new();
            for _ in 0..200 {
                let said = match transport {
                    "TCP" => ask(from, address, port)?,
                    other => ask_datagram(from, address, port, other == "UDP connected")?,
                };
                let Heard::Said(said) = said else {
                    anyhow::bail!("{} asks {address} {port} over {transport} and hears {said:?}", from.name)
                };
                if !heard.contains(&said.name) {
                    heard.push(said.name);
                }
                if heard.len() == 2 {
                    break;
                }
            }
            heard.sort();
            ensure!(heard == ["web1", "web2"], "{} has heard {heard:?} over {transport}", from.name);
        }
        Ok(())
    }
}

const V4: &str = "10.96.0.10";
const V6: &str = "fd00:96::a";

fn vips() -> [IpAddr; 2] {
    [V4.parse().unwrap(), V6.parse().unwrap()]
}

#[test]
fn everybody_reaches_a_service_by_its_cluster_ip_and_node_ports() -> Result<()> {
    for how in EVERY_WAY {
        let stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n")?;
        until("all nodes serve", || {
            for node in &stage.lab.nodes {
                ask_in_vain(&node.place, vips()[0], PORT)?.said()?;
            }
            Ok(())
        })?;
        for address in vips() {
            for place in stage.insiders() {
                // On the way to itself, and to a process of its own node, a node needs its sockets translated.
                stage.is_served_by_both(place, address, PORT).map_err(|error| error.context(format!("{how:?}")))?;
            }
        }
        for node in &stage.lab.nodes {
            for address in &node.addresses {
                stage
                    .is_served_by_both(&stage.lab.stranger, *address, NODE_PORT)
                    .map_err(|error| error.context(format!("{how:?}: from outside by {}", node.name)))?;
                stage.is_served_by_both(&stage.near.place, *address, NODE_PORT)?;
            }
        }
    }
    Ok(())
}
