//! A lab with services: pods that serve them, and one that asks.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use serde_json::Value;

use super::cluster::{WORKERS, service, slice};
use crate::lab::{Families, Lab, Plan, Pod};

/// How many services there are where there are few.
pub const FEW: usize = 10;

/// Pods that serve every worker's services, and a pod that asks.
pub struct Stage {
    /// The lab.
    pub lab: Lab,
    /// Who asks.
    pub client: Pod,
    /// Who serves on its node.
    pub near: Pod,
    /// Who serves on another.
    pub far: Option<Pod>,
}

impl Stage {
    /// A lab of so many nodes with so many services. A service of each worker is served from another node, where there is one.
    ///
    /// # Errors
    /// Where the lab does not start.
    pub fn set(name: &str, nodes: u8, services: usize, settings: &str) -> Result<Self> {
        let mut lab = Lab::named(name, Plan { nodes, routing: "native", families: Families::V4, ..Plan::default() })?;
        if !settings.is_empty() {
            for node in &mut lab.nodes {
                node.restart_with(settings)?;
            }
        }
        let (client, near) = (lab.pod(1, "client")?, lab.pod(1, "server")?);
        let far = if nodes > 1 { Some(lab.pod(2, "away")?) } else { None };
        let server = |number: usize| far.as_ref().filter(|_| number < WORKERS).unwrap_or(&near);
        let objects = (0..services).flat_map(|number| [service(number), slice(number, &[v4(server(number))])]);
        lab.tell("services.json", &manifest(objects))?;
        Ok(Self { lab, client, near, far })
    }
}

/// A pod's address.
pub fn v4(pod: &Pod) -> Ipv4Addr {
    match pod.addresses[0] {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the lab has IPv4 only"),
    }
}

fn manifest(objects: impl Iterator<Item = Value>) -> String {
    objects.map(|object| format!("{object}\n---\n")).collect()
}
