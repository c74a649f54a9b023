//! Services: clients in pods, on nodes and outside, by every kind of address, with and without translation of sockets.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use sluice_tests::lab::serving::{Asker, Heard, Server, ask, ask_datagram, ask_in_vain};
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
    /// Whether clients outside are answered by their backend's node.
    direct: bool,
}

const BY_SOCKETS: How = How { routing: "native", sockets: true, xdp: false, direct: false };
const BY_PACKETS: How = How { routing: "vxlan", sockets: false, xdp: false, direct: false };

const EVERY_WAY: [How; 4] = [
    How { routing: "native", sockets: true, xdp: false, direct: false },
    How { routing: "native", sockets: false, xdp: true, direct: false },
    How { routing: "vxlan", sockets: true, xdp: false, direct: false },
    How { routing: "vxlan", sockets: false, xdp: false, direct: false },
];

impl Stage {
    fn set(how: How) -> Result<Self> {
        let mut lab = Lab::start(Plan { nodes: 3, routing: how.routing, ..Plan::default() })?;
        let xdp = if how.xdp { "driver" } else { "off" };
        for node in &mut lab.nodes {
            let dsr = if how.direct { "ipip" } else { "off" };
            node.restart_with(&format!("socket_lb: {}\nxdp: {xdp}\ndsr: {dsr}\n", how.sockets))?;
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

impl Stage {
    /// Who answers over TCP, when asked often.
    fn answers(&self, from: &Place, address: IpAddr, port: u16) -> Result<BTreeSet<String>> {
        (0..40).map(|_| Ok(ask(from, address, port)?.said()?.name)).collect()
    }

    /// Waits until the service is what it is told to be: until somebody hears this.
    fn until_heard(&self, from: &Place, address: IpAddr, port: u16, expected: &[&str]) -> Result<()> {
        let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
        until(&format!("{} hears {expected:?} of {address}", from.name), || {
            let heard = self.answers(from, address, port)?;
            ensure!(heard == expected, "{heard:?}");
            Ok(())
        })
    }

    fn node(&self, number: usize) -> &sluice_tests::lab::Node {
        &self.lab.nodes[number - 1]
    }

    fn stranger(&self) -> &Place {
        &self.lab.stranger
    }
}

const BOTH: &[&str] = &["web1", "web2"];

#[test]
fn load_balancers_and_external_addresses_are_served_and_taken_the_short_cut_to() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        stage.serve(
            "  type: LoadBalancer\n  externalIPs: [203.0.113.80]\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.81}, {ip: \
             203.0.113.82, ipMode: Proxy}]}}\n",
        )?;
        stage.stranger().ip("route add 203.0.113.80/30 via 192.0.2.3")?;
        for address in ["203.0.113.80", "203.0.113.81"].map(|address| address.parse().unwrap()) {
            stage.until_heard(stage.stranger(), address, PORT, BOTH)?;
            for insider in stage.insiders() {
                assert_eq!(stage.answers(insider, address, PORT)?, BOTH.iter().map(ToString::to_string).collect());
            }
        }
        let proxied = "203.0.113.82".parse().unwrap();
        // It is nobody's here, and nobody knows a way to it.
        assert!(!matches!(ask_in_vain(stage.stranger(), proxied, PORT), Ok(Heard::Said(_))));
    }
    Ok(())
}

#[test]
fn local_traffic_stays_on_its_node() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n  externalTrafficPolicy: Local\n  internalTrafficPolicy: Local\n")?;
        let (stranger, of_stranger) = (stage.stranger(), stage.lab.stranger_addresses());
        for (family, vip) in vips().into_iter().enumerate() {
            stage.until_heard(&stage.near.place, vip, PORT, &["web1"])?;
            stage.until_heard(stranger, stage.node(1).addresses[family], NODE_PORT, &["web1"])?;
            let said = ask(stranger, stage.node(2).addresses[family], NODE_PORT)?.said()?;
            assert_eq!((said.name.as_str(), said.client.ip()), ("web2", of_stranger[family]), "its own address");
            assert_eq!(ask_in_vain(stranger, stage.node(3).addresses[family], NODE_PORT)?, Heard::Nothing);
            assert_eq!(ask_in_vain(&stage.far.place, vip, PORT)?, Heard::Nothing);
            // Who is on the node takes the short cut to all of them.
            stage.until_heard(&stage.far.place, stage.node(3).addresses[family], NODE_PORT, BOTH)?;
        }
    }
    Ok(())
}

