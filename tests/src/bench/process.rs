//! What a process takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::Node;

/// Kernel's ticks of processor time a second, on all architectures (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A process, as /proc has it (proc(5)).
#[derive(Clone, Debug)]
pub struct Process(String);

impl Process {
    /// This one.
    pub fn own() -> Self {
        Self("/proc/self".into())
    }

    /// The process with this number.
    pub fn of(number: u32) -> Self {
        Self(format!("/proc/{number}"))
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// Where it has none.
    pub fn of_agent(node: &Node) -> Result<Self> {
        let pid = fs::read_to_string(node.directory.join("pid")).context("reading the agent's number")?;
        Ok(Self(format!("/proc/{}", pid.trim())))
    }

    /// The process of this program in a network namespace, as `/proc/PID/ns/net` has it.
    ///
    /// # Errors
    /// Where there is none.
    pub fn within(namespace: &Path, program: &str) -> Result<Self> {
        let namespace = fs::read_link(namespace).with_context(|| format!("looking at {}", namespace.display()))?;
        let processes = fs::read_dir("/proc").context("listing processes")?;
        let is_meant = |path: &PathBuf| {
            fs::read_link(path.join("ns/net")).is_ok_and(|it| it == namespace)
                && fs::read_link(path.join("exe")).is_ok_and(|it| it.file_name().is_some_and(|name| name == program))
        };
        let found = processes.flatten().map(|entry| entry.path()).find(is_meant);
        let found = found.with_context(|| format!("no {program} runs in {}", namespace.display()))?;
        Ok(Self(found.display().to_string()))
    }

    /// The numbers of its sockets, which no others have.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn sockets(&self) -> Result<BTreeSet<u64>> {
        let path = format!("{}/fd", self.0);
        let files = fs::read_dir(&path).with_context(|| format!("listing {path}"))?;
        let number = |file: PathBuf| file.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
        Ok(files.flatten().filter_map(|file| number(fs::read_link(file.path()).ok()?)).collect())
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }

    /// What its status says of its memory, in MiB, such as `VmRSS`.
    ///
    /// # Errors
    /// Where it is gone, or there is no such field.
    pub fn memory(&self, field: &str) -> Result<f64> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.strip_suffix("kB"));
        let kib: f64 = line
            .and_then(|number| number.trim().parse().ok())
            .with_context(|| format!("finding {field} in the status of {}", self.0))?;
        Ok(kib / 1024.0)
    }

    /// Has what it has had at most (`VmHWM`) be counted from now on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn forget_peak(&self) -> Result<()> {
        let path = format!("{}/clear_refs", self.0);
        fs::write(&path, "5").with_context(|| format!("writing {path}"))
    }

    /// Processor time that all its threads have taken, in seconds.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn processor_time(&self) -> Result<f64> {
        let text = self.read("stat")?;
        // Its name, in brackets, may have spaces in it; behind it, user and system time are fields 12 and 13.
        let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ')).context("reading a process's times")?;
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }
}
