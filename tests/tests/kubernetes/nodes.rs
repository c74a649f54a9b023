//! Nodes that are emptied, and nodes whose agent is not there. These tests are alone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::kubernetes::{AGNHOST, Asking, Cluster, Namespace, Undone, hostname_at, words};
use sluice_tests::lab::{until, until_so};

/// Takes the agent off n1, and replaces no other; it comes back in the end.
fn without_agent(cluster: &Cluster) -> Result<Undone<'_>> {
    let change = |strategy: Value, affinity: Value| {
        let patch = json!({"spec": {"updateStrategy": strategy, "template": {"spec": {"affinity": affinity}}}});
        let mut command = words("-n kube-system patch daemonset sluice --type=merge -p");
        command.push(patch.to_string());
        command
    };
    let others =
        json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1"]}]});
    let others = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [others]}});
    let off = change(json!({"type": "OnDelete", "rollingUpdate": null}), json!({"nodeAffinity": others}));
    let back = change(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}), Value::Null);
    let undone = Undone::by(cluster, [back, words(ROLLED_OUT), words(READY)]);
    cluster.kubectl(&off.iter().map(String::as_str).collect::<Vec<_>>())?;
    until_so("the agent is gone", || Ok(agents(cluster)?.iter().all(|(node, _)| node != "n1")))?;
    Ok(undone)
}

const ROLLED_OUT: &str = "-n kube-system rollout status daemonset/sluice --timeout=120s";
const READY: &str = "wait --for=condition=Ready --timeout=90s node --all";

/// Where agents are, and whether they are ready.
fn agents(cluster: &Cluster) -> Result<Vec<(String, bool)>> {
    let agents = cluster.agents()?.into_iter();
    let place = |agent: &Value| agent["spec"]["nodeName"].as_str().map(str::to_owned);
    let is_ready = |agent: &Value| agent["status"]["containerStatuses"][0]["ready"] == true;
    Ok(agents.filter_map(|agent| Some((place(&agent)?, is_ready(&agent)))).collect())
}

fn await_not_ready(cluster: &Cluster, node: &str) -> Result<()> {
    let node = format!("node/{node}");
    cluster.kubectl(&["wait", "--for=condition=Ready=false", "--timeout=60s", &node])?;
    let why = cluster.kubectl(&["get", &node, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].message}"])?;
    ensure!(why.contains("Network"), "{why}");
    Ok(())
}

/// That both pods reach one another, and that a policy keeps a third out.
fn network_is_there(namespace: &Namespace<'_>) -> Result<()> {
    for (from, to) in [("old", "peer"), ("peer", "old")] {
        assert_eq!(namespace.fetch(from, &hostname_at(namespace.addresses(to)?[0], 8080))?, to);
    }
    namespace.is_cut_off("stranger", &hostname_at(namespace.addresses("old")?[0], 8080))
}

/// Two pods that reach one another, one of them on a node, and a third that may not.
fn pods_of(namespace: &Namespace<'_>, node: &str, other: &str) -> Result<()> {
    namespace.pod("old").on(node).start()?;
    namespace.pod("peer").on(other).start()?;
    namespace.pod("stranger").on(other).start()?;
    namespace.all_ready()?;
    namespace.policy(
        "peer",
        "podSelector: {matchLabels: {role: old}}\ningress: [{from: [{podSelector: {matchLabels: {role: peer}}}]}]",
    )?;
    network_is_there(namespace)
}

/// That a pod which is to start on a node waits for the network, as the kubelet says.
fn new_pod_waits(namespace: &Namespace<'_>, node: &str) -> Result<()> {
    namespace.pod("new").on(node).start()?;
    until("the kubelet waits for the network", || {
        let of = ["get", "events", "--field-selector", "involvedObject.name=new", "-o", "jsonpath={.items[*].reason}"];
        let reasons = namespace.kubectl(&of)?;
        ensure!(reasons.contains("NetworkNotReady"), "{reasons}");
        Ok(())
    })
}

#[test]
fn a_node_without_agent_is_not_ready_and_its_pods_keep_their_network() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "away")?;
    pods_of(&namespace, "n1", "n2")?;
    let away = without_agent(&cluster)?;
    await_not_ready(&cluster, "n1")?;
    network_is_there(&namespace)?;
    new_pod_waits(&namespace, "n1")?;
    namespace.kubectl(&["delete", "pod", "stranger"]).context("a pod elsewhere goes")?;
    drop(away);
    namespace.ready("pod/new")?;
    namespace.serve("stranger", "n2")?;
    assert_eq!(namespace.fetch("new", &hostname_at(namespace.addresses("peer")?[0], 8080))?, "peer");
    network_is_there(&namespace)
}

