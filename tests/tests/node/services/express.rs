//! Which packets for backends on other nodes a node's stack never sees.

use anyhow::{Result, ensure};
use sluice_tests::lab::serving::{Asker, PATIENCE};
use sluice_tests::packet::Wire;

use super::stage::{How, PACKETS, Stage, each_way};
use super::world::{ports, world};

/// How often a client asks by one and the same flow: each time four packets, two that come and two that go.
const ASKED: usize = 30;

/// How many packets of a client that asks the last node the stack there sees, which has no backend of its own; of each
/// family.
fn packets_seen(stage: &Stage) -> Result<Vec<usize>> {
    let is_datagram = |frame: &[u8]| match frame[12..14] {
        [0x08, 0x00] => frame[23] == 17,
        [0x86, 0xdd] => frame[20] == 17,
        _ => false,
    };
    let count = |at| {
        let asker = Asker::new(stage.place("stranger")?, at, true)?;
        let seen = stage.place("n3")?.inside(|| Wire::of("eth0"))?;
        (0..ASKED).try_for_each(|_| asker.ask(PATIENCE)?.said().map(drop))?;
        seen.waiting(is_datagram)
    };
    stage.at("n3:30080")?.into_iter().map(count).collect()
}

#[test]
fn flows_to_backends_elsewhere_pass_the_stack_by_where_that_is_wished() -> Result<()> {
    let xdp = |xdp| How { xdp, ..PACKETS };
    // Devices without hardware are left alone by whoever wishes for nothing in particular.
    each_way(&[xdp("off"), xdp("driver"), xdp("generic"), xdp("auto")], |stage| {
        let spec = format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080"));
        stage.play(&world().pods("a1 a2", "app: web").service("web", 10, &spec))?;
        let output = stage.place("n3")?.command("ip").args(["-d", "link", "show", "eth0"]).output()?;
        let device = String::from_utf8_lossy(&output.stdout);
        let (expected, most) = match stage.how.xdp {
            "driver" => (Some("xdp"), ASKED),
            "generic" => (Some("xdpgeneric"), ASKED),
            _ => (None, usize::MAX),
        };
        let attached = device.split_whitespace().find(|word| word.starts_with("xdp"));
        ensure!(attached.map(|word| word.split('/').next().unwrap_or_default()) == expected, "{device}");
        for seen in packets_seen(stage)? {
            ensure!(
                if expected.is_some() { seen < most } else { seen >= 4 * ASKED },
                "the stack has seen {seen} packets"
            );
        }
        Ok(())
    })
}
