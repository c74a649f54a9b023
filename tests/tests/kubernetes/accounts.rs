//! What the token of a node's agent is good for.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::kubernetes::{Cluster, Namespace};
use sluice_tests::lab::until;

/// The condition in which agents say addresses.
const ADDRESSES: &str = "sluice.dev/Addresses";

/// Whoever has the token of a node's agent.
struct Bearer<'a> {
    cluster: &'a Cluster,
    namespace: &'a Namespace<'a>,
    token: String,
}

impl<'a> Bearer<'a> {
    /// Reads the token where the node's kubelet has put it for the agent.
    fn of(cluster: &'a Cluster, namespace: &'a Namespace<'a>, node: &str) -> Result<Self> {
        let agent = cluster.agent_on(node)?;
        let uid = agent["metadata"]["uid"].as_str().context("its UID")?;
        let token = format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/account/token");
        Ok(Self { cluster, namespace, token: cluster.on(node, &["cat", &token])? })
    }

    /// Asks for a change of a pod's status; gives the object as it is then, or why it was refused.
    fn patch(&self, pod: &str, kind: &str, patch: &Value) -> Result<Value> {
        self.ask("PATCH", &format!("api/v1/namespaces/{}/pods/{pod}/status", self.namespace.name), kind, patch)
    }

    /// Asks for a Lease, which is not made in earnest.
    fn lease(&self, namespace: &str, lease: &Value) -> Result<Value> {
        let path = format!("apis/coordination.k8s.io/v1/namespaces/{namespace}/leases?dryRun=All");
        self.ask("POST", &path, "json", lease)
    }

    fn ask(&self, verb: &str, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let server = self.cluster.ask("server", &[])?;
        let url = format!("{}/{path}", server.trim());
        let authority = self.cluster.place("pki/ca.crt").display().to_string();
        let headers = [format!("Authorization: Bearer {}", self.token), format!("Content-Type: application/{kind}")];
        let [token, kind] = &headers;
        let (body, limits) = (body.to_string(), ["curl", "-sSg", "--max-time", "20", "--cacert", &authority]);
        let answer =
            self.cluster.outside(&[&limits[..], &["-X", verb, "-H", token, "-H", kind, "-d", &body, &url]].concat())?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        ensure!(answer["kind"] != "Status", "{}", answer["message"]);
        Ok(answer)
    }

    /// Such a change is forbidden, for this reason.
    fn may_not(&self, pod: &str, kind: &str, patch: &Value, why: &str) -> Result<()> {
        let refused = self.patch(pod, kind, patch);
        ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains(why)), "{pod}, {patch}: {refused:?}");
        Ok(())
    }
}

/// How kubelets and agents change a pod's status.
const MERGE: &str = "strategic-merge-patch+json";

/// What an agent sends to say a pod's addresses.
fn announcement(addresses: &str) -> Value {
    json!({ "status": { "conditions": [{ "type": ADDRESSES, "status": "True", "message": addresses }] } })
}

/// What an agent says of a pod's addresses.
fn said(pod: &Value) -> Option<&str> {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|it| it["type"] == ADDRESSES).find_map(|it| it["message"].as_str())
}

#[test]
fn an_agent_may_say_addresses_of_its_nodes_pods_and_nothing_else() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "speakers")?;
    namespace.serve("own", "n1")?;
    namespace.serve("other", "n2")?;
    let pod = |name: &str| cluster.get(&["-n", &namespace.name, "pod", name]);
    for name in ["own", "other"] {
        until("its agent has said its addresses", || {
            let pod = pod(name)?;
            let addresses = said(&pod).with_context(|| pod["status"].to_string())?;
            let all = namespace.addresses(name)?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            ensure!(addresses == all, "{addresses} instead of {all}");
            Ok(())
        })?;
    }

    const REPLACE: &str = "merge-patch+json";
    let agent = Bearer::of(&cluster, &namespace, "n1")?;
    let status = |status: Value| json!({ "status": status });
    let condition = |kind: &str| json!({ "type": kind, "status": "True", "message": "192.0.2.1" });
    let addresses = announcement("192.0.2.1");
    agent.may_not("other", MERGE, &addresses, "of the node n1 only")?;
    let podips = json!({ "podIP": "192.0.2.1", "podIPs": [{ "ip": "192.0.2.1" }] });
    for (kind, patch, why) in [
        (REPLACE, status(podips), "no status of pods but"),
        (REPLACE, status(json!({ "containerStatuses": null })), "no status of pods but"),
        (
            MERGE,
            status(json!({ "conditions": [condition(ADDRESSES), condition("example.com/Mine")] })),
            "no status of pods but",
        ),
        (MERGE, status(json!({ "conditions": [{ "type": "Ready", "$patch": "delete" }] })), "no status of pods but"),
        (MERGE, json!({ "metadata": { "labels": { "role": "other" } } }), "no metadata of pods"),
    ] {
        agent.may_not("own", kind, &patch, why)?;
    }
    assert_eq!(said(&agent.patch("own", MERGE, &addresses)?), Some("192.0.2.1"));
    let nothing = status(json!({ "conditions": [{ "type": ADDRESSES, "$patch": "delete" }] }));
    assert_eq!(said(&agent.patch("own", MERGE, &nothing)?), None);
    Ok(())
}

