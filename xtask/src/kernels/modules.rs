//! The modules that a kernel needs, with those that they need in turn.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::package::Package;

/// What plugin and agent make, attach and ask, and the switches of the tests. (What a distribution has loads by itself when it
/// is asked for; here is no modprobe.)
const WANTED: [&str; 6] = ["veth", "vxlan", "sch_ingress", "cls_bpf", "udp_diag", "bridge"];

/// Puts them into a directory, unpacked, under names in whose order they can be loaded.
///
/// # Errors
/// Where the kernel has one not, or it cannot be unpacked.
pub fn copy(package: &Package, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for (number, module) in in_order(package)?.iter().enumerate() {
        let from = package.modules.join(module);
        let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.split('.').next().unwrap_or_default();
        let bytes = match from.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => fs::read(&from).with_context(|| format!("reading {}", from.display()))?,
            Some("xz") => {
                let output = Command::new("xz").arg("-dc").arg(&from).output().context("starting xz")?;
                ensure!(output.status.success(), "xz cannot unpack {}", from.display());
                output.stdout
            }
            _ => bail!("{} is packed in a way that is not known here", from.display()),
        };
        fs::write(to.join(format!("{number:02}-{stem}.ko")), bytes)?;
    }
    Ok(())
}

/// Their paths below the kernel's directory of modules, each behind those that it needs.
fn in_order(package: &Package) -> Result<Vec<PathBuf>> {
    let read = |name: &str| {
        let path = package.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let name = |path: &str| {
        let file = path.rsplit('/').next().unwrap_or(path);
        file.split('.').next().unwrap_or(file).replace('-', "_")
    };
    let table: HashMap<_, _> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (name(path), (path, needs)))
        .collect();
    let mut order = Vec::new();
    for wanted in WANTED {
        if builtin.lines().any(|path| name(path) == wanted) {
            continue;
        }
        let (path, needs) = table.get(wanted).with_context(|| format!("{} has no module {wanted}", package.release))?;
        // modules.dep has all that a module needs, what is to be loaded first last.
        for module in needs.split_whitespace().rev().chain([*path]).map(PathBuf::from) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    Ok(order)
}
