//! The plan: all that this node must know of the others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{AddressEntry, AddressKind, Identity, Node, Routing, Slot};

use crate::{NodeObject, PodPlace, Slots};

/// How pods of other nodes are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// With their own addresses: directly, or by routes that the network has.
    Native,
    /// Through VXLAN.
    Vxlan,
    /// Natively where the other node is on a connected subnet, else through VXLAN.
    Auto,
}

/// This node.
#[derive(Clone, Debug)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// Its addresses in the cluster, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its pods.
    pub pod_cidrs: Vec<IpNet>,
    /// All addresses of its devices, the loopback included.
    pub host_addresses: Vec<IpAddr>,
    /// Of those, the ones at which node ports are served. Empty: all.
    pub node_ports: Vec<IpNet>,
    /// Addresses of Services, as far as they are known to be no others'.
    pub service_cidrs: Vec<IpNet>,
    /// Destinations outside the cluster that see pods with their own addresses.
    pub exempt: Vec<IpNet>,
}

/// How this node reaches another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Underlay {
    /// It is this node.
    Local,
    /// Natively.
    Native,
    /// Through the overlay, to this address.
    Overlay(IpAddr),
}

/// A node, as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// What the cluster says of it.
    pub object: NodeObject,
    /// How it is reached.
    pub underlay: Underlay,
}

/// A route that the host itself needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Destinations.
    pub to: IpNet,
    /// How they are reached.
    pub way: Way,
}

/// How the host reaches pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By way of their node, which is on a connected subnet.
    Via(IpAddr),
    /// Through the overlay, to their node.
    Overlay(IpAddr),
    /// Not at all: what is in a pool and no pod has.
    Unreachable,
}

/// All that this node must know of the others.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Who has which addresses, but for the pods of this node.
    pub addresses: BTreeMap<IpNet, AddressEntry>,
    /// The other nodes, by slot.
    pub nodes: BTreeMap<u32, Node>,
    /// The host's own routes.
    pub routes: Vec<HostRoute>,
    /// All nodes, this one among them.
    pub view: Vec<NodeView>,
    /// What cannot be done, and what to do about it.
    pub problems: Vec<String>,
}

/// Makes the plan. Of `pods`, those matter that have addresses outside their node's pod CIDRs. `connected` says whether
/// an address is on a subnet of one of this node's devices.
pub fn plan<'a>(
    local: &Local,
    nodes: &BTreeMap<String, NodeObject>,
    pods: impl IntoIterator<Item = PodPlace<'a>>,
    mode: Mode,
    connected: impl Fn(IpAddr) -> bool,
    slots: &mut Slots,
) -> Plan {
    let mut plan = Plan::default();
    let entry = |kind, slot| AddressEntry { kind, slot: Slot(slot), identity: Identity::ANYONE };
    for net in &local.exempt {
        plan.addresses.insert(*net, entry(AddressKind::Unmasqueraded, 0));
    }
    for net in &local.service_cidrs {
        plan.addresses.insert(*net, entry(AddressKind::Services, 0));
    }
    for net in &local.pod_cidrs {
        plan.addresses.insert(*net, entry(AddressKind::LocalPods, 0));
        plan.routes.push(HostRoute { to: *net, way: Way::Unreachable });
    }
    let hosts = Hosts::of(local, nodes);
    let claims = settle(local, nodes, &hosts, &mut plan.problems);
    let mut reached: BTreeMap<&str, (u32, Underlay)> = BTreeMap::new();
    slots.retain(|name| nodes.contains_key(name) && name != local.name);
    for object in nodes.values() {
        if object.name == local.name {
            plan.view.push(NodeView { object: object.clone(), underlay: Underlay::Local });
            continue;
        }
        let Some(underlay) = underlay(local, object, mode, &connected) else {
            plan.problems.push(format!(
                "Node {} has no address of a family that this node has: it and its pods cannot be reached",
                object.name
            ));
            continue;
        };
        let node = node(object, underlay);
        let Some(slot) = slots.of(&object.name, &node) else {
            plan.problems.push(format!("Node {} is one too many: it and its pods cannot be reached", object.name));
            continue;
        };
        plan.nodes.insert(slot, node);
        reached.insert(object.name.as_str(), (slot, underlay));
        for address in &object.addresses {
            plan.addresses.insert(IpNet::from(*address), entry(AddressKind::Node, slot));
        }
        for net in claims.get(object.name.as_str()).into_iter().flatten() {
            plan.addresses.insert(*net, entry(AddressKind::RemotePods, slot));
            route(&mut plan, object, underlay, *net, &connected);
        }
        plan.view.push(NodeView { object: object.clone(), underlay });
    }
    slots.settle();
    for pod in pods {
        let (Some(object), Some((slot, underlay))) = (nodes.get(pod.node), reached.get(pod.node)) else {
            continue;
        };
        for address in object.strays(pod.addresses) {
            // An address in another node's pool is not to be taken from it by saying so.
            let pools = claims.values().flatten().chain(&local.pod_cidrs);
            if pools.into_iter().any(|net| net.contains(&address)) {
                plan.problems.push(format!(
                    "a pod of node {} has the address {address}, which is in another node's pod CIDR; it is ignored",
                    pod.node
                ));
                continue;
            }
            if let Some(owner) = hosts.owner(address) {
                plan.problems.push(format!(
                    "a pod of node {} has the address {address}, which is one of {owner}; it is ignored",
                    pod.node
                ));
                continue;
            }
            let net = IpNet::from(address);
            if plan.addresses.contains_key(&net) {
                plan.problems.push(format!(
                    "a pod of node {} has the address {address}, which another pod has too; it is ignored",
                    pod.node
                ));
                continue;
            }
            plan.addresses.insert(net, entry(AddressKind::RemotePods, *slot));
            route(&mut plan, object, *underlay, net, &connected);
        }
    }
    // Last: an address of this very machine is its own, whatever the cluster says.
    for address in local.host_addresses.iter().chain(&local.addresses) {
        let serves = serves_node_ports(&local.node_ports, *address);
        plan.addresses.insert(IpNet::from(*address), entry(AddressKind::Host, serves.into()));
    }
    plan
}

