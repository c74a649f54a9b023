//! Pods that come and go, change and end, and the flows that they have meanwhile.

use anyhow::{Result, ensure};
use sluice_tests::lab::{Call, Place};

use super::flows::Flows;
use super::stage::{Stage, allows, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 6] = [(1, "x/db"), (1, "x/web"), (1, "y/web"), (2, "x/far"), (2, "y/far"), (2, "x/spare")];
const ALL: &str = "80/TCP 53/UDP ICMP";
/// Those of flows that live on.
const LIVE: &str = "7000/TCP 7001/UDP";
const HEARS_NONE: &str = "no ingress rule of NetworkPolicy x/db";

/// Has `x/db` hear pods with `role: web` of its namespace, and of those with `team: red`.
fn only_web() -> World {
    let peers = "{podSelector: {matchLabels: {role: web}}}, {namespaceSelector: {matchLabels: {team: red}}}";
    let spec = format!("podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{peers}]}}]");
    world().pods("x/db", "role: db").policy("x/db", &spec)
}

/// The same, with `x/web` and `x/far` among them.
fn with_web() -> World {
    only_web().pods("x/web x/far", "role: web")
}

fn standing(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    stage.play(&with_web())?;
    stage.expect([
        allows("x/web x/far", "x/db", ALL),
        denies("y/web y/far x/spare n2", "x/db", ALL).because(HEARS_NONE),
    ])?;

    // Whoever has run to its end is nobody any more, though its endpoint is still there.
    let closed = "no policy that could be named: the pod is not known, or its policies do not fit";
    for phase in ["Succeeded", "Failed"] {
        stage.play(&with_web().phase("x/web", phase).phase("x/far", phase))?;
        stage.expect_of_agents([
            (denies("x/web x/far", "x/db y/web stranger", ALL).because(closed), "egress"),
            (denies("y/web y/far stranger", "x/web x/far", ALL).because(closed), "ingress"),
        ])?;
    }
    // Whoever is on the way there still is: peer and subject.
    stage.play(&with_web().terminating("x/web").terminating("x/far").terminating("x/db"))?;
    stage.expect([allows("x/web x/far", "x/db", ALL), denies("y/web y/far", "x/db", ALL).because(HEARS_NONE)])?;
    stage.play(&with_web())?;
    stage.expect([allows("x/web x/far", "x/db", ALL)])?;

    // Pods with their node's addresses are neither: not by selectors, whatever their labels.
    let on_host = |node: usize| {
        let ips: Vec<String> =
            stage.lab.nodes[node - 1].addresses.iter().map(|address| format!("{{ip: \"{address}\"}}")).collect();
        format!(
            "kind: Pod\nmetadata: {{name: host-{node}, namespace: x, labels: {{role: web}}}}\n\
             spec: {{hostNetwork: true, nodeName: n{node}, containers: []}}\nstatus: {{podIPs: [{}]}}\n",
            ips.join(", ")
        )
    };
    let all = "podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{podSelector: {}}]}]";
    stage.play(&world().policy("x/all", all).object(&on_host(1)).object(&on_host(2)))?;
    stage.expect([
        denies("n2", "x/db", ALL).because("no ingress rule of NetworkPolicy x/all"),
        denies("x/db", "n2", ALL).because("no egress rule of NetworkPolicy x/all"),
        allows("n1", "x/db", ALL),
        allows("x/db", "n1", ALL),
        allows("n2", "n1 y/web stranger", ALL),
        allows("y/web y/far stranger", "n2", ALL),
        allows("x/web x/far", "x/db", ALL),
    ])
}

