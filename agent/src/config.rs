//! The agent's settings: a file, then the environment, then flags, each over the one before.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::Deserialize;
use sluice_topology::{Mode, overlaps};

/// Most entries of a flow table: some 13 GB for those of both families.
const MAX_FLOWS: u32 = 1 << 24;
/// Most rules of policies: some 150 MB.
const MAX_RULES: u32 = 1 << 20;
/// Most backends that may be asked for: a quarter of a gigabyte.
const MAX_BACKENDS: u32 = 1 << 22;

/// Read where no other file is named.
const DEFAULT_FILE: &str = "/etc/sluice/agent.yaml";

/// All settings. The file (YAML) has these keys; a key that is not among them is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of this node in the cluster. Default: the host's name.
    pub node_name: String,
    /// Where objects come from: `file:DIR`, `kubernetes` or `kubernetes:KUBECONFIG`.
    pub source: Source,
    /// Where the API server is, as a URL, where a kubeconfig or the pod's environment name a Service.
    pub api_server: Option<ApiServer>,
    /// Directory for pins, on a BPF file system.
    pub bpf_dir: PathBuf,
    /// Directory of the socket and the endpoint records; it should end with the boot.
    pub run_dir: PathBuf,
    /// Directory of address allocations.
    pub state_dir: PathBuf,
    /// Directory of CNI configurations, as the container runtime knows it.
    pub cni_conf_dir: PathBuf,
    /// Directory of CNI plugins, as the agent sees it, to look whether the plugin there is of its version. Default: not looked at.
    pub cni_bin_dir: Option<PathBuf>,
    /// Names of the interfaces to the outside. Default: those with a default route or the node's address.
    pub uplinks: Vec<String>,
    /// The node's addresses, at most one of each family. Default: those of the Node object.
    pub addresses: Vec<IpAddr>,
    /// The addresses of this node's pods. Default: those of the Node object.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of which each node without pod CIDRs gets a block, the same on all nodes. Default: none.
    pub pod_cidr_pool: Vec<PoolRange>,
    /// How pods of other nodes are reached: `native`, `vxlan` or `auto`.
    pub routing: Routing,
    /// The overlay.
    pub vxlan: Vxlan,
    /// What happens to the addresses of pods whose packets leave the cluster.
    pub masquerade: Masquerade,
    /// MTU of pods, bytes; 0: that of the uplinks, less the overlay's header with `vxlan`.
    pub mtu: u32,
    /// Entries of each flow table; 0: by the node's memory.
    pub flow_entries: u32,
    /// Most rules of policies in the tables; 0: by the node's memory.
    pub policy_rules: u32,
    /// Backends of services, of each family; 0: by the node's memory.
    pub service_backends: u32,
    /// Where packets for services' backends on other nodes are turned round: `auto`, `driver`, `generic` or `off`.
    pub xdp: Xdp,
    /// Whether clients from outside are given the same backends on every node, by Maglev tables.
    pub maglev: bool,
    /// Whether packets of clients outside for backends on other nodes are sent on as they are, and answered from there:
    /// `off` or `ipip`.
    pub dsr: Dsr,
    /// Whether connections to services are translated where sockets are told whom to talk to, rather than packet by packet.
    pub socket_lb: bool,
    /// The control group below which that is so. Default: the root of version 2.
    pub cgroup: Option<PathBuf>,
    /// The IPAM section of the CNI configuration, where another plugin is to give addresses.
    pub ipam: Option<serde_json::Value>,
    /// CNI plugins to be chained behind, as the CNI configuration has them.
    pub chained_plugins: Vec<serde_json::Value>,
    /// A file for the plugin to log to. Default: none.
    pub plugin_log_file: Option<PathBuf>,
    /// Where metrics are served, over HTTP: an address with a port, or `off`.
    pub metrics_address: Served,
    /// Where load balancers learn over HTTP whether this node takes traffic for Services: an address with a port, or `off`.
    pub healthz_address: Served,
    /// The nets whose addresses of this node serve node ports and health checks of Services. Default: all addresses.
    pub node_port_addresses: Vec<IpNet>,
    /// Addresses of Services. What pods send to those of them that no Service has is dropped; without, it leaves the node.
    pub service_cidrs: Vec<IpNet>,
    /// Logs.
    pub log: Log,
}