/// Whether node ports are served at an address of the node, by the nets that are named for it: at all of a family of which no
/// net is named, as kube-proxy does (`--nodeport-addresses`).
pub fn serves_node_ports(nets: &[IpNet], address: IpAddr) -> bool {
    let mut of_family = nets.iter().filter(|net| net.addr().is_ipv4() == address.is_ipv4()).peekable();
    of_family.peek().is_none() || of_family.any(|net| net.contains(&address))
}

/// Has the host reach pods of another node by way of it.
fn route(plan: &mut Plan, node: &NodeObject, underlay: Underlay, to: IpNet, connected: impl Fn(IpAddr) -> bool) {
    let same = node.addresses.iter().find(|address| address.is_ipv4() == to.addr().is_ipv4());
    match (underlay, same) {
        (Underlay::Local, _) => {}
        (Underlay::Overlay(remote), _) => plan.routes.push(HostRoute { to, way: Way::Overlay(remote) }),
        (Underlay::Native, Some(via)) if connected(*via) => plan.routes.push(HostRoute { to, way: Way::Via(*via) }),
        // The network has routes: that is what native routing to a node that is not connected means.
        (Underlay::Native, Some(_)) => {}
        (Underlay::Native, None) => plan.problems.push(format!(
            "Node {} has pods in {to} but no address of that family: they are reached only by the network's routes",
            node.name
        )),
    }
}

/// Whose an address is that is no pod's.
struct Hosts<'a>(BTreeMap<IpAddr, &'a str>);

impl<'a> Hosts<'a> {
    fn of(local: &'a Local, nodes: &'a BTreeMap<String, NodeObject>) -> Self {
        let theirs = nodes.values().flat_map(|node| node.addresses.iter().map(|address| (*address, &*node.name)));
        let ours = local.host_addresses.iter().chain(&local.addresses).map(|address| (*address, &*local.name));
        Self(theirs.chain(ours).collect())
    }

    /// The node that has an address.
    fn owner(&self, address: IpAddr) -> Option<&'a str> {
        self.0.get(&address).copied()
    }

    /// A node with an address in these.
    fn within(&self, net: &IpNet) -> Option<(IpAddr, &'a str)> {
        self.0.range(net.network()..=net.broadcast()).next().map(|(address, node)| (*address, *node))
    }
}

/// Pod CIDRs that nodes have.
struct Pools<'a> {
    /// Those of this node,
    own: (&'a [IpNet], &'a str),
    /// and of others, of which no two overlap, by their first addresses.
    others: BTreeMap<IpAddr, (IpNet, &'a str)>,
}