fn live_flows(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    stage.play(&with_web().namespace("y", "team: red"))?;
    let mut of_pods = Flows::open(&stage, "x/web x/far", "x/db", LIVE)?;
    let mut of_namespace = Flows::open(&stage, "y/web y/far", "x/db", "7002/TCP 7003/UDP")?;
    let mut own = Flows::open(&stage, "x/db", "x/web x/far y/far stranger", "7004/TCP 7005/UDP")?;

    // Labels of pods change.
    stage.play(&only_web().namespace("y", "team: red"))?;
    of_pods.are_cut(&stage)?;
    of_namespace.go_on(&stage)?;
    own.go_on(&stage)?;
    stage.play(&with_web().namespace("y", "team: red"))?;
    of_pods.go_on(&stage)?;
    of_namespace.go_on(&stage)?;
    // And labels of namespaces.
    stage.play(&with_web())?;
    of_namespace.are_cut(&stage)?;
    of_pods.go_on(&stage)?;
    own.go_on(&stage)?;
    stage.play(&with_web().namespace("y", "team: red"))?;
    of_namespace.go_on(&stage)?;
    // A pod that is no longer selected is isolated no more.
    stage.play(&only_web())?;
    of_pods.are_cut(&stage)?;
    stage.play(&only_web().pods("x/db", "role: other"))?;
    of_pods.go_on(&stage)?;
    of_namespace.go_on(&stage)?;

    // What it may send, changes for its own flows.
    let egress =
        |to: &str| world().policy("x/out", &format!("podSelector: {{}}, policyTypes: [Egress], egress: [{to}]"));
    stage.play(&egress("{to: [{namespaceSelector: {}}, {ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]}"))?;
    own.go_on(&stage)?;
    stage.play(&egress(""))?;
    own.are_cut(&stage)?;
    // Those are x's too; the others' are not its to open.
    of_pods.are_cut(&stage)?;
    of_namespace.go_on(&stage)?;
    stage.play(&world())?;
    own.go_on(&stage)?;
    of_pods.go_on(&stage)
}

/// An address is whose it is now.
fn successors(routing: &'static str) -> Result<()> {
    let mut stage = Stage::set(routing, &CAST)?;
    // Who has no role hears nobody.
    let rest =
        |world: World| world.policy("x/rest", "podSelector: {matchExpressions: [{key: role, operator: DoesNotExist}]}");
    let hears_none = "no ingress rule of NetworkPolicy x/rest";
    stage.play(&rest(with_web()))?;
    stage.expect([allows("x/web x/far", "x/db", ALL), allows("y/far x/spare", "x/web x/far", ALL)])?;
    let mut to_web = Flows::open(&stage, "y/far x/spare x/db", "x/web", LIVE)?;
    let mut to_far = Flows::open(&stage, "y/far x/spare x/db", "x/far", LIVE)?;
    for (node, name, number, successor) in [(1, "x/web", 12, "x/next"), (2, "x/far", 11, "x/next-far")] {
        stage.leave(name)?;
        stage.enter(node, successor, number)?;
    }
    // Its own node knows it at once, whatever manifests still say of its address.
    stage.expect_of_agents([
        (denies("x/next", "x/db", ALL).because(HEARS_NONE), "ingress"),
        (denies("y/far x/spare x/db stranger", "x/next x/next-far", ALL).because(hears_none), "ingress"),
    ])?;
    stage.play(&rest(only_web()))?;
    for (flows, next) in [(&mut to_web, "x/next"), (&mut to_far, "x/next-far")] {
        flows.between("y/far x/spare x/db", next);
        flows.are_cut(&stage)?;
    }
    // They are not what their predecessors were, of whom there may still be something to be read.
    let ended = |name: &str, role: &str, node: usize, number: usize| {
        format!(
            "kind: Pod\nmetadata: {{name: {name}, namespace: x, labels: {{role: {role}}}}}\n\
             spec: {{nodeName: n{node}, containers: []}}\n\
             status: {{phase: Succeeded, podIPs: [{{ip: 10.1.{node}.{number}}}, {{ip: 'fd00:1:{node}::{number}'}}]}}\n"
        )
    };
    let before = only_web().object(&ended("web", "web", 1, 12)).object(&ended("far", "web", 2, 11));
    for world in [only_web(), before] {
        stage.play(&world)?;
        stage.expect([
            denies("x/next x/next-far", "x/db", ALL).because(HEARS_NONE),
            allows("x/db", "x/next x/next-far", ALL),
        ])?;
    }
    stage.play(&only_web().pods("x/next x/next-far", "role: web"))?;
    stage.expect([allows("x/next x/next-far", "x/db", ALL)])?;

    // Nor is a successor isolated as its predecessor was.
    stage.leave("x/db")?;
    stage.enter(1, "y/db", 11)?;
    let selects_nobody = world().policy("x/db", "podSelector: {matchLabels: {role: db}}");
    for world in [selects_nobody.clone(), selects_nobody.object(&ended("db", "db", 1, 11))] {
        stage.play(&world)?;
        stage.expect([allows("x/next x/next-far y/web y/far x/spare stranger", "y/db", ALL)])?;
    }
    Ok(())
}

