//! What an init container does to its node: programs that are put there, and mounts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use sluice_tests::lab::binary;

/// A node that has nothing mounted below /sys, with a process 1 of its own.
struct Bare(Child);

impl Bare {
    fn start() -> Result<Self> {
        Self::after("true")
    }

    /// One that has done something more before it is up.
    fn after(more: &str) -> Result<Self> {
        let bare = format!("umount -l /sys && mount -t sysfs sysfs /sys && {more} && echo up && exec sleep infinity");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &bare]);
        let node = Self(unshare.stdout(Stdio::piped()).spawn().context("starting a node")?);
        Ok(node)
    }

    /// Waits until it is as it should be.
    fn is_up(&mut self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("its output")?).read_line(&mut line)?;
        ensure!(line == "up\n", "the node did not come up");
        Ok(())
    }

    /// Runs a command as a container of this node does, which is given the node's /proc.
    fn run(&self, install: &Command) -> Result<Output> {
        let node = self.0.id();
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--pid=/proc/{node}/ns/pid_for_children"));
        nsenter.arg(install.get_program()).args(install.get_args());
        Ok(nsenter.arg(format!("--host-proc=/proc/{node}/root/proc")).output()?)
    }

    /// Where a kind of file system is mounted.
    fn mounted(&self, kind: &str) -> Result<Vec<String>> {
        mounted(&format!("/proc/{}/mounts", self.0.id()), kind)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mounted(table: &str, kind: &str) -> Result<Vec<String>> {
    let table = fs::read_to_string(table).context("reading what is mounted")?;
    let fields = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|fields| fields[2] == kind).map(|fields| fields[1].to_owned()).collect())
}

/// Directories that programs are put into.
struct Directories(PathBuf);

impl Directories {
    fn make(name: &str) -> Result<Self> {
        let made = Self(env::temp_dir().join(format!("sluice-install-{name}-{}", process::id())));
        for directory in [made.cni(), made.bin()] {
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        Ok(made)
    }

    fn cni(&self) -> PathBuf {
        self.0.join("cni")
    }

    fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The command that puts them there.
    fn install(&self) -> Command {
        let mut install = Command::new(binary("sluice-agent"));
        install
            .arg("--run-dir")
            .arg(self.run())
            .arg("install")
            .arg("--plugin")
            .arg(binary("sluice"))
            .arg("--sluicectl")
            .arg(binary("sluicectl"));
        install.arg("--cni-bin-dir").arg(self.cni()).arg("--bin-dir").arg(self.bin());
        install
    }
}

/// Runs a command where a directory is read-only: in a mount namespace of its own, which takes the mount along when it ends.
fn read_only(directory: &Path, command: &Command) -> Result<Output> {
    let mut alone = Command::new("unshare");
    alone.args(["--mount", "sh", "-c", r#"mount -t tmpfs -o ro tmpfs "$0" && exec "$@""#]).arg(directory);
    Ok(alone.arg(command.get_program()).args(command.get_args()).output()?)
}

impl Drop for Directories {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_a_node_lacks_is_mounted_there_and_nowhere_else() -> Result<()> {
    let mut node = Bare::start()?;
    node.is_up()?;
    ensure!(node.mounted("bpf")?.is_empty() && node.mounted("cgroup2")?.is_empty(), "the node is not bare");
    let own =
        || Ok::<_, anyhow::Error>((mounted("/proc/self/mounts", "bpf")?, mounted("/proc/self/mounts", "cgroup2")?));
    let before = own()?;

    let directories = Directories::make("mounts")?;
    let output = node.run(&directories.install())?;
    ensure!(output.status.success(), "{}", said(&output));
    for line in ["mounted a BPF file system at /sys/fs/bpf", "mounted control groups of version 2 at /sys/fs/cgroup"] {
        ensure!(said(&output).contains(line), "{}", said(&output));
    }
    assert_eq!(node.mounted("bpf")?, ["/sys/fs/bpf"]);
    assert_eq!(node.mounted("cgroup2")?, ["/sys/fs/cgroup"]);
    assert_eq!(own()?, before);

    let again = node.run(&directories.install())?;
    ensure!(again.status.success() && !said(&again).contains("mounted"), "{}", said(&again));
    assert_eq!(said(&again).matches("unchanged").count(), 2, "{}", said(&again));
    assert_eq!(node.mounted("bpf")?, ["/sys/fs/bpf"]);
    Ok(())
}

#[test]
fn control_groups_beside_those_of_version_1_are_where_an_agents_container_sees_them() -> Result<()> {
    let mut node = Bare::after("mount -t tmpfs cgroup /sys/fs/cgroup")?;
    node.is_up()?;
    let directories = Directories::make("groups")?;
    let output = node.run(&directories.install())?;
    ensure!(output.status.success(), "{}", said(&output));
    assert_eq!(node.mounted("cgroup2")?, [directories.run().join("cgroup").display().to_string()]);
    Ok(())
}

#[test]
fn a_directory_that_is_read_only_is_named_with_what_to_do() -> Result<()> {
    let directories = Directories::make("read-only")?;
    let (cni, mut install) = (directories.cni(), directories.install());
    let output = read_only(&cni, &install)?;
    ensure!(!output.status.success(), "it cannot be: {}", said(&output));
    let named = format!("installing sluice: writing to {}; it is read-only: mount the node's directory", cni.display());
    ensure!(said(&output).contains(&named), "{}", said(&output));

    // No agent starts then: what was put there first tells why, until it is right.
    let status = || -> Result<String> {
        let mut status = Command::new(directories.bin().join("sluicectl"));
        Ok(said(&status.arg("status").arg("--socket").arg(directories.run().join("agent.sock")).output()?))
    };
    let told = status()?;
    ensure!(told.contains("; sluice-agent install ") && told.contains(&named), "{told}");
    ensure!(install.output()?.status.success(), "it can be now");
    ensure!(status()?.contains("is sluice-agent running on this node?"), "{}", status()?);
    Ok(())
}

#[test]
fn a_node_gets_its_plugin_where_there_is_no_place_for_sluicectl() -> Result<()> {
    let directories = Directories::make("no-sluicectl")?;
    let output = read_only(&directories.bin(), &directories.install())?;
    ensure!(output.status.success(), "{}", said(&output));
    let named = format!("installing sluicectl: writing to {}; it is read-only", directories.bin().display());
    ensure!(said(&output).contains(&named), "{}", said(&output));
    ensure!(directories.cni().join("sluice").exists() && directories.cni().join("loopback").exists(), "no plugin");
    Ok(())
}
