//! A cluster on one machine: nodes, pods and strangers in network namespaces, wired by the real plugin and agent.

mod api;
mod disk;
pub mod exchange;
pub mod group;
pub mod manifest;
mod node;
mod offline;
mod place;
mod pod;
mod raw;
mod runtime;
pub mod serving;
pub mod traffic;
mod wait;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_api::DenialStatus;

pub use api::{ApiServer, next_request, write_kubeconfig};
pub use disk::FullDisk;
pub use node::{Node, binary};
pub use place::{Place, ip, spawn_in};
pub use pod::{Call, Pod};
pub use raw::Raw;
pub use runtime::{Containerd, IMAGE, Podman};
pub use wait::{until, until_so};

/// Where labs keep their files, one directory each.
const ROOT: &str = "/run/sluice-lab";

/// Which address families a cluster has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// Whether an address is of one of them.
    pub fn have(self, address: IpAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Dual => true,
        }
    }
}

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of nodes.
    pub nodes: u8,
    /// The agents' routing mode.
    pub routing: &'static str,
    /// Address families.
    pub families: Families,
    /// Whether the last of several nodes and the stranger are behind a router.
    pub routed: bool,
    /// MTU of the stranger's link, bytes.
    pub stranger_mtu: u32,
    /// Length of the nodes' IPv4 pod CIDRs.
    pub pod_bits: u8,
}

impl Default for Plan {
    fn default() -> Self {
        Self { nodes: 2, routing: "auto", families: Families::Dual, routed: false, stranger_mtu: 1500, pod_bits: 24 }
    }
}

/// A running cluster; ends when dropped.
pub struct Lab {
    name: String,
    plan: Plan,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Somebody outside the cluster.
    pub stranger: Place,
    _places: Vec<Place>,
    keep: bool,
}

