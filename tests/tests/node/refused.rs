//! An API server that does not let the agent see everything.

use std::fs;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use sluice_tests::lab::traffic::{ping, udp};
use sluice_tests::lab::{ApiServer, Lab, Node, Plan, until};

use super::roles::{declare, only_from};

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const CLUSTER_POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// What was in force stays, even when pods go, and it is known why no more come.
#[test]
fn policies_that_an_agent_may_not_see_hold_new_pods_up_and_change_nothing_for_others() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (db, web, other, short) = (lab.pod(1, "db")?, lab.pod(1, "web")?, lab.pod(1, "other")?, lab.pod(1, "short")?);
    declare(&lab, [&db, &web, &other])?;
    only_from(&lab, "web")?;
    let address = db.addresses[0];
    until("other is kept out", || match ping(&other.place, address) {
        Ok(()) => bail!("it is let in"),
        Err(_) => Ok(()),
    })?;
    let node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    let api = ApiServer::start(&lab.nodes[0])?;
    api.give("/api/v1/nodes", json!([node]));
    api.forbid(CLUSTER_POLICIES);
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &format!("kubernetes:{}", api.kubeconfig.display())])?;
    let node = &lab.nodes[0];
    let status = until("the agent says what it may not see", || {
        let status = node.status()?;
        ensure!(!status.problems.is_empty(), "{status:?}");
        Ok(status)
    })?;
    assert!(!status.ready && status.problems.len() == 1, "{status:?}");
    assert!(status.problems[0].contains("verbs list and watch on clusternetworkpolicies"), "{status:?}");
    until("whoever asks whether it is ready learns why not", || {
        let (code, text) = node.page("/readyz")?;
        ensure!(code == 503 && text.contains("clusternetworkpolicies"), "{code}: {text}");
        Ok(())
    })?;
    assert_eq!(node.metric("sluice_problems{severity=\"error\"}")?, 1.0);
    let refused = lab.pod(1, "late").err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(refused.contains("clusternetworkpolicies"), "{refused}");
    short.delete()?;
    assert!(ping(&other.place, address).is_err(), "other is let in");
    udp(&web.place, &db.place, address, 10)?;
    ping(&other.place, web.addresses[0])?;
    api.give(CLUSTER_POLICIES, json!([]));
    lab.nodes[0].wait_until_ready()?;
    assert_eq!(lab.nodes[0].status()?.problems, [""; 0]);
    Ok(())
}

/// An API server that is too old, or of another kind of cluster, or not there.
#[test]
fn a_server_that_lacks_what_the_agent_reads_is_told_of() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "native", ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let node: Value = serde_json::from_slice(&fs::read(lab.manifests().join("n1.json"))?)?;
    let api = ApiServer::start(&lab.nodes[0])?;
    api.give("/api/v1/nodes", json!([node]));
    api.withdraw(SLICES);
    api.give(
        "/apis/policy.networking.k8s.io/v1alpha1",
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "policy.networking.k8s.io/v1alpha1",
                "resources": [{ "name": "adminnetworkpolicies", "singularName": "adminnetworkpolicy", "namespaced": false,
                                "kind": "AdminNetworkPolicy", "verbs": ["list"] }] }),
    );
    let source = format!("kubernetes:{}", api.kubeconfig.display());
    let told = |node: &Node, parts: &[&str]| {
        until("the agent says what is wrong", || {
            let status = node.status()?;
            let told = format!("{}; {}", status.waiting_for.unwrap_or_default(), status.problems.join("; "));
            ensure!(parts.iter().all(|part| told.contains(part)), "{told}");
            Ok(())
        })
    };
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &source])?;
    told(
        &lab.nodes[0],
        &[
            "does not have the kind EndpointSlice in discovery.k8s.io/v1 (NotFound): it must be of Kubernetes 1.30 or later",
            "AdminNetworkPolicy of policy.networking.k8s.io/v1alpha1, which this agent does not know",
        ],
    )?;
    let checked = lab.nodes[0].agent_command(&["--source", &source, "check"]).output()?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("EndpointSlice in discovery.k8s.io/v1"), "{said}");
    udp(&a.place, &b.place, b.addresses[0], 10)?;
    api.give(SLICES, json!([]));
    lab.nodes[0].wait_until_ready()?;
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent_with(&["--source", &source, "--api-server", "http://127.0.0.1:1"])?;
    told(
        &lab.nodes[0],
        &["http://127.0.0.1:1 tells nothing", "Connection refused", "api_server says, or else the kubeconfig"],
    )?;
    Ok(())
}
