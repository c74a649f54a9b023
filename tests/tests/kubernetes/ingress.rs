//! An ingress controller, Traefik, which leads clients outside to pods by host names and paths.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, Undone, hostname_at, words};
use sluice_tests::lab::until;

/// The controller on every node, at the node's port 80 and behind a node port, for Ingresses of a class of the namespace's name; until
/// the result goes.
fn install<'a>(cluster: &'a Cluster, namespace: &Namespace<'_>) -> Result<Undone<'a>> {
    let name = &namespace.name;
    let undone = Undone::by(
        cluster,
        [words(&format!("delete ingressclass/{name} clusterrole/{name} clusterrolebinding/{name} --ignore-not-found"))],
    );
    namespace.apply(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {name}}}\nspec: {{controller: traefik.io/ingress-controller}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: traefik}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {name}}}\nrules:\n\
         - {{apiGroups: [\"\"], resources: [services, secrets, nodes], verbs: [get, list, watch]}}\n\
         - {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}\n\
         - {{apiGroups: [networking.k8s.io], resources: [ingresses, ingressclasses], verbs: [get, list, watch]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: {name}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}}}\n\
         subjects: [{{kind: ServiceAccount, name: traefik, namespace: {name}}}]\n---\n\
         apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: traefik}}\nspec:\n  selector: {{matchLabels: {{role: traefik}}}}\n  template:\n    \
         metadata: {{labels: {{role: traefik}}}}\n    spec:\n      serviceAccountName: traefik\n      terminationGracePeriodSeconds: 1\n      \
         containers:\n      - name: traefik\n        image: \"traefik:lab\"\n        args:\n        \
         - --entrypoints.web.address=:8000\n        - --providers.kubernetesingress.ingressclass={name}\n        - --ping=true\n        \
         - --ping.entrypoint=web\n        - --accesslog=true\n        - --global.checknewversion=false\n        - --global.sendanonymoususage=false\n        \
         ports: [{{containerPort: 8000, hostPort: 80}}]\n        \
         readinessProbe: {{httpGet: {{path: /ping, port: 8000}}, periodSeconds: 1}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: traefik}}\nspec:\n  type: NodePort\n  externalTrafficPolicy: Local\n  \
         selector: {{role: traefik}}\n  ports: [{{port: 80, targetPort: 8000}}]"
    ))?;
    namespace.kubectl(&["rollout", "status", "daemonset/traefik", "--timeout=90s"])?;
    Ok(undone)
}

/// Two Services of pods on both nodes, which only the controller is let in to; by hosts of their own, and by paths of one more.
fn shop(namespace: &Namespace<'_>, controller: &Namespace<'_>) -> Result<()> {
    for name in ["one", "two"] {
        namespace.service(name, "")?;
        for node in ["n1", "n2"] {
            namespace.pod(&format!("{name}-{node}")).on(node).role(name).start()?;
        }
    }
    let class = &controller.name;
    namespace.policy(
        "controller",
        &format!(
            "podSelector: {{matchExpressions: [{{key: role, operator: In, values: [one, two]}}]}}\n\
             ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {class}}}}}, \
             podSelector: {{matchLabels: {{role: traefik}}}}}}]}}]"
        ),
    )?;
    let to = |path: &str, service: &str| {
        format!("{{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{name: http}}}}}}}}")
    };
    namespace.apply(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: hosts}}\nspec:\n  ingressClassName: {class}\n  rules:\n  \
         - {{host: one.example, http: {{paths: [{}]}}}}\n  - {{host: two.example, http: {{paths: [{}]}}}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: paths}}\nspec:\n  ingressClassName: {class}\n  rules:\n  \
         - {{host: both.example, http: {{paths: [{}, {}]}}}}\n",
        to("/", "one"),
        to("/", "two"),
        to("/hostname", "one"),
        to("/shell", "two"),
    ))?;
    namespace.all_ready()
}

