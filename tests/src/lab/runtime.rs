//! Container runtimes of Debian's packages, on the nodes of a lab.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::node::{Node, binary};
use super::wait::until;

/// Where Debian's package puts the reference plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// The image of all containers.
pub const IMAGE: &str = "localhost/busybox:1";

/// Runs a command; gives what it prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A directory with our plugin and the reference plugins.
fn plugins(directory: &Path) -> Result<PathBuf> {
    let plugins = directory.join("plugins");
    fs::create_dir_all(&plugins)?;
    fs::copy(binary("sluice"), plugins.join("sluice")).context("copying the plugin")?;
    let listing = fs::read_dir(PLUGINS).context("the reference plugins; install containernetworking-plugins")?;
    for plugin in listing.flatten() {
        symlink(plugin.path(), plugins.join(plugin.file_name()))?;
    }
    Ok(plugins)
}

/// Podman in its CNI mode.
pub struct Podman {
    node: PathBuf,
    directory: PathBuf,
}

impl Podman {
    /// Sets it up on a node, with an image that holds busybox.
    ///
    /// # Errors
    /// Where something is missing.
    pub fn on(node: &Node) -> Result<Self> {
        let directory = node.directory.join("podman");
        let plugins = plugins(&directory)?;
        let write = |name: &str, text: String| fs::write(directory.join(name), text);
        write(
            "containers.conf",
            format!(
                "[network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[{plugins:?}]\nnetwork_config_dir={:?}\n\
                 [containers]\ndefault_ulimits=[\"nofile=512:512\",\"nproc=512:512\"]\n\
                 [engine]\ncgroup_manager=\"cgroupfs\"\nruntime=\"runc\"\nevents_logger=\"none\"\n",
                node.directory.join("cni")
            ),
        )?;
        write(
            "storage.conf",
            format!(
                "[storage]\ndriver=\"vfs\"\ngraphroot={:?}\nrunroot={:?}\n",
                directory.join("root"),
                directory.join("run")
            ),
        )?;
        let podman = Self { node: node.place.path(), directory };
        let root = podman.directory.join("image/bin");
        fs::create_dir_all(&root)?;
        fs::copy("/bin/busybox", root.join("busybox")).context("copying busybox; install busybox-static")?;
        for name in ["sh", "sleep", "ip", "ping", "nc", "cat"] {
            symlink("busybox", root.join(name))?;
        }
        let tar = podman.directory.join("image.tar");
        output(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(podman.directory.join("image")).arg("."))?;
        output(
            podman.command().args(["import", "-q", "--change", "CMD [\"/bin/sleep\", \"3600\"]"]).arg(&tar).arg(IMAGE),
        )?;
        Ok(podman)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.node.display()))
            .arg("podman")
            .env("CONTAINERS_CONF", self.directory.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.directory.join("storage.conf"));
        command
    }

    /// Runs podman with these words; gives what it prints.
    ///
    /// # Errors
    /// With podman's words where it fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(self.command().args(words))
    }

    /// Writes the image where another runtime can import it.
    ///
    /// # Errors
    /// As [`run`](Podman::run).
    pub fn save(&self) -> Result<PathBuf> {
        let path = self.directory.join("saved.tar");
        self.run(&["save", "-q", "-o", &path.display().to_string(), IMAGE])?;
        Ok(path)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "-f", "-t", "0", "-a"]);
        let _ = self.run(&["rmi", "-f", "-a"]);
    }
}

/// containerd, with crictl as its kubelet.
pub struct Containerd {
    child: Child,
    directory: PathBuf,
}

impl Containerd {
    /// Starts it on a node, with an image.
    ///
    /// # Errors
    /// Where something is missing, or it does not start.
    pub fn on(node: &Node, image: &Path) -> Result<Self> {
        let directory = node.directory.join("containerd");
        let plugins = plugins(&directory)?;
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n\
             disabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.aufs\"]\n\
             [grpc]\naddress = {socket:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n\
             [{cri}]\nsandbox_image = {IMAGE:?}\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [{cri}.containerd]\nsnapshotter = \"native\"\n\
             [{cri}.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.cni]\nbin_dir = {plugins:?}\nconf_dir = {conf:?}\n",
            root = directory.join("root"),
            state = directory.join("state"),
            socket = directory.join("sock"),
            opt = directory.join("opt"),
            conf = node.directory.join("cni"),
        );
        let path = directory.join("config.toml");
        fs::write(&path, config)?;
        let log = fs::File::create(directory.join("log"))?;
        let child = node
            .place
            .command("containerd")
            .arg("--config")
            .arg(&path)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting containerd")?;
        let containerd = Self { child, directory };
        until("containerd answers", || containerd.run(&["version"])).with_context(|| {
            let log = fs::read_to_string(containerd.directory.join("log")).unwrap_or_default();
            format!("starting containerd; its log:\n{log}")
        })?;
        let socket = containerd.directory.join("sock");
        output(Command::new("ctr").arg("-a").arg(&socket).args(["-n", "k8s.io", "images", "import"]).arg(image))?;
        Ok(containerd)
    }

    /// Runs crictl with these words; gives what it prints.
    ///
    /// # Errors
    /// With crictl's words where it fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.directory.join("sock").display());
        output(Command::new("crictl").args(["-r", &socket, "-i", &socket]).args(words))
    }

    /// Runs a pod with one container; gives the ids of both.
    ///
    /// # Errors
    /// As [`run`](Containerd::run).
    pub fn pod(&self, name: &str) -> Result<(String, String)> {
        let pod = serde_json::json!({
            "metadata": { "name": name, "namespace": "default", "uid": name, "attempt": 0 },
            "log_directory": self.directory.join("pods"),
            "linux": {},
        });
        let container = serde_json::json!({
            "metadata": { "name": "main" },
            "image": { "image": IMAGE },
            "command": ["/bin/sleep", "3600"],
            "linux": {},
        });
        let write = |file: &str, value: &Value| {
            let path = self.directory.join(file);
            fs::write(&path, value.to_string()).map(|()| path.display().to_string())
        };
        let (pod, container) = (write("pod.json", &pod)?, write("container.json", &container)?);
        let sandbox = self.run(&["runp", &pod])?;
        let id = self.run(&["create", "--no-pull", &sandbox, &container, &pod])?;
        self.run(&["start", &id])?;
        Ok((sandbox, id))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Ok(pods) = self.run(&["pods", "-q"]) {
            for pod in pods.lines() {
                let _ = self.run(&["stopp", pod]);
                let _ = self.run(&["rmp", "-f", pod]);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
