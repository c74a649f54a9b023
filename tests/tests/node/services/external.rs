//! Clients outside: load balancers, external IPs, node ports, and whose endpoints answer them.

use anyhow::Result;
use sluice_tests::lab::serving::Means;

use super::stage::{EVERY_WAY, PLAIN, Stage, each_way, ignored, refused, served};
use super::world::{World, ports, world};

/// What a load balancer has for the service, and an external IP of it.
const INGRESS: &str = "{ip: 203.0.113.10}, {ip: '2001:db8:cafe::10'}";
const BALANCED: &str = "203.0.113.10:80 [2001:db8:cafe::10]:80";
const EXTERNAL_IPS: &str = "externalIPs: [203.0.113.20, '2001:db8:cafe::20']";
const EXTERNAL: &str = "203.0.113.20:80 [2001:db8:cafe::20]:80";

/// Only endpoints of the node that is asked answer.
const LOCAL: &str = "externalTrafficPolicy: Local, healthCheckNodePort: 30900";

/// A load balanced service with a pod that serves on each of the first two nodes.
fn web(spec: &str) -> World {
    let ports = ports("80>8080@30080");
    world()
        .pods("a1 a2", "app: web")
        .service("web", 10, &format!("type: LoadBalancer, selector: {{app: web}}, {EXTERNAL_IPS}, {ports}, {spec}"))
        .balanced("web", INGRESS)
}

impl Stage {
    /// The network routes addresses of load balancers to a node, counted from 1.
    fn route_to(&self, node: usize) -> Result<()> {
        for address in ["203.0.113.10", "203.0.113.20", "2001:db8:cafe::10", "2001:db8:cafe::20"] {
            let via = self.lab.nodes[node - 1].addresses.iter().find(|own| own.is_ipv4() != address.contains(':'));
            self.lab.stranger.ip(&format!("route replace {address} via {}", via.expect("of each family")))?;
        }
        Ok(())
    }
}

#[test]
fn clients_outside_are_served_as_the_service_says() -> Result<()> {
    each_way(&EVERY_WAY, |stage| {
        load_balancers_and_external_ips_lead_to_all_backends(stage)?;
        local_endpoints_see_clients_outside_as_they_are(stage)?;
        cluster_ips_may_be_served_by_endpoints_of_the_clients_node_only(stage)?;
        load_balancers_let_in_whom_they_are_to(stage)
    })
}

fn load_balancers_and_external_ips_lead_to_all_backends(stage: &mut Stage) -> Result<()> {
    stage.play(&web(""))?;
    // One that is a node's own, too.
    let own = stage.addresses("n3")?;
    let also = format!("externalIPs: ['{}', '{}']", own[0], own[1]);
    let low = world().pods("a1 a2", "app: web").service(
        "low",
        11,
        &format!("selector: {{app: web}}, {also}, {}", ports("81>8080")),
    );
    stage.play(&low)?;
    stage.expect([served("stranger c1 c3 n1", "n3:81", "a1 a2"), refused("stranger", "n3:82")])?;
    stage.play(&web(""))?;
    for node in 1..=3 {
        stage.route_to(node)?;
        // Whoever has been sent to another node is known by the first one's address.
        let seen = format!("stranger n{node}");
        stage.expect([
            served("stranger", BALANCED, "a1 a2").seen_as(&seen),
            served("stranger", EXTERNAL, "a1 a2").seen_as(&seen),
        ])?;
    }
    stage.expect([
        served("a1 a2 c1 c3 n1 n2 n3", &format!("{BALANCED} {EXTERNAL}"), "a1 a2"),
        served("c1 c3", BALANCED, "a1 a2").seen_as("itself n1 n2"),
        refused("c1 c3", "web:81"),
    ])?;
    Ok(())
}