impl Lab {
    /// Starts a cluster and waits until all its nodes are ready.
    ///
    /// # Errors
    /// Where that fails; nothing is left behind.
    pub fn start(plan: Plan) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        bury_the_dead();
        Self::named(&name, plan)
    }

    /// As [`start`](Lab::start), in place of an earlier cluster of that name.
    ///
    /// # Errors
    /// As [`start`](Lab::start).
    pub fn named(name: &str, plan: Plan) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
        clean(name);
        Self::build(name, plan).inspect_err(|_| clean(name))
    }

    fn build(name: &str, plan: Plan) -> Result<Self> {
        let directory = Path::new(ROOT).join(name);
        let manifests = directory.join("manifests");
        // Another lab that ends may take the directory of all with it just now.
        let made = (0..10).find_map(|_| fs::create_dir_all(&manifests).ok());
        ensure!(made.is_some(), "cannot make {}", manifests.display());
        // Two segments and a router between them; where nothing is routed, all are on the first.
        let near = Place::make(&format!("{name}-near"))?;
        let far = Place::make(&format!("{name}-far"))?;
        let router = Place::make(&format!("{name}-router"))?;
        for segment in [&near, &far] {
            segment.ip("link add br0 type bridge")?;
            segment.ip("link set br0 up")?;
        }
        for (segment, interface, number) in [(&near, "near", 0), (&far, "far", 1)] {
            connect(segment, &router, interface, 1500)?;
            for net in subnet(plan.families, number, 254) {
                router.ip(&format!("addr add {net} dev {interface} nodad"))?;
            }
        }
        router.forward()?;

        let segment = |is_far: bool| if is_far { (&far, 1) } else { (&near, 0) };
        let stranger = Place::make(&format!("{name}-stranger"))?;
        let (switch, number) = segment(plan.routed);
        connect(switch, &stranger, "eth0", plan.stranger_mtu)?;
        equip(&stranger, plan.families, number, 100)?;
        if plan.stranger_mtu != 1500 {
            router.ip(&format!("link set far mtu {}", plan.stranger_mtu))?;
            // It asks for segments as of any link: that its own is a narrow one, others learn from the router.
            for router in subnet(plan.families, number, 254) {
                let (router, segment) = (plain(&router), if router.contains(':') { 1440 } else { 1460 });
                stranger.ip(&format!("route replace default via {router} advmss {segment}"))?;
            }
        }

        let mut lab = Self {
            name: name.into(),
            nodes: Vec::new(),
            stranger,
            _places: vec![near, far, router],
            keep: false,
            plan: plan.clone(),
        };
        for number in 1..=plan.nodes {
            let mut place = Place::make(&format!("{name}-n{number}"))?;
            place.join(&group::make(&format!("{}n{number}", groups(name)))?);
            let is_far = plan.routed && number == plan.nodes && number > 1;
            let (switch, net) = (&lab._places[usize::from(is_far)], u8::from(is_far));
            connect(switch, &place, "eth0", 1500)?;
            let addresses = equip(&place, plan.families, net, number)?;
            lab.nodes.push(Node::new(number, place, addresses, &directory, name, &plan)?);
        }
        for node in &mut lab.nodes {
            node.write_manifest(&directory.join("manifests"))?;
        }
        for node in &mut lab.nodes {
            node.start_agent()?;
        }
        for node in &mut lab.nodes {
            node.wait_until_ready()?;
        }
        Ok(lab)
    }

    /// Adds a pod of the namespace `default` to a node (counted from 1).
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub fn pod(&self, node: usize, name: &str) -> Result<Pod> {
        self.pod_of("default", node, name)
    }

    /// Adds a pod of a namespace to a node (counted from 1). No other pod of the lab has its name.
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub fn pod_of(&self, namespace: &str, node: usize, name: &str) -> Result<Pod> {
        Pod::add(&self.nodes[node - 1], &format!("{}-{name}", self.name), (namespace, name), &[], &Value::Null)
    }

    /// Adds a pod of a namespace to a node (counted from 1), with these addresses.
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub fn pod_with(&self, node: usize, namespace: &str, name: &str, addresses: &[IpAddr]) -> Result<Pod> {
        let place = format!("{}-{namespace}.{name}", self.name);
        Pod::add(&self.nodes[node - 1], &place, (namespace, name), addresses, &Value::Null)
    }

    /// Adds a pod of the namespace `default` to a node (counted from 1), with these mappings of host ports.
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub fn pod_with_host_ports(&self, node: usize, name: &str, ports: &Value) -> Result<Pod> {
        let container = format!("{}-{name}", self.name);
        Pod::add(&self.nodes[node - 1], &container, ("default", name), &[], ports)
    }

    /// The stranger's addresses.
    pub fn stranger_addresses(&self) -> Vec<IpAddr> {
        subnet(self.plan.families, u8::from(self.plan.routed), 100)
            .iter()
            .filter_map(|net| plain(net).parse().ok())
            .collect()
    }

    /// Gives the stranger one more address, which the nodes know the way to.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn also_at(&self, address: IpAddr) -> Result<()> {
        self.stranger.ip(&format!("addr add {address} dev eth0 nodad"))?;
        let known = self.stranger_addresses();
        let via = known.iter().find(|known| known.is_ipv4() == address.is_ipv4());
        let via = via.with_context(|| format!("the stranger has no address of the family of {address}"))?;
        self.nodes.iter().try_for_each(|node| node.place.ip(&format!("route add {address} via {via}")))
    }

    /// Has the cables between nodes, the stranger and their switches behave as network cards do: checksums are right on the
    /// wire, and what a driver's program sends arrives. Of veth's, it does where the other side has a program too
    /// (`veth_xdp_flush`, drivers/net/veth.c, up to Linux 6.18): the node's own, which lets all pass that the node sends.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn plug_as_hardware(&self) -> Result<()> {
        let tell = |place: &Place, program: &str, arguments: &[&str]| {
            let output =
                place.command(program).args(arguments).output().with_context(|| format!("running {program}"))?;
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            ensure!(output.status.success(), "{program} {} in {}: {said}", arguments.join(" "), place.name);
            Ok(())
        };
        for place in self.nodes.iter().map(|node| &node.place).chain([&self.stranger]) {
            tell(place, "ethtool", &["-K", "eth0", "tx", "off"])?;
        }
        for node in &self.nodes {
            let port = port(&node.place, "eth0");
            let has_port = |switch: &&Place| switch.ip(&format!("link show {port}")).is_ok();
            let switch =
                self._places.iter().find(has_port).with_context(|| format!("no switch has the port {port}"))?;
            let program = node.pinned_program("xdp_lb")?.display().to_string();
            tell(switch, "bpftool", &["net", "attach", "xdpdrv", "pinned", &program, "dev", &port])?;
        }
        Ok(())
    }

    /// Tells the stranger the ways to pods, who are masqueraded to it otherwise.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn tell_stranger_of_pods(&self) -> Result<()> {
        for node in &self.nodes {
            for (cidr, via) in node.pod_cidrs.iter().zip(&node.addresses) {
                self.stranger.ip(&format!("route add {cidr} via {via}"))?;
            }
        }
        Ok(())
    }

    /// What all nodes have denied last, at most so much of each.
    ///
    /// # Errors
    /// As [`Node::ask`].
    pub fn denials(&self, limit: usize) -> Result<Vec<DenialStatus>> {
        let each = self.nodes.iter().map(|node| node.denials(limit)).collect::<Result<Vec<_>>>()?;
        Ok(each.concat())
    }

    /// The directory of manifests.
    pub fn manifests(&self) -> PathBuf {
        Path::new(ROOT).join(&self.name).join("manifests")
    }

    /// Leaves the cluster running when this program ends; [`clean`] ends it.
    pub fn keep(mut self, pods: Vec<Pod>) {
        self.keep = true;
        for pod in pods {
            pod.keep();
        }
        for node in &mut self.nodes {
            node.keep();
        }
        for place in &mut self._places {
            place.keep();
        }
        self.stranger.keep();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for node in &mut self.nodes {
            node.stop_agent();
        }
        clean(&self.name);
    }
}

