//! `cargo xtask cluster`: a Kubernetes cluster of real kubelets on this machine, with Sluice in it.

mod install;
mod parts;
mod running;
pub mod upstream;

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::run::{output, root, run, say, target};
pub use running::Running;

/// See the command's help.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build what is missing, start control plane and nodes, and install Sluice
    Up {
        #[command(flatten)]
        shape: Shape,
        /// Leave the nodes without a plugin
        #[arg(long, conflicts_with_all = ["reference", "helm"])]
        bare: bool,
        /// Install the plugins of the CNI project and kube-proxy instead, to compare with
        #[arg(long, conflicts_with_all = ["helm", "pool"])]
        reference: bool,
    },
    /// End it, and leave the machine as it was
    Down,
    /// What runs
    Status,
    /// kubectl, as the cluster's administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run a command in a node (n1, n2, ... or cp)
    Exec {
        node: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Import image archives into every node, also into those that join later
    Load { archives: Vec<PathBuf> },
    /// Start one more node
    Join { node: String },
    /// Take a node out of the cluster for good
    Leave { node: String },
    /// End a node with everything that runs on it, and start it again
    Reboot { node: String },
}

/// What a cluster is like.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Shape {
    /// Nodes, in three zones; with six, the three upstream tests of traffic distribution run that need two in each
    #[arg(long, default_value_t = Self::default().nodes, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// IPv4 and IPv6
    #[arg(long, conflicts_with = "ipv6")]
    pub dual: bool,
    /// Between nodes through the overlay
    #[arg(long)]
    tunnel: bool,
    /// Between nodes natively
    #[arg(long, conflicts_with = "tunnel")]
    native: bool,
    /// Pod CIDRs out of a pool, which Sluice hands out: the Nodes are given none
    #[arg(long)]
    pub pool: bool,
    /// Install Sluice by Helm instead of kubectl
    #[arg(long)]
    pub helm: bool,
    /// The oldest Kubernetes that Sluice supports instead of the newest; of tests, only our own
    #[arg(long)]
    pub oldest: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 3,
            ipv6: false,
            dual: false,
            tunnel: false,
            native: false,
            pool: false,
            helm: false,
            oldest: false,
        }
    }
}

impl Shape {
    /// Its address families, as the script calls them, and as people do.
    fn families(self) -> (&'static str, &'static str) {
        match (self.ipv6, self.dual) {
            (_, true) => ("dual", "IPv4 and IPv6"),
            (true, false) => ("ipv6", "IPv6"),
            (false, false) => ("ipv4", "IPv4"),
        }
    }

    fn release(self) -> Release {
        if self.oldest { Release::Oldest } else { Release::Newest }
    }

    fn routing(self) -> Option<&'static str> {
        match (self.tunnel, self.native) {
            (true, _) => Some("vxlan"),
            (false, true) => Some("native"),
            (false, false) => None,
        }
    }

    /// A name of it, of letters, digits and hyphens.
    pub fn slug(self) -> String {
        let (families, _) = self.families();
        let mut slug = format!("{families}-{}-nodes", self.nodes);
        for part in [self.routing(), self.pool.then_some("pool"), self.helm.then_some("helm")].into_iter().flatten() {
            slug.push('-');
            slug.push_str(part);
        }
        slug
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, families) = self.families();
        write!(f, "{} nodes, {families}, routing {}", self.nodes, self.routing().unwrap_or("auto"))?;
        f.write_str(if self.pool { ", pod CIDRs of a pool" } else { "" })?;
        f.write_str(if self.helm { ", installed by Helm" } else { "" })
    }
}

/// Which Kubernetes a cluster is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// That of the upstream tests.
    Newest,
    /// The oldest one that is supported.
    Oldest,
}

impl Release {
    /// Its name in the script.
    fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
        }
    }
}

/// Who gives pods their network.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nobody yet.
    None,
    /// The plugins of the CNI project and kube-proxy.
    Reference,
    /// Sluice, by its manifests.
    Sluice,
}

