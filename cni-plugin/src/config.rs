//! The network configuration on standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sluice_api::PortMapping;

use crate::arguments::is_plain;
use crate::error::{CniError, Code};
use crate::output::Version;
use crate::port;

/// What the agent wrote into the CNI configuration, and what the runtime added.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Where the agent's socket and the endpoint records are.
    #[serde(default = "run_dir")]
    pub run_dir: PathBuf,
    /// Where addresses are recorded.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// MTU of pods, bytes; 0: that of Ethernet.
    #[serde(default)]
    mtu: u32,
    /// Where to log; without, nowhere.
    pub log_file: Option<PathBuf>,
    /// Where addresses come from.
    pub ipam: Option<IpamConfig>,
    /// Capabilities, as the runtime fills them in.
    #[serde(default, deserialize_with = "or_default")]
    runtime_config: RuntimeConfig,
    /// Arguments by convention: `args.cni.ips`.
    #[serde(default, deserialize_with = "or_default")]
    args: Args,
    /// The result of ADD, with CHECK and DEL.
    pub prev_result: Option<Value>,
    /// With GC: who is to stay.
    #[serde(rename = "cni.dev/valid-attachments", default, deserialize_with = "given")]
    valid_attachments: Option<Vec<Attachment>>,
    /// Name service, which is passed on.
    dns: Option<Value>,
}

/// Where addresses come from.
#[derive(Clone, Debug, Deserialize)]
pub struct IpamConfig {
    /// `sluice`, or the name of another plugin.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of own pools, sets of ranges: an address of each set. Another plugin's may have any form.
    #[serde(default)]
    ranges: Value,
}

impl IpamConfig {
    /// The sets of ranges of own pools.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] where they are none.
    pub fn ranges(&self) -> Result<Vec<Vec<Range>>, CniError> {
        or_default(&self.ranges).map_err(|error| {
            CniError::new(Code::InvalidConfiguration, format!("the ranges of the ipam section are wrong: {error}"))
        })
    }
}

/// A range of addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// The subnet that they are of.
    pub subnet: IpNet,
    /// The first; without, the first of the subnet that a host can have.
    pub range_start: Option<IpAddr>,
    /// The last; without, the last of the subnet that a host can have.
    pub range_end: Option<IpAddr>,
}

/// Capabilities.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    /// Addresses that are asked for.
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<String>,
    /// Ports of the node that are to lead to the container.
    #[serde(default, deserialize_with = "or_default")]
    port_mappings: Vec<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Args {
    #[serde(default, deserialize_with = "or_default")]
    cni: Conventions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Conventions {
    /// Addresses that are asked for.
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<String>,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The name of the interface.
    #[serde(rename = "ifname")]
    pub interface: String,
}

/// `null` counts as absent: it is what runtimes in Go make of an empty list or map.
///
/// # Errors
/// Where it is something else than what is wanted.
pub fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

/// As [`or_default`], where a list that is empty and one that is missing are not the same.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    or_default(value).map(Some)
}

fn run_dir() -> PathBuf {
    sluice_api::RUN_DIR.into()
}

fn state_dir() -> PathBuf {
    "/var/lib/sluice".into()
}

impl NetworkConfig {
    /// Reads the configuration.
    ///
    /// # Errors
    /// As [`versioned`], and [`Code::InvalidConfiguration`] where it is not a configuration.
    pub fn parse(input: &[u8]) -> Result<(Self, Version), CniError> {
        let invalid = |message: String| CniError::new(Code::InvalidConfiguration, message);
        // First: another version may have another form.
        let (value, version) = versioned(input)?;
        let config: Self = serde_json::from_value(value)
            .map_err(|error| invalid(format!("the network configuration on standard input is wrong: {error}")))?;
        if !is_plain(&config.name) {
            let rule = "letters and digits, behind the first also `_`, `.` and `-`";
            return Err(invalid(format!("the network's name is {:?}; it must be of {rule}", config.name)));
        }
        Ok((config, version))
    }

    /// MTU of pods, bytes.
    pub fn mtu(&self) -> u32 {
        if self.mtu == 0 { 1500 } else { self.mtu }
    }

    /// Name service, where the configuration says anything of it.
    pub fn dns(&self) -> Option<Value> {
        self.dns.clone().filter(|dns| dns.as_object().is_none_or(|keys| !keys.is_empty()))
    }

    /// Who is to stay.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] where the runtime does not say: nobody would, were that taken for an empty list.
    pub fn valid_attachments(&self) -> Result<&[Attachment], CniError> {
        self.valid_attachments.as_deref().ok_or_else(|| {
            let message = "GC needs cni.dev/valid-attachments, the list of those to stay, in the configuration";
            CniError::new(Code::InvalidConfiguration, message)
        })
    }