#[test]
fn what_an_agent_says_counts_within_its_nodes_pod_cidrs_only() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "claimants")?;
    namespace.serve("own", "n1")?;
    namespace.serve("other", "n2")?;
    // Its kubelet waits for a volume, and says no addresses.
    let late = namespace.pod("late").on("n1").with("volumes: [{name: v, configMap: {name: missing}}]");
    late.container("volumeMounts: [{name: v, mountPath: /v}]").start()?;
    let from_late = "[{from: [{podSelector: {matchLabels: {role: late}}}]}]";
    namespace.policy("late", &format!("podSelector: {{matchLabels: {{role: other}}}}\ningress: {from_late}"))?;
    // An older pod has it, in the node's pod CIDR.
    let inside = *namespace.addresses("own")?.first().context("its address")?;
    let outside = if inside.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
    let inside = inside.to_string();
    let to = format!("{}/other", namespace.name);
    let counts_as_late = |address: &str| -> Result<bool> {
        let explain = ["/usr/local/bin/sluicectl", "-o", "json", "policy", "explain", "--port", "8080/TCP"];
        let answers = cluster.on("n2", &[&explain[..], &["--from", address, "--to", &to]].concat())?;
        let answer: Value = serde_json::from_str(answers.lines().next().context("an answer")?)?;
        Ok(answer["verdict"] == "allow")
    };
    let agent = Bearer::of(&cluster, &namespace, "n1")?;
    agent.patch("late", MERGE, &announcement(&inside))?;
    until("the other node takes the pod for who has the address", || {
        ensure!(counts_as_late(&inside)?, "{inside} is another's");
        Ok(())
    })?;
    agent.patch("late", MERGE, &announcement(outside))?;
    until("the other node has heard that the pod has the address no more", || {
        ensure!(!counts_as_late(&inside)?, "{inside} is still the pod's");
        Ok(())
    })?;
    ensure!(!counts_as_late(outside)?, "{outside} is led to n1");
    Ok(())
}

#[test]
#[ignore = "of a cluster with a pool"]
fn an_agent_may_take_blocks_for_its_node_and_make_no_other_lease() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "takers")?;
    let agent = Bearer::of(&cluster, &namespace, "n1")?;
    let owner = |node: &str| json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": format!("u-{node}") });
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "sluice-pod-cidr-198.51.100.0-24",
            "labels": { "sluice.dev/pod-cidr": "taken" },
            "ownerReferences": [owner("n1")],
        },
        "spec": { "holderIdentity": "n1" },
    });
    agent.lease("kube-system", &lease)?;
    let (node, owned, kind) = ("for the node n1 only", "blocks are their Nodes'", "no Leases but those of blocks");
    for (path, value, why) in [
        ("/spec/holderIdentity", json!("n2"), node),
        ("/spec", json!({}), node),
        ("/metadata/ownerReferences", json!([owner("n2")]), owned),
        ("/metadata/ownerReferences", json!([owner("n1"), owner("n2")]), owned),
        ("/metadata/ownerReferences", json!([]), owned),
        ("/metadata/ownerReferences/0/kind", json!("Pod"), owned),
        ("/metadata/labels", json!({}), kind),
        ("/metadata/name", json!("kube-scheduler"), kind),
        ("/metadata/name", json!("sluice-pod-cidr-all"), kind),
    ] {
        let mut other = lease.clone();
        *other.pointer_mut(path).with_context(|| format!("no {path}"))? = value;
        let refused = agent.lease("kube-system", &other);
        ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains(why)), "{other}: {refused:?}");
    }
    let mut kept = lease.clone();
    kept["metadata"]["finalizers"] = json!(["example.com/kept"]);
    let refused = agent.lease("kube-system", &kept);
    ensure!(refused.as_ref().is_err_and(|error| error.to_string().contains(owned)), "{refused:?}");
    ensure!(agent.lease("default", &lease).is_err(), "there are others' Leases");
    Ok(())
}
