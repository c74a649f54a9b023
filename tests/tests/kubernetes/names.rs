//! Names, as pods have them resolved.

use anyhow::{Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

/// Every cluster's own Service, by a name that needs the search list of a pod.
const SHORT: &str = "kubernetes.default";

/// What a resolver is asked for a name, the way programs do.
fn resolve(namespace: &Namespace<'_>, pod: &str, name: &str) -> Result<String> {
    namespace.exec(pod, &["timeout", "3", "getent", "hosts", name])
}

#[test]
fn pods_have_names_resolved_by_their_dns_policies() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "dns")?;
    let server =
        cluster.kubectl(&["-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"])?;
    let own = format!(
        "dnsPolicy: None\ndnsConfig: {{nameservers: [\"{server}\"], searches: [svc.cluster.local], \
         options: [{{name: ndots, value: \"2\"}}]}}"
    );
    namespace.pod("first").on("n1").start()?;
    namespace.pod("own").on("n2").with(&own).start()?;
    namespace.pod("default").on("n1").with("dnsPolicy: Default").start()?;
    namespace.pod("host").on("n1").in_the_nodes_network(21090).start()?;
    namespace
        .pod("host-first")
        .on("n2")
        .in_the_nodes_network(21092)
        .with("dnsPolicy: ClusterFirstWithHostNet")
        .start()?;
    namespace.all_ready()?;

    for pod in ["first", "own", "host-first"] {
        until("the name is resolved", || resolve(&namespace, pod, SHORT))?;
        let configuration = namespace.exec(pod, &["cat", "/etc/resolv.conf"])?;
        ensure!(configuration.contains(&server), "{pod}: {configuration}");
    }
    let configuration = namespace.exec("own", &["cat", "/etc/resolv.conf"])?;
    ensure!(
        configuration.contains("search svc.cluster.local\n") && configuration.contains("ndots:2"),
        "{configuration}"
    );
    for pod in ["default", "host"] {
        let configuration = namespace.exec(pod, &["cat", "/etc/resolv.conf"])?;
        ensure!(!configuration.contains(&server), "{pod} has the node's: {configuration}");
        let answer = resolve(&namespace, pod, "kubernetes.default.svc.cluster.local");
        ensure!(answer.is_err(), "the node's resolver does not know the cluster's names: {answer:?}");
    }
    Ok(())
}

#[test]
fn the_dns_server_answers_all_kinds_of_questions() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "questions")?;
    namespace.pod("client").on("n1").role("served").serve()?;
    namespace.pod("other").on("n2").role("served").serve()?;
    namespace.service("served", "")?;
    let name = format!("served.{}.svc.cluster.local", namespace.name);
    let service = namespace.field("service/served", ".spec.clusterIP")?;
    let kind = if service.contains(':') { "AAAA" } else { "A" };
    let port = format!("_http._tcp.{name}");
    let questions: [(&[&str], &str); 4] = [
        (&[kind, &name], &service),
        (&["+tcp", kind, &name], &service),
        (&["SRV", &port], "0 100 80"),
        (&["-x", &service], &name),
    ];
    for pod in ["client", "other"] {
        for (question, expected) in questions {
            until("the answer is right", || {
                let dig = ["dig", "+short", "+time=2", "+tries=1"];
                let answer = namespace.exec(pod, &[&dig, question].concat())?;
                ensure!(answer.contains(expected), "{question:?} of {pod}: {answer}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_policy_that_allows_questions_of_names_allows_nothing_else() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "dnspolicy")?;
    namespace.deny_everything()?;
    namespace.serve("client", "n1")?;
    namespace.serve("other", "n2")?;
    let asked = || namespace.exec("client", &["dig", "+short", "+time=1", "+tries=1", "+search", SHORT]);
    until("questions are dropped", || {
        let answer = asked();
        ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("exit code 9")), "{answer:?}");
        Ok(())
    })?;
    namespace.policy(
        "names",
        "podSelector: {}\npolicyTypes: [Egress]\negress:\n- to:\n  - namespaceSelector: {matchLabels: \
         {kubernetes.io/metadata.name: kube-system}}\n    podSelector: {matchLabels: {k8s-app: kube-dns}}\n  \
         ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]",
    )?;
    until("questions are answered", asked)?;
    namespace.is_cut_off("client", &hostname_at(namespace.addresses("other")?[0], 8080))
}
