//! Results, in the form of each version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Verb;
use crate::config::or_default;
use crate::error::{CniError, Code};
use crate::wire::gateway;

/// A version of the CNI specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// 0.3.0 and 0.3.1 have the same results.
    V0_3,
    /// Brought CHECK.
    V0_4,
    /// No longer says which family an address is of.
    V1_0,
    /// Brought GC and STATUS.
    V1_1,
}

impl Version {
    /// The newest.
    pub const LATEST: Self = Self::V1_1;

    /// All, as the specification names them.
    const NAMES: [(&'static str, Self); 4] =
        [("0.3.1", Self::V0_3), ("0.4.0", Self::V0_4), ("1.0.0", Self::V1_0), ("1.1.0", Self::V1_1)];

    /// Reads a name.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`] for all but the versions that are spoken.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, version)| *version).ok_or_else(|| {
            let known = Self::NAMES.map(|(name, _)| name).join(", ");
            let text = if text.is_empty() { "none" } else { text };
            CniError::new(Code::IncompatibleVersion, format!("cniVersion is {text}; this plugin speaks {known}"))
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, version)| *version == self).map_or("1.1.0", |(name, _)| name)
    }

    /// Sees whether it has a verb.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`] where that came later.
    pub fn has(self, verb: Verb) -> Result<(), CniError> {
        let since = match verb {
            Verb::Add | Verb::Del | Verb::Version => Self::V0_3,
            Verb::Check => Self::V0_4,
            Verb::Gc | Verb::Status => Self::V1_1,
        };
        if self >= since {
            return Ok(());
        }
        let message = format!("{verb:?} came with CNI {}; the configuration is of {}", since.name(), self.name());
        Err(CniError::new(Code::IncompatibleVersion, message))
    }

    /// An address in a result, and which of the interfaces there has it.
    pub fn ip(self, address: IpNet, interface: usize) -> Value {
        let mut ip = json!({ "address": address, "interface": interface });
        if self < Self::V1_0 {
            ip["version"] = if address.addr().is_ipv4() { "4" } else { "6" }.into();
        }
        ip
    }

    /// The answer to VERSION.
    pub fn answer() -> String {
        let names = Self::NAMES.map(|(name, _)| name);
        format!("{}\n", json!({ "cniVersion": Self::LATEST.name(), "supportedVersions": names }))
    }
}

/// The result of ADD.
#[derive(Clone, Debug)]
pub struct AddResult {
    /// The host side: name and link-layer address.
    pub host: (String, String),
    /// The container's side: name and link-layer address.
    pub container: (String, String),
    /// The container's namespace.
    pub netns: String,
    /// MTU of both, bytes.
    pub mtu: u32,
    /// The container's addresses.
    pub addresses: Vec<IpAddr>,
    /// What it reaches by way of its gateways.
    pub routes: Vec<IpNet>,
    /// Name service, passed on.
    pub dns: Option<Value>,
}

impl AddResult {
    /// As a version wants it.
    pub fn to_json(&self, version: Version) -> String {
        let mut host = json!({ "name": self.host.0, "mac": self.host.1 });
        let mut container = json!({ "name": self.container.0, "mac": self.container.1, "sandbox": self.netns });
        if version >= Version::V1_1 {
            host["mtu"] = self.mtu.into();
            container["mtu"] = self.mtu.into();
        }
        let ips: Vec<Value> = self
            .addresses
            .iter()
            .map(|address| {
                let mut ip = version.ip(IpNet::from(*address), 1);
                ip["gateway"] = gateway(*address).to_string().into();
                ip
            })
            .collect();
        let routes: Vec<Value> = self.routes.iter().map(|to| json!({ "dst": to, "gw": gateway(to.addr()) })).collect();
        let result = json!({
            "cniVersion": version.name(),
            "interfaces": [host, container],
            "ips": ips,
            "routes": routes,
            "dns": self.dns.clone().unwrap_or_else(|| json!({})),
        });
        format!("{result}\n")
    }
}

/// What is needed of the result of another plugin or of an earlier ADD, of any version.
#[derive(Clone, Debug, Deserialize)]
pub struct Previous {
    /// Its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<PreviousIp>,
    /// Its interfaces.
    #[serde(default, deserialize_with = "or_default")]
    pub interfaces: Vec<PreviousInterface>,
    /// Its routes.
    #[serde(default, deserialize_with = "or_default")]
    pub routes: Vec<PreviousRoute>,
    /// Name service.
    pub dns: Option<Value>,
}

/// A route of a previous result.
#[derive(Clone, Debug, Deserialize)]
pub struct PreviousRoute {
    /// Where to.
    pub dst: IpNet,
    /// By way of whom; without, of the gateway of the interface.
    pub gw: Option<IpAddr>,
}

/// An address of a previous result.
#[derive(Clone, Debug, Deserialize)]
pub struct PreviousIp {
    /// With the length of its subnet.
    pub address: IpNet,
    /// Which of the interfaces has it.
    pub interface: Option<usize>,
}

/// An interface of a previous result.
#[derive(Clone, Debug, Deserialize)]
pub struct PreviousInterface {
    /// Its name.
    pub name: String,
    /// Its link-layer address.
    #[serde(default)]
    pub mac: String,
    /// Its namespace; none for those of the host.
    #[serde(default)]
    pub sandbox: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        AddResult {
            host: ("slx".into(), "02:53:4c:55:43:45".into()),
            container: ("eth0".into(), "02:00:00:00:00:01".into()),
            netns: "/run/netns/x".into(),
            mtu: 1450,
            addresses: vec!["10.0.0.2".parse().expect("an address"), "fd00::2".parse().expect("an address")],
            routes: vec!["0.0.0.0/0".parse().expect("a net"), "fd00::/16".parse().expect("a net")],
            dns: None,
        }
    }

    #[test]
    fn each_version_gets_its_form() {
        let old: Value = serde_json::from_str(&result().to_json(Version::V0_3)).expect("JSON");
        assert_eq!(old["cniVersion"], "0.3.1");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["ips"][0]["address"], "10.0.0.2/32");
        let new: Value = serde_json::from_str(&result().to_json(Version::V1_1)).expect("JSON");
        assert!(new["ips"][0].get("version").is_none());
        assert_eq!(new["interfaces"][1]["mtu"], 1450);
        assert_eq!(new["routes"][1], json!({ "dst": "fd00::/16", "gw": "fe80::1" }));
    }

    #[test]
    fn other_versions_are_refused() {
        for bad in ["", "0.1.0", "0.2.0", "2.0.0", "1.1"] {
            assert_eq!(Version::parse(bad).expect_err("refused").code, 1, "{bad}");
        }
    }
}
