//! ClusterNetworkPolicies above and below NetworkPolicies.

use anyhow::Result;

use super::stage::{Stage, allows, denies};
use super::world::{World, world};

const CAST: [(usize, &str); 6] = [(1, "x/db"), (1, "x/web"), (1, "y/web"), (2, "x/far"), (2, "y/far"), (2, "z/far")];
const OTHERS: &str = "x/web y/web x/far y/far z/far";
const ALL: &str = "80/TCP 53/UDP ICMP";

/// Peers, as rules name them.
const WEB: &str = "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {role: web}}}}";
const RED: &str = "{namespaces: {matchLabels: {team: red}}}";
const ANYONE: &str = "{namespaces: {}}";
/// Subjects.
const DB: &str =
    "subject: {pods: {namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {role: db}}}}";
const TEAM_X: &str = "subject: {namespaces: {matchLabels: {team: x}}}";

fn teams() -> World {
    world()
        .pods("x/db", "role: db")
        .pods("x/web y/web", "role: web")
        .namespace("x", "team: x")
        .namespace("y", "team: red")
        .namespace("z", "team: blue")
}

/// A rule for what is received.
fn ingress(action: &str, from: &str, ports: &str) -> String {
    format!("{{action: {action}, from: [{from}]{}}}", protocols(ports))
}

/// A rule for what is sent.
fn egress(action: &str, to: &str, ports: &str) -> String {
    format!("{{action: {action}, to: [{to}]{}}}", protocols(ports))
}

fn protocols(ports: &str) -> String {
    if ports.is_empty() { String::new() } else { format!(", protocols: [{ports}]") }
}

fn tiers(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let accept = |from: &str| ingress("Accept", from, "");
    let deny = |from: &str| ingress("Deny", from, "");
    let pass = |from: &str| ingress("Pass", from, "");
    let closed = "podSelector: {matchLabels: {role: db}}";
    let open = "podSelector: {matchLabels: {role: db}}, ingress: [{}]";

    // What the Admin tier accepts, no NetworkPolicy denies; what it denies, none allows; what it passes, they decide.
    let admin = format!("{DB}, ingress: [{}, {}, {}]", accept(WEB), deny(RED), pass(ANYONE));
    for (policy, rest) in [(closed, false), (open, true)] {
        stage.play(&teams().cluster_policy("above", "Admin", 10, &admin).policy("x/db", policy))?;
        stage.expect([
            allows("x/web y/web", "x/db", ALL),
            denies("y/far", "x/db", ALL).because("ClusterNetworkPolicy above ingress[1]"),
            if rest { allows("x/far z/far", "x/db", ALL) } else { denies("x/far z/far", "x/db", ALL) },
            // It selects nobody else, and isolates nobody.
            allows(OTHERS, "x/web", ALL),
        ])?;
    }
    stage.play(&teams().cluster_policy("above", "Admin", 10, &admin))?;
    stage.expect([
        denies("y/far", "x/db", ALL),
        allows("x/web y/web x/far z/far stranger", "x/db", ALL),
        allows("x/db", OTHERS, ALL),
    ])?;

    // The lower priority comes first, whatever the names; within a policy, the rule that stands first.
    let first = format!("{DB}, ingress: [{}]", accept(WEB));
    let second = format!("{DB}, ingress: [{}, {}]", deny(WEB), deny(RED));
    stage
        .play(&teams().cluster_policy("z-first", "Admin", 1, &first).cluster_policy("a-second", "Admin", 2, &second))?;
    stage.expect([
        allows("x/web y/web", "x/db", ALL),
        denies("y/far", "x/db", ALL).because("ClusterNetworkPolicy a-second ingress[1]"),
    ])?;
    stage
        .play(&teams().cluster_policy("z-first", "Admin", 3, &first).cluster_policy("a-second", "Admin", 2, &second))?;
    stage.expect([denies("x/web y/web y/far", "x/db", ALL), allows("x/far z/far", "x/db", ALL)])?;
    // Who passes, passes all policies of the tier.
    let passing = format!("{DB}, ingress: [{}]", pass(WEB));
    stage.play(
        &teams().cluster_policy("z-first", "Admin", 1, &passing).cluster_policy("a-second", "Admin", 2, &second),
    )?;
    stage.expect([allows("x/web y/web", "x/db", ALL), denies("y/far", "x/db", ALL)])?;

    // The Baseline tier decides where no NetworkPolicy isolates the pod, and only there.
    let baseline = format!("{TEAM_X}, ingress: [{}, {}]", accept(WEB), deny(ANYONE));
    stage.play(&teams().cluster_policy("below", "Baseline", 10, &baseline).policy("x/db", open))?;
    stage.expect([
        allows(OTHERS, "x/db", ALL),
        allows("x/web y/web stranger", "x/far", ALL),
        denies("y/far z/far x/db", "x/far", ALL).because("ClusterNetworkPolicy below ingress[1]"),
        allows("x/db x/web x/far", "y/far", ALL),
    ])?;
    // What the Admin tier says, the Baseline tier does not change, nor does its order change what is accepted first.
    let earlier = format!("{TEAM_X}, ingress: [{}]", accept(RED));
    stage.play(
        &teams()
            .cluster_policy("below", "Baseline", 10, &baseline)
            .cluster_policy("under", "Baseline", 9, &earlier)
            .cluster_policy("above", "Admin", 10, &admin),
    )?;
    stage.expect([
        allows("y/web y/far", "x/far", ALL),
        denies("z/far x/db", "x/far", ALL),
        denies("y/far", "x/db", ALL).because("ClusterNetworkPolicy above ingress[1]"),
        denies("x/far z/far", "x/db", ALL).because("ClusterNetworkPolicy below ingress[1]"),
    ])
}

