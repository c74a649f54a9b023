//! Putting the plugin and `sluicectl` on a node, out of an image, and mounting what the node lacks: what an init container runs
//! before the agent.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::mounts;

/// What anybody may read and run, and its owner replace.
const MODE: u32 = 0o755;
/// Names of what is installed.
const PLUGIN: &str = "sluice";
const SLUICECTL: &str = "sluicectl";
/// The plugin by which runtimes take the loopback device of a pod up. Called by this name, ours is that one; where there is one
/// of somebody else's, that stays.
const LOOPBACK: &str = "loopback";

/// From where to where.
#[derive(Args, Debug)]
pub struct Install {
    /// The node's directory of CNI plugins
    #[arg(long, default_value = "/host/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// The node's directory for sluicectl
    #[arg(long, default_value = "/host/usr/local/bin")]
    bin_dir: PathBuf,
    /// The plugin that is to be there
    #[arg(long, default_value = "/opt/cni/bin/sluice")]
    plugin: PathBuf,
    /// The sluicectl that is to be there
    #[arg(long, default_value = "/usr/bin/sluicectl")]
    sluicectl: PathBuf,
    /// The node's /proc: where the BPF file system or control groups of version 2 are missing, they are mounted on the node
    /// [default: nothing is mounted]
    #[arg(long)]
    host_proc: Option<PathBuf>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Installed,
    Replaced,
    /// It was there already.
    Unchanged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Installed => "installed",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        })
    }
}

/// Puts both on the node, mounts what is missing there (beside others, below the run directory), and says what became of it.
/// The directories are to be there: one that is made here would be the container's, and nothing of it on the node. `sluicectl` comes
/// first, for it tells of what fails then; only people need it, so the node gets its network without.
///
/// # Errors
/// Where the plugin cannot be read, its directory not be written to, or something not be mounted, with what to do.
pub fn run(install: &Install, run_dir: &Path) -> Result<()> {
    if let Err(error) = place(&install.sluicectl, &install.bin_dir, SLUICECTL) {
        eprintln!("pods have their network without it: {error:#}");
    }
    place(&install.plugin, &install.cni_bin_dir, PLUGIN)?;
    let loopback = install.cni_bin_dir.join(LOOPBACK);
    match link_loopback(&install.cni_bin_dir)? {
        Loopback::Linked => println!("{} {}", Outcome::Installed, loopback.display()),
        Loopback::Another => {}
        Loopback::Astray(target) => eprintln!(
            "{} leads to {}, which is not to be seen from here: if the node does not have it, containerd starts no pods; remove it \
             then, and start this again",
            loopback.display(),
            target.display()
        ),
    }
    // Last: from there, the image is out of sight.
    install.host_proc.as_deref().map_or(Ok(()), |proc| mount(proc, run_dir))
}

/// All that there can be of it in these directories.
pub fn places(cni_bin_dir: Option<&Path>, bin_dir: Option<&Path>) -> Vec<PathBuf> {
    let files = [(cni_bin_dir, PLUGIN), (bin_dir, SLUICECTL)];
    let places = files.into_iter().filter_map(|(directory, name)| {
        let directory = directory?;
        Some([directory.join(name), fresh(directory, name)])
    });
    let loopback = cni_bin_dir.map(|directory| directory.join(LOOPBACK));
    let loopback = loopback.filter(|place| fs::read_link(place).is_ok_and(|target| target == Path::new(PLUGIN)));
    places.flatten().chain(loopback).collect()
}

/// Puts the program of a file into a directory by this name, and says what became of it.
fn place(from: &Path, directory: &Path, name: &str) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let outcome = put(&bytes, directory, name).with_context(|| format!("installing {name}"))?;
    println!("{outcome} {}", directory.join(name).display());
    Ok(())
}

/// Who is the plugin for loopback devices.
#[derive(Debug, PartialEq, Eq)]
enum Loopback {
    /// Ours, as of now.
    Linked,
    /// Whichever was there, be it ours.
    Another,
    /// A link that leads out of the directory, to something that only the node may have.
    Astray(PathBuf),
}

/// Has our plugin be that for loopback devices too, unless there is one. A link to what is not beside it is none.
fn link_loopback(directory: &Path) -> Result<Loopback> {
    let place = directory.join(LOOPBACK);
    let link = || match symlink(PLUGIN, &place) {
        Ok(()) => Ok(Loopback::Linked),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Loopback::Another),
        Err(error) => Err(error),
    };
    let is_dead = |target: &Path| {
        target.is_relative()
            && target.components().count() == 1
            && fs::symlink_metadata(directory.join(target)).is_err()
    };
    let linked = match fs::read_link(&place) {
        Ok(target) if is_dead(&target) => fs::remove_file(&place).and_then(|()| link()),
        Ok(target) if !place.exists() => Ok(Loopback::Astray(target)),
        // It may be no link, or not there.
        Ok(_) | Err(_) => link(),
    };
    linked.map_err(|error| explained(error, directory)).with_context(|| format!("installing {LOOPBACK}"))
}

