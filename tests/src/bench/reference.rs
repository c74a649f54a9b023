//! The reference plugins of the CNI project, where Debian's package puts them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lab::{Place, spawn_in};

const DIRECTORY: &str = "/usr/lib/cni";

/// A node whose pods are wired by the reference bridge plugin with host-local addresses.
pub struct Bridge {
    /// Its namespace.
    pub node: Place,
    data: std::path::PathBuf,
}

impl Bridge {
    /// Makes one.
    ///
    /// # Errors
    /// Where the plugins are not installed, or the kernel refuses.
    pub fn make(name: &str) -> Result<Self> {
        ensure!(
            Path::new(DIRECTORY).join("bridge").exists(),
            "the reference plugins are missing; install the package containernetworking-plugins"
        );
        let node = Place::make(name)?;
        node.forward()?;
        let data = std::env::temp_dir().join(name);
        Ok(Self { node, data })
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "reference",
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "ipam": { "type": "host-local", "dataDir": self.data, "ranges": [[{ "subnet": "10.9.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }] },
        })
    }

    /// Starts a verb for a container.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&self, verb: &str, container: &str, netns: &Path) -> Result<Child> {
        let mut command = Command::new(Path::new(DIRECTORY).join("bridge"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DIRECTORY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn_in(&self.node.path(), &mut command).context("starting the reference plugin")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.config().to_string().as_bytes())?;
        }
        Ok(child)
    }

    /// Wires a pod; gives its address.
    ///
    /// # Errors
    /// With the plugin's words where it fails.
    pub fn add(&self, pod: &Place) -> Result<std::net::IpAddr> {
        let output = self.spawn("ADD", &pod.name, &pod.path())?.wait_with_output()?;
        ensure!(output.status.success(), "the reference plugin: {}", String::from_utf8_lossy(&output.stdout));
        let result: Value = serde_json::from_slice(&output.stdout)?;
        let net = result["ips"][0]["address"].as_str().context("an address")?;
        Ok(net.split('/').next().unwrap_or(net).parse()?)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
