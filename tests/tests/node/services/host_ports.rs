//! Ports of a node that lead to a pod.

use anyhow::Result;
use serde_json::json;

use super::stage::{EXPRESS, MOST_WAYS, PLAIN, Stage, TARGET, each_way, refused, served};
use super::world::{ports, world};
use sluice_tests::lab::serving::Means;

#[test]
fn ports_of_a_node_lead_to_a_pod() -> Result<()> {
    each_way(&MOST_WAYS, |stage| {
        let [v4, v6] = [stage.addresses("n2")?[0], stage.addresses("n2")?[1]];
        let lead = |port: u16, protocol: &str, host_ip: &str| json!({ "hostPort": port, "containerPort": TARGET, "protocol": protocol, "hostIP": host_ip });
        let everywhere = [lead(8081, "tcp", ""), lead(8081, "udp", "0.0.0.0"), lead(8081, "udp", "::")];
        let at_one = [lead(8082, "tcp", &v4.to_string()), lead(8083, "udp", &v6.to_string())];
        let at_loopback = [lead(8084, "tcp", "127.0.0.1")];
        let all = [&everywhere[..], &at_one, &at_loopback].concat();
        stage.enter_with_ports(2, "h2", &json!(all))?;
        stage.serve("h2", TARGET)?;
        stage.play(&world())?;
        let (at_v4, at_v6) = (format!("{v4}:8082"), format!("[{v6}]:8083"));
        let (tcp, udp) = ([Means::Tcp], [Means::Udp, Means::ConnectedUdp]);
        stage.expect([
            served("stranger", "n2:8081", "h2").seen_as("stranger"),
            served("a1 a2 c1 c3", "n2:8081", "h2").seen_as("itself"),
            served("n1 n3", "n2:8081", "h2").seen_as("itself"),
            served("h2", "n2:8081", "h2").seen_as("n2 h2"),
            served("stranger c1 c3 n1 a2", &at_v4, "h2").by(&tcp),
            served("stranger c1 c3 n1 a2", &at_v6, "h2").by(&udp),
            // The stack's own answer.
            refused("stranger c3 n1", &at_v4).by(&[Means::ConnectedUdp]),
            refused("stranger c3 n1", &format!("[{v6}]:8082 [{v6}]:8084 {v4}:8083 {v4}:8084")).by(&tcp),
            refused("stranger c3 n1", "n1:8081"),
        ])?;
        if stage.how.sockets {
            stage.expect([
                served("n2", "n2:8081 127.0.0.1:8081 [::1]:8081", "h2"),
                served("n2", "127.0.0.1:8084", "h2").by(&tcp),
                refused("n2", "[::1]:8084").by(&tcp),
                // Of a pod, those addresses are its own.
                refused("a2", "127.0.0.1:8084 127.0.0.1:8081 [::1]:8081").by(&tcp),
            ])?;
        }
        stage.leave("h2")?;
        stage.play(&world())?;
        stage.expect([refused("stranger c1 a2 c3 n1 n2", "n2:8081")])?;
        Ok(())
    })
}

#[test]
fn a_node_may_have_node_ports_at_some_addresses_only() -> Result<()> {
    each_way(&[PLAIN, EXPRESS], |stage| {
        const ALSO: &str = "203.0.113.77";
        let [v4, v6] = [stage.addresses("n2")?[0], stage.addresses("n2")?[1]];
        stage.lab.nodes[1].place.ip(&format!("addr replace {ALSO}/32 dev eth0"))?;
        stage.lab.stranger.ip(&format!("route replace {ALSO} via {v4}"))?;
        stage.turn_node(2, &format!("node_port_addresses: [{ALSO}/32]"))?;
        stage.enter_with_ports(2, "h2", &json!([{ "hostPort": 8081, "containerPort": TARGET, "protocol": "tcp" }]))?;
        stage.serve("h2", TARGET)?;
        let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080"));
        stage.play(&world().pods("a1 a2", "app: web").service("web", 10, &spec))?;
        let tcp = [Means::Tcp];
        stage.expect([
            // Of the other family nothing is said.
            served("stranger c3 n3", &format!("[{v6}]:30080"), "a1 a2"),
            served("stranger", &format!("{ALSO}:30080"), "a1 a2"),
            refused("stranger c3 n1 a2 n2", &format!("{v4}:30080")),
            // Host ports are everywhere.
            served("stranger c3", "n2:8081", "h2").by(&tcp),
            served("stranger", &format!("{ALSO}:8081"), "h2").by(&tcp),
        ])?;
        if stage.how.sockets {
            stage.expect([
                served("n2", "[::1]:30080", "a1 a2"),
                refused("n2", "127.0.0.1:30080"),
                served("n2", "127.0.0.1:8081", "h2").by(&tcp),
                served("n1", "127.0.0.1:30080 [::1]:30080", "a1 a2"),
            ])?;
            stage.turn_node(2, "node_port_addresses: [127.0.0.0/8]")?;
            stage.expect([
                served("n2", "127.0.0.1:30080 [::1]:30080", "a1 a2"),
                refused("stranger", &format!("{v4}:30080 {ALSO}:30080")),
            ])?;
        }
        stage.leave("h2")
    })
}

#[test]
fn a_host_port_gives_way_to_a_node_port() -> Result<()> {
    let mut stage = Stage::set(PLAIN)?;
    let port = json!({ "hostPort": 30_080, "containerPort": TARGET, "protocol": "tcp" });
    stage.enter_with_ports(2, "h2", &json!([port]))?;
    stage.serve("h2", TARGET)?;
    let tcp = [Means::Tcp];
    stage.play(&world())?;
    stage.expect([served("stranger c3", "n2:30080", "h2").by(&tcp)])?;
    let web = world().pods("a1", "app: web").service(
        "web",
        10,
        &format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080")),
    );
    stage.play_with_problems(&web)?;
    stage.expect([served("stranger c3", "n2:30080", "a1")])?;
    let problems = stage.lab.nodes[1].status()?.problems;
    assert!(
        problems.len() == 1
            && problems[0].contains("Pod default/h2 ")
            && problems[0].contains("30080/TCP is already Service default/web's"),
        "{problems:?}"
    );
    stage.play(&world())?;
    stage.expect([
        served("stranger c3", "n2:30080", "h2").by(&tcp),
        refused("stranger c3", "n2:30080").by(&[Means::ConnectedUdp]),
    ])
}