fn local_endpoints_see_clients_outside_as_they_are(stage: &mut Stage) -> Result<()> {
    stage.play(&web(LOCAL))?;
    stage.expect([
        served("stranger n2 n3 c3", "n1:30080", "a1"),
        served("stranger", "n1:30080", "a1").seen_as("stranger"),
        served("stranger", "n2:30080", "a2").seen_as("stranger"),
        ignored("stranger c1 n1", "n3:30080"),
        // The policy is about whoever comes from outside.
        served("c1 c3 n1 n3", BALANCED, "a1 a2"),
        served("c3", "n3:30080 web:80", "a1 a2"),
    ])?;
    for (node, by) in [(1, "a1"), (2, "a2")] {
        stage.route_to(node)?;
        stage.expect([served("stranger", &format!("{BALANCED} {EXTERNAL}"), by).seen_as("stranger")])?;
    }
    stage.route_to(3)?;
    stage.expect([ignored("stranger", &format!("{BALANCED} {EXTERNAL}"))])?;
    // Endpoints that drain serve where none is ready.
    let draining = "conditions: {ready: false, serving: true, terminating: true}";
    let slice = web(LOCAL).slice("web", "web", "80>8080", &[("a1", draining), ("a2", "")]);
    stage.play(&slice)?;
    stage.expect([
        served("stranger", "n1:30080", "a1").seen_as("stranger"),
        served("stranger", "n2:30080", "a2").seen_as("stranger"),
        served("c1", "n1:30080 web:80", "a2"),
    ])?;
    // Where there is none at all, that is said.
    stage.play(&web(LOCAL).pods("a1 a2", ""))?;
    stage.expect([refused("stranger", "n1:30080 n3:30080"), refused("stranger c1 n1", BALANCED)])?;
    Ok(())
}

fn cluster_ips_may_be_served_by_endpoints_of_the_clients_node_only(stage: &mut Stage) -> Result<()> {
    stage.play(&web("internalTrafficPolicy: Local"))?;
    stage.expect([
        served("a1 c1 n1", "web:80", "a1"),
        served("a2 n2", "web:80", "a2"),
        ignored("c3 n3", "web:80"),
        served("stranger", "n3:30080", "a1 a2"),
        served("c3", BALANCED, "a1 a2"),
    ])?;
    Ok(())
}

fn load_balancers_let_in_whom_they_are_to(stage: &mut Stage) -> Result<()> {
    stage.route_to(1)?;
    let ranges = |ranges: &str| web(&format!("loadBalancerSourceRanges: [{ranges}]"));
    stage.play(&ranges("192.0.2.100/32, '2001:db8::64/128', 10.1.3.0/24, 'fd00:1:3::/64'"))?;
    stage.expect([
        served("stranger c3", BALANCED, "a1 a2"),
        ignored("c1 n2", BALANCED),
        served("stranger c1 n2", EXTERNAL, "a1 a2"),
        served("stranger c1 n2", "n1:30080", "a1 a2"),
        served("c1 n2", "web:80", "a1 a2"),
    ])?;
    stage.play(&ranges("198.51.100.0/24, '2001:db8:9::/64'"))?;
    stage.expect([ignored("stranger c3 c1", BALANCED)])?;
    stage.play(&web(""))?;
    stage.expect([served("stranger c3 c1 n2", BALANCED, "a1 a2")])?;
    Ok(())
}

#[test]
fn what_a_load_balancer_proxies_is_its_own() -> Result<()> {
    let mut stage = Stage::set(PLAIN)?;
    for address in ["203.0.113.10", "2001:db8:cafe::10"] {
        stage.lab.also_at(address.parse()?)?;
    }
    stage.serve("stranger", 80)?;
    let proxied = "{ip: 203.0.113.10, ipMode: Proxy}, {ip: '2001:db8:cafe::10', ipMode: Proxy}";
    stage.play(&web("allocateLoadBalancerNodePorts: false").balanced("web", proxied))?;
    stage.expect([
        served("c1 c3 n1", BALANCED, "stranger").by(&[Means::Tcp]),
        served("c1 n1 stranger", "n1:30080", "a1 a2"),
    ])?;
    // One that needs no node ports.
    let bare = format!(
        "type: LoadBalancer, allocateLoadBalancerNodePorts: false, selector: {{app: web}}, {}",
        ports("80>8080")
    );
    stage.play(&world().pods("a1 a2", "app: web").service("web", 10, &bare).balanced("web", INGRESS))?;
    stage.expect([served("c1 c3 n1", BALANCED, "a1 a2"), refused("stranger c3", "n1:30080").by(&[Means::Tcp])])
}