impl<'a> Pools<'a> {
    /// One that has addresses in common with these, and whose it is.
    fn overlapping(&self, net: &IpNet) -> Option<(IpNet, &'a str)> {
        let overlaps = |other: &IpNet| other.contains(net) || net.contains(other);
        let own = self.own.0.iter().find(|own| overlaps(own)).map(|own| (*own, self.own.1));
        // Of those that begin before its end, only the last can reach into it.
        let before = || self.others.range(..=net.broadcast()).next_back().map(|(_, other)| *other);
        own.or_else(|| before().filter(|(other, _)| overlaps(other)))
    }
}

/// Which node has which pod CIDRs: of two that overlap, the one of this node, else of the older node.
fn settle<'a>(
    local: &Local,
    nodes: &'a BTreeMap<String, NodeObject>,
    hosts: &Hosts<'_>,
    problems: &mut Vec<String>,
) -> BTreeMap<&'a str, Vec<IpNet>> {
    let mut taken = Pools { own: (&local.pod_cidrs, &local.name), others: BTreeMap::new() };
    let mut order: Vec<&NodeObject> = nodes.values().filter(|node| node.name != local.name).collect();
    order.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    let mut claims: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
    for node in order {
        for net in &node.pod_cidrs {
            // A route to it would take the nodes' own network away.
            if let Some((address, owner)) = hosts.within(net) {
                problems.push(format!(
                    "the pod CIDR {net} of node {} contains {address}, an address of node {owner} itself; it is ignored until it is changed",
                    node.name
                ));
                continue;
            }
            match taken.overlapping(net) {
                Some((other, owner)) => problems.push(format!(
                    "the pod CIDR {net} of node {} overlaps {other} of node {owner}; it is ignored until one of them is changed",
                    node.name
                )),
                None => {
                    taken.others.insert(net.network(), (*net, &node.name));
                    claims.entry(&node.name).or_default().push(*net);
                }
            }
        }
    }
    claims
}

fn underlay(local: &Local, node: &NodeObject, mode: Mode, connected: impl Fn(IpAddr) -> bool) -> Option<Underlay> {
    // VXLAN over IPv4 where both have it.
    let mut shared: Vec<IpAddr> = node
        .addresses
        .iter()
        .filter(|address| local.addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4()))
        .copied()
        .collect();
    shared.sort();
    let remote = *shared.first()?;
    Some(match mode {
        Mode::Native => Underlay::Native,
        Mode::Vxlan => Underlay::Overlay(remote),
        Mode::Auto if shared.iter().all(|address| connected(*address)) => Underlay::Native,
        Mode::Auto => Underlay::Overlay(remote),
    })
}

