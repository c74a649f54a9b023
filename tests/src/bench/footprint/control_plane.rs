//! etcd and an API server, in a network namespace of the lab. No controllers: those would evict the pods of nodes that do not
//! report.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::churn::{Tell, What};
use super::cluster::{Cluster, List};
use super::etcd::{ADDRESS, Etcd};
use super::stage::as_long_as;
use crate::bench::process::Process;
use crate::kubernetes::programs;
use crate::lab::{Lab, Place, until};

/// What an agent may ask for.
const RIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base/rbac.yaml");
/// What etcd may have on disk, in bytes.
const QUOTA: u64 = 8 << 30;
/// Seconds of a processor that the API server takes at most in a minute in which it neither reads nor lists.
const REST: f64 = 5.0;
/// Garbage that both may have, in hundredths of what is none: half as much as usual.
const GARBAGE: &str = "50";
/// Lines of a log that tell why a program does not do what it is to.
const LINES: usize = 10;

/// Who asks, the name that the API server knows him by, and his group. Nobody else is in the lab: names are tokens too.
const ADMIN: [&str; 3] = ["admin", "admin", "system:masters"];
const AGENT: [&str; 3] = ["agent", "system:serviceaccount:kube-system:sluice-agent", "system:serviceaccounts"];

/// An API server, and the etcd that has the cluster.
pub struct ControlPlane {
    /// The API server ends first.
    api_server: Option<Daemon>,
    _store: Daemon,
    etcd: Etcd,
    cluster: Arc<Cluster>,
    home: Home,
}

/// Where both are, and their things.
struct Home {
    place: Place,
    address: SocketAddr,
    directory: PathBuf,
    programs: PathBuf,
}

impl ControlPlane {
    /// Starts both beside the node of a lab; the cluster is there, and the API server knows it, which has taken it so long.
    ///
    /// # Errors
    /// Where one does not start, or something is not taken, with what the log says.
    pub fn start(lab: &Lab, cluster: &Arc<Cluster>) -> Result<(Self, Duration)> {
        let directory = lab.manifests().with_file_name("control-plane");
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let address = *lab.stranger_addresses().first().context("the lab has no place for an API server")?;
        let address = SocketAddr::new(address, 6443);
        let home = Home { place: lab.stranger.share()?, address, directory, programs: programs()? };
        let etcd = Etcd::at(lab.stranger.share()?);
        let store = home.start_etcd()?;
        until("etcd answers", || etcd.answers()).with_context(|| home.end_of_log("etcd"))?;
        home.write_accounts()?;
        let mut this = Self { api_server: None, _store: store, etcd, cluster: Arc::clone(cluster), home };
        this.fill()?;
        this.start_api_server()?;
        let took = this.is_ready()?;
        this.kubectl(&["create", "--filename", RIGHTS])?;
        Ok((this, took))
    }

    /// A kubeconfig for agents.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.kubeconfig(AGENT)
    }

    /// The API server's process.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn api_server(&self) -> Result<Process> {
        Ok(self.api_server.as_ref().context("no API server runs")?.process())
    }

    /// Starts the API server. It reads all of etcd first.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_api_server(&mut self) -> Result<()> {
        anstream::println!("the API server starts");
        self.api_server = Some(self.home.start_api_server()?);
        Ok(())
    }

    /// Waits until it has read it, as long as it does so; gives how long that was.
    ///
    /// # Errors
    /// Where it does not get ready, with what its log says.
    pub fn is_ready(&self) -> Result<Duration> {
        let (work, started) = (self.work()?, Instant::now());
        let answers = || {
            until("the API server is ready", || {
                self.kubectl(&["get", "--raw", "/readyz"])?;
                // Of what it has read itself.
                self.kubectl(&["get", "--raw", "/api/v1/namespaces/ns-0/pods?resourceVersion=0"])
            })
        };
        as_long_as(|| work.goes_on(), answers).with_context(|| self.home.end_of_log("kube-apiserver"))?;
        Ok(started.elapsed())
    }

    /// The work of the API server that runs.
    ///
    /// # Errors
    /// Where none does.
    pub fn work(&self) -> Result<Work> {
        Ok(Work { process: self.api_server()?, taken: Cell::new(0.0) })
    }

    /// Kills the API server, as a crash would.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    /// Has etcd forget what was before now, as the API server does every five minutes.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn compact(&self) -> Result<()> {
        self.etcd.compact()
    }

    /// Bytes that whoever asked was listed of each list, since the API server has started.
    ///
    /// # Errors
    /// Where it does not tell.
    pub fn listed(&self) -> Result<BTreeMap<List, f64>> {
        let metrics = self.kubectl(&["get", "--raw", "/metrics"])?;
        Ok(List::ALL.into_iter().map(|list| (list, listed(&metrics, list))).collect())
    }

    fn fill(&self) -> Result<()> {
        let (etcd, cluster) = (&self.etcd, &*self.cluster);
        for list in List::ALL {
            etcd.fill(list.name(), cluster.count(list), |number, out| {
                cluster.write(list, number, 0, out);
                cluster.key(list, number)
            })?;
        }
        let services = cluster.count(List::Services);
        etcd.fill("ipaddresses", services, |service, out| cluster.write_reservation(service, out))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.home.place.command(self.home.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.home.kubeconfig(ADMIN)).args(arguments);
        command.arg("--cache-dir").arg(self.home.directory.join("cache"));
        let output = command.output().context("running kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), said.trim());
        String::from_utf8(output.stdout).context("understanding kubectl")
    }
}

