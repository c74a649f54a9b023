//! Services against a kernel that can be told to fail.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;
use sluice_api::{PortMapping, PortProtocol};
use sluice_service::{Choice, FrontendKind};

use super::*;
use crate::fixture::endpoint;
use crate::kernel::KernelError;

/// What the tables hold, and how often they were made anew.
#[derive(Default)]
struct Tables {
    ports: BTreeMap<PortName, Arc<ServicePort>>,
    takeovers: usize,
    fails: bool,
}

impl Tables {
    fn outcome(&self) -> Result<(), KernelError> {
        let source = "it is told to".into();
        if self.fails { Err(KernelError::Failed { action: "writing".into(), source }) } else { Ok(()) }
    }

    /// Where a service's port is reached, and how many backends it is given.
    fn reached(&self, name: &str) -> Vec<(FrontendKind, u16, usize)> {
        let of_service = self.ports.iter().filter(|(port, _)| &*port.name == name);
        let frontends = of_service.flat_map(|(_, port)| {
            let given = match &port.inside {
                Choice::Among(members) => members.len(),
                Choice::Reject | Choice::Drop => 0,
            };
            port.frontends.iter().map(move |frontend| (frontend.kind, frontend.port, given))
        });
        frontends.collect()
    }
}

impl Balancer for Tables {
    fn take_over_services(
        &mut self,
        _: bool,
        ports: &mut dyn Iterator<Item = (PortName, Arc<ServicePort>)>,
    ) -> Result<(), KernelError> {
        self.takeovers += 1;
        self.outcome()?;
        self.ports = ports.collect();
        Ok(())
    }

    fn apply_services(&mut self, changes: Vec<(PortName, Option<Arc<ServicePort>>)>) -> Result<(), KernelError> {
        self.outcome()?;
        for (name, port) in changes {
            match port {
                Some(port) => self.ports.insert(name, port),
                None => self.ports.remove(&name),
            };
        }
        Ok(())
    }

    fn service_problems(&self) -> Vec<(PortName, String)> {
        Vec::new()
    }
}

fn web() -> Event {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "namespace": "default", "name": "web" },
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.10",
            "selector": { "app": "web" },
            "ports": [{ "port": 80, "targetPort": 8080, "nodePort": 30080 }],
        },
    }))
    .expect("a Service");
    Event::from(&service)
}

fn pod(is_ready: bool) -> PodObject {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "namespace": "default", "name": "web-1", "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": {
            "podIPs": [{ "ip": "10.1.0.7" }],
            "conditions": [{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }],
        },
    }))
    .expect("a Pod");
    (&pod).try_into().expect("makes sense")
}

fn started() -> (Services, Tables) {
    let (mut services, mut tables) = (Services::new("n1", true, true), Tables::default());
    services.take_in(web());
    services.start(&mut tables);
    (services, tables)
}

#[test]
fn what_was_listed_replaces_all_and_changes_follow() {
    let (mut services, mut tables) = started();
    assert_eq!(tables.takeovers, 1);
    let here = [(FrontendKind::ClusterIp, 80, 0), (FrontendKind::NodePort, 30_080, 0)];
    assert!(here.iter().all(|frontend| tables.reached("web").contains(frontend)));
    let ready = pod(true);
    services.pod_is(&ready);
    services.pod(&ready.pod.name, Some(&ready.pod));
    services.work(&mut tables, Instant::now());
    assert!(tables.reached("web").iter().all(|(_, _, given)| *given == 1));
    let unready = pod(false);
    services.pod_is(&unready);
    services.pod(&unready.pod.name, Some(&unready.pod));
    services.work(&mut tables, Instant::now());
    assert!(tables.reached("web").iter().all(|(_, _, given)| *given == 0), "its manifest says that it is not ready");
    assert_eq!(tables.takeovers, 1);
}

#[test]
fn after_a_failure_all_tables_are_made_anew_with_what_has_come_since() {
    let (mut services, mut tables) = started();
    let now = Instant::now();
    tables.fails = true;
    services.take_in(Event::Removed(ObjectName::new(Kind::Service, "default", "web")));
    services.work(&mut tables, now);
    assert!(services.problems().any(|problem| problem.contains("it is told to")));
    assert!(!tables.reached("web").is_empty(), "what is in force stays");
    let due = services.due().expect("it is tried again");
    tables.fails = false;
    let ready = pod(true);
    services.pod(&ready.pod.name, Some(&ready.pod));
    services.work(&mut tables, now);
    assert_eq!(tables.takeovers, 1, "not before it is due");
    services.work(&mut tables, due + Duration::from_millis(1));
    assert_eq!((tables.takeovers, tables.reached("web").len()), (2, 0));
    assert_eq!(services.problems().count(), 0);
    assert!(services.due().is_none());
}

#[test]
fn a_node_port_and_a_host_port_at_one_address_are_told_of_where_both_are_served() {
    let (mut services, mut tables) = started();
    let [own, other] = ["192.0.2.1", "198.51.100.1"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    let at = |ip: &str| PortMapping {
        host_port: 30_080,
        container_port: 80,
        protocol: PortProtocol::Tcp,
        host_ip: Some(ip.parse().expect("an address")),
    };
    let record = EndpointRecord {
        addresses: vec!["10.1.0.1".parse().expect("an address")],
        port_mappings: ["192.0.2.1", "127.0.0.1"].map(at).to_vec(),
        ..endpoint("sl1")
    };
    let mut told = |own: &[IpAddr], nets: &[&str]| {
        let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().expect("a CIDR")).collect();
        services.own_addresses(own, &nets);
        services.endpoint(&record);
        services.work(&mut tables, Instant::now());
        let at_both =
            |ip: &str| services.problems().any(|problem| problem.contains(&format!("{ip}:30080/TCP is already")));
        [at_both("192.0.2.1"), at_both("127.0.0.1")]
    };
    assert_eq!(told(&[own, other], &[]), [true, true]);
    assert_eq!(told(&[other], &[]), [false, true], "it is not the node's address");
    assert_eq!(told(&[own, other], &["192.0.2.0/24", "127.0.0.0/8"]), [true, true]);
    assert_eq!(told(&[own, other], &["198.51.100.0/24", "::1/128"]), [false, false], "no node port is served there");
}

#[test]
fn host_ports_come_and_go_with_their_endpoints() {
    let (mut services, mut tables) = started();
    let mapping =
        |host_port| PortMapping { host_port, container_port: 8080, protocol: PortProtocol::Tcp, host_ip: None };
    let at = |interface, address: &str| EndpointRecord {
        addresses: vec![address.parse().expect("an address")],
        ..endpoint(interface)
    };
    let hosted = EndpointRecord { port_mappings: vec![mapping(8888)], ..at("sl0", "10.1.0.9") };
    let plain = at("sl1", "10.1.0.10");
    services.endpoints([&hosted, &plain].into_iter());
    services.work(&mut tables, Instant::now());
    let whose = tables.ports.keys().find(|name| name.namespace.is_empty()).expect("a host port").name.clone();
    assert_eq!(tables.reached(&whose), [(FrontendKind::HostPort, 8888, 1)]);
    let claimed = services.take_claimed().expect("they are others");
    assert!(claimed.contains_key(&(Transport::Tcp, 8888)) && claimed.contains_key(&(Transport::Tcp, 30_080)));
    assert!(services.take_claimed().is_none(), "nothing has changed");
    services.endpoints([&plain].into_iter());
    services.work(&mut tables, Instant::now());
    assert!(tables.reached(&whose).is_empty());
    assert!(!services.take_claimed().expect("one is gone").contains_key(&(Transport::Tcp, 8888)));
}
