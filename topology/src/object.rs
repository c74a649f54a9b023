//! What matters of a Node.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

/// A Node, without all that does not matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its addresses (`InternalIP`), at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The addresses of its pods.
    pub pod_cidrs: Vec<IpNet>,
    /// When it was made, seconds since 1970; the older of two that claim the same addresses has them.
    pub created: i64,
}

/// A Node makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectError(pub String);

impl std::fmt::Display for ObjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ObjectError {}

impl TryFrom<&Node> for NodeObject {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let name = node.metadata.name.clone().ok_or_else(|| ObjectError("a Node without metadata.name".into()))?;
        let wrong = |what: String| ObjectError(format!("Node {name}: {what}"));
        let mut addresses: Vec<IpAddr> = Vec::new();
        let listed = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        for address in listed.filter(|address| address.type_ == "InternalIP") {
            let parsed: IpAddr = address
                .address
                .parse()
                .map_err(|_| wrong(format!("status.addresses has {:?}, which is no address", address.address)))?;
            if !addresses.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
                addresses.push(parsed);
            }
        }
        let spec = node.spec.as_ref();
        let many = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let texts =
            if many.is_empty() { spec.and_then(|spec| spec.pod_cidr.clone()).into_iter().collect() } else { many };
        let pod_cidrs = texts
            .iter()
            .map(|text| {
                let net: IpNet =
                    text.parse().map_err(|_| wrong(format!("spec.podCIDRs has {text:?}, which is no CIDR")))?;
                Ok(net.trunc())
            })
            .collect::<Result<_, _>>()?;
        let created = node.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Ok(Self { name, addresses, pod_cidrs, created })
    }
}
