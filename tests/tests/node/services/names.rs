//! What sockets call whom they talk to.

use anyhow::Result;

use super::stage::{EVERY_WAY, each_way, refused, served};
use super::world::{ports, world};

#[test]
fn sockets_of_ipv6_talk_ipv4_to_services() -> Result<()> {
    each_way(&EVERY_WAY, |stage| {
        let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080"));
        stage.play(&world().pods("a1 a2", "app: web").service("web", 10, &spec))?;
        // Whoever asks compares: getpeername, and whom datagrams come from.
        let mapped = "[::ffff:10.96.0.10]:80";
        stage.expect([
            served("a1 c1 c3 n1 n3", mapped, "a1 a2"),
            served("c1 c3 stranger", "[::ffff:192.0.2.3]:30080", "a1 a2"),
            refused("c1 c3 n1", "[::ffff:10.96.0.10]:81"),
        ])
    })
}
