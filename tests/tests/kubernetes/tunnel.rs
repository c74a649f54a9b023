//! An API server without a way to pods, and a tunnel that pods make for it.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

use crate::servers::{register_webhook, webhook_is_asked};

/// The network of the API server without routes to pods, and the API server with a tunnel instead; until this goes.
struct Tunnel<'a> {
    cluster: &'a Cluster,
    server: Child,
    /// Pod CIDRs and the nodes' addresses behind which they are.
    routes: Vec<(String, String)>,
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
        let it = Self { cluster, server, routes: routes(cluster)? };
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
        for (pods, _) in &it.routes {
            cluster.outside(&["ip", "route", "del", pods])?;
        }
        cluster.ask("apiserver", &[&format!("--egress-selector-config-file={configuration}")])?;
        Ok(it)
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        for (pods, node) in &self.routes {
            let _ = self.cluster.outside(&["ip", "route", "replace", pods, "via", node]);
        }
        let _ = self.cluster.ask("apiserver", &[]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// How the API server reaches pods.
fn routes(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let nodes = cluster.get(&["nodes"])?;
    let mut routes = Vec::new();
    for node in nodes["items"].as_array().context("nodes")? {
        let texts = |list: &serde_json::Value, key: &str| -> Vec<String> {
            let all = list.as_array().into_iter().flatten();
            all.filter_map(|it| it.get(key).unwrap_or(it).as_str().map(str::to_owned)).collect()
        };
        let addresses = texts(&node["status"]["addresses"], "address");
        for pods in texts(&node["spec"]["podCIDRs"], "") {
            let of_its_family =
                |it: &&String| it.contains(':') == pods.contains(':') && it.parse::<std::net::IpAddr>().is_ok();
            let address = addresses.iter().find(of_its_family).context("the node's address")?;
            routes.push((pods, address.clone()));
        }
    }
    Ok(routes)
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
