//! The shop's Services, who calls them by which of their addresses, and what agents tell of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sluice_api::ServicePortStatus;
use sluice_tests::lab::{Lab, Node, Pod, binary, until};

use crate::calls::{self, Call, Rows, Talk};
use crate::party::{Party, Role};
use crate::table::Heading;

/// Their manifests.
pub const MANIFESTS: &str = include_str!("manifests/services.yaml");

/// The namespace that they are in.
const NAMESPACE: &str = "shop";

/// A Service, as its manifest says.
pub struct Service {
    name: &'static str,
    /// What the names of its pods begin with.
    pods: &'static str,
    addresses: [IpAddr; 2],
    port: u16,
    node_port: Option<u16>,
}

/// Where customers come to.
pub const FRONTEND: Service = service("frontend", "front-", 10, 80, Some(30_080));
/// Where the front end keeps what it knows.
const DATABASE: Service = service("database", "database", 20, 5432, None);

const fn service(name: &'static str, pods: &'static str, host: u8, port: u16, node_port: Option<u16>) -> Service {
    let v4 = IpAddr::V4(Ipv4Addr::new(10, 96, 0, host));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, host as u16));
    Service { name, pods, addresses: [v4, v6], port, node_port }
}

impl Service {
    /// What agents are to tell where these addresses serve.
    fn told_with(&self, backends: BTreeSet<IpAddr>) -> Told {
        let cluster_ips = self.addresses.iter().map(|address| (Some(*address), self.port));
        Told { places: cluster_ips.chain(self.node_port.map(|port| (None, port))).collect(), backends }
    }

    /// What the agent of a node tells.
    fn told(&self, node: &Node) -> Result<Told> {
        let mut told = Told::default();
        let is_own = |port: &ServicePortStatus| port.namespace == NAMESPACE && port.name == self.name;
        for port in node.services()?.into_iter().filter(is_own) {
            told.places.extend(port.frontends.iter().map(|frontend| (frontend.address, frontend.port)));
            let serving = port.backends.iter().filter(|backend| !backend.serves.is_empty());
            told.backends.extend(serving.map(|backend| backend.address));
        }
        Ok(told)
    }
}

/// What an agent tells of a Service.
#[derive(Default, PartialEq, Eq, Debug)]
struct Told {
    /// Where it is reached; no address: at all of the node.
    places: BTreeSet<(Option<IpAddr>, u16)>,
    /// Who serves.
    backends: BTreeSet<IpAddr>,
}

/// Where a Service is reached: at its cluster IP, or at a port of a node.
pub struct Frontend<'a> {
    service: &'static Service,
    node: Option<&'a Party<'a>>,
}

impl<'a> Frontend<'a> {
    /// All of them.
    pub fn all(parties: &'a [Party<'a>]) -> Vec<Self> {
        let nodes = || parties.iter().filter(|party| party.role == Role::Node).map(Some);
        [&FRONTEND, &DATABASE]
            .into_iter()
            .flat_map(|service| {
                let ports = nodes().filter(|_| service.node_port.is_some());
                [None].into_iter().chain(ports).map(move |node| Self { service, node })
            })
            .collect()
    }

    /// As tables name it.
    pub fn heading(&self) -> Heading<'static> {
        let name = self.node.zip(self.service.node_port).map(|(node, port)| format!("{}:{port}", node.name));
        (self.service.name, name.unwrap_or_else(|| "cluster IP".into()))
    }

    /// Where it is, over each family.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let Service { addresses, port, node_port, .. } = self.service;
        let (addresses, port) = match (self.node, node_port) {
            (Some(node), Some(port)) => (&node.addresses[..], *port),
            _ => (&addresses[..], *port),
        };
        addresses.iter().map(|address| (*address, port).into()).collect()
    }

    /// The calls of somebody. The world makes none to a cluster IP, which it knows no way to.
    fn calls(&self, from: &'a Party<'a>, parties: &'a [Party<'a>]) -> Vec<Call<'a>> {
        let addresses = if from.role == Role::World && self.node.is_none() { Vec::new() } else { self.addresses() };
        addresses.into_iter().filter_map(|to| self.call(from, to, parties)).collect()
    }

    fn call(&self, from: &'a Party<'a>, at: SocketAddr, parties: &'a [Party<'a>]) -> Option<Call<'a>> {
        // A node gives its own a backend, at its own ports too. Others talk to the node that they ask, and are seen as that
        // by backends elsewhere.
        let asked = self.node.filter(|node| !node.is_beside(from));
        let is_backend = |party: &&Party<'_>| party.group == NAMESPACE && party.name.starts_with(self.service.pods);
        let talk = |from, to: &'a Party<'a>| Some(Talk { from, to, address: to.address_like(at.ip())? });
        let backends: Vec<Talk<'_>> = parties
            .iter()
            .filter(is_backend)
            .filter_map(|to| talk(asked.filter(|node| !node.is_beside(to)).unwrap_or(from), to))
            .collect();
        let server = |backend: &Talk<'a>| Some((backend.to, backend.from.address_like(at.ip())?));
        let (_, name) = self.heading();
        Some(Call {
            from,
            to: at,
            name: format!("{} by {name}", self.service.name),
            servers: backends.iter().map(server).collect::<Option<_>>()?,
            talks: asked
                .filter(|_| from.role == Role::Pod)
                .and_then(|node| talk(from, node))
                .into_iter()
                .chain(backends)
                .collect(),
        })
    }
}

/// Has everybody call every Service, by each of its addresses; gives a row for each caller.
///
/// # Errors
/// Where it cannot be found out what came of it.
pub fn everybody(lab: &Lab, parties: &[Party<'_>]) -> Result<Rows> {
    let frontends = Frontend::all(parties);
    let row = |from| frontends.iter().map(|frontend| frontend.calls(from, parties)).collect();
    calls::outcomes(lab, &parties.iter().map(row).collect::<Vec<Vec<_>>>())
}

/// Waits until all agents send clients to these pods, and nowhere else.
///
/// # Errors
/// Where one does not come to do so.
pub fn are_served<'a>(lab: &Lab, pods: impl IntoIterator<Item = &'a Pod>) -> Result<()> {
    let pods: Vec<&Pod> = pods.into_iter().filter(|pod| pod.namespace == NAMESPACE).collect();
    for service in [&FRONTEND, &DATABASE] {
        let own = pods.iter().filter(|pod| pod.name.starts_with(service.pods));
        let expected = service.told_with(own.flat_map(|pod| &pod.addresses).copied().collect());
        until(&format!("all nodes serve {} as they should", service.name), || {
            lab.nodes.iter().try_for_each(|node| {
                let told = service.told(node)?;
                ensure!(told == expected, "{} tells of {told:?} instead of {expected:?}", node.name);
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// Prints what `sluicectl services` says of a node.
///
/// # Errors
/// Where it fails.
pub fn print(node: &Node) -> Result<()> {
    let mut command = Command::new(binary("sluicectl"));
    command.arg("--socket").arg(node.socket()).args(["services", "--namespace", NAMESPACE]);
    let output = command.output().context("running sluicectl services")?;
    ensure!(output.status.success(), "sluicectl services: {}", String::from_utf8_lossy(&output.stderr).trim());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        println!("  {line}");
    }
    Ok(())
}
