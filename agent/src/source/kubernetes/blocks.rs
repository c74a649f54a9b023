//! Pod CIDRs out of a pool: Leases, one for each block that is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use futures::channel::mpsc::UnboundedSender;
use ipnet::IpNet;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, Client, ResourceExt};
use sluice_policy::object::NodeObject as PolicyNode;
use sluice_policy::{Kind, ObjectName};
use sluice_topology::{Claim, Claiming, Claims, Held, Lack, NodeObject, Pool, kept_from_pool};
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
    /// Gives the addresses that its pods have.
    pub in_use: Box<dyn Fn() -> Result<Vec<IpAddr>> + Send>,
    /// Whether it is to have blocks.
    pub takes: bool,
}

/// What is heard of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// It is taken.
    Taken(Claim),
    /// A Lease has its name, and does not say whose it is.
    Doubtful(IpNet),
    /// It is free again.
    Freed(IpNet),
    /// It is taken by a Lease that the watch does not tell of.
    Strange(IpNet),
}

/// Something of blocks, and whether it is well with that.
pub type Respect = (Target, Result<(), Trouble>);

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
    doubtful: BTreeSet<IpNet>,
    /// What of the claims holds.
    held: Held,
    /// Nodes, as the server has them, with the pod CIDRs that were told of.
    nodes: BTreeMap<String, Known>,
    /// Those that are to be told of,
    fresh: BTreeSet<String>,
    /// or whether all are to be looked at.
    is_stirred: bool,
    /// The addresses of this node's pods, when that was looked at last.
    in_use: Vec<IpAddr>,
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
        let (claims, strange, doubtful, held, nodes, fresh, in_use, had) = Default::default();
        let this = Self {
            claimant,
            claims,
            strange,
            doubtful,
            held,
            nodes,
            fresh,
            is_stirred: false,
            in_use,
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
                self.doubtful.remove(&claim.block);
                self.claims.insert(claim);
            }
            BlockChange::Doubtful(block) => {
                self.claims.remove(block);
                self.doubtful.insert(block);
            }
            BlockChange::Freed(block) => {
                self.claims.remove(block);
                self.doubtful.remove(&block);
            }
            BlockChange::Strange(block) => drop(self.strange.insert(block)),
        }
        self.is_stirred = true;
    }

    /// What there is to tell of nodes, and whether all is well with the blocks, in each respect. Not before all is listed: what
    /// another has taken would be taken for free.
    pub fn settle(&mut self) -> (Vec<Change>, [Respect; 4]) {
        if self.is_stirred {
            self.held = self.claims.held(&self.claimant.pool);
            self.fresh = self.nodes.keys().cloned().collect();
        }
        self.order();
        let is_held_back = self.is_new && self.lack.as_ref().is_some_and(Lack::is_pending);
        let mut changes = Vec::new();
        for name in std::mem::take(&mut self.fresh) {
            let Some(known) = self.nodes.get_mut(&name) else { continue };
            let blocks = self.held.of(&name, &known.ways.uid).to_vec();
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
        (changes, self.troubles())
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
        let Claimant { pool, node, in_use, .. } = &self.claimant;
        match in_use() {
            Ok(in_use) => self.in_use = in_use,
            Err(error) => tracing::warn!("which addresses pods of this node have is as it was known before: {error:#}"),
        }
        let has = self.held.of(node, &uid);
        // Somebody may have removed the Lease of a block.
        self.had.retain(|block| !has.contains(block));
        self.had.splice(0..0, has.iter().copied());
        let others = kept_from_pool(self.nodes.values().map(|known| &known.ways));
        let named = self.strange.union(&self.doubtful).copied().collect();
        let who = Claiming { node, uid: &uid, in_use: &self.in_use, had: &self.had };
        let lack = pool.lack(&who, &self.held, others, &named);
        // Who has had one before goes on with it, whatever else there is to come.
        let is_known = self.orders.borrow().uid == uid;
        let was_new = if is_known { self.is_new } else { has.is_empty() };
        self.is_new = was_new && lack.is_pending();
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

    /// What is wrong, in each respect in which something may be.
    fn troubles(&self) -> [Respect; 4] {
        let none = Lack::default();
        let Lack { awaited, lost, exhausted, .. } = self.lack.as_ref().unwrap_or(&none);
        let exhausted = some(exhausted, |v4| if *v4 { "IPv4" } else { "IPv6" }.into()).map(|families| {
            format!(
                "pod_cidr_pool has no free block of {families} for this node: add a range to it on all nodes, or remove Nodes that are \
                 gone; their Leases ({PREFIX}* in the namespace {NAMESPACE}) go with them"
            )
        });
        let awaited = some(awaited, |block| name(*block)).map(|leases| {
            format!(
                "this node waits for the end of what the Node of its name before it had (Leases {leases} in the namespace {NAMESPACE}): \
                 Kubernetes' garbage collection removes them within a minute; where it does not, do so by kubectl delete"
            )
        });
        let of = |claim: &Claim| format!("{} of node {}", name(claim.block), claim.node);
        let lost = some(lost, of).map(|leases| {
            format!(
                "pods of this node have addresses that another has taken (Leases {leases} in the namespace {NAMESPACE}): other nodes \
                 send to that one what is for them; delete these pods, so that they are made anew with other addresses"
            )
        });
        let outside = some(&self.held.outside, of).map(|leases| {
            format!(
                "blocks outside pod_cidr_pool count for nothing (Leases {leases} in the namespace {NAMESPACE}): add the range that they \
                 are of to it on all nodes, or delete the Leases"
            )
        });
        let doubtful = some(&self.doubtful, |block| name(*block)).map(|leases| {
            format!(
                "Leases that do not say of which Node they are count for nothing ({leases} in the namespace {NAMESPACE}): the one that \
                 holds one is to be its only owner; delete them"
            )
        });
        let nothing = [outside, doubtful].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
        [("exhausted", exhausted), ("awaited", awaited), ("lost", lost), ("void", nothing)].map(|(what, wrong)| {
            (format!("pod_cidr_pool: {what}").into(), wrong.map_or(Ok(()), |why| Err(Trouble::Amiss(why))))
        })
    }
}

/// Most that are named of those of which the same is to be said.
const NAMED: usize = 3;

/// The first of several, as words, and how many more there are; `None`: there are none.
fn some<'a, T: 'a>(
    all: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
    word: impl Fn(&T) -> String,
) -> Option<String> {
    let all = all.into_iter();
    let more = all.len().saturating_sub(NAMED);
    let words: Vec<String> = all.take(NAMED).map(word).collect();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!words.is_empty()).then(|| words.join(", ") + &more)
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
             leases of the API group \"coordination.k8s.io\" in the namespace {NAMESPACE}, as manifests/overlays/pool/rbac.yaml does, and \
             see that no admission policy or webhook denies it; it tries again",
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
        let block = block(&self.name_any())?;
        let change = claim(self, block).map_or(BlockChange::Doubtful(block), BlockChange::Taken);
        Some(Tiding::Block(change))
    }

    fn gone(_namespace: &str, name: &str, _uid: String) -> Option<Tiding> {
        block(name).map(|block| Tiding::Block(BlockChange::Freed(block)))
    }
}

