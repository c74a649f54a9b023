//! Pod CIDRs out of a pool: Leases, one for each block that is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client, ResourceExt};
use sluice_policy::object::NodeObject as PolicyNode;
use sluice_policy::{Kind, ObjectName};
use sluice_topology::{Claim, Claims, Lack, NodeObject, Pool, kept_from_pool};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Watched;
use super::access::{Target, Trouble};
use super::known::{Tiding, Told};
use super::lean::Lean;
use crate::source::{Change, Object};

/// Where the Leases are, whatever the namespace of an agent's account: two agents that looked at different places would take
/// the same blocks.
pub const NAMESPACE: &str = "kube-system";
/// The label of those that are meant.
const LABEL: &str = "sluice.dev/pod-cidr";
/// What their names begin with; the block follows.
const PREFIX: &str = "sluice-pod-cidr-";
/// Until the watch must have told of a Lease that is there.
pub const SEEN: Duration = Duration::from_secs(10);

/// A pool, and who takes blocks of it.
pub struct Claimant {
    /// The pool.
    pub pool: Pool,
    /// The name of this node.
    pub node: String,
    /// Addresses that its pods have.
    pub in_use: Vec<IpAddr>,
    /// Whether it is to have blocks.
    pub takes: bool,
}

/// What is heard of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// It is taken.
    Taken(Claim),
    /// It is free again.
    Freed(IpNet),
    /// It is taken by a Lease that the watch does not tell of.
    Strange(IpNet),
}

/// Where they are.
pub fn api(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// What this node is to take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    uid: String,
    blocks: Vec<IpNet>,
}

/// Which nodes have which blocks.
pub struct Blocks {
    claimant: Claimant,
    claims: Claims,
    strange: BTreeSet<IpNet>,
    /// By name and UID.
    by_node: BTreeMap<(String, String), Vec<IpNet>>,
    /// Nodes, as the server has them, with the pod CIDRs that were told of.
    nodes: BTreeMap<String, Known>,
    /// Those that are to be told of,
    fresh: BTreeSet<String>,
    /// or whether all are to be looked at.
    is_stirred: bool,
    /// What this node has had,
    had: Vec<IpNet>,
    /// and what it lacks; `None`: that was not looked at yet.
    lack: Option<Lack>,
    /// Whether it is to have all or none: its first pods are to have addresses of all families.
    is_new: bool,
    orders: watch::Sender<Order>,
}

struct Known {
    object: PolicyNode,
    ways: NodeObject,
    told: Option<Vec<IpNet>>,
}

impl Blocks {
    /// None are known yet. With what is to be taken.
    pub fn new(claimant: Claimant) -> (Self, watch::Receiver<Order>) {
        let (orders, ordered) = watch::channel(Order::default());
        let had = claimant.pool.blocks_of(&claimant.in_use);
        let (claims, strange, by_node, nodes, fresh) = Default::default();
        let this = Self {
            claimant,
            claims,
            strange,
            by_node,
            nodes,
            fresh,
            is_stirred: false,
            had,
            lack: None,
            is_new: false,
            orders,
        };
        (this, ordered)
    }

    /// A change of objects; those of nodes are kept back until it is known which blocks they have.
    pub fn pass(&mut self, change: Change) -> Option<Change> {
        match change {
            Change::Is(Object::Node(object, ways)) => {
                self.fresh.insert(ways.name.clone());
                self.nodes.insert(ways.name.clone(), Known { object, ways, told: None });
                None
            }
            Change::Gone(ObjectName { kind: Kind::Node, ref name, .. }, _) => {
                self.nodes.remove(name);
                Some(change)
            }
            other => Some(other),
        }
    }

    /// A block has changed.
    pub fn change(&mut self, change: BlockChange) {
        match change {
            BlockChange::Taken(claim) => {
                self.strange.remove(&claim.block);
                self.claims.insert(claim);
            }
            BlockChange::Freed(block) => self.claims.remove(block),
            BlockChange::Strange(block) => drop(self.strange.insert(block)),
        }
        self.is_stirred = true;
    }