fn node(object: &NodeObject, underlay: Underlay) -> Node {
    let mut node = Node {
        routing: match underlay {
            Underlay::Local | Underlay::Native => Routing::Native,
            Underlay::Overlay(IpAddr::V4(_)) => Routing::Overlay4,
            Underlay::Overlay(IpAddr::V6(_)) => Routing::Overlay6,
        },
        ..Node::default()
    };
    for address in &object.addresses {
        match address {
            IpAddr::V4(address) => node.ipv4 = (*address).into(),
            IpAddr::V6(address) => node.ipv6 = (*address).into(),
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_abi::MAX_NODES;

    fn object(name: &str, addresses: &[&str], pods: &[&str], created: i64) -> NodeObject {
        NodeObject {
            name: name.into(),
            uid: String::new(),
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            pod_cidrs: pods.iter().map(|text| text.parse().expect("a CIDR")).collect(),
            created,
            is_leaving: false,
        }
    }

    fn local() -> Local {
        Local {
            name: "a".into(),
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            pod_cidrs: vec!["10.1.0.0/24".parse().expect("a CIDR")],
            host_addresses: vec!["172.16.0.1".parse().expect("an address")],
            node_ports: Vec::new(),
            service_cidrs: vec!["10.96.0.0/12".parse().expect("a CIDR")],
            exempt: vec!["203.0.113.0/24".parse().expect("a CIDR")],
        }
    }

    fn nodes(objects: &[NodeObject]) -> BTreeMap<String, NodeObject> {
        objects.iter().map(|object| (object.name.clone(), object.clone())).collect()
    }

    fn kind(plan: &Plan, net: &str) -> Option<AddressKind> {
        plan.addresses.get(&net.parse::<IpNet>().expect("a CIDR")).map(|entry| entry.kind)
    }

    #[test]
    fn node_ports_are_where_their_family_says() {
        let serves = |nets: &str, address: &str| {
            let nets: Vec<IpNet> = nets.split_whitespace().map(|net| net.parse().expect("a network")).collect();
            serves_node_ports(&nets, address.parse().expect("an address"))
        };
        assert!(serves("", "192.0.2.1") && serves("", "::1"));
        assert!(serves("192.0.2.0/24", "192.0.2.1") && !serves("192.0.2.0/24", "127.0.0.1"));
        assert!(serves("192.0.2.0/24", "2001:db8::1"), "nothing is said of its family");
        assert!(serves("2001:db8::/64 127.0.0.0/8", "127.0.0.1") && !serves("2001:db8::/64 127.0.0.0/8", "::1"));
    }

    #[test]
    fn neighbours_are_native_and_strangers_tunnelled() {
        let nodes = nodes(&[
            object("a", &["192.0.2.1"], &["10.1.0.0/24"], 1),
            object("b", &["192.0.2.2"], &["10.2.0.0/24"], 2),
            object("c", &["198.51.100.3"], &["10.3.0.0/24"], 3),
        ]);
        let near = |address: IpAddr| address.to_string().starts_with("192.0.2.");
        let plan = plan(&local(), &nodes, [], Mode::Auto, near, &mut Slots::default());
        assert_eq!(plan.problems, [""; 0]);
        assert_eq!(plan.nodes[&1].routing, Routing::Native);
        assert_eq!(plan.nodes[&2].routing, Routing::Overlay4);
        assert_eq!(kind(&plan, "10.1.0.0/24"), Some(AddressKind::LocalPods));
        assert_eq!(kind(&plan, "10.3.0.0/24"), Some(AddressKind::RemotePods));
        assert_eq!(kind(&plan, "172.16.0.1/32"), Some(AddressKind::Host));
        assert_eq!(kind(&plan, "203.0.113.0/24"), Some(AddressKind::Unmasqueraded));
        assert_eq!(kind(&plan, "10.96.0.0/12"), Some(AddressKind::Services));
        let route = |to: &str| plan.routes.iter().find(|route| route.to.to_string() == to).map(|route| route.way);
        assert_eq!(route("10.2.0.0/24"), Some(Way::Via("192.0.2.2".parse().expect("an address"))));
        assert_eq!(route("10.3.0.0/24"), Some(Way::Overlay("198.51.100.3".parse().expect("an address"))));
        assert_eq!(route("10.1.0.0/24"), Some(Way::Unreachable));
    }

    #[test]
    fn of_two_overlapping_pools_the_older_counts() {
        let nodes = nodes(&[
            object("b", &["192.0.2.2"], &["10.2.0.0/24"], 9),
            object("c", &["192.0.2.3"], &["10.2.0.0/16"], 3),
            object("d", &["192.0.2.4"], &["10.1.0.128/25"], 1),
        ]);
        let plan = plan(&local(), &nodes, [], Mode::Native, |_| true, &mut Slots::default());
        assert_eq!(kind(&plan, "10.2.0.0/16"), Some(AddressKind::RemotePods));
        assert_eq!(kind(&plan, "10.2.0.0/24"), None);
        assert_eq!(kind(&plan, "10.1.0.128/25"), None);
        assert_eq!(plan.problems.len(), 2);
        assert!(plan.problems.iter().any(|problem| problem.contains("node b") && problem.contains("node c")));
    }

    #[test]
    fn pods_outside_their_nodes_pools_are_found_and_take_nobody_elses_address() {
        let nodes = nodes(&[
            object("b", &["198.51.100.2"], &["10.2.0.0/24"], 1),
            object("c", &["198.51.100.3"], &["10.3.0.0/24"], 2),
        ]);
        let addresses = ["10.2.0.7", "10.77.0.1", "10.3.0.9", "10.1.0.9", "198.51.100.3"];
        let addresses = addresses.map(|address| [address.parse().expect("an address")]);
        let pods = addresses.iter().map(|addresses| PodPlace { node: "b", addresses });
        let plan = plan(&local(), &nodes, pods, Mode::Vxlan, |_| true, &mut Slots::default());
        assert_eq!(plan.addresses[&"10.77.0.1/32".parse().expect("a CIDR")].slot, Slot(1));
        assert!(plan.routes.iter().any(|route| route.to.to_string() == "10.77.0.1/32"));
        assert_eq!(kind(&plan, "10.2.0.7/32"), None, "its pool says the same");
        assert_eq!(kind(&plan, "198.51.100.3/32"), Some(AddressKind::Node));
        assert_eq!(kind(&plan, "10.3.0.9/32"), None);
        assert!(!plan.routes.iter().any(|route| route.to.to_string() == "198.51.100.3/32"), "it is a node's own");
        assert_eq!(plan.problems.len(), 3, "{:?}", plan.problems);
    }

    #[test]
    fn pods_outside_their_nodes_pools_are_reached_as_their_node_is() {
        let nodes = nodes(&[object("b", &["192.0.2.2"], &["10.2.0.0/24"], 1)]);
        let addresses = ["10.77.0.1", "fd00::1"].map(|address| address.parse().expect("an address"));
        let pods = [PodPlace { node: "b", addresses: &addresses }];
        let stray: IpNet = "10.77.0.1/32".parse().expect("a CIDR");
        let way = |mode, near: bool| {
            let plan = plan(&local(), &nodes, pods, mode, |_| near, &mut Slots::default());
            assert_eq!(plan.addresses[&stray].kind, AddressKind::RemotePods);
            (plan.routes.iter().find(|route| route.to == stray).map(|route| route.way), plan.problems.len())
        };
        let b: IpAddr = "192.0.2.2".parse().expect("an address");
        assert_eq!(way(Mode::Native, true), (Some(Way::Via(b)), 1), "of IPv6 it has no address");
        assert_eq!(way(Mode::Auto, true), (Some(Way::Via(b)), 1));
        assert_eq!(way(Mode::Auto, false), (Some(Way::Overlay(b)), 0));
        assert_eq!(way(Mode::Native, false), (None, 1), "the network has routes");
    }

    #[test]
    fn pools_that_contain_nodes_are_refused() {
        let nodes = nodes(&[
            object("b", &["192.0.2.2"], &["192.0.2.0/24", "10.2.0.0/24"], 1),
            object("c", &["192.0.2.3"], &["172.16.0.0/16", "0.0.0.0/0"], 2),
        ]);
        let plan = plan(&local(), &nodes, [], Mode::Auto, |_| true, &mut Slots::default());
        let routes: Vec<String> = plan.routes.iter().map(|route| route.to.to_string()).collect();
        assert_eq!(routes, ["10.1.0.0/24", "10.2.0.0/24"]);
        assert_eq!(plan.problems.len(), 3, "{:?}", plan.problems);
        assert!(plan.problems[0].contains("192.0.2.0/24 of node b contains 192.0.2.1"), "{}", plan.problems[0]);
    }

    #[test]
    fn slots_stay_over_changes_and_restarts() {
        let b = object("b", &["192.0.2.2"], &[], 1);
        let c = object("c", &["192.0.2.3"], &[], 1);
        let mut slots = Slots::default();
        let first = plan(&local(), &nodes(&[b.clone(), c.clone()]), [], Mode::Native, |_| true, &mut slots);
        let second = plan(&local(), &nodes(std::slice::from_ref(&c)), [], Mode::Native, |_| true, &mut slots);
        assert_eq!(second.nodes[&2], first.nodes[&2]);
        let mut restarted = Slots::seeded(second.nodes.clone());
        let third = plan(&local(), &nodes(&[b, c]), [], Mode::Native, |_| true, &mut restarted);
        assert_eq!(third.nodes[&2], first.nodes[&2]);
        let gone: BTreeMap<u32, Node> = (1..MAX_NODES).map(|slot| (slot, second.nodes[&2])).collect();
        let mut full = Slots::seeded(gone);
        let d = object("d", &["192.0.2.4"], &[], 1);
        plan(&local(), &BTreeMap::new(), [], Mode::Native, |_| true, &mut full);
        let fourth = plan(&local(), &nodes(&[d]), [], Mode::Native, |_| true, &mut full);
        assert_eq!(fourth.problems, [""; 0], "what is gone takes no slots for ever");
    }
}
