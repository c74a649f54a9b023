//! Nodes.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;

use super::{Note, PolicyMode, mode};
use crate::labels::Labels;
use crate::name::{Kind, ObjectError, ObjectName};

/// What matters of a Node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// All addresses in its status, whatever their type; names of hosts are none. Sorted.
    pub addresses: Vec<IpAddr>,
    /// How the policies of pods that run on it are meant.
    pub mode: PolicyMode,
    /// What is not supported in it, and what becomes of that.
    pub notes: Vec<Note>,
}

impl TryFrom<&Node> for NodeObject {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Node, &node.metadata)?;
        let mut addresses = Vec::new();
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        for (index, address) in listed.enumerate() {
            match (address.address.parse(), address.type_.as_str()) {
                (Ok(address), _) => addresses.push(address),
                (Err(_), "InternalIP" | "ExternalIP") => {
                    let what = format!("{:?} is no address", address.address);
                    return Err(object.wrong(format!("status.addresses[{index}].address"), what));
                }
                (Err(_), _) => {}
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        let (mode, notes) = mode::of(&node.metadata);
        Ok(Self { name: object.name, labels: Labels::from(node.metadata.labels.as_ref()), addresses, mode, notes })
    }
}