/// Where a program is written, beside its place.
fn fresh(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.new"))
}

fn mount(proc: &Path, run_dir: &Path) -> Result<()> {
    mounts::enter(proc).context("going to where the node's files are")?;
    if mounts::ensure_bpf()? {
        println!("mounted a BPF file system at {}", mounts::BPF);
    }
    if let Some(place) = mounts::ensure_groups(run_dir)? {
        println!("mounted control groups of version 2 at {}", place.display());
    }
    Ok(())
}

/// Puts a program into a directory, all of it or nothing, at whatever instant this ends: who starts it meanwhile has the old one
/// or the new one.
fn put(bytes: &[u8], directory: &Path, name: &str) -> Result<Outcome> {
    let place = directory.join(name);
    let opened = File::open(directory).map_err(|error| explained(error, directory))?;
    // Another of us would write to the same file beside it.
    opened.lock().with_context(|| format!("waiting for whoever else installs into {}", directory.display()))?;
    let was_there = match fs::symlink_metadata(&place) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o7777 == MODE => {
            if fs::read(&place).is_ok_and(|there| there == bytes) {
                return Ok(Outcome::Unchanged);
            }
            true
        }
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(explained(error, directory)),
    };
    let fresh = fresh(directory, name);
    let written = write(bytes, &fresh).and_then(|()| fs::rename(&fresh, &place));
    if let Err(error) = written {
        fs::remove_file(&fresh).ok();
        return Err(explained(error, directory));
    }
    opened.sync_all().with_context(|| format!("writing {} to disk", directory.display()))?;
    Ok(if was_there { Outcome::Replaced } else { Outcome::Installed })
}