/// The addresses of number `host` on a segment, with the lengths of their subnets.
fn subnet(families: Families, segment: u8, host: u8) -> Vec<String> {
    let v4 = format!("192.0.{}.{host}/24", 2 + segment);
    let v6 = format!("2001:db8:{segment}::{host:x}/64");
    match families {
        Families::V4 => vec![v4],
        Families::V6 => vec![v6],
        Families::Dual => vec![v4, v6],
    }
}

/// An address without the length of its subnet.
fn plain(net: &str) -> &str {
    net.split('/').next().unwrap_or_default()
}

/// Plugs a place into a switch.
fn connect(switch: &Place, place: &Place, interface: &str, mtu: u32) -> Result<()> {
    let port = port(place, interface);
    switch.ip(&format!("link add {port} type veth peer name {interface} netns {}", place.name))?;
    switch.ip(&format!("link set {port} master br0 up"))?;
    place.ip(&format!("link set {interface} mtu {mtu} up"))
}

/// The name of the port that an interface of a place is plugged into.
fn port(place: &Place, interface: &str) -> String {
    let place = place.name.rsplit('-').next().unwrap_or("port");
    format!("{place}-{}", interface.chars().next().unwrap_or('x'))
}

/// Gives a place its addresses and its router.
fn equip(place: &Place, families: Families, segment: u8, host: u8) -> Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for (own, router) in subnet(families, segment, host).iter().zip(subnet(families, segment, 254)) {
        place.ip(&format!("addr add {own} dev eth0 nodad"))?;
        place.ip(&format!("route add default via {}", plain(&router)))?;
        addresses.push(plain(own).parse()?);
    }
    Ok(addresses)
}

/// Ends a cluster and removes all that it has left, whatever state it is in.
pub fn clean(name: &str) {
    let directory = Path::new(ROOT).join(name);
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let pid = fs::read_to_string(entry.path().join("pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(pid) = pid.filter(|pid| is_agent(*pid, &entry.path())) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let place = entry.file_name().to_string_lossy().into_owned();
        if place.starts_with(&format!("{name}-")) {
            let _ = Command::new("ip").args(["netns", "delete", &place]).status();
        }
    }
    group::clean(&groups(name));
    let _ = fs::remove_dir_all(node::bpf_dir(name));
    let _ = fs::remove_dir_all(&directory);
    // The last one takes the directory of all.
    let _ = fs::remove_dir(ROOT);
}

/// What the names of a lab's control groups begin with.
fn groups(lab: &str) -> String {
    format!("sluice-lab-{lab}-")
}

/// Whether a process is the agent of this directory, and not another that has its number by now.
fn is_agent(pid: i32, directory: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let directory = directory.as_os_str().as_encoded_bytes();
    line.windows(directory.len()).any(|window| window == directory)
}

/// Cleans up after test programs that were killed.
fn bury_the_dead() {
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid =
            name.strip_prefix('t').and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            clean(&name);
        }
    }
}
