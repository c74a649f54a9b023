//! A node: a namespace with an agent.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::links::PinnedLink;
use sluice_api::{Answer, Call, Client, Counter, DenialStatus, SOCKET, ServicePortStatus, Status};

use super::{Families, Place, Plan, manifest, until};

/// How long anything may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an agent serves metrics that is not told otherwise.
const METRICS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9921));
/// Where it tells load balancers of its node.
const HEALTH: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 10_256));

/// The file of the agent's settings.
const SETTINGS: &str = "agent.yaml";

/// A node.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its namespace.
    pub place: Place,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<String>,
    /// Its directory.
    pub directory: PathBuf,
    lab: String,
    routing: &'static str,
    agent: Option<Child>,
}

/// Where the binaries are: `SLUICE_BIN_DIR`, or where cargo has put them beside this program.
pub fn binary(name: &str) -> PathBuf {
    if let Some(directory) = env::var_os("SLUICE_BIN_DIR") {
        return PathBuf::from(directory).join(name);
    }
    let own = env::current_exe().unwrap_or_default();
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    directory.join(name)
}

/// Where a lab's pins are.
pub fn bpf_dir(lab: &str) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/sluice-lab-{lab}"))
}

impl Node {
    pub(super) fn new(
        number: u8,
        place: Place,
        addresses: Vec<IpAddr>,
        directory: &Path,
        lab: &str,
        plan: &Plan,
    ) -> Result<Self> {
        let (v4, v6) = (format!("10.1.{number}.0/{}", plan.pod_bits), format!("fd00:1:{number}::/64"));
        let pod_cidrs = match plan.families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Dual => vec![v4, v6],
        };
        let directory = directory.join(format!("n{number}"));
        fs::create_dir_all(&directory).context("making a node's directory")?;
        fs::write(directory.join(SETTINGS), "").context("writing the agent's settings")?;
        let name = format!("n{number}");
        Ok(Self { name, place, addresses, pod_cidrs, directory, lab: lab.into(), routing: plan.routing, agent: None })
    }

    pub(super) fn write_manifest(&self, directory: &Path) -> Result<()> {
        let addresses: Vec<_> = self
            .addresses
            .iter()
            .map(|address| serde_json::json!({ "type": "InternalIP", "address": address }))
            .collect();
        let node = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name },
            "spec": { "podCIDRs": self.pod_cidrs },
            "status": { "addresses": addresses },
        });
        manifest::write(directory, &format!("{}.json", self.name), &format!("{node:#}\n"))
    }

    /// The agent, called with this node's settings and directories, and more arguments, which come before those.
    pub fn agent_command(&self, more: &[&str]) -> Command {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let own = [
            ("--node-name", self.name.clone()),
            ("--routing", self.routing.into()),
            ("--source", format!("file:{}", self.directory.with_file_name("manifests").display())),
            ("--bpf-dir", self.bpf_dir().display().to_string()),
            ("--run-dir", path("run")),
            ("--state-dir", path("state")),
            ("--cni-conf-dir", path("cni")),
            ("--config", path(SETTINGS)),
            ("--cgroup", self.place.group().unwrap_or(Path::new("/")).display().to_string()),
        ];
        let mut command = self.place.command(binary("sluice-agent"));
        for (name, value) in own.iter().filter(|(name, _)| !more.contains(name)) {
            command.args([name, value.as_str()]);
        }
        command.args(more);
        command
    }

    /// Starts the agent again, as another would that has these settings; waits until it is ready.
    ///
    /// # Errors
    /// As [`start_agent`](Node::start_agent) and [`wait_until_ready`](Node::wait_until_ready).
    pub fn restart_with(&mut self, settings: &str) -> Result<Status> {
        self.stop_agent();
        fs::write(self.directory.join(SETTINGS), settings).context("writing the agent's settings")?;
        self.start_agent()?;
        self.wait_until_ready()
    }

    /// Where its programs and tables are pinned.
    pub fn bpf_dir(&self) -> PathBuf {
        bpf_dir(&self.lab).join(&self.name)
    }

    /// Where a program of its agent is pinned.
    ///
    /// # Errors
    /// Where it is not.
    pub fn pinned_program(&self, name: &str) -> Result<PathBuf> {
        let versions = fs::read_dir(self.bpf_dir()).context("looking for programs")?.flatten();
        let generations =
            versions.filter_map(|version| fs::read_dir(version.path().join("programs")).ok()).flatten().flatten();
        let found = generations.map(|generation| generation.path().join(name)).find(|path| path.exists());
        found.with_context(|| format!("{} has no program {name}", self.name))
    }

    /// The links between its agent's programs and where they are attached, held: they outlive their pins.
    ///
    /// # Errors
    /// Where they cannot be opened.
    pub fn pinned_links(&self) -> Result<Vec<PinnedLink>> {
        let versions = fs::read_dir(self.bpf_dir()).context("looking for links")?.flatten();
        let pins = versions.filter_map(|version| fs::read_dir(version.path().join("links")).ok()).flatten();
        pins.map(|pin| Ok(PinnedLink::from_pin(pin?.path())?)).collect()
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_agent(&mut self) -> Result<()> {
        self.start_agent_with(&[])
    }

    /// Starts the agent with more arguments, which come before its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_agent_with(&mut self, more: &[&str]) -> Result<()> {
        let path = self.directory.join("agent.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(path).context("opening the agent's log")?;
        let child = self
            .agent_command(more)
            .env("NO_COLOR", "1")
            // Ours, but the agent would wonder.
            .env_remove("SLUICE_BIN_DIR")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the agent")?;
        // nsenter becomes the agent: the number stays.
        fs::write(self.directory.join("pid"), child.id().to_string()).context("writing the agent's number")?;
        self.agent = Some(child);
        Ok(())
    }

    /// Kills the agent, as a crash would.
    pub fn stop_agent(&mut self) {
        if let Some(mut child) = self.agent.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until the agent can serve ADD.
    ///
    /// # Errors
    /// Where it ends, or takes too long; with its log.
    pub fn wait_until_ready(&mut self) -> Result<Status> {
        let mut child = self.agent.take().context("no agent was started")?;
        let status = until("the agent is ready", || {
            // One that ended never will be.
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
            let status = self.status()?;
            ensure!(status.ready, "{status:?}");
            Ok(Some(status))
        });
        self.agent = Some(child);
        status.and_then(|status| status.context("it ended")).with_context(|| {
            let log = fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default();
            format!("the agent of {} does not get ready; its log:\n{log}", self.name)
        })
    }

    /// Where the agent is asked.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run").join(SOCKET)
    }

    /// Asks the agent.
    ///
    /// # Errors
    /// Where it does not answer, or refuses.
    pub fn ask(&self, call: Call) -> Result<Answer> {
        let mut client = Client::connect(&self.socket(), PATIENCE)?;
        Ok(client.call(call)?)
    }

    /// The agent's status.
    ///
    /// # Errors
    /// As [`ask`](Node::ask).
    pub fn status(&self) -> Result<Status> {
        match self.ask(Call::Status {})? {
            Answer::Status(status) => Ok(status),
            other => bail!("asked for its status, the agent says {other:?}"),
        }
    }

    /// What policies have denied last, or would have, at most so much.
    ///
    /// # Errors
    /// As [`ask`](Node::ask).
    pub fn denials(&self, limit: usize) -> Result<Vec<DenialStatus>> {
        match self.ask(Call::Denials { limit })? {
            Answer::Denials(denials) => Ok(denials),
            other => bail!("asked for denials, the agent of {} says {other:?}", self.name),
        }
    }

    /// The ports of Services that it knows.
    ///
    /// # Errors
    /// As [`ask`](Node::ask).
    pub fn services(&self) -> Result<Vec<ServicePortStatus>> {
        match self.ask(Call::Services {})? {
            Answer::Services(ports) => Ok(ports),
            other => bail!("asked for Services, the agent of {} says {other:?}", self.name),
        }
    }

    /// How often a program has counted a reason.
    ///
    /// # Errors
    /// As [`ask`](Node::ask).
    pub fn counter(&self, hook: &str, reason: &str) -> Result<u64> {
        match self.ask(Call::Counters {})? {
            Answer::Counters(counters) => {
                let of = |counter: &&Counter| counter.hook == hook && counter.reason == reason;
                Ok(counters.iter().find(of).map_or(0, |counter| counter.packets))
            }
            other => bail!("asked for counters, the agent says {other:?}"),
        }
    }

    /// What the agent says over HTTP where it serves metrics: a status, and the page.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn page(&self, path: &str) -> Result<(u16, String)> {
        self.page_at(METRICS, path)
    }

    /// What the agent tells load balancers of its node: a status, and the page.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        self.page_at(HEALTH, path)
    }

    /// What is served over HTTP at one of its addresses: a status, and the page.
    ///
    /// # Errors
    /// Where nobody answers.
    pub fn page_at(&self, address: SocketAddr, path: &str) -> Result<(u16, String)> {
        let mut stream = self.place.inside(|| Ok(TcpStream::connect_timeout(&address, PATIENCE)?))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let page = answer.split_once("\r\n\r\n").map(|(_, page)| page.to_owned());
        status.zip(page).with_context(|| format!("{answer:?} is no page"))
    }

    /// A metric, by its name with its labels.
    ///
    /// # Errors
    /// As [`page`](Node::page), and where there is no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (status, page) = self.page("/metrics")?;
        ensure!(status == 200, "status {status}: {page}");
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("{name} is not in\n{page}"))
    }

    pub(super) fn keep(&mut self) {
        self.place.keep();
        // Not waited for: it goes on without this program.
        self.agent = None;
    }
}
