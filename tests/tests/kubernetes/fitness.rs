//! Whether nodes are fit, as they are looked at in the agents' own pods.

use anyhow::{Context, Result};
use sluice_tests::kubernetes::Cluster;

#[test]
fn a_node_that_works_is_fit() -> Result<()> {
    let cluster = Cluster::shared()?;
    let agents = cluster.agents()?;
    assert_eq!(agents.len(), cluster.nodes()?.len(), "{agents:?}");
    for agent in agents.iter().filter_map(|agent| agent["metadata"]["name"].as_str()) {
        // It fails where anything keeps an agent from its work.
        let check = ["-n", "kube-system", "exec", agent, "-c", "agent", "--", "sluice-agent", "check", "-o", "json"];
        let found = cluster.kubectl(&check)?;
        let findings: Vec<serde_json::Value> = serde_json::from_str(&found).context("understanding what was found")?;
        for check in ["capabilities", "CNI plugin", "Kubernetes API"] {
            let finding = findings.iter().find(|finding| finding["check"] == check).context(check)?;
            assert_eq!(finding["verdict"], "ok", "{agent}: {finding}");
        }
    }
    Ok(())
}