/// Addresses of which each node gets a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRange {
    /// All of them.
    pub cidr: IpNet,
    /// Length of the prefix of a block.
    pub block: u8,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Source {
    /// Manifests in a directory, watched for changes.
    Directory(PathBuf),
    /// The Kubernetes API, by a kubeconfig or as a pod of the cluster.
    Kubernetes(Option<PathBuf>),
}

/// Where something is served over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Served {
    /// Nowhere.
    Off,
    /// At an address of this host.
    At(SocketAddr),
}

/// See [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// With their own addresses.
    Native,
    /// Through VXLAN.
    Vxlan,
    /// Natively where the other node is on a connected subnet.
    Auto,
}

/// Where packets for services' backends on other nodes are turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Xdp {
    /// On uplinks with hardware: in the driver, or where it takes no programs right behind it.
    Auto,
    /// In the driver of each uplink.
    Driver,
    /// Right behind the driver of each uplink.
    Generic,
    /// Nowhere: as all other packets are.
    Off,
}

/// How a client outside is answered whose backend is on another node than it has asked (direct server return).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dsr {
    /// By the node that it has asked.
    Off,
    /// By the backend's node, which is sent the client's packets as they are, in IP.
    Ipip,
}

/// The overlay.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vxlan {
    /// UDP port, the same on all nodes.
    pub port: u16,
    /// Network identifier, the same on all nodes.
    pub vni: u32,
}

/// Masquerading.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Masquerade {
    /// Whether IPv4 is masqueraded.
    pub ipv4: bool,
    /// Whether IPv6 is masqueraded.
    pub ipv6: bool,
    /// Destinations that see pods with their own addresses.
    pub exempt: Vec<IpNet>,
    /// First source port; outside the host's ephemeral range and that of node ports.
    pub port_first: u16,
    /// Last source port.
    pub port_last: u16,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: LogLevel,
}

/// The least important of what is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What keeps the agent from its work.
    Error,
    /// What somebody should look at.
    Warn,
    /// What changes.
    Info,
    /// What leads to it.
    Debug,
    /// All.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default(),
            source: Source::Directory("/etc/sluice/manifests".into()),
            api_server: None,
            bpf_dir: "/sys/fs/bpf/sluice".into(),
            run_dir: sluice_api::RUN_DIR.into(),
            state_dir: "/var/lib/sluice".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: None,
            uplinks: Vec::new(),
            addresses: Vec::new(),
            pod_cidrs: Vec::new(),
            pod_cidr_pool: Vec::new(),
            routing: Routing::Auto,
            vxlan: Vxlan::default(),
            masquerade: Masquerade::default(),
            mtu: 0,
            flow_entries: 0,
            policy_rules: 0,
            service_backends: 0,
            xdp: Xdp::Auto,
            maglev: true,
            dsr: Dsr::Off,
            socket_lb: true,
            cgroup: None,
            ipam: None,
            chained_plugins: Vec::new(),
            plugin_log_file: None,
            // Nobody but the host itself.
            metrics_address: Served::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 9921))),
            healthz_address: Served::At(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10_256))),
            node_port_addresses: Vec::new(),
            service_cidrs: Vec::new(),
            log: Log::default(),
        }
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self { port: 8472, vni: 7 }
    }
}

impl Default for Masquerade {
    fn default() -> Self {
        Self { ipv4: true, ipv6: true, exempt: Vec::new(), port_first: 1024, port_last: 29_999 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info }
    }
}

/// The URL of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ApiServer(pub hyper::Uri);

