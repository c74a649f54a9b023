//! Other IPAM plugins (CNI specification, section "Plugin Delegation").

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::Given;
use crate::arguments::{Arguments, Verb};
use crate::error::{CniError, Code};
use crate::output::Previous;
use crate::wire::everywhere;

fn name(verb: Verb) -> &'static str {
    match verb {
        Verb::Add => "ADD",
        Verb::Del => "DEL",
        Verb::Check => "CHECK",
        Verb::Gc => "GC",
        Verb::Status => "STATUS",
        Verb::Version => "VERSION",
    }
}

fn find(plugin: &str, arguments: &Arguments) -> Result<PathBuf, CniError> {
    let plain = !plugin.is_empty() && !plugin.contains('/') && plugin != "..";
    let found = arguments.path.iter().map(|directory| directory.join(plugin)).find(|path| plain && path.is_file());
    found.ok_or_else(|| {
        let places = arguments.path.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        let message = format!("the IPAM plugin {plugin:?} is not in CNI_PATH ({places})");
        CniError::new(Code::InvalidConfiguration, message)
    })
}

/// The section that configures IPAM.
pub fn section(input: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Value>(input).ok()?.get_mut("ipam").map(Value::take)
}

/// A configuration with this section in place of its own.
pub fn with_section(input: &[u8], section: &Value) -> Vec<u8> {
    let mut config: Value = serde_json::from_slice(input).unwrap_or_default();
    config["ipam"] = section.clone();
    config.to_string().into_bytes()
}

/// Calls another plugin with the configuration as it came; gives its standard output.
///
/// # Errors
/// Its own, with its code, or [`Code::Delegate`] where it cannot be run or understood.
pub fn call(plugin: &str, input: &[u8], arguments: &Arguments, verb: Verb) -> Result<Vec<u8>, CniError> {
    #[derive(Deserialize)]
    struct Failure {
        code: u32,
        msg: String,
        #[serde(default)]
        details: String,
    }
    let path = find(plugin, arguments)?;
    let failed = |what: String| CniError::new(Code::Delegate, format!("the IPAM plugin {}: {what}", path.display()));
    let mut command = Command::new(&path);
    if !arguments.container_id.is_empty() {
        command.env("CNI_CONTAINERID", &arguments.container_id).env("CNI_IFNAME", &arguments.interface);
    }
    let mut child = command
        .env("CNI_COMMAND", name(verb))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing closes early: its answer says more.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(match serde_json::from_slice::<Failure>(&output.stdout) {
        Ok(failure) => CniError {
            code: failure.code,
            message: format!("the IPAM plugin {plugin}: {}", failure.msg),
            details: failure.details,
        },
        Err(_) => failed(format!("{} without saying why", output.status)),
    })
}

/// Has another plugin take addresses, of each family at most one.
///
/// # Errors
/// As [`call`]; what it took is given back.
pub fn add(plugin: &str, input: &[u8], arguments: &Arguments) -> Result<Given, CniError> {
    let understand = || {
        let output = call(plugin, input, arguments, Verb::Add)?;
        let result: Previous = serde_json::from_slice(&output).map_err(|error| {
            CniError::new(Code::Delegate, format!("the IPAM plugin {plugin} answered something else: {error}"))
        })?;
        let nets: Vec<IpNet> = result.ips.iter().map(|ip| ip.address).collect();
        let of = |v4: bool| nets.iter().filter(|net| net.addr().is_ipv4() == v4).count();
        match (of(true), of(false)) {
            (0, 0) => Err(CniError::new(Code::Delegate, format!("the IPAM plugin {plugin} gave no address"))),
            (0 | 1, 0 | 1) => {
                let destinations: Vec<IpNet> = result.routes.iter().map(|route| route.dst.trunc()).collect();
                let routes = routes(&nets, &destinations);
                Ok(Given { addresses: nets.iter().map(IpNet::addr).collect(), routes, dns: result.dns, settling: None })
            }
            _ => {
                let message = format!("the IPAM plugin {plugin} gave several addresses of one family; a pod has one");
                Err(CniError::new(Code::Delegate, message))
            }
        }
    };
    understand().inspect_err(|_| {
        // The specification wants DEL after an ADD that failed.
        let _ = call(plugin, input, arguments, Verb::Del);
    })
}

/// What a container reaches by its gateways. All, in a family that nothing is said of; otherwise what is said, and the subnet
/// of its address, whose other hosts are not on its link.
fn routes(addresses: &[IpNet], destinations: &[IpNet]) -> Vec<IpNet> {
    let mut routes = Vec::new();
    for address in addresses {
        let said = || destinations.iter().filter(|to| to.addr().is_ipv4() == address.addr().is_ipv4());
        if said().next().is_none() {
            routes.push(everywhere(address.addr()));
            continue;
        }
        let subnet = Some(address.trunc()).filter(|net| net.prefix_len() < net.max_prefix_len());
        let subnet = subnet.filter(|net| !said().any(|to| to.contains(net)));
        routes.extend(said().copied().chain(subnet));
    }
    routes.sort();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_what_is_said_or_all() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a net")).collect::<Vec<IpNet>>();
        let of = |addresses: &[&str], destinations: &[&str]| routes(&nets(addresses), &nets(destinations));
        let both = ["10.0.0.2/24", "fd00::2/64"];
        assert_eq!(of(&both, &[]), nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!(of(&both, &["10.0.0.0/8", "10.0.0.0/8"]), nets(&["10.0.0.0/8", "::/0"]));
        assert_eq!(of(&both[..1], &["10.9.0.0/16", "fd01::/16"]), nets(&["10.0.0.0/24", "10.9.0.0/16"]));
        assert_eq!(of(&["10.0.0.2/32"], &["10.9.0.0/16"]), nets(&["10.9.0.0/16"]));
    }

    #[test]
    fn the_section_of_one_configuration_is_put_into_another() {
        let section = section(br#"{"name":"n","ipam":{"type":"host-local","dataDir":"/d"}}"#).expect("a section");
        for input in [&br#"{"name":"n","ipam":{"type":"sluice"}}"#[..], br#"{"name":"n"}"#] {
            let config: Value = serde_json::from_slice(&with_section(input, &section)).expect("JSON");
            assert_eq!((&config["ipam"], &config["name"]), (&section, &"n".into()));
        }
    }
}