    /// What there is to tell of nodes, and whether there are blocks for this one. Not before all is listed: what another has
    /// taken would be taken for free.
    pub fn settle(&mut self) -> (Vec<Change>, Result<(), Trouble>) {
        if self.is_stirred {
            self.by_node = self.claims.by_node();
            self.fresh = self.nodes.keys().cloned().collect();
        }
        self.order();
        let is_held_back = self.is_new && self.lack.as_ref().is_some_and(|lack| !lack.blocks.is_empty());
        let mut changes = Vec::new();
        for name in std::mem::take(&mut self.fresh) {
            let Some(known) = self.nodes.get_mut(&name) else { continue };
            let blocks = self.by_node.get(&(name.clone(), known.ways.uid.clone())).cloned().unwrap_or_default();
            let has = match known.ways.pod_cidrs.is_empty() {
                // What the cluster has given counts alone.
                false => known.ways.pod_cidrs.clone(),
                true if is_held_back && name == self.claimant.node => Vec::new(),
                true => blocks,
            };
            if known.told.as_ref() != Some(&has) {
                let ways = NodeObject { pod_cidrs: has.clone(), ..known.ways.clone() };
                changes.push(Change::Is(Object::Node(known.object.clone(), ways)));
                known.told = Some(has);
            }
        }
        self.is_stirred = false;
        (changes, self.exhaustion())
    }

    /// Has what this node lacks be taken.
    fn order(&mut self) {
        if !self.claimant.takes {
            return;
        }
        // Nodes tell of themselves all the time: most are not asked about.
        let is_content = self.lack.as_ref().is_some_and(|lack| *lack == Lack::default());
        if is_content && !self.is_stirred && !self.fresh.contains(&self.claimant.node) {
            return;
        }
        let own = self.nodes.get(&self.claimant.node).filter(|own| own.ways.pod_cidrs.is_empty());
        let Some(own) = own else {
            self.lack = None;
            return self.put(Order::default());
        };
        let uid = own.ways.uid.clone();
        let has = self.by_node.get(&(self.claimant.node.clone(), uid.clone())).cloned().unwrap_or_default();
        // Somebody may have removed the Lease of a block that pods here have addresses in.
        self.had.retain(|block| !has.contains(block));
        self.had.splice(0..0, has.iter().copied());
        let mut others = kept_from_pool(self.nodes.values().map(|known| &known.ways));
        others.extend(&self.strange);
        let Claimant { pool, node, .. } = &self.claimant;
        let lack = pool.lack(node, &has, &self.had, &self.claims, others);
        // Who has had one before goes on with it, whatever else there is to come.
        let is_known = self.orders.borrow().uid == uid;
        let was_new = if is_known { self.is_new } else { has.is_empty() };
        self.is_new = was_new && !lack.blocks.is_empty();
        self.put(Order { uid, blocks: lack.blocks.clone() });
        self.lack = Some(lack);
    }

    fn put(&self, order: Order) {
        self.orders.send_if_modified(|now| {
            let is_other = *now != order;
            *now = order;
            is_other
        });
    }

    fn exhaustion(&self) -> Result<(), Trouble> {
        let family = |v4: &bool| if *v4 { "IPv4" } else { "IPv6" };
        let families: Vec<&str> = self.lack.iter().flat_map(|lack| &lack.exhausted).map(family).collect();
        if families.is_empty() {
            return Ok(());
        }
        Err(Trouble::Amiss(format!(
            "pod_cidr_pool has no free block of {} for this node: add a range to it on all nodes, or remove Nodes that are gone; their \
             Leases ({PREFIX}* in the namespace {NAMESPACE}) go with them",
            families.join(" and ")
        )))
    }
}