/// Runs the command.
///
/// # Errors
/// Where something cannot be built or started.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(nix::unistd::geteuid().is_root(), "the cluster's nodes are namespaces: run this as root");
    let cluster = Cluster::default();
    match &arguments.command {
        Action::Up { shape, bare, reference } => {
            let network = match (bare, reference) {
                (true, _) => Network::None,
                (_, true) => Network::Reference,
                _ => Network::Sluice,
            };
            cluster.up(*shape, network)?;
            println!("cargo xtask cluster kubectl get pods -A    or: exec n1 sluicectl status; down ends it");
            Ok(ExitCode::SUCCESS)
        }
        Action::Down => cluster.down().map(|()| ExitCode::SUCCESS),
        Action::Status => cluster.pass("status", &[] as &[&str]),
        Action::Kubectl { arguments } => cluster.pass("kubectl", arguments),
        Action::Exec { node, command } => cluster.pass("exec", &[std::slice::from_ref(node), command].concat()),
        Action::Load { archives } => cluster.pass("load", archives),
        Action::Join { node } => cluster.pass("join", &[node]),
        Action::Leave { node } => cluster.pass("leave", &[node]),
        Action::Reboot { node } => cluster.pass("reboot", &[node]),
    }
}

/// What is attempted wherever a cluster is asked for something.
const SCRIPT: &str = "starting tests/kubernetes/cluster.sh";

/// A cluster and where it keeps its things.
pub struct Cluster {
    directory: PathBuf,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { directory: target().join("kubernetes") }
    }
}

impl Cluster {
    /// Builds what is missing and starts everything.
    ///
    /// # Errors
    /// Where something cannot be built or does not start.
    pub fn up(&self, shape: Shape, network: Network) -> Result<()> {
        self.build(shape.release())?;
        say("Starting the cluster");
        let mut up = self.script("up");
        up.env("NODES", shape.nodes.to_string()).env("FAMILIES", shape.families().0);
        up.env("RELEASE", shape.release().name());
        up.env("POD_CIDRS", if shape.pool { "no" } else { "yes" });
        up.env(
            "PLUGIN",
            match network {
                Network::None => "none",
                Network::Reference => "reference",
                Network::Sluice if shape.helm => "sluice-by-helm",
                Network::Sluice => "sluice",
            },
        );
        run(&mut up)?;
        if network == Network::Sluice { install::install(self, shape) } else { Ok(()) }
    }

    /// Builds what is missing, and starts nothing.
    ///
    /// # Errors
    /// Where something cannot be built.
    pub fn build(&self, release: Release) -> Result<()> {
        parts::ready(self, release)
    }

    /// Whether it is up.
    ///
    /// # Errors
    /// Where the script cannot be asked.
    pub fn is_up(&self) -> Result<bool> {
        Ok(self.script("is-up").status().context(SCRIPT)?.success())
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where that does not go well.
    fn down(&self) -> Result<()> {
        run(&mut self.script("down"))
    }

    /// Somebody who ends it once his input has ended, with this program or before. He is out of reach of an interrupt from
    /// the terminal.
    ///
    /// # Errors
    /// Where he cannot be started.
    pub fn attendant(&self) -> Result<Child> {
        self.script("attend").stdin(Stdio::piped()).process_group(0).spawn().context(SCRIPT)
    }

    /// Where it keeps its things: `bin`, `images`, and while it is up `run` and `logs`.
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// kubectl with arguments.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = self.script("kubectl");
        command.args(arguments);
        command
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(root().join("tests/kubernetes/cluster.sh"));
        command.arg(action).env("CLUSTER", &self.directory);
        command
    }

    /// What the script answers.
    ///
    /// # Errors
    /// Where it cannot be asked.
    fn asked(&self, what: &str) -> Result<String> {
        let answer = output(&mut self.script(what)).with_context(|| format!("asking the cluster for its {what}"))?;
        Ok(answer.trim().to_owned())
    }

    /// Has the script do something whose success is the caller's to judge.
    fn pass(&self, action: &str, arguments: &[impl AsRef<OsStr>]) -> Result<ExitCode> {
        let status: ExitStatus = self.script(action).args(arguments).status().context(SCRIPT)?;
        Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(u8::try_from(code).unwrap_or(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn shapes_that_differ_have_names_that_do() {
        let it = Shape::default();
        assert_eq!(it.slug(), "ipv4-3-nodes");
        assert_eq!(
            Shape { dual: true, nodes: 6, tunnel: true, pool: true, helm: true, ..it }.slug(),
            "dual-6-nodes-vxlan-pool-helm"
        );
    }
}