fn ports(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let tcp = |port: &str| format!("{{tcp: {{destinationPort: {port}}}}}");
    let udp = |port: &str| format!("{{udp: {{destinationPort: {port}}}}}");
    let one = format!("{}, {}", tcp("{number: 80}"), udp("{range: {start: 5000, end: 5010}}"));
    let spec = format!("{DB}, ingress: [{}, {}]", ingress("Accept", ANYONE, &one), ingress("Deny", ANYONE, ""));
    stage.play(&teams().cluster_policy("above", "Admin", 0, &spec))?;
    stage.expect([
        allows("x/web y/far", "x/db", "80/TCP 5000/UDP 5010/UDP"),
        denies("x/web y/far", "x/db", "81/TCP 80/UDP 5011/UDP 4999/UDP 5000/TCP ICMP")
            .because("ClusterNetworkPolicy above ingress[1]"),
        allows("stranger", "x/db", "81/TCP"),
    ])?;
    // Names are those of the receiver, of any protocol.
    let named = |spec: &str| {
        teams()
            .ports("x/db", &["{name: api, containerPort: 8080}", "{name: api, containerPort: 5353, protocol: UDP}"])
            .ports("y/far", &["{name: api, containerPort: 8081}"])
            .cluster_policy("above", "Admin", 0, spec)
    };
    let name = "{destinationNamedPort: api}";
    stage.play(&named(&format!("{DB}, ingress: [{}]", ingress("Deny", ANYONE, name))))?;
    stage.expect([
        denies("x/web y/far", "x/db", "8080/TCP 5353/UDP"),
        allows("x/web y/far", "x/db", "8080/UDP 5353/TCP 8081/TCP ICMP"),
    ])?;
    stage.play(&named(&format!("subject: {{namespaces: {{}}}}, egress: [{}]", egress("Deny", ANYONE, name))))?;
    stage.expect([
        denies("x/web x/far", "x/db", "8080/TCP 5353/UDP").because("ClusterNetworkPolicy above egress[0]"),
        denies("x/web x/far", "y/far", "8081/TCP"),
        allows("x/web x/far", "x/db", "8081/TCP"),
        allows("x/web x/far", "y/far", "8080/TCP 5353/UDP"),
        allows("x/web x/far", "y/web stranger", "8080/TCP 8081/TCP"),
    ])
}