/// What ADD does with pods of which the manifests say little, or what cannot be.
fn arrivals(routing: &'static str) -> Result<()> {
    let mut stage = Stage::set(routing, &CAST)?;
    let isolated = only_web().policy("x/all", "podSelector: {}");
    stage.play(&isolated)?;
    // One without a manifest has no labels in its namespace, and is isolated before it can be reached.
    for (node, name, number) in [(1, "x/new", 40), (2, "x/new-far", 40), (1, "y/new", 41)] {
        stage.enter(node, name, number)?;
    }
    let line = denies("x/web x/far y/web y/far stranger", "x/new x/new-far", ALL)
        .because("no ingress rule of NetworkPolicy x/all");
    stage.expect_of_agents([
        (line, "ingress"),
        (allows("x/web x/far stranger", "y/new", ALL), ""),
        (
            denies("x/new x/new-far y/new", "x/db", ALL)
                .because("no ingress rule of NetworkPolicy x/all, NetworkPolicy x/db"),
            "ingress",
        ),
    ])?;
    stage.play(&isolated.clone().pods("x/new x/new-far", "role: web"))?;
    stage.expect([allows("x/new x/new-far", "x/db", ALL)])?;
    // A manifest that is removed leaves a pod without labels.
    stage.play(&isolated.clone().without("x/new").without("x/new-far"))?;

    // A pod that uses its node's network has no endpoint.
    let on_host =
        "kind: Pod\nmetadata: {name: host, namespace: x}\nspec: {hostNetwork: true, nodeName: n1, containers: []}\n";
    stage.play(&isolated.object(on_host))?;
    let node = &stage.lab.nodes[0];
    let place = Place::make(&format!("{}-x.host", node.place.name))?;
    let add = Call::new(node, "ADD", "host", &place.path())?
        .with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=host");
    let before = node.status()?.endpoints;
    let (_, message) = add.fails()?;
    ensure!(message.contains("pod x/host uses its node's network"), "{message}");
    ensure!(node.status()?.endpoints == before, "an endpoint is left");
    Ok(())
}

#[test]
fn ends_and_host_networks_are_heeded_natively() -> Result<()> {
    standing("native")
}

#[test]
fn ends_and_host_networks_are_heeded_through_the_overlay() -> Result<()> {
    standing("vxlan")
}

#[test]
fn labels_that_change_concern_live_flows_natively() -> Result<()> {
    live_flows("native")
}

#[test]
fn labels_that_change_concern_live_flows_through_the_overlay() -> Result<()> {
    live_flows("vxlan")
}

#[test]
fn nobody_is_judged_as_its_predecessor_natively() -> Result<()> {
    successors("native")
}

#[test]
fn nobody_is_judged_as_its_predecessor_through_the_overlay() -> Result<()> {
    successors("vxlan")
}

#[test]
fn pods_arrive_isolated_natively() -> Result<()> {
    arrivals("native")
}

#[test]
fn pods_arrive_isolated_through_the_overlay() -> Result<()> {
    arrivals("vxlan")
}
