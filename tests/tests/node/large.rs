//! Packets that are too large for the way to a Service's backend.

use anyhow::{Result, ensure};
use sluice_tests::lab::traffic::tcp_by_service;
use sluice_tests::lab::{Lab, Plan, until};

/// The port that the pod serves at.
const TARGET: u16 = 8080;
const NODE_PORT: u16 = 30_080;

/// More than fits into a few packets.
const BYTES: usize = 200_000;

#[test]
fn clients_of_node_ports_and_backends_learn_what_the_overlay_takes() -> Result<()> {
    // Pods send as large packets as the wire takes: some nodes could be reached without the overlay.
    let lab = Lab::start(Plan { nodes: 2, routed: true, ..Plan::default() })?;
    let (asker, web) = (lab.pod(1, "asker")?, lab.pod(2, "web")?);
    lab.declare(&web, &[("app", "web")], &[TARGET])?;
    lab.tell(
        "web.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  clusterIP: 10.96.0.10\n  \
             clusterIPs: [10.96.0.10, 'fd00:96::a']\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n  \
             selector: {{app: web}}\n  ports: [{{port: 80, targetPort: {TARGET}, nodePort: {NODE_PORT}}}]\n"
        ),
    )?;
    for node in &lab.nodes {
        until(&format!("{} serves both families", node.name), || {
            ensure!(node.services()?.len() == 2, "{:?}", node.services()?);
            Ok(())
        })?;
    }
    let [near, far] = &lab.nodes[..] else { unreachable!("two nodes") };
    for (client, node) in [
        (&lab.stranger, near),
        (&lab.stranger, far),
        (&near.place, far),
        (&far.place, near),
        (&asker.place, far),
        // The backend itself, by way of another node.
        (&web.place, near),
    ] {
        for address in &node.addresses {
            tcp_by_service(client, &web.place, TARGET, (*address, NODE_PORT).into(), BYTES)?;
        }
    }
    Ok(())
}
