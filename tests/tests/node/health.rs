//! What load balancers are told of a node.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};
use sluice_tests::lab::{Lab, Plan, until_so};

#[test]
fn a_node_that_is_about_to_be_deleted_asks_for_no_traffic() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let told = |lab: &Lab, path: &str| {
        let (status, page) = lab.nodes[0].health(path)?;
        Ok::<_, anyhow::Error>((status, serde_json::from_str::<Value>(&page)?))
    };
    let (status, page) = told(&lab, "/healthz")?;
    assert_eq!((status, &page["nodeEligible"], &page["healthy"]), (200, &json!(true), &json!(true)));
    assert_eq!(page["status"]["IPv4"]["healthy"], true);

    let mut node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    node["spec"]["taints"] = json!([{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }]);
    lab.tell("n1.json", &node.to_string())?;
    until_so("the node is not eligible", || Ok(told(&lab, "/healthz")?.0 == 503))?;
    assert_eq!(told(&lab, "/livez")?.0, 200);
    node["spec"]["taints"] = json!([]);
    lab.tell("n1.json", &node.to_string())?;
    until_so("the node is eligible again", || Ok(told(&lab, "/healthz")?.0 == 200))?;

    lab.nodes[0].restart_with("healthz_address: off\n")?;
    assert!(lab.nodes[0].health("/healthz").is_err(), "nobody wants to know");
    Ok(())
}