    /// The ports of the node that are to lead to the container.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] where one of them makes no sense.
    pub fn port_mappings(&self) -> Result<Vec<PortMapping>, CniError> {
        port::mappings(&self.runtime_config.port_mappings)
    }

    /// The addresses that are asked for, by capability, convention or `CNI_ARGS`, the first of these that asks.
    ///
    /// # Errors
    /// Where they are none.
    pub fn requested(&self, argument: Option<&str>) -> Result<Vec<IpAddr>, CniError> {
        let texts: Vec<&str> = if !self.runtime_config.ips.is_empty() {
            self.runtime_config.ips.iter().map(String::as_str).collect()
        } else if !self.args.cni.ips.is_empty() {
            self.args.cni.ips.iter().map(String::as_str).collect()
        } else {
            argument.map_or_else(Vec::new, |text| text.split(',').collect())
        };
        texts
            .into_iter()
            .map(|text| {
                let address = text.split('/').next().unwrap_or(text).trim();
                address.parse().map_err(|_| {
                    CniError::new(Code::InvalidConfiguration, format!("the requested address {text:?} is none"))
                })
            })
            .collect()
    }
}

/// A configuration of whatever form, and its version.
///
/// # Errors
/// [`Code::Decoding`] where it is not JSON, [`Code::IncompatibleVersion`] where its version is not spoken.
pub fn versioned(input: &[u8]) -> Result<(Value, Version), CniError> {
    let value: Value = serde_json::from_slice(input).map_err(|error| {
        CniError::new(Code::Decoding, format!("the network configuration on standard input is not JSON: {error}"))
    })?;
    let version = Version::parse(value["cniVersion"].as_str().unwrap_or_default())?;
    Ok((value, version))
}

/// The version of a configuration that may be wrong in every other respect.
pub fn version_of(input: &[u8]) -> Version {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        version: String,
    }
    serde_json::from_slice::<Versioned>(input)
        .ok()
        .and_then(|config| Version::parse(&config.version).ok())
        .unwrap_or(Version::LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> NetworkConfig {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n"{more}}}"#);
        NetworkConfig::parse(text.as_bytes()).expect("a configuration").0
    }

    #[test]
    fn null_is_nothing() {
        let config = parse(r#","runtimeConfig":null,"args":null,"ipam":{"type":"sluice","ranges":null}"#);
        assert!(config.requested(None).expect("none").is_empty());
        assert!(config.ipam.expect("is there").ranges().expect("none").is_empty());
        assert!(
            parse(r#","args":{"cni":null},"runtimeConfig":{"ips":null}"#).requested(None).expect("none").is_empty()
        );
        assert!(parse(r#","runtimeConfig":{"portMappings":null}"#).port_mappings().expect("none").is_empty());
    }

    #[test]
    fn only_own_ranges_have_a_form() {
        let config = parse(r#","ipam":{"type":"another","ranges":[{"range":"10.0.0.0/24"}]}"#);
        assert_eq!(
            config.ipam.expect("is there").ranges().expect_err("not ours").code,
            Code::InvalidConfiguration as u32
        );
    }

    #[test]
    fn the_version_is_judged_before_the_rest_and_the_name_is_plain() {
        let code = |text: &str| NetworkConfig::parse(text.as_bytes()).expect_err("refused").code;
        assert_eq!(code(r#"{"cniVersion":"9.0.0","name":["n"],"mtu":{}}"#), Code::IncompatibleVersion as u32);
        assert_eq!(code(r#"{"name":"n"}"#), Code::IncompatibleVersion as u32);
        assert_eq!(code("{"), Code::Decoding as u32);
        for name in ["", "..", "a/b", "-a", "a b", "é"] {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"{name}"}}"#);
            assert_eq!(code(&text), Code::InvalidConfiguration as u32, "{name:?}");
        }
    }

    #[test]
    fn nobody_is_valid_only_where_the_runtime_says_so() {
        assert_eq!(parse("").valid_attachments().expect_err("not said").code, Code::InvalidConfiguration as u32);
        for nobody in ["null", "[]"] {
            let config = parse(&format!(r#","cni.dev/valid-attachments":{nobody}"#));
            assert!(config.valid_attachments().expect("said").is_empty());
        }
        let somebody = parse(r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#);
        assert_eq!(somebody.valid_attachments().expect("said")[0].container_id, "a");
    }
}
