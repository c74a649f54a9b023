//! What the agent tells those who watch it.

use anyhow::Result;
use sluice_tests::lab::traffic::ping;
use sluice_tests::lab::{Lab, Plan, until_so};

use super::roles::{declare, only_from};

#[test]
fn metrics_tell_what_policies_do() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (db, web) = (lab.pod(1, "db")?, lab.pod(1, "web")?);
    declare(&lab, [&db, &web])?;
    let node = &lab.nodes[0];
    assert_eq!(node.metric("sluice_policies")?, 0.0);
    let changes = "sluice_policy_apply_duration_seconds_count";
    let before = node.metric(changes)?;
    only_from(&lab, "nobody")?;
    until_so("the policy is in force", || Ok(node.metric("sluice_policies")? == 1.0))?;
    assert!(node.metric(changes)? > before, "that took some time");
    assert!(ping(&web.place, db.addresses[0]).is_err(), "web is let in");
    for (name, number) in [
        ("sluice_ready", 1.0),
        ("sluice_endpoints", 2.0),
        ("sluice_policy_pods_selected", 1.0),
        ("sluice_policy_pods_closed", 0.0),
        ("sluice_policy_pods_audited", 0.0),
        ("sluice_problems{severity=\"error\"}", 0.0),
    ] {
        assert_eq!(node.metric(name)?, number, "{name}");
    }
    let dropped = node.metric("sluice_drops_total{hook=\"from_pod\",reason=\"policy\"}")?;
    let denied = node.metric("sluice_policy_denials_total{direction=\"ingress\",verdict=\"denied\"}")?;
    assert!(dropped >= denied && denied > 0.0, "{dropped} dropped, {denied} denied");
    assert!(node.metric("sluice_table_entries{table=\"denials\"}")? > 0.0);
    assert!(
        node.metric("sluice_table_capacity{table=\"rules\"}")?
            >= node.metric("sluice_table_entries{table=\"rules\"}")?
    );
    assert_eq!((node.page("/readyz")?.0, node.page("/healthz")?.0), (200, 200));
    lab.nodes[0].restart_with("metrics_address: off\n")?;
    assert!(lab.nodes[0].page("/metrics").is_err(), "nobody wants them");
    Ok(())
}
