//! A pod to be.

use anyhow::Result;

use super::{AGNHOST, Namespace, indented};

/// A pod of one container that serves HTTP and UDP, and what is to be different.
pub struct Pod<'a> {
    namespace: &'a Namespace<'a>,
    name: String,
    role: String,
    specification: String,
    container: String,
    arguments: String,
    readiness: String,
}

impl<'a> Pod<'a> {
    pub(super) fn new(namespace: &'a Namespace<'a>, name: &str) -> Self {
        Self {
            namespace,
            name: name.into(),
            role: name.into(),
            specification: String::new(),
            container: String::new(),
            arguments: "netexec".into(),
            readiness: "httpGet: {path: /, port: 8080}".into(),
        }
    }

    /// On a node, without asking the scheduler.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        self.with(&format!("nodeName: {node}"))
    }

    /// Its label `role`, by which Services and policies find it: else its name.
    #[must_use]
    pub fn role(self, role: &str) -> Self {
        Self { role: role.into(), ..self }
    }

    /// More lines of its specification.
    #[must_use]
    pub fn with(self, lines: &str) -> Self {
        Self { specification: self.specification + &indented(lines), ..self }
    }

    /// More fields of its container, as they stand in braces.
    #[must_use]
    pub fn container(self, fields: &str) -> Self {
        Self { container: format!("{}, {fields}", self.container), ..self }
    }

    /// With other arguments, and another sign that it is Ready.
    #[must_use]
    pub fn running(self, arguments: &str, readiness: &str) -> Self {
        Self { arguments: arguments.into(), readiness: readiness.into(), ..self }
    }

    /// In the node's network, where its ports are those of everybody: HTTP at this one, UDP at the next.
    #[must_use]
    pub fn in_the_nodes_network(self, port: u16) -> Self {
        let arguments = format!("netexec, --http-port={port}, --udp-port={}", port + 1);
        self.running(&arguments, &format!("httpGet: {{path: /, port: {port}}}")).with("hostNetwork: true")
    }

    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// Where the API server refuses it.
    pub fn start(&self) -> Result<()> {
        let Self { name, role, specification, container, arguments, readiness, .. } = self;
        self.namespace.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{role: {role}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 1\n{specification}  containers:\n  \
             - {{name: c, image: \"{AGNHOST}\", args: [{arguments}], \
             readinessProbe: {{{readiness}, periodSeconds: 1}}{container}}}\n"
        ))
    }

    /// Starts it; it is Ready.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&self) -> Result<()> {
        self.start()?;
        self.namespace.ready(&format!("pod/{}", self.name))
    }
}
