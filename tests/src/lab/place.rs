//! Network namespaces.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use sluice_netlink::within;

use super::group;

/// A network namespace with a name; gone when dropped.
#[derive(Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    file: File,
    /// The control group of those who do something there.
    group: Option<PathBuf>,
    keep: bool,
}

/// Runs `ip`, and says what it said where it fails.
///
/// # Errors
/// Where it cannot be run or fails.
pub fn ip(arguments: &str) -> Result<()> {
    run_ip(Command::new("ip"), arguments)
}

fn run_ip(mut ip: Command, arguments: &str) -> Result<()> {
    let output = ip.args(arguments.split_whitespace()).output().context("running ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Where a program is: some shells (busybox) would take their own for it.
fn found(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.exists());
    found.unwrap_or_else(|| program.into())
}

/// Starts a command in a namespace, without another program in between.
///
/// # Errors
/// Where the namespace cannot be entered, or the command not started.
pub fn spawn_in(namespace: &Path, command: &mut Command) -> Result<Child> {
    let file = File::open(namespace).with_context(|| format!("opening the namespace {}", namespace.display()))?;
    Ok(within(&file, || command.spawn()).with_context(|| format!("entering {}", namespace.display()))??)
}

impl Place {
    /// Makes a namespace, with its loopback up.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn make(name: &str) -> Result<Self> {
        ip(&format!("netns add {name}"))?;
        let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("opening the namespace {name}"))?;
        let place = Self { name: name.into(), file, group: None, keep: false };
        place.ip("link set lo up")?;
        Ok(place)
    }

    /// The place that a process is in (by what the kernel shows of it), for as long as that is there; it is not ours, and stays.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn of(process: &Path) -> Result<Self> {
        // An absolute path is itself, wherever it is looked for.
        let name = process.join("ns/net").display().to_string();
        let file = File::open(&name).with_context(|| format!("opening the namespace {name}"))?;
        Ok(Self { name, file, group: None, keep: true })
    }

    /// The same place, for others to do something there meanwhile; it is there until the first is dropped.
    ///
    /// # Errors
    /// Where this process has no more files.
    pub fn share(&self) -> Result<Self> {
        let file = self.file.try_clone().with_context(|| format!("sharing the namespace {}", self.name))?;
        Ok(Self { name: self.name.clone(), file, group: self.group.clone(), keep: true })
    }

    /// Has those who do something there be in a control group.
    pub fn join(&mut self, group: &Path) {
        self.group = Some(group.to_owned());
    }

    /// The control group of those who do something there.
    pub fn group(&self) -> Option<&Path> {
        self.group.as_deref()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip` there.
    ///
    /// # Errors
    /// As [`ip`].
    pub fn ip(&self, arguments: &str) -> Result<()> {
        // Not by `ip -n`, which mounts a /sys of its own: that fails where / is no mount point, as in a chroot.
        run_ip(self.command("ip"), arguments).with_context(|| format!("in {}", self.name))
    }

    /// A command that runs there; it sees the same mounts as everybody.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match &self.group {
            Some(group) => {
                let mut command = group::command(group);
                command.arg(found("nsenter"));
                command
            }
            None => Command::new("nsenter"),
        };
        command.arg(format!("--net={}", self.path().display())).arg(program).stdin(Stdio::null());
        command
    }

    /// Does something there, on a thread of its own. Sockets that are made there stay there.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or the work fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let work = || {
            self.group.as_deref().map_or(Ok(()), group::enter)?;
            work()
        };
        within(&self.file, work).with_context(|| format!("entering {}", self.name))?
    }

    /// Switches on forwarding.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forward(&self) -> Result<()> {
        self.inside(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
            Ok(())
        })
    }

    /// Leaves it there when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            let _ = ip(&format!("netns delete {}", self.name));
        }
    }
}