#[test]
fn a_pod_that_goes_while_the_agent_is_away_leaves_nothing() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "leaving")?;
    namespace.serve("leaving", "n1")?;
    let address = namespace.addresses("leaving")?[0].to_string();
    let away = without_agent(&cluster)?;
    namespace.kubectl(&["delete", "pod", "leaving", "--timeout=60s"])?;
    let kept = format!("/var/lib/sluice/addresses/{address}");
    until_so("its address is given back", || Ok(cluster.on("n1", &["test", "-e", &kept]).is_err()))?;
    drop(away);
    until_so("the agent has forgotten it", || {
        Ok(!cluster.on("n1", &["/usr/local/bin/sluicectl", "endpoints"])?.contains(&address))
    })
}

#[test]
fn an_agent_that_does_not_reach_the_api_server_stops_the_rollout_and_breaks_nothing() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "unreachable")?;
    pods_of(&namespace, "n1", "n2")?;
    namespace.pod("other").on("n2").role("old").serve()?;
    let undo = "-n kube-system rollout undo daemonset/sluice";
    let undone = Undone::by(&cluster, [undo, ROLLED_OUT, READY].map(words));
    // Nobody is there.
    let nowhere = if cluster.outsider()?.is_ipv4() { "https://192.0.2.1:6443" } else { "https://[2001:db8::1]:6443" };
    let set = format!("SLUICE_API_SERVER={nowhere}");
    cluster.kubectl(&["-n", "kube-system", "set", "env", "daemonset/sluice", "-c", "agent", &set])?;
    let node = until("one agent is not ready", || {
        let agents = agents(&cluster)?;
        let (node, _) = agents.into_iter().find(|(_, ready)| !ready).context("all are")?;
        Ok(node)
    })?;
    await_not_ready(&cluster, &node)?;
    network_is_there(&namespace)?;
    new_pod_waits(&namespace, &node)?;
    let ready = agents(&cluster)?.iter().filter(|(_, ready)| *ready).count();
    ensure!(ready + 1 == cluster.nodes()?.len(), "the others go on: {:?}", agents(&cluster)?);
    drop(undone);
    namespace.ready("pod/new")?;
    network_is_there(&namespace)
}

#[test]
fn a_drained_node_hands_its_pods_over_without_an_unanswered_request() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "drain")?;
    namespace.serve("client", "n2")?;
    namespace.service("many", "")?;
    namespace.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: 4\n  \
         selector: {{matchLabels: {{role: many}}}}\n  template:\n    metadata: {{labels: {{role: many}}}}\n    spec:\n      \
         topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, \
         labelSelector: {{matchLabels: {{role: many}}}}}}]\n      containers:\n      - {{name: c, image: \"{AGNHOST}\", \
         args: [netexec, --delay-shutdown=5], readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}}}\n\
         ---\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: many}}\n\
         spec: {{minAvailable: 3, selector: {{matchLabels: {{role: many}}}}}}\n"
    ))?;
    namespace.kubectl(&["rollout", "status", "deployment/many", "--timeout=90s"])?;
    let on = |node: &str| -> Result<usize> {
        let field = format!("spec.nodeName={node}");
        Ok(namespace
            .kubectl(&["get", "pods", "-l", "role=many", "--field-selector", &field, "-o", "name"])?
            .lines()
            .count())
    };
    ensure!(on("n1")? > 0, "some are on the node that is to be drained");
    let service = hostname_at(namespace.field("service/many", ".spec.clusterIP")?.parse()?, 80);
    until("served", || namespace.fetch("client", &service))?;
    let asking = Asking::start(&namespace, "client", "--max-time 5", &service)?;
    let old = namespace.kubectl(&["get", "pods", "-l", "role=many", "-o", "name"])?;

    let undone = Undone::by(&cluster, [words("uncordon n1")]);
    cluster.kubectl(&["drain", "n1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"])?;
    namespace.kubectl(&["rollout", "status", "deployment/many", "--timeout=90s"])?;
    assert_eq!(on("n1")?, 0);
    until("new ones serve, too", || {
        let name = namespace.fetch("client", &service)?;
        ensure!(!old.contains(&name), "{name} is one of {old}");
        Ok(())
    })?;
    asking.stop()?;
    drop(undone);
    namespace.serve("back", "n1")?;
    assert_eq!(namespace.fetch("client", &hostname_at(namespace.addresses("back")?[0], 8080))?, "back");
    Ok(())
}
