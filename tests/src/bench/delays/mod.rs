//! How long a real cluster takes from what is decided to packets that pass, or do not: new pods, labels and policies. Beside
//! each, when the API server tells another client of the same, which no agent can outrun.

mod agents;
mod api;
mod newcomer;
mod probe;
mod series;

use std::fs::File;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use sluice_netlink::within;
use sluice_policy::object::ADDRESSES;

use super::report::{Row, Target};
use crate::kubernetes::{Cluster, Namespace};
use api::{Api, Watch};
use newcomer::{Arrivals, Newcomer};
use probe::{Echo, Probe};
use series::{Enforced, Series};

/// Turns of each.
const TURNS: usize = 30;
/// The label `role` of those who are asked, of those whom the policy lets ask them, and of nobody.
const SERVER: &str = "server";
const CLIENT: &str = "client";
const STRANGER: &str = "stranger";
/// The policy that lets clients in.
const POLICY: &str = "clients";

/// Measures the cluster that `SLUICE_CLUSTER` names.
///
/// # Errors
/// Where there is none, or something is never enforced.
pub fn run() -> Result<Vec<Row>> {
    let cluster = Cluster::shared()?;
    let path = cluster.first_process("cp")?.join("ns/net");
    let outside = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    // The API server is reached from there only; threads are where they were started.
    within(&outside, || measure(&cluster)).context("entering the network of the control plane")?
}

fn measure(cluster: &Cluster) -> Result<Vec<Row>> {
    let nodes = cluster.nodes()?;
    ensure!(nodes.len() > 1, "the cluster has one node: start it with more (cargo xtask cluster up --nodes 2)");
    let mut rows = agents::idle(cluster, &nodes)?;
    let namespace = Namespace::new(cluster, "delays")?;
    let stage = Stage::set(cluster, &namespace, nodes)?;
    rows.extend(stage.newcomers()?);
    rows.extend(stage.changes()?);
    Ok(rows)
}

/// A server on each node, with none let in to it but clients.
struct Stage<'a> {
    cluster: &'a Cluster,
    namespace: &'a Namespace<'a>,
    nodes: Vec<String>,
    /// In the order of their nodes.
    servers: Vec<Echo>,
    api: Api,
    pods: Watch<Pod>,
    policies: Watch<NetworkPolicy>,
}

impl<'a> Stage<'a> {
    fn set(cluster: &'a Cluster, namespace: &'a Namespace<'a>, nodes: Vec<String>) -> Result<Self> {
        let api = Api::of(cluster, &namespace.name)?;
        namespace.policy("nobody", &format!("podSelector: {{matchLabels: {{role: {SERVER}}}}}"))?;
        api.create(policy()?)?;
        let mut servers = Vec::new();
        for node in &nodes {
            let name = format!("server-{node}");
            namespace.pod(&name).on(node).role(SERVER).serve()?;
            let pod = Newcomer::known(cluster, node, &namespace.name, &name)?;
            servers.push(Echo::start(&pod.namespace()?, pod.address()?)?);
        }
        let (pods, policies) = (api.watch()?, api.watch()?);
        Ok(Self { cluster, namespace, nodes, servers, api, pods, policies })
    }

    /// New clients, on one node after the other: from the end of ADD, which is when their interface carries packets.
    fn newcomers(&self) -> Result<Vec<Row>> {
        let (mut series, mut lost) = (Series::new("delays_add"), 0);
        for turn in 0..TURNS {
            let own = turn % self.nodes.len();
            let (node, name) = (&self.nodes[own], format!("client-{turn}"));
            let (asked, arrivals) = (Instant::now(), Arrivals::on(self.cluster, node)?);
            self.namespace.pod(&name).on(node).role(CLIENT).start()?;
            let pod = arrivals.wait_for(&self.namespace.name, &name)?;
            let added = pod.carries_packets()?;
            let flows = self.flows(&pod)?;
            let enforced = Enforced::of(&flows, own, |flow| flow.passes(added))?;
            let first = |what, is_so: fn(&Pod) -> bool| self.pods.first(what, asked, |event| is(event, &name, is_so));
            // It does so before ADD ends.
            let told = first("the agent says the pod's addresses", agent_says_addresses)?;
            let kubelet = first("the kubelet says them", kubelet_says_addresses)?;
            series.note_enforced(added, added, told, &enforced);
            series.note("kubelet", added, kubelet);
            series.say(turn + 1, TURNS);
            lost += flows[own].asked(added, enforced.near);
            drop(flows);
            self.namespace.kubectl(&["delete", "pod", &name])?;
        }
        let mut rows = series.rows();
        rows.push(Row::new("delays_add.same_node.lost", lost as f64, "packets", Target::AtMost(0.0)));
        Ok(rows)
    }