impl TryFrom<String> for ApiServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for ApiServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = text.parse::<hyper::Uri>().ok().filter(|url| url.scheme().is_some() && url.host().is_some());
        url.map(Self)
            .ok_or_else(|| format!("{text:?} is no address of an API server; use one such as https://192.0.2.1:6443"))
    }
}

impl TryFrom<String> for Source {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", directory)) if !directory.is_empty() => Ok(Self::Directory(directory.into())),
            Some(("kubernetes", kubeconfig)) if !kubeconfig.is_empty() => Ok(Self::Kubernetes(Some(kubeconfig.into()))),
            None if text == "kubernetes" => Ok(Self::Kubernetes(None)),
            _ => Err(format!("{text:?} is no source; use file:DIR, kubernetes or kubernetes:KUBECONFIG")),
        }
    }
}

impl TryFrom<String> for Served {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                format!(
                    "{text:?} is no place to be served at; use an address with a port, such as 127.0.0.1:9921, or off"
                )
            }),
        }
    }
}

impl From<Routing> for Mode {
    fn from(routing: Routing) -> Self {
        match routing {
            Routing::Native => Self::Native,
            Routing::Vxlan => Self::Vxlan,
            Routing::Auto => Self::Auto,
        }
    }
}

/// What flags and the environment can set.
#[derive(Args, Default)]
pub struct Flags {
    /// The file with settings
    #[arg(long, env = "SLUICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node in the cluster
    #[arg(long, env = "SLUICE_NODE_NAME")]
    node_name: Option<String>,
    /// Where objects come from: file:DIR, kubernetes or kubernetes:KUBECONFIG
    #[arg(long, env = "SLUICE_SOURCE")]
    source: Option<Source>,
    /// Where the API server is, as a URL, where that is not what the kubeconfig or the environment says
    #[arg(long, env = "SLUICE_API_SERVER")]
    api_server: Option<ApiServer>,
    /// Directory for pins, on a BPF file system
    #[arg(long, env = "SLUICE_BPF_DIR")]
    bpf_dir: Option<PathBuf>,
    /// Directory of the socket and the endpoint records
    #[arg(long, env = "SLUICE_RUN_DIR")]
    run_dir: Option<PathBuf>,
    /// Directory of address allocations
    #[arg(long, env = "SLUICE_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// Directory of CNI configurations
    #[arg(long, env = "SLUICE_CNI_CONF_DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Directory of CNI plugins, to look whether the plugin there is of the agent's version
    #[arg(long, env = "SLUICE_CNI_BIN_DIR")]
    cni_bin_dir: Option<PathBuf>,
    /// Names of the interfaces to the outside
    #[arg(long, env = "SLUICE_UPLINKS", value_delimiter = ',')]
    uplinks: Option<Vec<String>>,
    /// How pods of other nodes are reached
    #[arg(long, env = "SLUICE_ROUTING", value_enum)]
    routing: Option<Routing>,
    /// The control group below which sockets are translated for services
    #[arg(long, env = "SLUICE_CGROUP")]
    cgroup: Option<PathBuf>,
    /// MTU of pods, bytes
    #[arg(long, env = "SLUICE_MTU")]
    mtu: Option<u32>,
    /// Where metrics are served: an address with a port, or off
    #[arg(long, env = "SLUICE_METRICS_ADDRESS")]
    metrics_address: Option<Served>,
    /// Where load balancers learn whether this node takes traffic: an address with a port, or off
    #[arg(long, env = "SLUICE_HEALTHZ_ADDRESS")]
    healthz_address: Option<Served>,
    /// How logs look
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// Which logs
    #[arg(long, env = "SLUICE_LOG_LEVEL", value_enum)]
    log_level: Option<LogLevel>,
}

impl Flags {
    /// The run directory, as far as it is known without the file, which may be what is wrong.
    pub fn run_dir(&self) -> PathBuf {
        self.run_dir.clone().unwrap_or_else(|| sluice_api::RUN_DIR.into())
    }
}

