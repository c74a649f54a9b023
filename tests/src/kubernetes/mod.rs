//! A cluster of real kubelets with Sluice in it, as `cargo xtask cluster up` starts it, and what tests ask of it.

mod asking;
mod attached;
mod image;
mod namespace;
mod network;
mod pod;
mod undone;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use asking::Asking;
pub use namespace::Namespace;
pub use pod::Pod;
pub use undone::{Undone, words};

/// The image that does what tests need (upstream's `agnhost`), as the cluster has it.
pub const AGNHOST: &str = "agnhost:lab";

/// Who changes nodes or the installation is alone; all others are together.
static TURNS: RwLock<()> = RwLock::new(());

/// The cluster that runs.
pub struct Cluster {
    directory: PathBuf,
    _turn: Turn,
}

enum Turn {
    Together(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl Cluster {
    /// For a test that leaves nodes and installation alone.
    ///
    /// # Errors
    /// Where there is no cluster.
    pub fn shared() -> Result<Self> {
        Self::running(Turn::Together(TURNS.read().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }

    /// For a test that changes nodes or the installation: no other runs meanwhile.
    ///
    /// # Errors
    /// Where there is no cluster.
    pub fn alone() -> Result<Self> {
        Self::running(Turn::Alone(TURNS.write().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }

    fn running(turn: Turn) -> Result<Self> {
        let directory = directory()?;
        ensure!(directory.join("run/up").exists(), "no cluster runs in {}", directory.display());
        Ok(Self { directory, _turn: turn })
    }

    /// What kubectl prints.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        said(&mut self.kubectl_beside(arguments))
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// Where the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.feed(&["apply", "-f", "-"], manifests)
    }

    /// An object, as JSON.
    ///
    /// # Errors
    /// Where there is none.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("understanding kubectl")
    }

    /// Of which minor version the API server is.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn minor_version(&self) -> Result<u32> {
        let said = self.kubectl(&["get", "--raw", "/version"])?;
        let version: Value = serde_json::from_str(&said).context("understanding the API server's version")?;
        let minor = version["minor"].as_str().and_then(|minor| minor.parse().ok());
        minor.with_context(|| format!("the API server's version is {version}"))
    }

    /// What a command in a node prints.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn on(&self, node: &str, command: &[&str]) -> Result<String> {
        said(self.script("exec").arg(node).args(command))
    }

    /// What a command prints that runs outside the cluster, where the nodes' network ends.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn outside(&self, command: &[&str]) -> Result<String> {
        said(self.script("outside").args(command))
    }

    /// What a server answers a client outside.
    ///
    /// # Errors
    /// Where it does not answer, in two seconds.
    pub fn fetch(&self, url: &str) -> Result<String> {
        self.outside(&["curl", "-sSfg", "--max-time", "2", url])
    }

    /// The agents' pods.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub fn agents(&self) -> Result<Vec<Value>> {
        let of = ["-n", "kube-system", "pods", "-l", "app.kubernetes.io/component=agent"];
        Ok(self.get(&of)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// The pod of a node's agent.
    ///
    /// # Errors
    /// Where the node has none, or, while one gives way to another, two.
    pub fn agent_on(&self, node: &str) -> Result<Value> {
        let mut agents = self.agents()?;
        agents.retain(|agent| agent["spec"]["nodeName"] == node);
        ensure!(agents.len() == 1, "{node} has {} pods of agents", agents.len());
        Ok(agents.remove(0))
    }

    /// What containerd's own client prints on a node.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn containerd(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let client = self.directory.join("bin/ctr");
        said(self.script("exec").arg(node).arg(client).args(["-n", "k8s.io"]).args(arguments))
    }

    /// What Helm prints, as the cluster's administrator.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let helm = env::var("SLUICE_HELM").context("SLUICE_HELM is not set: `cargo xtask test kubernetes` sets it")?;
        let configuration = self.place("admin.conf").display().to_string();
        self.outside(&[&[&helm, "--kubeconfig", &configuration, "--namespace", "kube-system"], arguments].concat())
    }

    /// The kustomization that Sluice was installed by.
    pub fn installation(&self) -> String {
        self.directory.join("install").display().to_string()
    }

    /// The same as values of the chart.
    pub fn values(&self) -> String {
        self.directory.join("install/values.yaml").display().to_string()
    }

