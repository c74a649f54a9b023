//! What agents of another layout have left: `v1`, `v2` and so on beside one another in the directory of pins.

use std::fs;
use std::path::{Path, PathBuf};

use sluice_abi::Hook;

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::programs;

/// The parts of a version's directory.
const PARTS: [&str; 4] = ["links", "programs", "maps", "maps-new"];

/// The directories of all versions.
pub fn all(bpf_dir: &Path) -> Vec<PathBuf> {
    let is_version = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix('v'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let listing = fs::read_dir(bpf_dir).into_iter().flatten().flatten().map(|entry| entry.path());
    listing.filter(is_version).collect()
}

/// The directories of all versions but ours.
pub fn others(bpf_dir: &Path, pins: &Pins) -> Vec<PathBuf> {
    all(bpf_dir).into_iter().filter(|version| *version != pins.root()).collect()
}

/// Takes another version's links for ours, so that its programs can be replaced without a packet between.
///
/// # Errors
/// Where a pin cannot be moved.
pub fn adopt(version: &Path, pins: &Pins) -> Result<(), KernelError> {
    for entry in fs::read_dir(version.join("links")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_known = Hook::ALL.iter().any(|hook| name.starts_with(&format!("{}-", hook.name())));
        let own = pins.links().join(&name);
        if is_known && !own.exists() {
            fs::rename(entry.path(), &own).doing(|| format!("taking over the link {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Removes a version's directory; says of what there was something.
///
/// # Errors
/// Where something cannot be removed.
pub fn remove(version: &Path) -> Result<Vec<String>, KernelError> {
    // Links and filters first: no packet is to meet a program whose tables are gone.
    programs::detach_all(&version.join("links"));
    let mut removed = Vec::new();
    for part in PARTS {
        let directory = version.join(part);
        if directory.exists() {
            fs::remove_dir_all(&directory).doing(|| format!("removing {}", directory.display()))?;
            removed.push(format!("{part} below {}", version.display()));
        }
    }
    fs::remove_dir(version).doing(|| format!("removing {}", version.display()))?;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_what_is_not_ours() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["v1", "v12", "v", "vx", "tc", "v2.old"] {
            fs::create_dir(directory.path().join(name)).expect("makes");
        }
        let mut found = all(directory.path());
        found.sort();
        assert_eq!(found, ["v1", "v12"].map(|name| directory.path().join(name)));
    }
}
