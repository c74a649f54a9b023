//! The CNI configuration that tells the container runtime of the plugin.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::config::Config;

/// Name of the file.
pub const NAME: &str = "10-sluice.conflist";
/// Name of the plugin, which is the name of its file, too.
pub const PLUGIN: &str = "sluice";

/// The configuration for a node with these pod CIDRs.
pub fn content(config: &Config, pod_cidrs: &[IpNet], mtu: u32) -> String {
    let of = |v4: bool| -> Vec<Value> {
        pod_cidrs.iter().filter(|net| net.addr().is_ipv4() == v4).map(|net| json!({ "subnet": net })).collect()
    };
    let ranges: Vec<Vec<Value>> = [of(true), of(false)].into_iter().filter(|set| !set.is_empty()).collect();
    let mut plugin = json!({
        "type": PLUGIN,
        "runDir": config.run_dir,
        "stateDir": config.state_dir,
        "mtu": mtu,
        "ipam": config.ipam.clone().unwrap_or_else(|| json!({ "type": PLUGIN, "ranges": ranges })),
        "capabilities": { "ips": true },
    });
    // Who chains a plugin for them has that do it, and not both.
    if !config.chained_plugins.iter().any(|plugin| plugin["capabilities"]["portMappings"] == true) {
        plugin["capabilities"]["portMappings"] = true.into();
    }
    if let Some(file) = &config.plugin_log_file {
        plugin["logFile"] = json!(file);
    }
    let plugins: Vec<Value> = std::iter::once(plugin).chain(config.chained_plugins.iter().cloned()).collect();
    let mut list = json!({ "cniVersion": "1.0.0", "name": "sluice", "plugins": plugins });
    // Runtimes that know of several versions take the newest and call GC and STATUS (1.1.0); others read over it. But all
    // plugins of the list are called by that version, and others' may be older.
    if config.chained_plugins.is_empty() && config.ipam.is_none() {
        list["cniVersions"] = json!(["1.0.0", "1.1.0"]);
    }
    format!("{list:#}\n")
}

/// Writes the configuration atomically, unless it is there already.
///
/// # Errors
/// Where the disk refuses.
pub fn write(directory: &Path, content: &str) -> io::Result<bool> {
    let path = path(directory);
    if fs::read_to_string(&path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    fs::create_dir_all(directory)?;
    let aside = aside(directory);
    let write = || {
        let mut file = fs::File::create(&aside)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, &path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))?;
    Ok(true)
}

/// Where the configuration is written before it takes its place. The runtime reads files that end in .conflist: this one
/// does not. Only the agent that has the node's lock writes it.
pub fn aside(directory: &Path) -> PathBuf {
    directory.join(format!(".{NAME}.new"))
}

/// Where the configuration is.
pub fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_one_for_each_family_and_others_chained_behind() {
        let config = Config { chained_plugins: vec![json!({ "type": "tuning" })], ..Config::default() };
        let nets: Vec<IpNet> =
            ["10.1.0.0/24", "fd00::/64", "10.2.0.0/24"].map(|net| net.parse().expect("a CIDR")).into();
        let list: Value = serde_json::from_str(&content(&config, &nets, 1450)).expect("JSON");
        let ranges = &list["plugins"][0]["ipam"]["ranges"];
        assert_eq!(ranges[0].as_array().map(Vec::len), Some(2));
        assert_eq!(ranges[1][0]["subnet"], "fd00::/64");
        assert_eq!(list["plugins"][1]["type"], "tuning");
        assert_eq!(list.get("cniVersions"), None, "tuning may be older");
        let alone: Value = serde_json::from_str(&content(&Config::default(), &nets, 1450)).expect("JSON");
        assert_eq!(alone["cniVersions"], json!(["1.0.0", "1.1.0"]));
        assert_eq!(alone["cniVersion"], "1.0.0");
    }

    #[test]
    fn one_plugin_of_the_list_is_given_the_port_mappings() {
        let takes_ports = |chained_plugins: Vec<Value>| {
            let config = Config { chained_plugins, ..Config::default() };
            let list: Value = serde_json::from_str(&content(&config, &[], 1450)).expect("JSON");
            let plugins = list["plugins"].as_array().expect("a list").clone();
            plugins.iter().map(|plugin| plugin["capabilities"]["portMappings"] == true).collect::<Vec<_>>()
        };
        let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        let tuning = json!({ "type": "tuning", "capabilities": { "mac": true } });
        assert_eq!(takes_ports(vec![]), [true]);
        assert_eq!(takes_ports(vec![tuning.clone()]), [true, false]);
        assert_eq!(takes_ports(vec![tuning, portmap]), [false, false, true]);
    }

    #[test]
    fn it_is_written_once() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(write(directory.path(), "{}").expect("writes"));
        assert!(!write(directory.path(), "{}").expect("finds it there"));
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
        fs::remove_file(path(directory.path())).expect("removes");
        fs::create_dir(path(directory.path())).expect("stands in the way");
        write(directory.path(), "{}").expect_err("a directory is in the way");
        assert!(!aside(directory.path()).exists());
    }
}
