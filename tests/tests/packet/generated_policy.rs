//! Policies that nobody thought of, and what the documentation says of packets under them.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use proptest::collection::vec;
use sluice_abi::{Features, PolicyDirection};
use sluice_policy::{Kind, Reason};
use sluice_policy_oracle::compiler::{decides, events};
use sluice_policy_oracle::generate::{ProbeDraft, cluster, probe};
use sluice_policy_oracle::{Cluster, Judgement, Side, Verdict};
use sluice_tests::packet::{Both, Build};

use super::cluster::{ClusterNode, Sent, cases, try_all};

/// Clusters that the compiled programs are asked about, and those that the native build alone is.
const CLUSTERS: u32 = 600;
const CLUSTERS_WITHOUT_KERNEL: u32 = 400;
/// Questions about each.
const PROBES: usize = 48;
/// Pods of a cluster, all of which may be on one node.
const PODS: usize = 8;

/// How often what was asked was let pass, or denied.
#[derive(Default, Debug)]
struct Answers {
    allowed: u32,
    denied: u32,
}

/// Says a cluster to a node, asks about it, and takes everything back.
fn try_cluster<B: Build>(
    node: &mut ClusterNode<B>,
    cluster: &Cluster,
    probes: &[ProbeDraft],
    compare: impl FnOnce(&B) -> Result<()>,
) -> Result<Answers> {
    let mut answers = Answers::default();
    for step in node.hear(events(&Cluster::default(), cluster))? {
        node.make(&step)?;
    }
    for draft in probes {
        let probe = draft.of(cluster);
        ask(node, &Sent::of(&probe, cluster), &cluster.judge(&probe), &mut answers)
            .with_context(|| format!("{probe:?} of {cluster:?}"))?;
    }
    compare(&node.build)?;
    node.build.clear()?;
    for step in node.hear(events(cluster, &Cluster::default()))? {
        node.make(&step)?;
    }
    let native = node.build.native();
    let left = native.rules.len() + native.v4.addresses.len() + native.v6.addresses.len();
    ensure!(left == 0, "{left} entries are left behind");
    Ok(answers)
}

/// Sends a packet, and compares what becomes of it with what the documentation says of the ends that are here.
fn ask(node: &mut ClusterNode<impl Build>, sent: &Sent, said: &Judgement, answers: &mut Answers) -> Result<()> {
    let (sender, receiver) = (node.local(sent.from), node.local(sent.to));
    let sides = [(PolicyDirection::Egress, sender, &said.egress), (PolicyDirection::Ingress, receiver, &said.ingress)];
    let sides = sides.into_iter().filter_map(|(direction, slot, side)| Some((direction, slot?, side)));
    let sides: Vec<_> = sides.collect();
    if sides.is_empty() {
        return Ok(());
    }
    let is_right = |node: &ClusterNode<_>, number: u32, side: &Side| match node.index.reason(number) {
        // Some NetworkPolicy may allow what is its node's as well; but it is not theirs to judge.
        Some(Reason::Rule { policy, .. }) if policy.kind == Kind::NetworkPolicy && node.is_nodes(sent.to) => {
            side.deciders.is_empty()
        }
        Some(reason) => decides(reason, side),
        None => number == 0 && side.deciders.is_empty(),
    };
    let (port, denied) = node.open(sent)?;
    let expected = sides.iter().find(|(_, _, side)| side.verdict == Verdict::Deny);
    match (denied, expected) {
        (None, None) => {
            answers.allowed += 1;
            let numbers = node.reasons(sent, port)?;
            for (direction, _, side) in sides {
                let number = numbers[usize::from(direction == PolicyDirection::Ingress)];
                ensure!(is_right(node, number, side), "{direction:?} for reason {number}, instead of {side:?}");
            }
        }
        (Some(denial), Some((direction, slot, side))) => {
            answers.denied += 1;
            ensure!((denial.direction, denial.endpoint) == (*direction, *slot), "{denial:?} is of the other end");
            ensure!(is_right(node, denial.policy, side), "{denial:?}, instead of {side:?}");
        }
        (found, expected) => anyhow::bail!("{found:?}, instead of {expected:?}"),
    }
    Ok(())
}

/// Draws clusters and probes, and tries each.
fn try_clusters(
    clusters: u32,
    max_shrink_iters: u32,
    attempt: impl Fn(&Cluster, &[ProbeDraft]) -> Result<Answers>,
) -> Result<()> {
    let total = RefCell::new(Answers::default());
    try_all(clusters, max_shrink_iters, &(cluster(), vec(probe(), PROBES)), |(cluster, probes)| {
        let Answers { allowed, denied } = attempt(&cluster, &probes)?;
        total.borrow_mut().allowed += allowed;
        total.borrow_mut().denied += denied;
        Ok(())
    })?;
    let Answers { allowed, denied } = total.into_inner();
    // Where hardly anything is denied, or nothing comes by this node, this test has become a smaller one.
    ensure!(allowed > 10 * clusters && denied > 2 * clusters, "{allowed} allowed and {denied} denied");
    Ok(())
}

#[test]
fn both_builds_judge_packets_as_the_documentation_says() -> Result<()> {
    let mut both = Both::bare()?;
    both.configure(|config| config.features = Features(0))?;
    let (interfaces, uplink) = (both.scene.more_pods(PODS)?, both.scene.uplink);
    let node = RefCell::new(ClusterNode::new(both, interfaces, uplink));
    // What has failed is in the kernel's tables: the native build alone shrinks it.
    try_clusters(CLUSTERS, 0, |cluster, probes| {
        try_cluster(&mut node.borrow_mut(), cluster, probes, |both: &Both| {
            both.compare_flows()?;
            both.compare_denials()
        })
    })?;
    node.into_inner().build.compare_counters()
}

#[test]
fn the_native_build_judges_packets_as_the_documentation_says() -> Result<()> {
    try_clusters(cases(CLUSTERS_WITHOUT_KERNEL)?, 20_000, |cluster, probes| {
        try_cluster(&mut ClusterNode::imagined(), cluster, probes, |_| Ok(()))
    })
}