/// Writes a program to disk. What one that was cut off has left there goes.
fn write(bytes: &[u8], fresh: &Path) -> io::Result<()> {
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(fresh)?;
    file.write_all(bytes)?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

/// An error about a directory, with what to do about it.
fn explained(error: io::Error, directory: &Path) -> anyhow::Error {
    let advice = match error.kind() {
        ErrorKind::NotFound => "it is not there: mount the node's directory at this place, or name another",
        ErrorKind::NotADirectory => "it is no directory: name one",
        ErrorKind::ReadOnlyFilesystem => {
            "it is read-only: mount the node's directory without readOnly, or name one that the node can write to"
        }
        ErrorKind::PermissionDenied => "this user may not write there: run as root",
        ErrorKind::StorageFull => "the disk is full: make room on the node",
        ErrorKind::IsADirectory => "a directory has the program's name: remove it from the node",
        _ => "look at the node's disk",
    };
    anyhow::Error::new(error).context(format!("writing to {}; {advice}", directory.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    /// A directory of the node, with somebody else's plugin in it.
    fn node() -> TempDir {
        let directory = tempfile::tempdir().expect("makes a directory");
        fs::write(directory.path().join("bridge"), "others'").expect("writes");
        directory
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).expect("lists");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("reads").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    fn wrong(result: Result<Outcome>) -> String {
        format!("{:#}", result.expect_err("it cannot be"))
    }

    #[test]
    fn a_program_is_put_there_once_and_replaced_by_another() {
        let node = node();
        let place = node.path().join("sluice");
        assert_eq!(put(b"one", node.path(), "sluice").expect("puts"), Outcome::Installed);
        let first = fs::metadata(&place).expect("is there");
        assert_eq!(first.permissions().mode() & 0o7777, MODE);
        assert_eq!(put(b"one", node.path(), "sluice").expect("puts"), Outcome::Unchanged);
        assert_eq!(fs::metadata(&place).expect("is there").ino(), first.ino(), "it was not touched");
        assert_eq!(put(b"two", node.path(), "sluice").expect("puts"), Outcome::Replaced);
        assert_eq!(fs::read(&place).expect("reads"), b"two");
        assert_eq!(names(&node), ["bridge", "sluice"]);
        assert_eq!(fs::read(node.path().join("bridge")).expect("reads"), b"others'");
    }

    #[test]
    fn one_that_runs_is_replaced_and_one_that_cannot_be_run_too() {
        let node = node();
        let place = node.path().join("sluice");
        put(b"one", node.path(), "sluice").expect("puts");
        let mut running = File::open(&place).expect("opens");
        put(b"two", node.path(), "sluice").expect("puts");
        assert_eq!(io::read_to_string(&mut running).expect("reads"), "one", "who has it open keeps it");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("sets");
        assert_eq!(put(b"two", node.path(), "sluice").expect("puts"), Outcome::Replaced);
        assert_eq!(fs::metadata(&place).expect("is there").permissions().mode() & 0o7777, MODE);
    }

    #[test]
    fn a_link_of_that_name_gives_way_and_what_it_leads_to_stays() {
        let node = node();
        std::os::unix::fs::symlink("bridge", node.path().join("sluice")).expect("links");
        assert_eq!(put(b"one", node.path(), "sluice").expect("puts"), Outcome::Replaced);
        assert_eq!(fs::read(node.path().join("bridge")).expect("reads"), b"others'");
        assert_eq!(fs::read(node.path().join("sluice")).expect("reads"), b"one");
    }

    #[test]
    fn what_was_cut_off_is_made_good() {
        let node = node();
        fs::write(node.path().join(".sluice.new"), "half").expect("writes");
        assert_eq!(put(b"one", node.path(), "sluice").expect("puts"), Outcome::Installed);
        assert_eq!(names(&node), ["bridge", "sluice"]);
    }

    #[test]
    fn what_is_there_to_remove_is_all_that_there_can_be() {
        let node = node();
        put(b"one", node.path(), PLUGIN).expect("puts");
        fs::write(fresh(node.path(), PLUGIN), "half").expect("writes");
        assert_eq!(link_loopback(node.path()).expect("links"), Loopback::Linked);
        for place in places(Some(node.path()), None) {
            fs::remove_file(place).expect("is there");
        }
        assert_eq!(names(&node), ["bridge"]);
    }

    #[test]
    fn a_plugin_for_loopback_devices_is_there_and_that_of_others_stays() {
        let node = node();
        put(b"one", node.path(), PLUGIN).expect("puts");
        assert_eq!(link_loopback(node.path()).expect("links"), Loopback::Linked);
        assert_eq!(fs::read(node.path().join(LOOPBACK)).expect("reads"), b"one");
        assert_eq!(link_loopback(node.path()).expect("is there"), Loopback::Another);
        fs::remove_file(node.path().join(LOOPBACK)).expect("removes");
        fs::write(node.path().join(LOOPBACK), "others'").expect("writes");
        assert_eq!(link_loopback(node.path()).expect("is there"), Loopback::Another);
        assert!(!places(Some(node.path()), None).contains(&node.path().join(LOOPBACK)));
        assert_eq!(fs::read(node.path().join(LOOPBACK)).expect("reads"), b"others'");
    }

    #[test]
    fn a_link_that_another_plugin_has_left_for_loopback_devices_gives_way_where_nothing_is_behind_it() {
        let node = node();
        let place = node.path().join(LOOPBACK);
        let link = |target: &str| {
            fs::remove_file(&place).ok();
            symlink(target, &place).expect("links");
            link_loopback(node.path()).expect("looks")
        };
        put(b"one", node.path(), PLUGIN).expect("puts");
        assert_eq!(link("cni-plugins"), Loopback::Linked);
        assert_eq!(fs::read(&place).expect("reads"), b"one");
        assert_eq!(link("bridge"), Loopback::Another);
        assert_eq!(fs::read(&place).expect("reads"), b"others'");
        // Of the node, a container sees its directory only.
        symlink("/none/tuning", node.path().join("tuning")).expect("links");
        for target in ["/none/loopback", "../none/loopback", "tuning"] {
            assert_eq!(link(target), Loopback::Astray(target.into()));
            assert_eq!(fs::read_link(&place).expect("stays"), Path::new(target));
        }
    }

    #[test]
    fn several_at_once_leave_a_whole_one() {
        let node = node();
        let programs: Vec<_> = (0..8u8).map(|byte| vec![byte; 1 << 16]).collect();
        thread::scope(|scope| {
            for program in &programs {
                scope.spawn(|| put(program, node.path(), "sluice").expect("puts"));
            }
        });
        assert!(programs.contains(&fs::read(node.path().join("sluice")).expect("reads")));
        assert_eq!(names(&node), ["bridge", "sluice"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named_with_what_to_do() {
        let node = node();
        let error = wrong(put(b"one", &node.path().join("absent"), "sluice"));
        assert!(error.contains("absent; it is not there: mount the node's directory"), "{error}");
        let error = wrong(put(b"one", &node.path().join("bridge"), "sluice"));
        assert!(error.contains("bridge; it is no directory"), "{error}");
        fs::create_dir(node.path().join("sluice")).expect("makes");
        let error = wrong(put(b"one", node.path(), "sluice"));
        assert!(error.contains("a directory has the program's name"), "{error}");
        assert_eq!(names(&node), ["bridge", "sluice"]);
        // Nobody, whoever runs this, can write here.
        let error = wrong(put(b"one", Path::new("/proc/self"), "sluice"));
        assert!(error.starts_with("writing to /proc/self; "), "{error}");
    }

    #[test]
    fn read_only_is_told_from_what_may_not_be() {
        let told = |kind| format!("{:#}", explained(io::Error::from(kind), Path::new("/host/opt/cni/bin")));
        let error = told(ErrorKind::ReadOnlyFilesystem);
        assert!(error.starts_with("writing to /host/opt/cni/bin; it is read-only: mount"), "{error}");
        assert!(told(ErrorKind::PermissionDenied).contains("run as root"));
    }
}