fn outward(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    for address in ["203.0.113.9", "2001:db8:f::9"] {
        stage.lab.also_at(address.parse()?)?;
    }
    let nodes = |labels: &str| format!("{{nodes: {{matchLabels: {{{labels}}}}}}}");
    let two = teams().node("n1", "zone: near").node("n2", "zone: remote");

    // Networks: outsiders, pods, nodes, whoever is in them.
    let networks = "{networks: [203.0.113.0/24, '2001:db8:f::/48', 10.1.2.11/32, 'fd00:1:2::11/128']}";
    let spec = format!("{TEAM_X}, egress: [{}]", egress("Deny", networks, "{tcp: {destinationPort: {number: 80}}}"));
    stage.play(&two.clone().cluster_policy("above", "Admin", 0, &spec))?;
    stage.expect([
        denies("x/db", "203.0.113.9 2001:db8:f::9 x/far", "80/TCP").because("ClusterNetworkPolicy above egress[0]"),
        allows("x/db", "203.0.113.9 2001:db8:f::9 x/far", "81/TCP 80/UDP ICMP"),
        allows("x/db", "stranger y/far n1 n2", "80/TCP"),
        allows("y/web", "203.0.113.9 2001:db8:f::9 x/far", "80/TCP"),
        allows("203.0.113.9 2001:db8:f::9", "x/db", "80/TCP"),
    ])?;

    // Nodes, the pod's own among them: such a rule is about nodes, and is meant.
    for (peer, denied, allowed) in
        [(nodes(""), "n1 n2", "stranger"), (nodes("zone: near"), "n1", "n2"), (nodes("zone: remote"), "n2", "n1")]
    {
        let spec = format!("{TEAM_X}, egress: [{}]", egress("Deny", &peer, ""));
        stage.play(&two.clone().cluster_policy("above", "Admin", 0, &spec))?;
        stage.expect([
            denies("x/db", denied, ALL).because("ClusterNetworkPolicy above egress[0]"),
            allows("x/db", allowed, ALL),
            allows("x/db", "x/far y/far stranger x/db", ALL),
            allows("n1 n2", "x/db", ALL),
            allows("y/web", "n1 n2", ALL),
        ])?;
    }
    // And to nodes only, though a NetworkPolicy isolates.
    let spec = format!(
        "{TEAM_X}, egress: [{}]",
        egress("Accept", &nodes("zone: remote"), "{udp: {destinationPort: {number: 53}}}")
    );
    let isolated = "podSelector: {}, policyTypes: [Egress]";
    stage.play(&two.clone().cluster_policy("above", "Admin", 0, &spec).policy("x/none", isolated))?;
    stage.expect([
        allows("x/db", "n2", "53/UDP"),
        denies("x/db", "n2", "53/TCP ICMP").because("no egress rule of NetworkPolicy x/none"),
        denies("x/db", "stranger y/far", "53/UDP"),
        allows("x/db", "n1", ALL),
    ])?;
    // Pods of namespaces, and pods; Baseline below a NetworkPolicy, towards others.
    let spec = format!(
        "{TEAM_X}, egress: [{}, {}]",
        egress("Accept", WEB, ""),
        egress("Deny", &format!("{RED}, {ANYONE}"), "")
    );
    stage.play(&two.cluster_policy("below", "Baseline", 0, &spec).policy(
        "x/db",
        "podSelector: {matchLabels: {role: db}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]",
    ))?;
    stage.expect([
        allows("x/far", "x/web y/web stranger n1", ALL),
        denies("x/far", "y/far z/far x/db", ALL).because("ClusterNetworkPolicy below egress[1]"),
        allows("x/db", "y/far z/far stranger", "80/TCP"),
        denies("x/db", "x/web y/web y/far stranger", "53/UDP").because("no egress rule of NetworkPolicy x/db"),
    ])
}

#[test]
fn tiers_stand_above_and_below_natively() -> Result<()> {
    tiers("native")
}

#[test]
fn tiers_stand_above_and_below_through_the_overlay() -> Result<()> {
    tiers("vxlan")
}

#[test]
fn their_rules_have_ports_natively() -> Result<()> {
    ports("native")
}

#[test]
fn their_rules_have_ports_through_the_overlay() -> Result<()> {
    ports("vxlan")
}

#[test]
fn they_are_about_nodes_and_networks_natively() -> Result<()> {
    outward("native")
}

#[test]
fn they_are_about_nodes_and_networks_through_the_overlay() -> Result<()> {
    outward("vxlan")
}
