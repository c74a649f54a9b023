//! Blocks of a pool, where the cluster gives Nodes no pod CIDRs. Most of these tests are alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_tests::kubernetes::{Asking, Cluster, Namespace, Undone, hostname_at, words};
use sluice_tests::lab::until;

/// What the names of Leases of blocks begin with.
const PREFIX: &str = "sluice-pod-cidr-";

/// A Lease of a block.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    lease: String,
    net: IpNet,
    uid: String,
    /// The UID of its Node.
    owner: String,
}

/// The Leases of a node.
fn blocks(cluster: &Cluster, node: &str) -> Result<Vec<Block>> {
    let leases = cluster.get(&["-n", "kube-system", "leases", "-l", "sluice.dev/pod-cidr"])?;
    let of_node = leases["items"].as_array().into_iter().flatten().filter(|it| it["spec"]["holderIdentity"] == node);
    of_node.map(block).collect()
}

fn block(lease: &Value) -> Result<Block> {
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| lease.to_string());
    let metadata = &lease["metadata"];
    let name = text(&metadata["name"])?;
    let (address, length) = name.trim_start_matches(PREFIX).rsplit_once('-').context("a block in its name")?;
    let address: IpAddr = if address.contains('.') { address.parse()? } else { address.replace('-', ":").parse()? };
    Ok(Block {
        net: IpNet::new(address, length.parse()?)?,
        uid: text(&metadata["uid"])?,
        owner: text(&metadata["ownerReferences"][0]["uid"])?,
        lease: name,
    })
}

/// Those of a node, once it has the same blocks as before, and by other Leases.
fn again(cluster: &Cluster, node: &str, before: &[Block]) -> Result<Vec<Block>> {
    until("the node has its blocks again", || {
        let now = blocks(cluster, node)?;
        let nets = |blocks: &[Block]| blocks.iter().map(|it| it.net).collect::<BTreeSet<_>>();
        let uids = |blocks: &[Block]| blocks.iter().map(|it| it.uid.clone()).collect::<BTreeSet<_>>();
        ensure!(nets(&now) == nets(before) && uids(&now).is_disjoint(&uids(before)), "{now:?} after {before:?}");
        Ok(now)
    })
}

/// The UID of a node.
fn uid(cluster: &Cluster, node: &str) -> Result<String> {
    cluster.kubectl(&["get", "node", node, "-o", "jsonpath={.metadata.uid}"])
}

/// That no two nodes have anything in common, and that each pod, named as its node, has addresses in its node's blocks.
fn nodes_have_their_own(cluster: &Cluster, namespace: &Namespace<'_>) -> Result<()> {
    let mut others = Vec::<(String, IpNet)>::new();
    for node in cluster.nodes()? {
        let own = blocks(cluster, &node)?;
        let uid = uid(cluster, &node)?;
        for Block { net, owner, lease, .. } in &own {
            let shared = others.iter().find(|(_, other)| other.contains(net) || net.contains(other));
            ensure!(shared.is_none() && *owner == uid, "{node}, {uid}: {lease} of {owner} beside {shared:?}");
        }
        for address in namespace.addresses(&node)? {
            ensure!(own.iter().any(|block| block.net.contains(&address)), "{node}: {address} in none of {own:?}");
        }
        others.extend(own.into_iter().map(|block| (node.clone(), block.net)));
    }
    Ok(())
}

/// A pod on each node, of its name.
fn pod_on_each<'a>(cluster: &'a Cluster, name: &str) -> Result<Namespace<'a>> {
    let namespace = Namespace::new(cluster, name)?;
    for node in cluster.nodes()? {
        namespace.pod(&node).on(&node).start()?;
    }
    namespace.all_ready()?;
    Ok(namespace)
}

/// That pods on two nodes, and new ones beside them, reach one another.
fn pods_answer(namespace: &Namespace<'_>, new: &str) -> Result<()> {
    namespace.serve(new, "n2")?;
    for (from, to) in [("n1", "n2"), ("n2", "n1"), ("n1", new), (new, "n1")] {
        let there = hostname_at(namespace.addresses(to)?[0], 8080);
        assert_eq!(until("the way is known", || namespace.fetch(from, &there))?, to);
    }
    Ok(())
}

