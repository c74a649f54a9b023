//! An API server without a way to pods, and a tunnel that pods make for it.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

use crate::servers::{register_webhook, webhook_is_asked};

/// The network of the API server without a way to pods, and the API server with a tunnel instead; until this goes.
struct Tunnel<'a> {
    cluster: &'a Cluster,
    server: Child,
    /// Addresses of pods, to which nothing leads.
    pods: Vec<String>,
}

impl<'a> Tunnel<'a> {
    fn dig(cluster: &'a Cluster, namespace: &Namespace<'_>) -> Result<Self> {
        let (socket, configuration) = (cluster.place("tunnel.sock"), cluster.place("tunnel.yaml"));
        let (socket, configuration) = (socket.display().to_string(), configuration.display().to_string());
        let entrance = SocketAddr::new(cluster.outsider()?, 8132).to_string();
        let server = cluster
            .program_beside("tunnel", &["server", &socket, &entrance])
            .stderr(Stdio::null())
            .spawn()
            .context("starting the tunnel's server")?;
        let pods = cluster.ask("pods", &[])?.trim().split(',').map(str::to_owned).collect();
        let it = Self { cluster, server, pods };
        namespace.apply(&format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: tunnel}}\nspec:\n  selector: {{matchLabels: {{role: tunnel}}}}\n  \
             template:\n    metadata: {{labels: {{role: tunnel}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
             containers: [{{name: c, image: \"tunnel:lab\", args: [agent, \"{entrance}\"]}}]"
        ))?;
        namespace.kubectl(&["rollout", "status", "daemonset/tunnel", "--timeout=90s"])?;
        let text = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  \
             connection: {{proxyProtocol: HTTPConnect, transport: {{uds: {{udsName: {socket}}}}}}}\n"
        );
        fs::write(&configuration, text).with_context(|| format!("writing {configuration}"))?;
        for pods in &it.pods {
            cluster.outside(&unreachable("add", pods))?;
        }
        cluster.ask("apiserver", &[&format!("--egress-selector-config-file={configuration}")])?;
        Ok(it)
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        for pods in &self.pods {
            let _ = self.cluster.outside(&unreachable("del", pods));
        }
        let _ = self.cluster.ask("apiserver", &[]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The command by which addresses become out of reach, or are so no longer.
fn unreachable<'a>(action: &'a str, pods: &'a str) -> [&'a str; 7] {
    ["ip", if pods.contains(':') { "-6" } else { "-4" }, "rule", action, "to", pods, "unreachable"]
}

#[test]
fn an_api_server_reaches_pods_through_a_tunnel_that_pods_make() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "tunnel")?;
    for (name, node) in [("one", "n1"), ("two", "n2")] {
        namespace.serve(name, node)?;
        namespace.service(name, "")?;
    }
    let _hook = register_webhook(&cluster, &namespace, "n2")?;
    let tunnel = Tunnel::dig(&cluster, &namespace)?;

    let direct = hostname_at(namespace.addresses("one")?[0], 8080);
    let answer = cluster.outside(&["curl", "-sSfg", "--max-time", "1", &direct]);
    ensure!(answer.is_err(), "there is no other way to pods: {answer:?}");
    let root = format!("/api/v1/namespaces/{}", namespace.name);
    for pod in ["one", "two"] {
        let by_proxy = |path: &str| {
            until("the API server asks for somebody", || cluster.kubectl(&["get", "--raw", &format!("{root}/{path}")]))
        };
        assert_eq!(by_proxy(&format!("pods/{pod}:8080/proxy/hostname"))?, pod);
        assert_eq!(by_proxy(&format!("services/{pod}:80/proxy/hostname"))?, pod);
        assert_eq!(namespace.exec(pod, &["hostname"])?.trim(), pod);
        let logs = namespace.kubectl(&["logs", pod])?;
        ensure!(logs.contains("8080"), "{logs}");
    }
    until("the webhook is asked", || webhook_is_asked(&namespace))?;

    drop(tunnel);
    // The API server was away twice: whoever watched it watches it again.
    namespace.serve("late", "n1")?;
    namespace.service("late", "")?;
    let service = hostname_at(namespace.field("service/late", ".spec.clusterIP")?.parse()?, 80);
    for client in ["one", "two"] {
        assert_eq!(until("both nodes know the new Service", || namespace.fetch(client, &service))?, "late");
    }
    namespace.deny_everything()?;
    for (client, neighbour) in [("one", "late"), ("two", "hook")] {
        namespace.is_cut_off(client, &hostname_at(namespace.addresses(neighbour)?[0], 8080))?;
    }
    Ok(())
}