/// Whose a Lease says that a block is, where it says it as `lease` does: for whom it is, with that Node it goes.
fn claim(lease: &Lease, block: IpNet) -> Option<Claim> {
    let node = lease.spec.as_ref()?.holder_identity.clone()?;
    let [owner] = lease.owner_references() else { return None };
    let is_owner = owner.api_version == "v1" && owner.kind == "Node" && owner.name == node && !owner.uid.is_empty();
    // The server has set it, and nobody can change it.
    let since = lease.creation_timestamp()?.0.as_second();
    is_owner.then(|| Claim { block, node, uid: owner.uid.clone(), since })
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
fn block(text: &str) -> Option<IpNet> {
    let (address, length) = text.strip_prefix(PREFIX)?.rsplit_once('-')?;
    let address = match address.parse() {
        Ok(address) => IpAddr::V4(address),
        Err(_) => IpAddr::V6(address.replace('-', ":").parse::<Ipv6Addr>().ok()?),
    };
    IpNet::new(address, length.parse().ok()?).ok().filter(|net| name(*net) == text)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;
    use sluice_topology::Range;

    use super::*;

    /// This is node a, which may have one of two blocks of IPv4 and one of IPv6.
    fn blocks(ranges: &[(&str, u8)], in_use: &[&str]) -> (Blocks, watch::Receiver<Order>) {
        let range = |(cidr, block): &(&str, u8)| Range { cidr: cidr.parse().expect("a CIDR"), block: *block };
        let in_use: Vec<IpAddr> = in_use.iter().map(|text| text.parse().expect("an address")).collect();
        Blocks::new(Claimant {
            pool: Pool(ranges.iter().map(range).collect()),
            node: "a".into(),
            in_use: Box::new(move || Ok(in_use.clone())),
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

    /// A Lease that was made in a second.
    fn made(block: &str, node: &str, uid: &str, second: i64) -> Lease {
        let mut lease = lease(block.parse().expect("a CIDR"), node, uid);
        lease.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).expect("a time")));
        lease
    }

    fn change(lease: &Lease) -> BlockChange {
        match lease.is() {
            Some(Tiding::Block(change)) => change,
            other => panic!("{other:?}"),
        }
    }

    fn taken(block: &str, node: &str, uid: &str, second: i64) -> BlockChange {
        change(&made(block, node, uid, second))
    }

    fn freed(block: &str) -> BlockChange {
        BlockChange::Freed(block.parse().expect("a CIDR"))
    }

    /// What is wrong.
    fn wrong(blocks: &mut Blocks) -> String {
        let wrong = blocks.settle().1.into_iter().filter_map(|(_, access)| match access.err()? {
            Trouble::Amiss(why) => Some(why),
            other => panic!("{other:?}"),
        });
        wrong.collect()
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
        blocks.change(freed("10.78.1.0/24"));
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
        assert!(wrong(&mut blocks).contains("no free block of IPv6 for this node"));
        blocks.change(freed("fd00:78::/64"));
        assert_eq!((told(&mut blocks), ordered(&orders)), (Vec::new(), vec!["fd00:78::/64".to_owned()]));
        assert_eq!(wrong(&mut blocks), "");
        blocks.change(taken("fd00:78::/64", "a", "ua", 3));
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24 fd00:78::/64"]);
        for block in ["10.78.0.0/24", "fd00:78::/64"] {
            blocks.change(freed(block));
        }
        blocks.pass(node("a", "another", &[]));
        blocks.change(taken("10.78.0.0/24", "a", "another", 4));
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24"], "who comes with one goes on with it");
        blocks.pass(node("a", "a third", &[]));
        blocks.change(freed("10.78.0.0/24"));
        told(&mut blocks);
        blocks.change(taken("10.78.0.0/24", "a", "a third", 5));
        assert_eq!(told(&mut blocks), [""; 0], "made anew, it is new");
    }

    #[test]
    fn a_block_that_pods_have_addresses_in_is_taken_again() {
        let (mut blocks, orders) = blocks(&[("10.78.0.0/16", 24)], &["10.78.77.3"]);
        blocks.change(taken("10.78.5.0/24", "a", "ua", 1));
        blocks.pass(node("a", "ua", &[]));
        let wanted = vec!["10.78.77.0/24".to_owned()];
        assert_eq!(
            (told(&mut blocks), ordered(&orders)),
            (vec!["a: 10.78.5.0/24".to_owned()], wanted),
            "beside another"
        );
        blocks.change(taken("10.78.77.0/24", "a", "ua", 2));
        assert_eq!((told(&mut blocks), ordered(&orders).len()), (vec!["a: 10.78.5.0/24 10.78.77.0/24".to_owned()], 0));
        blocks.change(freed("10.78.5.0/24"));
        assert_eq!(
            (told(&mut blocks), ordered(&orders).len()),
            (vec!["a: 10.78.77.0/24".to_owned()], 0),
            "it has another"
        );
        blocks.change(freed("10.78.77.0/24"));
        blocks.change(taken("10.78.77.0/25", "b", "ub", 3));
        assert_eq!((told(&mut blocks), ordered(&orders)), (vec!["a: ".to_owned()], vec!["10.78.5.0/24".to_owned()]));
        let lost = "(Leases sluice-pod-cidr-10.78.77.0-25 of node b in";
        assert!(wrong(&mut blocks).contains(lost), "{}", wrong(&mut blocks));
        blocks.change(BlockChange::Strange("10.78.5.0/24".parse().expect("a CIDR")));
        told(&mut blocks);
        assert!(ordered(&orders).len() == 1 && ordered(&orders)[0] != "10.78.5.0/24", "it is taken {orders:?}");
    }

    #[test]
    fn a_node_that_is_made_anew_waits_for_what_it_had() {
        let (mut blocks, orders) = blocks(&[("10.78.0.0/16", 24)], &["10.78.77.3"]);
        blocks.change(taken("10.78.77.0/24", "a", "before", 1));
        blocks.pass(node("a", "ua", &[]));
        assert_eq!((told(&mut blocks), ordered(&orders)), (vec!["a: ".to_owned()], Vec::new()));
        assert!(wrong(&mut blocks).contains("(Leases sluice-pod-cidr-10.78.77.0-24 in"), "{}", wrong(&mut blocks));
        blocks.change(freed("10.78.77.0/24"));
        assert_eq!((told(&mut blocks), ordered(&orders)), (Vec::new(), vec!["10.78.77.0/24".to_owned()]));
        assert_eq!(wrong(&mut blocks), "");
    }

    #[test]
    fn a_lease_counts_where_it_says_of_which_node_it_is_and_is_of_the_pool() {
        let damages: [fn(&mut Lease, OwnerReference); 6] = [
            |lease, _| lease.spec = None,
            |lease, _| lease.metadata.owner_references = None,
            |lease, owner| lease.metadata.owner_references = Some(vec![owner.clone(), owner]),
            |lease, owner| {
                lease.metadata.owner_references = Some(vec![OwnerReference { name: "c".into(), ..owner }]);
            },
            |lease, owner| {
                lease.metadata.owner_references = Some(vec![OwnerReference { kind: "Pod".into(), ..owner }]);
            },
            |lease, owner| {
                lease.metadata.owner_references = Some(vec![OwnerReference { uid: String::new(), ..owner }]);
            },
        ];
        for damage in damages {
            let (mut blocks, orders) = blocks(&[("10.78.0.0/23", 24)], &[]);
            let mut lease = made("10.78.0.0/23", "b", "ub", 1);
            let owner = lease.owner_references()[0].clone();
            damage(&mut lease, owner);
            blocks.change(change(&lease));
            lease.metadata.name = Some(name("10.78.1.0/24".parse().expect("a CIDR")));
            blocks.change(change(&lease));
            for node in [node("a", "ua", &[]), node("b", "ub", &[])] {
                blocks.pass(node);
            }
            assert_eq!(
                (told(&mut blocks), ordered(&orders)),
                (vec!["a: ".into(), "b: ".into()], vec!["10.78.0.0/24".into()])
            );
            assert!(wrong(&mut blocks).contains("sluice-pod-cidr-10.78.1.0-24 in"), "{}", wrong(&mut blocks));
            blocks.change(freed("10.78.0.0/23"));
            blocks.change(taken("10.78.1.0/24", "b", "ub", 2));
            assert_eq!((told(&mut blocks), wrong(&mut blocks)), (vec!["b: 10.78.1.0/24".into()], String::new()));
            blocks.change(change(&lease));
            assert_eq!(told(&mut blocks), ["b: "], "it was changed");
        }
        let (mut blocks, orders) = blocks(&[("10.78.0.0/23", 24)], &[]);
        blocks.change(taken("0.0.0.0/0", "b", "ub", 1));
        for node in [node("a", "ua", &[]), node("b", "ub", &[])] {
            blocks.pass(node);
        }
        assert_eq!((told(&mut blocks), ordered(&orders).len()), (vec!["a: ".into(), "b: ".into()], 1));
        let outside = "outside pod_cidr_pool count for nothing (Leases sluice-pod-cidr-0.0.0.0-0 of node b in";
        assert!(wrong(&mut blocks).contains(outside), "{}", wrong(&mut blocks));
    }

    #[test]
    fn who_came_first_stays_so_whatever_is_changed_later() {
        let (mut blocks, _orders) = blocks(&[("10.78.0.0/23", 24)], &[]);
        let mut first = made("10.78.0.0/24", "a", "ua", 1);
        for change in [change(&first), taken("10.78.0.0/25", "b", "ub", 2)] {
            blocks.change(change);
        }
        for node in [node("a", "ua", &[]), node("b", "ub", &[])] {
            blocks.pass(node);
        }
        assert_eq!(told(&mut blocks), ["a: 10.78.0.0/24", "b: "]);
        first.metadata.resource_version = Some("1000".into());
        first.metadata.annotations = Some([("looked".into(), "at".into())].into());
        blocks.change(change(&first));
        assert_eq!(told(&mut blocks), [""; 0]);
    }

    #[test]
    fn of_many_the_first_are_named() {
        let word = |number: &u32| number.to_string();
        assert_eq!(some(&[0; 0], word), None);
        assert_eq!(some(&[1, 2, 3], word).as_deref(), Some("1, 2, 3"));
        assert_eq!(some(&[1, 2, 3, 4, 5], word).as_deref(), Some("1, 2, 3, and 2 more"));
    }

    #[test]
    fn each_block_has_one_name() {
        for text in ["10.78.3.0/24", "fd00:78::/64", "::/0", "0.0.0.0/0", "fd00:78:0:ab::/64"] {
            let net: IpNet = text.parse().expect("a CIDR");
            assert_eq!(block(&name(net)), Some(net), "{}", name(net));
            assert!(name(net).chars().all(|it| matches!(it, 'a'..='z' | '0'..='9' | '-' | '.')), "{}", name(net));
        }
        assert_eq!(name("10.78.3.0/24".parse().expect("a CIDR")), "sluice-pod-cidr-10.78.3.0-24");
        for other in [
            "kube-scheduler",
            "sluice-pod-cidr-10.78.3.1-24",
            "sluice-pod-cidr-x-24",
            "sluice-pod-cidr-10.78.3.0",
            "sluice-pod-cidr-fd00-78---64",
        ] {
            assert_eq!(block(other), None, "{other}");
        }
    }
}
