//! What leads clients outside to Services by host names.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

/// A proxy on every node, at the node's port 80 and behind a node port.
fn proxies(namespace: &Namespace<'_>) -> Result<()> {
    let backend = |name: &str| {
        let place = format!("{name}.{}.svc.cluster.local:80", namespace.name);
        format!("      backend {name}\n        server it {place} resolvers cluster init-addr none check inter 500ms\n")
    };
    namespace.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: proxy}}\ndata:\n  haproxy.cfg: |\n      global\n        log stdout format raw daemon notice\n      \
         defaults\n        log global\n        mode http\n        \
         option forwardfor\n        option http-server-close\n        timeout connect 5s\n        timeout client 30s\n        timeout server 30s\n      \
         resolvers cluster\n        parse-resolv-conf\n      frontend web\n        bind :::8000 v4v6\n        \
         use_backend one if {{ hdr(host) -i one.example }}\n        use_backend two if {{ hdr(host) -i two.example }}\n{}{}",
        backend("one"),
        backend("two")
    ))?;
    namespace.apply(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: proxy}\nspec:\n  selector: {matchLabels: {role: proxy}}\n  template:\n    \
         metadata: {labels: {role: proxy}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: c\n        \
         image: \"haproxy:lab\"\n        ports: [{containerPort: 8000, hostPort: 80}]\n        \
         readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}\n        \
         volumeMounts: [{name: configuration, mountPath: /etc/haproxy}]\n      \
         volumes: [{name: configuration, configMap: {name: proxy}}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: proxy}\nspec:\n  \
         type: NodePort\n  externalTrafficPolicy: Local\n  selector: {role: proxy}\n  ports: [{port: 80, targetPort: 8000}]",
    )?;
    namespace.kubectl(&["rollout", "status", "daemonset/proxy", "--timeout=90s"]).map(|_| ())
}

#[test]
fn an_ingress_proxy_leads_clients_outside_to_services_by_host_name() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "ingress")?;
    for name in ["one", "two"] {
        namespace.service(name, "")?;
        for node in ["n1", "n2"] {
            namespace.pod(&format!("{name}-{node}")).on(node).role(name).start()?;
        }
        namespace.policy(
            name,
            &format!(
                "podSelector: {{matchLabels: {{role: {name}}}}}\n\
                 ingress: [{{from: [{{podSelector: {{matchLabels: {{role: proxy}}}}}}]}}]"
            ),
        )?;
    }
    proxies(&namespace)?;
    namespace.all_ready()?;

    let node_port = namespace.field("service/proxy", ".spec.ports[0].nodePort")?.parse()?;
    for (node, port) in [("n1", 80), ("n2", 80), ("n1", node_port), ("n2", node_port)] {
        let place = SocketAddr::new(cluster.address(node)?, port);
        let ask = |host: &str, what: &str| {
            let (name, url) = (format!("Host: {host}.example"), format!("http://{place}/{what}"));
            until("the proxy has it answered", || {
                cluster.outside(&["curl", "-sSfg", "--max-time", "5", "-H", &name, &url])
            })
        };
        for host in ["one", "two"] {
            let mut seen = BTreeSet::new();
            until("pods on both nodes answer", || {
                seen.insert(ask(host, "hostname")?);
                ensure!(seen.len() == 2, "only {seen:?}");
                Ok(())
            })
            .with_context(|| {
                namespace.kubectl(&["logs", "-l", "role=proxy", "--tail=-1", "--prefix"]).unwrap_or_default()
            })?;
            ensure!(seen.iter().all(|it| it.starts_with(host)), "the other's pods: {seen:?}");
        }
        let client = ask("one", "header?key=X-Forwarded-For")?;
        ensure!(client.contains(&cluster.outsider()?.to_string()), "the proxy sees who asks at {place}: {client}");
    }
    let past = hostname_at(namespace.addresses("one-n1")?[0], 8080);
    let answer = cluster.outside(&["curl", "-sSfg", "--connect-timeout", "1", &past]);
    ensure!(answer.is_err(), "nobody gets past the proxy: {answer:?}");
    Ok(())
}
