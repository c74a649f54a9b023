//! Who talks.

use std::net::IpAddr;

use anyhow::Result;
use sluice_tests::lab::{Lab, Node, Place, Pod};

use crate::echo::Server;

/// What a party is to a policy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A pod of a namespace.
    Pod,
    /// A node.
    Node,
    /// Somebody outside of the cluster, who knows no way to pods.
    World,
}

/// Somebody who talks.
pub struct Party<'a> {
    /// What it is to a policy.
    pub role: Role,
    /// Among whom it stands in tables: a pod's namespace.
    pub group: &'a str,
    /// Its name there.
    pub name: &'a str,
    /// The node that it is, or is on.
    pub node: Option<&'a Node>,
    /// Where it is.
    pub place: &'a Place,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    _server: Server,
}

impl<'a> Party<'a> {
    fn new(role: Role, (group, name): (&'a str, &'a str), place: &'a Place, addresses: Vec<IpAddr>) -> Result<Self> {
        Ok(Self { role, group, name, node: None, place, addresses, _server: Server::start(place, name)? })
    }

    /// All of a cluster: its pods, then its nodes, then the world.
    ///
    /// # Errors
    /// Where one cannot listen.
    pub fn all(lab: &'a Lab, pods: &'a [Pod]) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for pod in pods {
            let party = Self::new(Role::Pod, (&pod.namespace, &pod.name), &pod.place, pod.addresses.clone())?;
            all.push(Self { node: lab.nodes.iter().find(|node| node.name == pod.node), ..party });
        }
        for node in &lab.nodes {
            let party = Self::new(Role::Node, ("nodes", &node.name), &node.place, node.addresses.clone())?;
            all.push(Self { node: Some(node), ..party });
        }
        all.push(Self::new(Role::World, ("outside", "world"), &lab.stranger, lab.stranger_addresses())?);
        Ok(all)
    }

    /// Whether a call of this one to another is the cluster's to carry: nodes and the world know other ways to each other.
    pub fn calls(&self, other: &Self) -> bool {
        self.role == Role::Pod || self.role == Role::Node && other.role == Role::Pod
    }

    /// Its name, as policies and people have it.
    pub fn full_name(&self) -> String {
        match self.role {
            Role::Pod => format!("{}/{}", self.group, self.name),
            Role::Node | Role::World => self.name.into(),
        }
    }

    /// Its address of a family.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        like(&self.addresses, other)
    }

    /// Its node's.
    pub fn node_address_like(&self, other: IpAddr) -> Option<IpAddr> {
        like(&self.node?.addresses, other)
    }

    /// Whether both are on one node.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.node.zip(other.node).is_some_and(|(own, other)| own.name == other.name)
    }
}

fn like(addresses: &[IpAddr], other: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == other.is_ipv4())
}