/// Takes what is to be taken, until nobody orders any more. What has become of it, the watch tells: a block is the node's once
/// that has told of its Lease, and so of all that were made before. It has so much time for that.
pub async fn take(
    api: Api<Lease>,
    node: String,
    mut orders: watch::Receiver<Order>,
    seen: Duration,
    tell: UnboundedSender<(Target, Told)>,
) {
    let mut pause = DefaultBackoff::default();
    // Those that were there at the last attempt.
    let mut there: BTreeSet<IpNet> = BTreeSet::new();
    loop {
        let Order { uid, blocks } = orders.borrow_and_update().clone();
        let (mut found, mut access) = (BTreeSet::new(), Ok(()));
        for block in &blocks {
            match api.create(&PostParams::default(), &lease(*block, &node, &uid)).await {
                Ok(_) => tracing::info!(%block, "taken for pods of this node"),
                // Somebody else was first; or it is this node's, and the answer was lost.
                Err(kube::Error::Api(status)) if status.code == 409 => drop(found.insert(*block)),
                Err(error) => access = Err(trouble(*block, &error)),
            }
        }
        let mut strange = Vec::new();
        for block in found.intersection(&there) {
            match is_strange(&api, *block).await {
                Ok(true) => strange.push(Tiding::Block(BlockChange::Strange(*block))),
                Ok(false) => {}
                Err(error) => access = Err(trouble(*block, &error)),
            }
        }
        let is_failed = access.is_err();
        let told = Told { changes: strange, ..Told::access(access) };
        if tell.unbounded_send(("pod_cidr_pool: take".into(), told)).is_err() {
            return;
        }
        let wait = if is_failed { pause.next().unwrap_or_default() } else { seen };
        let changed =
            if blocks.is_empty() { Ok(orders.changed().await) } else { timeout(wait, orders.changed()).await };
        match changed {
            Ok(Ok(())) => {
                there.clear();
                pause = DefaultBackoff::default();
            }
            Ok(Err(_)) => return,
            Err(_) => there = found,
        }
    }
}

/// Whether a block is taken by a Lease that the watch does not tell of. Of others it does, however late it is: one may be this
/// node's own.
async fn is_strange(api: &Api<Lease>, block: IpNet) -> kube::Result<bool> {
    let name = name(block);
    let list = api.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await?;
    Ok(list.iter().any(|lease| lease.name_any() == name && !lease.labels().contains_key(LABEL)))
}

fn trouble(block: IpNet, error: &kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) if status.is_forbidden() => Trouble::Refused(format!(
            "the API server does not let this agent take the block {block} of pod_cidr_pool ({}): give its account the verb create on \
             leases of the API group \"coordination.k8s.io\" in the namespace {NAMESPACE}, as manifests/overlays/pool/rbac.yaml does; it tries again",
            status.message
        )),
        _ => Trouble::Away(error.into()),
    }
}

/// The Lease that says that a node has a block. It goes with the Node object, by its UID.
fn lease(block: IpNet, node: &str, uid: &str) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(name(block)),
            namespace: Some(NAMESPACE.into()),
            labels: Some([(LABEL.into(), "taken".into())].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec { holder_identity: Some(node.into()), ..LeaseSpec::default() }),
    }
}

impl Watched for Lease {
    const LABELS: &str = LABEL;

    fn api(client: &Client) -> Api<Lean<Self>> {
        Api::namespaced(client.clone(), NAMESPACE)
    }

    fn is(&self) -> Option<Tiding> {
        let node = self.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let owner = self.owner_references().iter().find(|owner| owner.kind == "Node" && owner.name == node);
        Some(Tiding::Block(BlockChange::Taken(Claim {
            block: block(&self.name_any())?,
            uid: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            node,
            version: self.resource_version().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX),
        })))
    }

    fn gone(_namespace: &str, name: &str, _uid: String) -> Option<Tiding> {
        block(name).map(|block| Tiding::Block(BlockChange::Freed(block)))
    }
}

/// Each block has one name.
fn name(block: IpNet) -> String {
    let length = block.prefix_len();
    match block.network() {
        IpAddr::V4(address) => format!("{PREFIX}{address}-{length}"),
        IpAddr::V6(address) => {
            let groups = address.segments().map(|group| format!("{group:x}"));
            format!("{PREFIX}{}-{length}", groups.join("-"))
        }
    }
}

