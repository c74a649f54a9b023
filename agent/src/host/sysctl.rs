//! The few settings of the host's network stack that pods need.

use std::fs;
use std::path::PathBuf;

/// Sets what is not set yet; gives a line for each change. A kernel without IPv6 has nothing of it to set.
///
/// # Errors
/// Says what could not be set.
pub fn apply(uplinks: &[String]) -> Result<Vec<String>, String> {
    let mut changes = Vec::new();
    // A host that forwards no longer believes router advertisements, unless told to (Documentation/networking/ip-sysctl.rst).
    for uplink in uplinks {
        let key = format!("ipv6/conf/{uplink}/accept_ra");
        if read(&key).as_deref() == Some("1") {
            set(&key, "2", &mut changes)?;
        }
    }
    set("ipv4/ip_forward", "1", &mut changes)?;
    set("ipv6/conf/all/forwarding", "1", &mut changes)?;
    Ok(changes)
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key)).ok().map(|value| value.trim().to_owned())
}

fn set(key: &str, value: &str, changes: &mut Vec<String>) -> Result<(), String> {
    let Some(before) = read(key) else { return Ok(()) };
    if before == value {
        return Ok(());
    }
    fs::write(path(key), value).map_err(|error| {
        format!("setting net/{key} from {before} to {value}: {error}; set it by other means (sysctl -w)")
    })?;
    changes.push(format!("net.{} {before} -> {value}", key.replace('/', ".")));
    Ok(())
}
