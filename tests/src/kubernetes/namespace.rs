//! A namespace of a test's own, which goes with the test.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use super::{Cluster, Pod, indented};
use crate::lab::until;

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
        // kubectl waits for what is not there yet since 1.31 only.
        until("its pods have an account", || it.kubectl(&["get", "serviceaccount/default"]))?;
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

    /// A pod that is to serve HTTP at 8080 and UDP at 8081 (`agnhost netexec`), unless told otherwise.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        Pod::new(self, name)
    }

    /// Starts such a pod on a node; it is Ready.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&self, name: &str, node: &str) -> Result<()> {
        self.pod(name).on(node).serve()
    }

    /// A Service for the pods of a label `role` of its own name, from port 80 to 8080, with more of its specification.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn service(&self, name: &str, more: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{role: {name}}}\n  \
             ports: [{{name: http, port: 80, targetPort: 8080}}]\n{}",
            indented(more)
        ))
    }

    /// A NetworkPolicy, by its specification.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn policy(&self, name: &str, specification: &str) -> Result<()> {
        self.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n{}",
            indented(specification)
        ))
    }

    /// Lets no packet from or to the pods here, but what other policies allow.
    ///
    /// # Errors
    /// Where the API server refuses that.
    pub fn deny_everything(&self) -> Result<()> {
        self.policy("nothing", "podSelector: {}\npolicyTypes: [Ingress, Egress]")
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

    /// Waits until all pods here are Ready.
    ///
    /// # Errors
    /// Where one does not get so, with all descriptions.
    pub fn all_ready(&self) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", "pod", "--all"])
            .with_context(|| self.kubectl(&["describe", "pods"]).unwrap_or_default())
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

    /// Waits until what a pod asks for over HTTP is dropped on the way: nobody answers, nobody refuses.
    ///
    /// # Errors
    /// Where it is answered in spite of everything.
    pub fn is_cut_off(&self, pod: &str, url: &str) -> Result<()> {
        until("packets are dropped", || {
            let answer = self.exec(pod, &["curl", "-sSfg", "--connect-timeout", "1", url]);
            ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("exit code 28")), "{answer:?}");
            Ok(())
        })
    }

    /// A pod's addresses.
    ///
    /// # Errors
    /// Where it has none yet.
    pub fn addresses(&self, pod: &str) -> Result<Vec<IpAddr>> {
        let text = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"])?;
        let addresses = text.split_whitespace().map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        ensure!(!addresses.is_empty(), "{pod} has no address");
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