impl Tell for ControlPlane {
    /// The API server, by etcd; and it tells agents.
    fn tell(&self, list: List, number: usize, what: What, write: &dyn Fn(u64, &mut String)) -> Result<()> {
        let key = self.cluster.key(list, number);
        match what {
            What::Added | What::Modified => {
                let mut object = String::new();
                // Its version is the one that etcd gives it.
                write(0, &mut object);
                self.etcd.put(&key, &object)
            }
            What::Deleted => self.etcd.delete(&key),
        }
    }

    /// The API server does so.
    fn bookmark(&self) -> Result<()> {
        Ok(())
    }
}

impl Home {
    fn start_etcd(&self) -> Result<Daemon> {
        let url = format!("http://{ADDRESS}");
        self.daemon("etcd", |etcd| {
            etcd.arg("--data-dir").arg(self.directory.join("data"));
            etcd.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--log-level", "warn"]);
            etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
            etcd.args(["--quota-backend-bytes", &QUOTA.to_string()]);
        })
    }

    /// It makes its own certificate, whose key is good for tokens of service accounts too, of which nobody has any.
    fn start_api_server(&self) -> Result<Daemon> {
        let key = self.directory.join("apiserver.key");
        let address = self.address.ip().to_string();
        self.daemon("kube-apiserver", |server| {
            server.args(["--etcd-servers", &format!("http://{ADDRESS}"), "--endpoint-reconciler-type", "none"]);
            server.args(["--bind-address", &address, "--advertise-address", &address]);
            server.args(["--secure-port", &self.address.port().to_string()]);
            server.arg("--cert-dir").arg(&self.directory);
            server.arg("--token-auth-file").arg(self.accounts());
            server.args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/12"]);
            server.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
            server.arg("--service-account-key-file").arg(&key);
            server.arg("--service-account-signing-key-file").arg(&key);
        })
    }

    /// Starts one of Kubernetes' programs, which ends with this one however that ends.
    fn daemon(&self, name: &str, configure: impl FnOnce(&mut Command)) -> Result<Daemon> {
        let mut command = self.place.command("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(self.programs.join(name));
        configure(&mut command);
        command.env("GOGC", GARBAGE);
        let path = self.log(name);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("opening {}", path.display()))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Daemon(command.spawn().with_context(|| format!("starting {name}"))?))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    fn end_of_log(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("{name} says last:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }

    fn accounts(&self) -> PathBuf {
        self.directory.join("tokens.csv")
    }

    fn kubeconfig(&self, [name, ..]: [&str; 3]) -> PathBuf {
        self.directory.join(name).with_extension("conf")
    }

    fn write_accounts(&self) -> Result<()> {
        let mut tokens = String::new();
        for account in [ADMIN, AGENT] {
            let [token, user, group] = account;
            tokens.push_str(&format!("{token},{user},{token},\"{group}\"\n"));
            let server = format!("https://{}", self.address);
            let authority = self.directory.join("apiserver.crt");
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "lab",
                "clusters": [{ "name": "lab", "cluster": { "server": server, "certificate-authority": authority } }],
                "users": [{ "name": user, "user": { "token": token } }],
                "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
            });
            write(&self.kubeconfig(account), &config.to_string())?;
        }
        write(&self.accounts(), &tokens)
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A program that runs; killed when dropped.
struct Daemon(Child);

impl Daemon {
    /// What was started before it became the program: the number has stayed.
    fn process(&self) -> Process {
        Process::of(self.0.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the API server does, by the time of the processor that it takes.
pub struct Work {
    process: Process,
    taken: Cell<f64>,
}

impl Work {
    /// Whether it has done much since this was last asked.
    ///
    /// # Errors
    /// Where it does not run any more.
    pub fn goes_on(&self) -> Result<bool> {
        let now = self.process.processor_time()?;
        Ok(now - self.taken.replace(now) > REST)
    }
}

/// Bytes of a list, by the metrics of the API server.
fn listed(metrics: &str, list: List) -> f64 {
    let labels = [format!("resource=\"{}\"", list.name()), "scope=\"cluster\"".into(), "verb=\"LIST\"".into()];
    let sums = metrics.lines().filter_map(|line| line.strip_prefix("apiserver_response_sizes_sum{")?.split_once("} "));
    let meant = sums.filter(|(said, _)| labels.iter().all(|label| said.split(',').any(|it| it == label)));
    meant.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_lists_of_all_namespaces() {
        let line = |resource: &str, scope: &str, verb: &str, sum: &str| {
            format!(
                "apiserver_response_sizes_sum{{group=\"\",resource=\"{resource}\",scope=\"{scope}\",verb=\"{verb}\",version=\"v1\"}} {sum}\n"
            )
        };
        let metrics = [
            line("pods", "cluster", "LIST", "1.5e+09"),
            line("pods", "namespace", "LIST", "7"),
            line("pods", "cluster", "WATCH", "7"),
            line("podtemplates", "cluster", "LIST", "7"),
            line("nodes", "cluster", "LIST", "12"),
        ];
        let of = |list| listed(&metrics.concat(), list);
        assert_eq!((of(List::Pods), of(List::Nodes), of(List::Services)), (1.5e9, 12.0, 0.0));
    }
}
