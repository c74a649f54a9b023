//! The plugin `loopback`, in place of the CNI project's: switches on a container's loopback device.
//!
//! containerd adds each pod to a network of this type, beside ours and at the same time, and removes it from there first.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};
use sluice_netlink::Netlink;

use crate::arguments::{Arguments, Verb};
use crate::config;
use crate::error::{CniError, Code};
use crate::name::mac_text;
use crate::output::Version;
use crate::wire::{self, LOOPBACK};

/// The name of the plugin, and the type of its networks.
const NAME: &str = "loopback";
/// The name of the device in every namespace, whatever the runtime would call it.
const DEVICE: &str = "lo";

/// Whether this plugin is called: by the program's name, or by the type of the network.
pub fn is_meant(program: Option<&OsStr>, input: &[u8]) -> bool {
    let is_named = program.and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == NAME);
    is_named || serde_json::from_slice::<Value>(input).is_ok_and(|config| config["type"] == NAME)
}

/// Does what is asked, and prints what is to be told.
///
/// # Errors
/// Where it cannot be done or told.
pub fn run(arguments: &Arguments, input: &[u8], print: impl FnOnce(&str) -> io::Result<()>) -> Result<(), CniError> {
    let tell = |text: &str| print(text).map_err(|error| CniError::io("writing the result to standard output", error));
    if arguments.verb == Verb::Version {
        return tell(&Version::answer());
    }
    let (config, version) = config::versioned(input)?;
    version.has(arguments.verb)?;
    let netns = arguments.netns.as_deref().unwrap_or(Path::new(""));
    match arguments.verb {
        Verb::Add => {
            let previous = previous(&config)?;
            let addresses = add(netns)?;
            let mut result = previous.unwrap_or_else(|| result(version, netns, &addresses));
            result["cniVersion"] = version.name().into();
            tell(&format!("{result}\n"))
        }
        Verb::Del => del(netns),
        Verb::Check => check(netns),
        // It keeps nothing, and waits for nobody.
        Verb::Gc | Verb::Status | Verb::Version => Ok(()),
    }
}

/// The result of the plugins ahead in a chain, which is passed on.
fn previous(config: &Value) -> Result<Option<Value>, CniError> {
    match &config["prevResult"] {
        Value::Null => Ok(None),
        previous if previous.is_object() => Ok(Some(previous.clone())),
        previous => Err(CniError::new(Code::Decoding, format!("prevResult is {previous}, which is not a result"))),
    }
}

fn result(version: Version, netns: &Path, addresses: &[IpNet]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| version.ip(*address, 0)).collect();
    json!({
        "interfaces": [{ "name": DEVICE, "mac": mac_text([0; 6]), "sandbox": netns.display().to_string() }],
        "ips": ips,
        "dns": {},
    })
}

/// Switches the device on; gives the addresses that the kernel has put there.
fn add(netns: &Path) -> Result<Vec<IpNet>, CniError> {
    let namespace = wire::open_namespace(netns)?;
    wire::inside(&namespace, netns, || {
        let mut netlink = Netlink::open()?;
        netlink.set_up(LOOPBACK, true)?;
        let addresses = netlink.addresses()?.into_iter();
        let own = addresses.filter(|(index, address)| *index == LOOPBACK && address.addr().is_loopback());
        Ok(own.map(|(_, address)| address).collect())
    })
}

/// Switches it off. What is not, or no longer, a container's namespace is no error: after one, runtimes leave the pod's other
/// networks as they are.
fn del(netns: &Path) -> Result<(), CniError> {
    let Ok(namespace) = wire::open_namespace(netns) else { return Ok(()) };
    wire::inside(&namespace, netns, || Ok(Netlink::open()?.set_up(LOOPBACK, false)?))
}

fn check(netns: &Path) -> Result<(), CniError> {
    let namespace = wire::open_namespace(netns)?;
    let is_up = wire::inside(&namespace, netns, || Ok(Netlink::open()?.link(DEVICE)?.is_some_and(|link| link.is_up)))?;
    if is_up {
        return Ok(());
    }
    let message = format!("the container's {DEVICE} is down; delete the pod and let it come again");
    Err(CniError::new(Code::Damaged, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_meant_by_the_programs_name_or_the_networks_type() {
        let meant = |program: &str, input: &str| is_meant(Some(OsStr::new(program)), input.as_bytes());
        assert!(meant("/opt/cni/bin/loopback", "") && meant("loopback", r#"{"type":"sluice"}"#));
        assert!(meant("/opt/cni/bin/sluice", r#"{"type":"loopback"}"#) && is_meant(None, br#"{"type":"loopback"}"#));
        for program in ["/opt/cni/bin/sluice", "/loopback/sluice", "loopback-1", ""] {
            for input in ["", "[]", r#""loopback""#, r#"{"type":"sluice"}"#, r#"{"name":"loopback"}"#] {
                assert!(!meant(program, input), "{program:?} {input:?}");
            }
        }
    }

    #[test]
    fn each_version_gets_its_form() {
        let addresses = ["127.0.0.1/8", "::1/128"].map(|text| text.parse().expect("a net"));
        let result = |version| result(version, Path::new("/run/netns/x"), &addresses);
        let (old, new) = (result(Version::V0_3), result(Version::V1_1));
        assert_eq!(old["ips"][1], json!({ "address": "::1/128", "interface": 0, "version": "6" }));
        assert_eq!(new["ips"][0], json!({ "address": "127.0.0.1/8", "interface": 0 }));
        let device = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/x" });
        assert_eq!((&old["interfaces"], &new["interfaces"]), (&json!([device]), &json!([device])));
    }

    #[test]
    fn a_previous_result_is_one_or_none() {
        let previous = |value: Value| previous(&json!({ "prevResult": value }));
        assert_eq!(previous(Value::Null).expect("none"), None);
        assert_eq!(previous(json!({ "ips": [] })).expect("one"), Some(json!({ "ips": [] })));
        assert_eq!(previous(json!([])).expect_err("not one").code, Code::Decoding as u32);
    }
}
