//! A namespace of a test's own, which goes with the test.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::{AGNHOST, Cluster};

/// A namespace, and what is in it.
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Namespace<'a> {
    /// Makes one; its pods may start.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn new(cluster: &'a Cluster, name: &str) -> Result<Self> {
        let name = format!("{name}-{:04x}", fastrand::u16(..));
        cluster.kubectl(&["create", "namespace", &name])?;
        let it = Self { cluster, name };
        it.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=30s"])?;
        Ok(it)
    }

    /// kubectl in this namespace.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// Applies manifests, in this namespace where they name none.
    ///
    /// # Errors
    /// Where the API server refuses them.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.cluster.feed(&["-n", &self.name, "apply", "-f", "-"], manifests)
    }

    /// Starts a pod that serves HTTP at 8080 and UDP at 8081 (`agnhost netexec`), on a node; it is Ready.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&self, name: &str, node: &str) -> Result<()> {
        self.start(name, node, "")?;
        self.ready(&format!("pod/{name}"))
    }

    /// As [`Self::serve`] with more lines of the pod's specification; does not wait.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn start(&self, name: &str, node: &str, more: &str) -> Result<()> {
        let more = more.lines().map(|line| format!("  {line}\n")).collect::<String>();
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
             nodeName: {node}\n  terminationGracePeriodSeconds: 1\n{more}  containers:\n  \
             - {{name: c, image: \"{AGNHOST}\", imagePullPolicy: Never, args: [netexec], \
             readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}}}\n"
        ))
    }

    /// Waits until something is Ready.
    ///
    /// # Errors
    /// Where it does not get so, with its description.
    pub fn ready(&self, what: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", what])
            .with_context(|| self.kubectl(&["describe", what]).unwrap_or_default())
            .map(|_| ())
    }

    /// What a command in a pod prints.
    ///
    /// # Errors
    /// Where it fails, with what it says.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        self.kubectl(&[&["exec", pod, "--"], command].concat())
    }

    /// What a pod is answered over HTTP.
    ///
    /// # Errors
    /// Where it is not answered within five seconds.
    pub fn fetch(&self, pod: &str, url: &str) -> Result<String> {
        self.exec(pod, &["curl", "-sSfg", "--max-time", "5", url])
    }

    /// A pod's addresses.
    ///
    /// # Errors
    /// Where it has none yet.
    pub fn addresses(&self, pod: &str) -> Result<Vec<IpAddr>> {
        let text = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"])?;
        let addresses = text.split_whitespace().map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        anyhow::ensure!(!addresses.is_empty(), "{pod} has no address");
        Ok(addresses)
    }

    /// A field of an object, by its JSONPath.
    ///
    /// # Errors
    /// Where there is none.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
    }
}