/// How a client asks at a place for what is at a host.
fn request(place: SocketAddr, host: &str, path: &str) -> [String; 7] {
    let (host, url) = (format!("Host: {host}.example"), format!("http://{place}/{path}"));
    ["curl", "-sSfg", "--max-time", "5", "-H", &host, &url].map(str::to_owned)
}

/// Asks until these pods have answered, and takes it ill if others do.
fn answer_is_by(pods: &[&str], ask: impl Fn() -> Result<String>) -> Result<()> {
    let mut seen = BTreeSet::new();
    until("all of them answer", || {
        seen.insert(ask()?);
        ensure!(pods.iter().all(|pod| seen.contains(*pod)), "only {seen:?}");
        Ok(())
    })?;
    ensure!(seen.len() == pods.len(), "others than {pods:?}: {seen:?}");
    Ok(())
}

#[test]
fn an_ingress_controller_leads_clients_to_pods_by_host_and_path() -> Result<()> {
    let cluster = Cluster::shared()?;
    let (edge, namespace) = (Namespace::new(&cluster, "edge")?, Namespace::new(&cluster, "shop")?);
    let _installed = install(&cluster, &edge)?;
    shop(&namespace, &edge)?;
    namespace.serve("client", "n1")?;
    edge.serve("stranger", "n2")?;
    let run = |command: &[String; 7]| cluster.outside(&command.each_ref().map(String::as_str));
    let node_port = edge.field("service/traefik", ".spec.ports[0].nodePort")?.parse()?;
    let logs = || edge.kubectl(&["logs", "-l", "role=traefik", "--tail=-1", "--prefix"]).unwrap_or_default();

    for node in cluster.nodes()? {
        for port in [80, node_port] {
            let place = SocketAddr::new(cluster.address(&node)?, port);
            let ask = |host: &str, path: &str| run(&request(place, host, path));
            for host in ["one", "two"] {
                let pods = [format!("{host}-n1"), format!("{host}-n2")];
                answer_is_by(&pods.each_ref().map(String::as_str), || ask(host, "hostname")).with_context(logs)?;
            }
            let by_path = until("it knows the paths", || ask("both", "hostname"))?;
            ensure!(by_path.starts_with("one-"), "at {place}: {by_path}");
            let by_path = ask("both", "shell?cmd=hostname")?;
            ensure!(by_path.contains("two-"), "at {place}: {by_path}");
            let client = ask("one", "header?key=X-Forwarded-For")?;
            ensure!(client.contains(&cluster.outsider()?.to_string()), "it sees who asks at {place}: {client}");
            ensure!(ask("three", "hostname").is_err(), "there is no such host");
        }
    }
    let service = SocketAddr::new(edge.field("service/traefik", ".spec.clusterIP")?.parse()?, 80);
    let from_a_pod = |host: &str| {
        let command = request(service, host, "hostname");
        namespace.exec("client", &command.each_ref().map(String::as_str))
    };
    answer_is_by(&["two-n1", "two-n2"], || from_a_pod("two"))?;

    // Who is not the controller does not get past it.
    let past = hostname_at(namespace.addresses("one-n1")?[0], 8080);
    let answer = cluster.outside(&["curl", "-sSfg", "--connect-timeout", "1", &past]);
    ensure!(answer.is_err(), "clients outside: {answer:?}");
    namespace.is_cut_off("client", &past)?;
    edge.is_cut_off("stranger", &past)?;

    // It follows the endpoints.
    namespace.kubectl(&["delete", "pod", "one-n1"])?;
    namespace.pod("one-later").on("n1").role("one").serve()?;
    let place = SocketAddr::new(cluster.address("n1")?, 80);
    let ask = || run(&request(place, "one", "hostname"));
    until("it knows the new one", || {
        let name = ask()?;
        ensure!(name == "one-later", "{name} answers");
        Ok(())
    })?;
    answer_is_by(&["one-later", "one-n2"], ask).with_context(logs)
}