    /// Waits until each node has its pod of a DaemonSet of the system, and that is ready.
    ///
    /// # Errors
    /// Where one does not get so.
    pub fn rolled_out(&self, name: &str) -> Result<()> {
        let set = format!("daemonset/{name}");
        self.kubectl(&["-n", "kube-system", "rollout", "status", &set, "--timeout=240s"]).map(|_| ())
    }

    /// Waits until all nodes are Ready.
    ///
    /// # Errors
    /// Where one does not get so.
    pub fn nodes_ready(&self) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", "node", "--all"]).map(|_| ())
    }

    /// Has the script beside the cluster do something to it: `join`, `reboot`, `leave`, `load`.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn ask(&self, action: &str, arguments: &[&str]) -> Result<String> {
        said(self.script(action).args(arguments))
    }

    /// The nodes' names.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let names = self.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])?;
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// A node's address, of the cluster's first family.
    ///
    /// # Errors
    /// Where it has none.
    pub fn address(&self, node: &str) -> Result<IpAddr> {
        let path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}";
        let addresses = self.kubectl(&["get", "node", node, "-o", path])?;
        let first = addresses.split_whitespace().next().with_context(|| format!("{node} has no address"))?;
        first.parse().with_context(|| format!("understanding {node}'s address {first}"))
    }

    /// The address from which clients outside, and the API server, come.
    ///
    /// # Errors
    /// Where the cluster does not tell.
    pub fn outsider(&self) -> Result<IpAddr> {
        let server = self.ask("server", &[])?;
        let host = server.trim().trim_start_matches("https://").rsplit_once(':').context("no port")?.0;
        host.trim_matches(['[', ']']).parse().with_context(|| format!("understanding {server}"))
    }

    /// One of the cluster's own programs, which runs beside the test outside the nodes, until it is killed or ends.
    pub fn program_beside(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.script("outside");
        command.arg(self.directory.join("bin").join(name)).args(arguments);
        command
    }

    /// Where something of the running cluster's may lie; it goes with the cluster.
    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.join("run").join(name)
    }

    /// Something that was made for clusters beforehand, beside `bin` and `images`.
    pub fn made(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What the kernel shows of the first process of a node, or of `cp`, where the control plane is: by it, others reach
    /// the node's files (`root`) and namespaces (`ns`).
    ///
    /// # Errors
    /// Where it is not there.
    pub fn first_process(&self, node: &str) -> Result<PathBuf> {
        let path = self.place(node).join("pid");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // Behind its number is when it was started.
        let number = text.split_whitespace().next().with_context(|| format!("{} is empty", path.display()))?;
        Ok(PathBuf::from("/proc").join(number))
    }

    /// kubectl that runs beside the test, until it is killed or ends.
    pub fn kubectl_beside(&self, arguments: &[&str]) -> Command {
        let mut command = self.script("kubectl");
        command.args(arguments);
        command
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Result<()> {
        let mut child = self
            .kubectl_beside(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting kubectl")?;
        // It ends with this statement, and kubectl's input with it.
        child.stdin.take().context("kubectl's input")?.write_all(input.as_bytes()).context("writing to kubectl")?;
        told(&child.wait_with_output().context("waiting for kubectl")?, "kubectl").map(|_| ())
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes/cluster.sh"));
        command.arg(action).env("CLUSTER", &self.directory);
        command
    }
}

/// Where clusters have their things.
fn directory() -> Result<PathBuf> {
    env::var_os("SLUICE_CLUSTER")
        .map(PathBuf::from)
        .context("SLUICE_CLUSTER is not set: `cargo xtask test kubernetes` and `cargo xtask bench` set it")
}

/// Where the programs of Kubernetes are, for who needs some of them without a cluster.
///
/// # Errors
/// Where nobody has said so.
pub fn programs() -> Result<PathBuf> {
    Ok(directory()?.join("bin"))
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let words = command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = command.output().with_context(|| format!("starting {words}"))?;
    told(&output, &words)
}

fn told(output: &Output, what: &str) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{what}: {}{}", text, String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Where a server of the image that tests use says its name.
pub fn hostname_at(address: IpAddr, port: u16) -> String {
    format!("http://{}/hostname", SocketAddr::new(address, port))
}

/// The command that asks a server of that image for its name over UDP.
pub fn datagram_to(address: IpAddr, port: u16) -> [String; 3] {
    ["sh".into(), "-c".into(), format!("echo hostname | nc -u -w 1 {address} {port}")]
}

/// Lines as they stand below something in YAML.
fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}
