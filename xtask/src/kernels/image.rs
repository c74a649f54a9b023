//! All that a machine has: an archive that the kernel unpacks into memory and starts `/init` of.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::package::Package;
use super::{binaries, modules};
use crate::run::output;

/// Programs of this machine that the tests call, taken along with their libraries.
const TOOLS: [&str; 5] = ["ip", "nsenter", "ping", "ethtool", "bpftool"];
const INIT: &str = include_str!("init.sh");

/// Makes the archive.
///
/// # Errors
/// Where something is missing that goes into it.
pub fn make(package: &Package, binaries: &Path, object: &Path, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    fs::remove_dir_all(&root).ok();
    for needed in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "sluice"] {
        fs::create_dir_all(root.join(needed)).with_context(|| format!("making {}", root.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT.replace("TIERS", &binaries::TIERS.join(" ")))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    take("/bin/busybox".as_ref(), &root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    for tool in TOOLS {
        take_with_libraries(tool, &root)?;
    }
    for binary in fs::read_dir(binaries)?.flatten() {
        take(&binary.path(), &root.join("sluice").join(binary.file_name()))?;
    }
    take(object, &root.join("sluice/sluice.o"))?;
    modules::copy(package, &root.join("modules"))?;
    let archive = directory.join("initramfs");
    pack(&root, &archive)?;
    Ok(archive)
}

/// Takes a file along.
fn take(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Takes a program and what it is linked with along: the program into `bin`, libraries to where they are here.
fn take_with_libraries(tool: &str, root: &Path) -> Result<()> {
    let path = output(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
    let path = PathBuf::from(path.with_context(|| format!("there is no {tool} here"))?.trim());
    take(&path, &root.join("bin").join(tool))?;
    let libraries = output(Command::new("ldd").arg(&path)).with_context(|| format!("asking what {tool} needs"))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(root)).with_context(|| format!("making {}", to.display()))?;
        take(library.as_ref(), &to)?;
    }
    Ok(())
}

/// Makes an archive of a directory.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut paths = Vec::new();
    list(root, root, &mut paths)?;
    let file = File::create(archive).with_context(|| format!("writing {}", archive.display()))?;
    let mut cpio = Command::new("/bin/busybox")
        .args(["cpio", "-o", "-H", "newc"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .context("starting busybox")?;
    if let Some(mut input) = cpio.stdin.take() {
        input.write_all(paths.join("\n").as_bytes()).context("listing files for busybox")?;
    }
    ensure!(cpio.wait()?.success(), "busybox cannot make {}", archive.display());
    Ok(())
}

/// Lists what is below a directory, directories before what is in them.
fn list(root: &Path, directory: &Path, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?.flatten() {
        let path = entry.path();
        paths.push(path.strip_prefix(root)?.display().to_string());
        if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        }
    }
    Ok(())
}
