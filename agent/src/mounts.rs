//! The file systems that a node must have mounted: the kernel's for programs, and control groups of version 2.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;

/// Where everybody has the BPF file system.
pub const BPF: &str = "/sys/fs/bpf";
/// What is mounted.
const MOUNTS: &str = "/proc/self/mounts";
/// Where control groups are, of whichever version.
const GROUPS: &str = "/sys/fs/cgroup";
/// Where, below the run directory, those of version 2 are mounted where those of version 1 have that place.
const GROUPS_BESIDE: &str = "cgroup";

/// Goes to where a process 1 sees files and control groups, for good: what is mounted from now on is mounted there. This process
/// may have no other threads.
///
/// # Errors
/// Where the kernel does not let it, with what to do.
pub fn enter(proc: &Path) -> Result<()> {
    const RIGHTS: &str = "it takes the node's /proc, and the capabilities SYS_ADMIN, SYS_CHROOT and SYS_PTRACE";
    let open = |name: &str| {
        let path = proc.join("1/ns").join(name);
        let file = File::open(&path).with_context(|| format!("opening {}; {RIGHTS}", path.display()))?;
        Ok::<_, anyhow::Error>((path, file))
    };
    // From the other files, this path may not be there.
    let spaces = [(open("cgroup")?, CloneFlags::CLONE_NEWCGROUP), (open("mnt")?, CloneFlags::CLONE_NEWNS)];
    for ((path, file), kind) in spaces {
        nix::sched::setns(file, kind).with_context(|| format!("entering {}; {RIGHTS}", path.display()))?;
    }
    Ok(())
}

/// Mounts the BPF file system where it is not; gives whether it was so.
///
/// # Errors
/// Where the kernel refuses.
pub fn ensure_bpf() -> Result<bool> {
    if is_bpf(Path::new(BPF)) {
        return Ok(false);
    }
    let mounts = mounts()?;
    ensure!(
        !is_lent(&mounts, BPF),
        "the node has no BPF file system at {BPF}, and one that this container mounts would end with it, and all programs with \
         that: mount it on the node (mount -t bpf bpf {BPF})"
    );
    mount("bpf", Path::new(BPF))?;
    Ok(true)
}

/// Whether a directory is on a BPF file system.
pub fn is_bpf(directory: &Path) -> bool {
    /// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
    const MAGIC: i64 = 0xcafe_4a11;
    nix::sys::statfs::statfs(directory).is_ok_and(|stat| stat.filesystem_type().0 == MAGIC)
}

/// Mounts control groups of version 2 where there are none; gives where, if it was so. It is one that an agent's container sees:
/// the run directory is among those of the node that it has.
///
/// # Errors
/// Where the kernel refuses.
pub fn ensure_groups(run_dir: &Path) -> Result<Option<PathBuf>> {
    let mounts = mounts()?;
    if of_kind(&mounts, "cgroup2").is_some() {
        return Ok(None);
    }
    let place = place_for_groups(&mounts, run_dir);
    fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    mount("cgroup2", &place)?;
    Ok(Some(place))
}

/// Where control groups of version 2 are, if anywhere.
///
/// # Errors
/// Where the kernel does not say what is mounted.
pub fn groups() -> io::Result<Option<PathBuf>> {
    Ok(of_kind(&fs::read_to_string(MOUNTS)?, "cgroup2").map(PathBuf::from))
}

/// Removes control groups of version 2 that were mounted beside others for want of any; gives where, if it was so.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove_groups(run_dir: &Path) -> Result<Option<PathBuf>> {
    let mounts = mounts()?;
    // As the kernel lists it, without links.
    let place = fs::canonicalize(run_dir.join(GROUPS_BESIDE)).ok();
    let Some(place) = place.filter(|place| places(&mounts).any(|(mounted, _)| Path::new(mounted) == place)) else {
        return Ok(None);
    };
    nix::mount::umount(&place).with_context(|| format!("unmounting {}", place.display()))?;
    fs::remove_dir(&place).with_context(|| format!("removing {}", place.display()))?;
    Ok(Some(place))
}

/// What is mounted, as the kernel lists it.
fn mounts() -> Result<String> {
    fs::read_to_string(MOUNTS).with_context(|| format!("reading what is mounted from {MOUNTS}"))
}

fn mount(kind: &str, place: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some(kind), place, Some(kind), flags, None::<&str>)
        .with_context(|| format!("mounting at {0}; mount it by hand: mount -t {kind} {kind} {0}", place.display()))
}

/// Mounts, as the kernel lists them: where each is, and of which kind.
fn places(mounts: &str) -> impl Iterator<Item = (&str, &str)> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    })
}

fn of_kind<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    places(mounts).find(|(_, is)| *is == kind).map(|(place, _)| place)
}

/// Whether this place is a directory that somebody has mounted there for a container.
fn is_lent(mounts: &str, place: &str) -> bool {
    places(mounts).any(|(mounted, _)| mounted == place)
}

fn place_for_groups(mounts: &str, run_dir: &Path) -> PathBuf {
    let is_taken = places(mounts).any(|(place, _)| Path::new(place).starts_with(GROUPS));
    if is_taken { run_dir.join(GROUPS_BESIDE) } else { PathBuf::from(GROUPS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYS: &str = "sysfs /sys sysfs rw,nosuid 0 0\n";
    const FIRST: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";

    #[test]
    fn control_groups_are_found_wherever_they_are() {
        let both = format!("{SYS}{FIRST}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(of_kind(&both, "cgroup2"), Some("/sys/fs/cgroup/unified"));
        assert_eq!(of_kind(&format!("{SYS}{FIRST}"), "cgroup2"), None);
    }

    #[test]
    fn a_directory_of_the_node_is_told_from_a_place_where_nothing_is_mounted() {
        assert!(is_lent(&format!("{SYS}sysfs /sys/fs/bpf sysfs rw 0 0\n"), BPF));
        assert!(!is_lent(&format!("{SYS}bpf /sys/fs/bpf/x bpf rw 0 0\n"), BPF));
    }

    #[test]
    fn they_are_mounted_beside_those_of_version_1_and_else_where_everybody_has_them() {
        let run_dir = Path::new("/run/net");
        assert_eq!(place_for_groups(&format!("{SYS}{FIRST}"), run_dir), Path::new("/run/net/cgroup"));
        assert_eq!(place_for_groups(SYS, run_dir), Path::new(GROUPS));
    }
}
