//! Pods, wired as a container runtime wires them.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::{Node, binary};
use super::place::{Place, spawn_in};

/// A call of the plugin: what a runtime would do.
#[derive(Clone, Debug)]
pub struct Call {
    program: PathBuf,
    node: PathBuf,
    directory: PathBuf,
    variables: Vec<(String, String)>,
    config: Value,
    input: Option<String>,
}

impl Call {
    /// The verb for a container, with the configuration that the agent of a node has written.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(node: &Node, verb: &str, container: &str, netns: &Path) -> Result<Self> {
        let path = node.directory.join("cni/10-sluice.conflist");
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let list: Value = serde_json::from_slice(&text)?;
        let mut config = list["plugins"][0].clone();
        config["name"] = list["name"].clone();
        config["cniVersion"] = "1.1.0".into();
        let call = Self::of(&binary("sluice"), &node.place, &node.directory, config);
        Ok(call
            .with("CNI_COMMAND", verb)
            .with("CNI_CONTAINERID", container)
            .with("CNI_NETNS", &netns.display().to_string())
            .with("CNI_IFNAME", "eth0")
            .with("CNI_PATH", &call_path()))
    }

    /// A call of a program on a host, from this directory and with nothing but this configuration.
    pub fn of(program: &Path, host: &Place, directory: &Path, config: Value) -> Self {
        let (program, node, directory) = (program.into(), host.path(), directory.into());
        Self { program, node, directory, variables: Vec::new(), config, input: None }
    }

    /// Sets a variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Sets a key of the configuration.
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Removes a key of the configuration.
    pub fn without(mut self, key: &str) -> Self {
        if let Some(keys) = self.config.as_object_mut() {
            keys.remove(key);
        }
        self
    }

    /// Gives it this text in place of a configuration.
    pub fn input(mut self, text: &str) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(&self) -> Result<std::process::Child> {
        let input = self.input.clone().unwrap_or_else(|| self.config.to_string());
        let mut command = Command::new(&self.program);
        command
            .envs(self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = spawn_in(&self.node, &mut command).context("starting the plugin")?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails early does not read it.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child)
    }

    /// Runs it; gives its result.
    ///
    /// # Errors
    /// With the plugin's own message where it fails.
    pub fn run(&self) -> Result<Value> {
        match self.outcome()? {
            Ok(value) => Ok(value),
            Err(error) => bail!("the plugin fails: {error}"),
        }
    }

    /// Runs it and expects it to fail; gives the code and the message.
    ///
    /// # Errors
    /// Where it does not fail.
    pub fn fails(&self) -> Result<(u64, String)> {
        match self.outcome()? {
            Ok(value) => bail!("the plugin succeeds: {value}"),
            Err(error) => {
                let code = error["code"].as_u64().context("an error without code")?;
                Ok((code, error["msg"].as_str().unwrap_or_default().to_owned()))
            }
        }
    }

    fn outcome(&self) -> Result<Result<Value, Value>> {
        let output = self.spawn()?.wait_with_output().context("waiting for the plugin")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("the plugin says {text:?}"))?
        };
        Ok(if output.status.success() { Ok(value) } else { Err(value) })
    }
}

fn call_path() -> String {
    binary("sluice").parent().unwrap_or(Path::new("/")).display().to_string()
}

/// A pod; unwired when dropped.
pub struct Pod {
    /// Its namespace in the cluster.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// The name of its node.
    pub node: String,
    /// Its network namespace.
    pub place: Place,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The name of the host side of its veth pair.
    pub host_interface: String,
    /// The result of its ADD.
    pub result: Value,
    del: Call,
    keep: bool,
}

impl Pod {
    /// Makes a network namespace and has the plugin wire it.
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub(super) fn add(
        node: &Node,
        container: &str,
        (namespace, name): (&str, &str),
        addresses: &[IpAddr],
        ports: &Value,
    ) -> Result<Self> {
        let mut place = Place::make(container)?;
        if let Some(group) = node.place.group() {
            place.join(group);
        }
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let call = |verb| {
            Ok::<_, anyhow::Error>(Call::new(node, verb, container, &place.path())?.with("CNI_ARGS", &arguments))
        };
        let mut add = call("ADD")?;
        let mut runtime = json!({});
        if !addresses.is_empty() {
            runtime["ips"] = json!(addresses);
        }
        if !ports.is_null() {
            runtime["portMappings"] = ports.clone();
        }
        add = add.config("runtimeConfig", runtime);
        let result = add.run().with_context(|| format!("adding the pod {name} to {}", node.name))?;
        let del = call("DEL")?;
        let mut addresses = Vec::new();
        for ip in result["ips"].as_array().into_iter().flatten() {
            let text = ip["address"].as_str().and_then(|net| net.split('/').next()).context("an address")?;
            addresses.push(text.parse()?);
        }
        ensure!(!addresses.is_empty(), "a pod without addresses: {result}");
        let host_interface = result["interfaces"][0]["name"].as_str().context("a host side")?.to_owned();
        let (namespace, name, node) = (namespace.into(), name.into(), node.name.clone());
        Ok(Self { namespace, name, node, place, addresses, host_interface, result, del, keep: false })
    }

    /// Has the plugin unwire it.
    ///
    /// # Errors
    /// Where the plugin refuses.
    pub fn delete(&self) -> Result<()> {
        self.del.run().map(drop)
    }

    /// A call of another verb for this pod, with the result of ADD.
    ///
    /// # Errors
    /// As [`Call::new`].
    pub fn call(&self, node: &Node, verb: &str) -> Result<Call> {
        let call = Call::new(node, verb, &self.place.name, &self.place.path())?;
        Ok(call.config("prevResult", self.result.clone()))
    }

    /// GC's way to name it.
    pub fn attachment(&self) -> Value {
        json!({ "containerID": self.place.name, "ifname": "eth0" })
    }

    pub(super) fn keep(mut self) {
        self.keep = true;
        self.place.keep();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if !self.keep {
            let _ = self.delete();
        }
    }
}
