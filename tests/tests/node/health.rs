//! What load balancers are told of a node.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_tests::lab::{Lab, Plan, until, until_so};

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

#[test]
fn load_balancers_ask_for_services_where_node_ports_are() -> Result<()> {
    const PORT: u16 = 30_100;
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let web = lab.pod(1, "web")?;
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: {}}}\n\
         spec: {{type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {PORT}, clusterIP: 10.96.0.7, \
         selector: {{role: web}}, ports: [{{port: 80, nodePort: 30080}}]}}\n",
        web.namespace
    );
    lab.tell("service.yaml", &service)?;
    let told = |lab: &Lab, address: SocketAddr| {
        let (status, page) = lab.nodes[0].page_at(address, "/")?;
        let page: Value = serde_json::from_str(&page)?;
        Ok::<_, anyhow::Error>((status, page["localEndpoints"].clone(), page["service"]["name"].clone()))
    };
    let everywhere = ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse().expect("an address"), PORT));
    for address in everywhere {
        until("there is no endpoint", || {
            let told = told(&lab, address)?;
            ensure!(told == (503, json!(0), json!("web")), "{told:?}");
            Ok(())
        })?;
    }
    lab.declare(&web, &[("role", "web")], &[])?;
    until_so("there is one", || Ok(told(&lab, everywhere[0])?.0 == 200))?;
    assert_eq!(told(&lab, everywhere[1])?.1, 1);

    let own = lab.nodes[0].addresses[0];
    lab.nodes[0].restart_with(&format!("node_port_addresses: [{}]\n", ipnet::IpNet::from(own)))?;
    until_so("it is at one address", || Ok(told(&lab, (own, PORT).into())?.0 == 200))?;
    assert!(told(&lab, everywhere[0]).is_err(), "it is asked for at one address only");
    // Where the port is taken, nobody is served, and that is told.
    let checks = |lab: &Lab| {
        let number = |name: &str| lab.nodes[0].metric(&format!("sluice_service_{name}"));
        Ok::<_, anyhow::Error>((number("health_checks")?, number("health_checks_unserved")?))
    };
    assert_eq!((checks(&lab)?, lab.nodes[0].metric("sluice_service_ports")?), ((1.0, 0.0), 1.0));
    lab.nodes[0].stop_agent();
    let taken = lab.nodes[0].place.inside(|| Ok(TcpListener::bind((own, PORT))?))?;
    lab.nodes[0].restart_with("")?;
    let is_told = |lab: &Lab| {
        let named = |problem: &String| problem.contains(&format!("Service {}/web", web.namespace));
        Ok(lab.nodes[0].status()?.problems.iter().any(named))
    };
    until_so("that is told", || is_told(&lab))?;
    assert_eq!(checks(&lab)?, (1.0, 1.0));
    drop(taken);
    lab.nodes[0].restart_with("")?;
    until_so("it is at all addresses again", || Ok(told(&lab, everywhere[1])?.0 == 200))?;
    assert!(!is_told(&lab)?);
    Ok(())
}