#[test]
#[ignore = "of a cluster with a pool"]
fn each_node_has_blocks_of_its_own() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = pod_on_each(&cluster, "blocks")?;
    nodes_have_their_own(&cluster, &namespace)?;
    pods_answer(&namespace, "new")
}

#[test]
#[ignore = "of a cluster with a pool"]
fn a_lease_that_somebody_removes_is_made_again_and_pods_answer_meanwhile() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = pod_on_each(&cluster, "unleased")?;
    let before = blocks(&cluster, "n2")?;
    let asking = Asking::start(&namespace, "n1", "--max-time 10", &hostname_at(namespace.addresses("n2")?[0], 8080))?;
    for Block { lease, .. } in &before {
        cluster.kubectl(&["-n", "kube-system", "delete", "lease", lease])?;
    }
    again(&cluster, "n2", &before)?;
    pods_answer(&namespace, "new")?;
    asking.stop()?;
    nodes_have_their_own(&cluster, &namespace)
}

#[test]
#[ignore = "of a cluster with a pool"]
fn a_node_that_its_kubelet_makes_anew_has_its_blocks_again() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = pod_on_each(&cluster, "anew")?;
    let (before, node) = (blocks(&cluster, "n2")?, uid(&cluster, "n2")?);
    // Kubelets do not know of zones.
    let zone = cluster.get(&["node", "n2"])?["metadata"]["labels"]["topology.kubernetes.io/zone"].take();
    let zone = zone.as_str().context("its zone")?;
    let _zone = Undone::by(&cluster, [words(&format!("label node n2 --overwrite topology.kubernetes.io/zone={zone}"))]);
    cluster.kubectl(&["delete", "node", "n2"])?;
    cluster.ask("kubelet", &["n2"])?;
    let anew = until("there is another Node", || uid(&cluster, "n2"))?;
    assert_ne!(anew, node);
    let now = again(&cluster, "n2", &before)?;
    ensure!(now.iter().all(|block| block.owner == anew), "{now:?} of {anew}");
    // A kubelet that finds no Node when it starts tries again ever less often to make the CSINode without which none is Ready: over
    // 140 seconds.
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=240s", "node/n2"])?;
    cluster.rolled_out("sluice")?;
    pods_answer(&namespace, "new")?;
    nodes_have_their_own(&cluster, &namespace)
}

#[test]
#[ignore = "of a cluster with a pool"]
fn a_lease_outside_the_pool_and_one_of_nobody_are_named_and_count_for_nothing() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = pod_on_each(&cluster, "void")?;
    let lease = |block: &str, owners: Value| {
        let labels = json!({ "sluice.dev/pod-cidr": "taken" });
        let metadata = json!({ "name": format!("{PREFIX}{block}"), "namespace": "kube-system", "labels": labels, "ownerReferences": owners });
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": { "holderIdentity": "n1" } })
    };
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid(&cluster, "n1")? });
    let (outside, nobodys) = ("198.51.100.0-24", "203.0.113.0-24");
    let undone = Undone::by(
        &cluster,
        [outside, nobodys]
            .map(|block| words(&format!("-n kube-system delete lease --ignore-not-found {PREFIX}{block}"))),
    );
    cluster.apply(&lease(outside, json!([owner])).to_string())?;
    cluster.apply(&lease(nobodys, json!([])).to_string())?;
    for node in cluster.nodes()? {
        until("both are named", || {
            let status = cluster.on(&node, &["/usr/local/bin/sluicectl", "status"])?;
            ensure!(status.contains(&format!("{PREFIX}{outside} of node n1")) && status.contains(nobodys), "{status}");
            Ok(())
        })?;
        let nodes = cluster.on(&node, &["/usr/local/bin/sluicectl", "nodes"])?;
        ensure!(!nodes.contains("198.51.100.0") && !nodes.contains("203.0.113.0"), "{nodes}");
    }
    pods_answer(&namespace, "new")?;
    drop(undone);
    until("nothing is named", || {
        let status = cluster.on("n1", &["/usr/local/bin/sluicectl", "status"])?;
        ensure!(!status.contains(PREFIX), "{status}");
        Ok(())
    })
}