#[test]
fn where_nobody_serves_clients_are_told_so() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n")?;
        for (pod, _) in &stage.servers {
            stage.lab.take_back(&format!("default-{}.json", pod.name))?;
        }
        for (family, vip) in vips().into_iter().enumerate() {
            for insider in stage.insiders() {
                until("it is refused", || {
                    ensure!(ask_in_vain(insider, vip, PORT)? == Heard::Refused);
                    Ok(())
                })?;
                let udp = ask_datagram(insider, vip, PORT, true)?;
                assert_eq!(udp, Heard::Refused, "{how:?} {} by UDP", insider.name);
                assert_eq!(ask_in_vain(insider, vip, 81)?, Heard::Refused, "{how:?} {}, another port", insider.name);
            }
            let address = stage.node(1).addresses[family];
            until("it is refused", || {
                ensure!(ask_in_vain(stage.stranger(), address, NODE_PORT)? == Heard::Refused);
                Ok(())
            })?;
            assert_eq!(ask_datagram(stage.stranger(), address, NODE_PORT, true)?, Heard::Refused);
        }
    }
    Ok(())
}

#[test]
fn datagrams_leave_a_backend_that_goes() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(2);
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n")?;
        stage.until_heard(&stage.near.place, vips()[0], PORT, BOTH)?;
        let askers = [
            (&stage.near.place, vips()[0], PORT, false),
            (&stage.near.place, vips()[1], PORT, true),
            (&stage.node(3).place, vips()[0], PORT, true),
            (stage.stranger(), stage.node(3).addresses[0], NODE_PORT, false),
        ];
        let askers = askers.map(|(place, address, port, connected)| Asker::new(place, address, port, connected));
        let askers = askers.into_iter().collect::<Result<Vec<_>>>()?;
        for asker in &askers {
            let first = asker.ask(PATIENCE)?.said()?.name;
            for _ in 0..5 {
                assert_eq!(asker.ask(PATIENCE)?.said()?.name, first, "{how:?}: it stays with one");
            }
        }
        stage.lab.take_back("default-web1.json")?;
        stage.until_heard(&stage.near.place, vips()[0], PORT, &["web2"])?;
        stage.until_heard(stage.stranger(), stage.node(3).addresses[0], NODE_PORT, &["web2"])?;
        for asker in &askers {
            // A socket that was connected is told, once, and goes on from there as one that is not.
            until("web2 answers", || {
                let said = asker.ask_again(PATIENCE)?.said()?;
                ensure!(said.name == "web2", "{said:?}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn policies_are_about_backends_and_see_the_clients_that_services_show_them() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n")?;
        stage.until_heard(&stage.near.place, vips()[0], PORT, BOTH)?;
        let policy = |from: &str| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web}}\nspec:\n  podSelector: {{matchLabels: \
                 {{app: web}}}}\n  ingress: [{{from: [{from}], ports: [{{port: {TARGET}}}]}}]\n"
            )
        };
        stage.lab.tell("policy.yaml", &policy("{podSelector: {matchLabels: {app: client}}}"))?;
        let stranger = stage.stranger();
        let at = stage.node(1).addresses[0];
        until("the stranger is denied", || {
            ensure!(ask_in_vain(stranger, at, NODE_PORT)? == Heard::Nothing);
            Ok(())
        })?;
        stage.until_heard(&stage.near.place, vips()[0], PORT, BOTH)?;
        stage.until_heard(&stage.far.place, vips()[1], PORT, BOTH)?;
        stage.serve("  type: NodePort\n  externalTrafficPolicy: Local\n")?;
        stage.lab.tell(
            "policy.yaml",
            &policy(&format!("{{ipBlock: {{cidr: {}/32}}}}", stage.lab.stranger_addresses()[0])),
        )?;
        stage.until_heard(stranger, at, NODE_PORT, &["web1"])?;
        until("pods are denied", || {
            ensure!(ask_in_vain(&stage.near.place, vips()[0], PORT)? == Heard::Nothing);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn host_ports_lead_to_their_pod() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let stage = Stage::set(how)?;
        let own = stage.node(1).addresses[0];
        let ports = json!([
            { "hostPort": 8888, "containerPort": TARGET, "protocol": "tcp" },
            { "hostPort": 8888, "containerPort": TARGET, "protocol": "udp" },
            { "hostPort": 8889, "containerPort": TARGET, "protocol": "tcp", "hostIP": own },
            { "hostPort": 8890, "containerPort": TARGET, "protocol": "tcp", "hostIP": "127.0.0.1" },
        ]);
        let pod = stage.lab.pod_with_host_ports(1, "hosted", &ports)?;
        let _server = Server::start(&pod.place, TARGET, "hosted")?;
        for address in stage.node(1).addresses.clone() {
            for client in [stage.stranger(), &stage.near.place, &stage.far.place, &stage.node(3).place] {
                assert_eq!(ask(client, address, 8888)?.said()?.name, "hosted", "{how:?} {} {address}", client.name);
                assert_eq!(ask_datagram(client, address, 8888, false)?.said()?.name, "hosted");
            }
            let is_there = ask_in_vain(stage.stranger(), address, 8889)?;
            assert_eq!(matches!(is_there, Heard::Said(_)), address == own, "at one address only");
            assert!(!matches!(ask_in_vain(stage.stranger(), address, 8890)?, Heard::Said(_)), "not from outside");
        }
        if how.sockets {
            let node = &stage.node(1).place;
            assert_eq!(ask(node, own, 8888)?.said()?.name, "hosted");
            assert_eq!(ask(node, "127.0.0.1".parse()?, 8890)?.said()?.name, "hosted");
            assert_eq!(ask(node, "127.0.0.1".parse()?, 8888)?.said()?.name, "hosted");
        }
        pod.delete()?;
        until("it is gone", || {
            ensure!(!matches!(ask_in_vain(stage.stranger(), own, 8888)?, Heard::Said(_)));
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn no_connection_fails_while_agents_come_and_go_and_backends_change() -> Result<()> {
    for how in [BY_SOCKETS, BY_PACKETS] {
        let mut stage = Stage::set(how)?;
        stage.serve("  type: NodePort\n")?;
        stage.until_heard(&stage.near.place, vips()[0], PORT, BOTH)?;
        stage.until_heard(&stage.lab.stranger, stage.lab.nodes[2].addresses[0], NODE_PORT, BOTH)?;
        let Stage { lab, near, far, .. } = &mut stage;
        let (nodes, stranger) = (&mut lab.nodes, &lab.stranger);
        let at_node = nodes[2].addresses[0];
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients =
                [(&near.place, vips()[0], PORT), (&far.place, vips()[1], PORT), (stranger, at_node, NODE_PORT)];
            let asking: Vec<_> = clients
                .into_iter()
                .map(|(place, address, port)| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let mut count = 0;
                        while !stop.load(Ordering::Relaxed) {
                            ask(place, address, port)?.said()?;
                            count += 1;
                        }
                        Ok::<u32, anyhow::Error>(count)
                    })
                })
                .collect();
            let mut changes = || {
                for node in nodes.iter_mut() {
                    node.stop_agent();
                    node.start_agent()?;
                    node.wait_until_ready()?;
                }
                Ok::<(), anyhow::Error>(())
            };
            let changed = changes();
            stop.store(true, Ordering::Relaxed);
            for client in asking {
                let count = client.join().expect("no panic")?;
                ensure!(count > 0, "nobody was asked");
            }
            changed
        })?;
    }
    Ok(())
}

#[test]
fn with_direct_return_clients_see_all_backends_and_backends_see_them() -> Result<()> {
    for routing in ["native", "vxlan"] {
        let stage = Stage::set(How { routing, direct: true, ..BY_SOCKETS })?;
        stage.serve("  type: NodePort\n")?;
        let of_stranger = stage.lab.stranger_addresses();
        for (family, client) in of_stranger.into_iter().enumerate() {
            let address = stage.node(3).addresses[family];
            stage.until_heard(stage.stranger(), address, NODE_PORT, BOTH)?;
            for _ in 0..20 {
                assert_eq!(ask(stage.stranger(), address, NODE_PORT)?.said()?.client.ip(), client);
                assert_eq!(ask_datagram(stage.stranger(), address, NODE_PORT, true)?.said()?.client.ip(), client);
            }
        }
    }
    Ok(())
}