    /// A client that stays is none any more, and is one again; then the policy that lets it in goes, and comes.
    fn changes(&self) -> Result<Vec<Row>> {
        let (own, name) = (0, CLIENT);
        let node = &self.nodes[own];
        self.namespace.serve(name, node)?;
        let flows = self.flows(&Newcomer::known(self.cluster, node, &self.namespace.name, name)?)?;
        let begun = Instant::now();
        Enforced::of(&flows, own, |flow| flow.passes(begun)).context("before anything has changed")?;

        let label = |role: &str| self.api.patch::<Pod>(name, &json!({ "metadata": { "labels": { "role": role } } }));
        let has =
            |event: &Event<Pod>, role| is(event, name, |pod| pod.labels().get("role").is_some_and(|it| it == role));
        let is_there = |event: &Event<NetworkPolicy>| is(event, POLICY, |_| true);
        let is_gone = |event: &Event<NetworkPolicy>| matches!(event, Event::Delete(it) if it.name_any() == POLICY);
        let [mut taken, mut given, mut deleted, mut created] =
            ["label_taken", "label_given", "policy_deleted", "policy_created"]
                .map(|it| Series::new(&format!("delays_{it}")));
        for turn in 1..=TURNS {
            let change = Change { flows: &flows, own, turn };
            change.make(&mut taken, || label(STRANGER), Probe::stops, &self.pods, |event| has(event, STRANGER))?;
            change.make(&mut given, || label(CLIENT), Probe::passes, &self.pods, |event| has(event, CLIENT))?;
            let delete = || self.api.delete::<NetworkPolicy>(POLICY);
            change.make(&mut deleted, delete, Probe::stops, &self.policies, is_gone)?;
            let create = || self.api.create(policy()?);
            change.make(&mut created, create, Probe::passes, &self.policies, is_there)?;
        }
        Ok([taken, given, deleted, created].into_iter().flat_map(Series::rows).collect())
    }

    /// A pod asks all servers.
    fn flows(&self, pod: &Newcomer) -> Result<Vec<Probe>> {
        let namespace = pod.namespace()?;
        self.servers.iter().map(|server| Probe::start(&namespace, server.address)).collect()
    }
}

/// Something that is changed, and what becomes of the flows of a client.
struct Change<'a> {
    flows: &'a [Probe],
    own: usize,
    turn: usize,
}

impl Change<'_> {
    fn make<K>(
        &self,
        series: &mut Series,
        request: impl FnOnce() -> Result<()>,
        becomes: fn(&Probe, Instant) -> Result<Instant>,
        watch: &Watch<K>,
        is_it: impl Fn(&Event<K>) -> bool,
    ) -> Result<()> {
        let asked = Instant::now();
        request()?;
        let answered = Instant::now();
        let enforced = Enforced::of(self.flows, self.own, |flow| becomes(flow, asked))?;
        let told = watch.first("the API server tells of the change", asked, is_it)?;
        series.note("request", asked, answered);
        series.note_enforced(answered, asked, told, &enforced);
        series.say(self.turn, TURNS);
        Ok(())
    }
}

/// Clients may ask servers.
fn policy() -> Result<NetworkPolicy> {
    let of_role = |role: &str| json!({ "matchLabels": { "role": role } });
    let rules: Value = json!([{ "from": [{ "podSelector": of_role(CLIENT) }] }]);
    let specification = json!({ "podSelector": of_role(SERVER), "policyTypes": ["Ingress"], "ingress": rules });
    serde_json::from_value(json!({ "metadata": { "name": POLICY }, "spec": specification })).context("making a policy")
}

/// Whether an object of this name is told of, and is so.
fn is<K: ResourceExt>(event: &Event<K>, name: &str, is_so: impl Fn(&K) -> bool) -> bool {
    matches!(event, Event::Apply(object) if object.name_any() == name && is_so(object))
}

fn agent_says_addresses(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == ADDRESSES && condition.status == "True")
}

fn kubelet_says_addresses(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some())
}