impl Config {
    /// Reads the file, then puts environment and flags over it.
    ///
    /// # Errors
    /// Where the file cannot be read, has an unknown key or a value that makes no sense: named with its line.
    pub fn load(flags: Flags) -> Result<Self> {
        let (path, named) = match &flags.config {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let mut config = match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named => Self::default(),
            Err(error) => return Err(error).with_context(|| format!("reading the settings in {}", path.display())),
        };
        config.overlay(flags);
        config.check()?;
        Ok(config)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        // A file of comments is empty to YAML.
        let parsed: Result<Option<Self>, _> = serde_yaml_ng::from_str(text);
        parsed.map(Option::unwrap_or_default).map_err(|error| {
            let line = error.location().map_or(String::new(), |location| format!(":{}", location.line()));
            anyhow::anyhow!("{}{line}: {error}", path.display())
        })
    }

    fn overlay(&mut self, flags: Flags) {
        fn put<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        put(&mut self.node_name, flags.node_name);
        put(&mut self.source, flags.source);
        if flags.api_server.is_some() {
            self.api_server = flags.api_server;
        }
        put(&mut self.bpf_dir, flags.bpf_dir);
        put(&mut self.run_dir, flags.run_dir);
        put(&mut self.state_dir, flags.state_dir);
        put(&mut self.cni_conf_dir, flags.cni_conf_dir);
        if flags.cni_bin_dir.is_some() {
            self.cni_bin_dir = flags.cni_bin_dir;
        }
        // An empty variable names none.
        put(&mut self.uplinks, flags.uplinks.map(|names| names.into_iter().filter(|name| !name.is_empty()).collect()));
        put(&mut self.routing, flags.routing);
        if flags.cgroup.is_some() {
            self.cgroup = flags.cgroup;
        }
        put(&mut self.mtu, flags.mtu);
        put(&mut self.metrics_address, flags.metrics_address);
        put(&mut self.healthz_address, flags.healthz_address);
        put(&mut self.log.format, flags.log_format);
        put(&mut self.log.level, flags.log_level);
    }

