//! The few settings of the host's network stack that pods need.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

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

/// The ports that the stack takes for connections of the node's own processes.
pub fn local_ports() -> Option<RangeInclusive<u16>> {
    ports(&read("ipv4/ip_local_port_range")?)
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Where a setting is.
pub fn path(key: &str) -> PathBuf {
    /// Where a container is lent the node's, because its own are read-only.
    const LENT: &str = "/host/proc/sys/net";
    const OWN: &str = "/proc/sys/net";
    Path::new(if Path::new(LENT).exists() { LENT } else { OWN }).join(key)
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

#[cfg(test)]
mod tests {
    use super::{local_ports, ports};

    #[test]
    fn a_range_of_ports_is_two_numbers() {
        assert_eq!(ports("32768\t60999"), Some(32_768..=60_999));
        assert_eq!(ports("none"), None);
        assert!(local_ports().is_some());
    }
}
