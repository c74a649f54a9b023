//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use sluice_policy::{Kind, ObjectError, ObjectName};

use super::address::address;

/// Where a Node says in which zone it is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// What matters of a Node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its zone, if it says one.
    pub zone: Option<String>,
    /// Its addresses (`InternalIP`).
    pub addresses: Vec<IpAddr>,
}

impl TryFrom<&Node> for NodeObject {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Node, &node.metadata)?;
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = listed.filter(|address| address.type_ == "InternalIP");
        let addresses = internal.filter_map(|listed| address(&listed.address)).collect();
        Ok(Self { name: object.name, zone: zone.cloned(), addresses })
    }
}