    fn check_pool(&self) -> Result<()> {
        let mut taken = BTreeSet::new();
        for PoolRange { cidr, block } in &self.pod_cidr_pool {
            ensure!(
                *cidr == cidr.trunc(),
                "pod_cidr_pool has {cidr}, which has bits behind its prefix; is {} meant?",
                cidr.trunc()
            );
            let (least, most) = (cidr.prefix_len(), cidr.max_prefix_len() - 2);
            ensure!(
                (least..=most).contains(block),
                "pod_cidr_pool has blocks of /{block} for {cidr}; they are to be of /{least} to /{most}"
            );
            ensure!(!overlaps(&taken, *cidr), "pod_cidr_pool has {cidr}, which overlaps another of its ranges");
            taken.insert(*cidr);
        }
        ensure!(
            self.pod_cidr_pool.is_empty() || matches!(self.source, Source::Kubernetes(_)),
            "pod_cidr_pool needs source: kubernetes, where agents see what others have taken; set pod_cidrs instead"
        );
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.node_name.is_empty(), "node_name is empty, and the host has no name");
        let ports = &self.masquerade;
        ensure!(
            0 < ports.port_first && ports.port_first < ports.port_last,
            "masquerade.port_first {} and port_last {} are no range of ports",
            ports.port_first,
            ports.port_last
        );
        for (key, nets) in [
            ("pod_cidrs", &self.pod_cidrs),
            ("masquerade.exempt", &self.masquerade.exempt),
            ("node_port_addresses", &self.node_port_addresses),
            ("service_cidrs", &self.service_cidrs),
        ] {
            for net in nets {
                ensure!(
                    *net == net.trunc(),
                    "{key} has {net}, which has bits behind its prefix; is {} meant?",
                    net.trunc()
                );
            }
        }
        self.check_pool()?;
        let directories = [
            ("bpf_dir", &self.bpf_dir),
            ("run_dir", &self.run_dir),
            ("state_dir", &self.state_dir),
            ("cni_conf_dir", &self.cni_conf_dir),
        ];
        let paths = directories.into_iter().chain(self.plugin_log_file.iter().map(|path| ("plugin_log_file", path)));
        for (key, path) in paths {
            ensure!(path.is_absolute(), "{key} {} does not begin with /: the plugin runs elsewhere", path.display());
        }
        for v4 in [true, false] {
            let family: Vec<&IpAddr> = self.addresses.iter().filter(|address| address.is_ipv4() == v4).collect();
            ensure!(family.len() < 2, "addresses has {family:?}, which are of one family; a node has one of each");
        }
        let is_plugin = |value: &serde_json::Value| value.get("type").is_some_and(serde_json::Value::is_string);
        if let Some(ipam) = &self.ipam {
            ensure!(
                is_plugin(ipam),
                "ipam is {ipam}, and no section with the type of a plugin, such as {{type: host-local}}"
            );
        }
        for plugin in &self.chained_plugins {
            ensure!(
                is_plugin(plugin),
                "chained_plugins has {plugin}, which is no section with the type of a plugin, such as {{type: tuning}}"
            );
        }
        ensure!(self.flow_entries <= MAX_FLOWS, "flow_entries {} is more than {MAX_FLOWS}", self.flow_entries);
        ensure!(self.policy_rules <= MAX_RULES, "policy_rules {} is more than {MAX_RULES}", self.policy_rules);
        ensure!(
            self.dsr == Dsr::Off || self.maglev,
            "dsr needs maglev, by which all nodes choose the same backends; switch it on, or dsr off"
        );
        ensure!(
            self.service_backends <= MAX_BACKENDS,
            "service_backends {} is more than {MAX_BACKENDS}",
            self.service_backends
        );
        ensure!(self.vxlan.port != 0, "vxlan.port is 0, which is no port");
        ensure!(self.vxlan.vni < 1 << 24, "vxlan.vni {} has more than 24 bits", self.vxlan.vni);
        if self.mtu != 0 && self.mtu < 1280 {
            bail!("mtu {} is less than the 1280 bytes that IPv6 needs (RFC 8200 section 5)", self.mtu);
        }
        ensure!(self.mtu <= 65_535, "mtu {} is more than an IP packet has, 65535", self.mtu);
        Ok(())
    }
}