/// The block that a Lease is of, by its name.
fn block(name: &str) -> Option<IpNet> {
    let (address, length) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
    let address = match address.parse() {
        Ok(address) => IpAddr::V4(address),
        Err(_) => IpAddr::V6(address.replace('-', ":").parse::<Ipv6Addr>().ok()?),
    };
    IpNet::new(address, length.parse().ok()?).ok().filter(|net| *net == net.trunc())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;
    use sluice_topology::Range;

    use super::*;

    /// This is node a, which may have one of two blocks of IPv4 and one of IPv6.
    fn blocks(ranges: &[(&str, u8)], in_use: &[&str]) -> (Blocks, watch::Receiver<Order>) {
        let range = |(cidr, block): &(&str, u8)| Range { cidr: cidr.parse().expect("a CIDR"), block: *block };
        Blocks::new(Claimant {
            pool: Pool(ranges.iter().map(range).collect()),
            node: "a".into(),
            in_use: in_use.iter().map(|text| text.parse().expect("an address")).collect(),
            takes: true,
        })
    }

    fn node(name: &str, uid: &str, pod_cidrs: &[&str]) -> Change {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "uid": uid },
            "spec": { "podCIDRs": pod_cidrs },
        }))
        .expect("a Node");
        Change::Is(Object::try_from(&node).expect("makes sense"))
    }

    fn taken(block: &str, node: &str, uid: &str, version: u64) -> BlockChange {
        let mut lease = lease(block.parse().expect("a CIDR"), node, uid);
        lease.metadata.resource_version = Some(version.to_string());
        match lease.is() {
            Some(Tiding::Block(change)) => change,
            other => panic!("{other:?}"),
        }
    }

    /// What is told of nodes.
    fn told(blocks: &mut Blocks) -> Vec<String> {
        let told = blocks.settle().0;
        told.iter()
            .map(|change| match change {
                Change::Is(Object::Node(_, ways)) => {
                    let cidrs: Vec<String> = ways.pod_cidrs.iter().map(ToString::to_string).collect();
                    format!("{}: {}", ways.name, cidrs.join(" "))
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn ordered(orders: &watch::Receiver<Order>) -> Vec<String> {
        orders.borrow().blocks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_has_the_blocks_that_are_its_own_by_its_uid_and_what_the_cluster_gives_counts_alone() {
        let (mut blocks, orders) = blocks(&[("10.78.0.0/23", 24)], &[]);
        blocks.change(taken("10.78.0.0/24", "b", "ub", 1));
        for node in [node("a", "ua", &[]), node("b", "ub", &[])] {
            assert_eq!(blocks.pass(node), None, "it is told of once it is known what it has");
        }
        assert_eq!(told(&mut blocks), ["a: ", "b: 10.78.0.0/24"]);
        assert_eq!(ordered(&orders), ["10.78.1.0/24"]);
        blocks.change(taken("10.78.1.0/24", "a", "ua", 2));
        assert_eq!(told(&mut blocks), ["a: 10.78.1.0/24"]);
        assert_eq!(ordered(&orders), [""; 0]);
        blocks.pass(node("b", "another", &[]));
        assert_eq!(told(&mut blocks), ["b: "], "made anew, it has taken none yet");
        blocks.pass(node("b", "ub", &["10.1.0.0/24"]));
        blocks.pass(node("a", "ua", &["10.1.1.0/24"]));
        assert_eq!(told(&mut blocks), ["a: 10.1.1.0/24", "b: 10.1.0.0/24"]);
        blocks.change(BlockChange::Freed("10.78.1.0/24".parse().expect("a CIDR")));
        assert_eq!((told(&mut blocks), ordered(&orders)), (Vec::new(), Vec::new()), "it needs none");
    }

    #[test]
    fn a_nodes_first_pods_have_addresses_of_all_families_unless_there_are_none() {
        let ranges = [("10.78.0.0/24", 24), ("fd00:78::/64", 64)];
        let (mut blocks, orders) = blocks(&ranges, &[]);
        blocks.pass(node("a", "ua", &[]));
        assert_eq!(told(&mut blocks), ["a: "]);
        assert_eq!(ordered(&orders), ["10.78.0.0/24", "fd00:78::/64"]);
        blocks.change(taken("10.78.0.0/24", "a", "ua", 1));
        assert_eq!(told(&mut blocks), [""; 0], "one is missing");
        blocks.change(taken("fd00:78::/64", "b", "ub", 2));
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24"]);
        let (_, access) = blocks.settle();
        assert!(matches!(access, Err(Trouble::Amiss(why)) if why.contains("no free block of IPv6 for this node")));
        blocks.change(BlockChange::Freed("fd00:78::/64".parse().expect("a CIDR")));
        assert_eq!((told(&mut blocks), ordered(&orders)), (Vec::new(), vec!["fd00:78::/64".to_owned()]));
        assert_eq!(blocks.settle().1, Ok(()));
        blocks.change(taken("fd00:78::/64", "a", "ua", 3));
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24 fd00:78::/64"]);
        for block in ["10.78.0.0/24", "fd00:78::/64"] {
            blocks.change(BlockChange::Freed(block.parse().expect("a CIDR")));
        }
        blocks.pass(node("a", "another", &[]));
        blocks.change(taken("10.78.0.0/24", "a", "another", 4));
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24"], "who comes with one goes on with it");
        blocks.pass(node("a", "a third", &[]));
        blocks.change(BlockChange::Freed("10.78.0.0/24".parse().expect("a CIDR")));
        told(&mut blocks);
        blocks.change(taken("10.78.0.0/24", "a", "a third", 5));
        assert_eq!(told(&mut blocks), [""; 0], "made anew, it is new");
    }

    #[test]
    fn a_block_that_pods_have_addresses_in_is_taken_again() {
        let (mut blocks, orders) = blocks(&[("10.78.0.0/16", 24)], &["10.78.77.3"]);
        blocks.pass(node("a", "ua", &[]));
        assert_eq!((told(&mut blocks), ordered(&orders)), (vec!["a: ".to_owned()], vec!["10.78.77.0/24".to_owned()]));
        blocks.change(taken("10.78.5.0/24", "a", "ua", 1));
        assert_eq!((told(&mut blocks).len(), ordered(&orders).len()), (1, 0), "it has another");
        blocks.change(BlockChange::Freed("10.78.5.0/24".parse().expect("a CIDR")));
        assert_eq!((told(&mut blocks), ordered(&orders)), (vec!["a: ".to_owned()], vec!["10.78.5.0/24".to_owned()]));
        blocks.change(BlockChange::Strange("10.78.5.0/24".parse().expect("a CIDR")));
        told(&mut blocks);
        assert_eq!(ordered(&orders), ["10.78.77.0/24"]);
        blocks.change(taken("10.78.77.0/25", "b", "ub", 2));
        told(&mut blocks);
        assert!(ordered(&orders).len() == 1 && ordered(&orders)[0] != "10.78.77.0/24", "it overlaps {orders:?}");
    }

    #[test]
    fn each_block_has_one_name() {
        for text in ["10.78.3.0/24", "fd00:78::/64", "::/0", "0.0.0.0/0", "fd00:78:0:ab::/64"] {
            let net: IpNet = text.parse().expect("a CIDR");
            assert_eq!(block(&name(net)), Some(net), "{}", name(net));
            assert!(name(net).chars().all(|it| matches!(it, 'a'..='z' | '0'..='9' | '-' | '.')), "{}", name(net));
        }
        assert_eq!(name("10.78.3.0/24".parse().expect("a CIDR")), "sluice-pod-cidr-10.78.3.0-24");
        for other in
            ["kube-scheduler", "sluice-pod-cidr-10.78.3.1-24", "sluice-pod-cidr-x-24", "sluice-pod-cidr-10.78.3.0"]
        {
            assert_eq!(block(other), None, "{other}");
        }
    }
}
