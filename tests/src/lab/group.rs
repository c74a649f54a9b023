//! Control groups: the processes of a node and its pods, whose sockets its agent translates, and nobody else's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The control group of version 2 that this process is in.
fn own() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("looking for control groups")?;
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(path)
    });
    let root = root.context("no control groups of version 2; mount -t cgroup2 none /sys/fs/cgroup")?;
    let groups = fs::read_to_string("/proc/self/cgroup").context("looking for this process's control group")?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).context("a control group of version 2")?;
    Ok(Path::new(root).join(own))
}

/// Makes a group of threads below this process's own: they need not leave their process for it.
///
/// # Errors
/// Where the kernel refuses.
pub fn make(name: &str) -> Result<PathBuf> {
    let group = own()?.join(name);
    fs::create_dir_all(&group).with_context(|| format!("making the control group {}", group.display()))?;
    fs::write(group.join("cgroup.type"), "threaded")
        .with_context(|| format!("having {} hold threads", group.display()))?;
    Ok(group)
}

/// Moves the calling thread into a group.
///
/// # Errors
/// Where the kernel refuses.
pub fn enter(group: &Path) -> Result<()> {
    fs::write(group.join("cgroup.threads"), "0").with_context(|| format!("entering the group {}", group.display()))
}

/// A command that runs another in a group.
pub fn command(group: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(group.join("cgroup.threads"));
    command
}

/// Removes the groups whose names begin with this, as far as nobody is in them.
pub fn clean(prefix: &str) {
    let Ok(directory) = own().and_then(|own| Ok(fs::read_dir(own)?)) else { return };
    for entry in directory.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let _ = fs::remove_dir(entry.path());
    }
}