/// Of these names of variables, those that look like a setting's and are none. A warning is all that they are worth:
/// Kubernetes gives pods variables that are named after Services.
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let command = Flags::augment_args(clap::Command::new("sluice-agent"));
    let known: Vec<&std::ffi::OsStr> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
    names
        .into_iter()
        .filter(|name| name.starts_with("SLUICE_") && !known.iter().any(|other| *other == name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("agent.yaml"))
    }

    #[test]
    fn what_is_not_said_is_as_documented() {
        let config = parse("source: file:/m\nmasquerade: {ipv6: false}\n").expect("parses");
        assert_eq!(config.source, Source::Directory("/m".into()));
        assert!(config.masquerade.ipv4 && !config.masquerade.ipv6);
        assert_eq!(config.vxlan.port, 8472);
        assert_eq!(config.metrics_address, Served::At("127.0.0.1:9921".parse().expect("an address")));
        assert!(parse("# nothing\n").is_ok());
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        let error = parse("mtu: 1500\nrouteing: auto\n").expect_err("unknown").to_string();
        assert!(error.contains("routeing") && error.contains("agent.yaml:2"), "{error}");
        let error = parse("source: http://x\n").expect_err("no source").to_string();
        assert!(error.contains("http://x"), "{error}");
    }

    #[test]
    fn flags_have_the_last_word() {
        let mut config = parse("mtu: 1500\n").expect("parses");
        config.overlay(Flags { mtu: Some(9000), ..Flags::default() });
        assert_eq!(config.mtu, 9000);
        config.mtu = 900;
        assert!(config.check().is_err());
    }

    #[test]
    fn pages_are_served_somewhere_or_nowhere() {
        assert_eq!(parse("metrics_address: off").expect("parses").metrics_address, Served::Off);
        let anywhere = parse("metrics_address: '[::]:80'").expect("parses").metrics_address;
        assert_eq!(anywhere, Served::At("[::]:80".parse().expect("an address")));
        let error = parse("metrics_address: 127.0.0.1").expect_err("no port").to_string();
        assert!(error.contains("127.0.0.1:9921"), "{error}");
        let config = parse("healthz_address: '[::1]:10256'").expect("parses");
        assert_eq!(config.healthz_address, Served::At("[::1]:10256".parse().expect("an address")));
        assert_eq!(Config::default().healthz_address, Served::At("0.0.0.0:10256".parse().expect("an address")));
    }

    #[test]
    fn levels_are_those_that_there_are() {
        assert_eq!(parse("log: {level: warn}").expect("parses").log.level, LogLevel::Warn);
        let error = parse("log: {level: wran}").expect_err("no level").to_string();
        assert!(error.contains("wran"), "{error}");
    }

    #[test]
    fn variables_that_are_none_are_found() {
        let names = ["SLUICE_ROUTNIG", "SLUICE_ROUTING", "SLUICE_LOG_LEVEL", "PATH"].map(str::to_owned);
        assert_eq!(unknown_variables(names), ["SLUICE_ROUTNIG"]);
    }

    #[test]
    fn an_empty_variable_names_no_uplink() {
        let mut config = Config::default();
        config.overlay(Flags { uplinks: Some(vec![String::new()]), ..Flags::default() });
        assert_eq!(config.uplinks, [""; 0]);
    }

    #[test]
    fn values_that_make_no_sense_are_named_with_their_keys() {
        for (text, key) in [
            ("pod_cidrs: [10.1.0.1/24]", "pod_cidrs"),
            ("addresses: [192.0.2.1, 192.0.2.2]", "addresses"),
            ("chained_plugins: [tuning]", "chained_plugins"),
            ("ipam: host-local", "ipam"),
            ("vxlan: {port: 0}", "vxlan.port"),
            ("mtu: 70000", "mtu"),
            ("flow_entries: 4000000000", "flow_entries"),
            ("policy_rules: 1048577", "policy_rules"),
            ("api_server: 192.0.2.1", "https://"),
            ("service_backends: 4194305", "service_backends"),
            ("dsr: ipip\nmaglev: false", "maglev"),
            ("run_dir: run/sluice", "run_dir"),
            ("plugin_log_file: ''", "plugin_log_file"),
            ("masquerade: {exempt: [10.0.0.0/8, 'fd00::1/8']}", "masquerade.exempt"),
            ("node_port_addresses: [192.0.2.1/24]", "node_port_addresses"),
            ("source: kubernetes\npod_cidr_pool: [{cidr: 10.78.0.1/16, block: 24}]", "10.78.0.0/16 meant"),
            ("source: kubernetes\npod_cidr_pool: [{cidr: 10.78.0.0/16, block: 15}]", "/16 to /30"),
            ("source: kubernetes\npod_cidr_pool: [{cidr: 'fd00::/48', block: 127}]", "/48 to /126"),
            (
                "source: kubernetes\npod_cidr_pool: [{cidr: 10.0.0.0/8, block: 24}, {cidr: 10.78.0.0/16, block: 24}]",
                "overlaps",
            ),
            ("pod_cidr_pool: [{cidr: 10.78.0.0/16, block: 24}]", "source: kubernetes"),
        ] {
            let error = parse(text).and_then(|config| config.check()).expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
