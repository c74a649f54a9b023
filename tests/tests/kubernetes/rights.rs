//! Agents whose account lacks a right that the manifests give it. These tests are alone.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::kubernetes::{Cluster, Namespace, Undone, hostname_at};
use sluice_tests::lab::{until, until_so};

/// Takes a verb on a resource out of the agents' role, until the result goes.
fn without<'a>(cluster: &'a Cluster, verb: &str, resource: &str) -> Result<Undone<'a>> {
    let (kind, part) = resource.split_once('/').unwrap_or((resource, ""));
    let may = || {
        let account = "--as=system:serviceaccount:kube-system:sluice-agent";
        let part = format!("--subresource={part}");
        // It fails where it says no.
        cluster.kubectl(&["auth", "can-i", verb, kind, &part, "--all-namespaces", account]).is_ok()
    };
    ensure!(may(), "agents may not {verb} {resource} anyway");
    let rules = cluster.get(&["clusterrole", "sluice-agent"])?["rules"].take();
    let set = |rules: &Value| {
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        ["patch", "clusterrole", "sluice-agent", "--type=json", "-p", &patch].map(str::to_owned).to_vec()
    };
    let undone = Undone::by(cluster, [set(&rules)]);
    let fewer = rules.as_array().into_iter().flatten().filter_map(|rule| less(rule, verb, resource)).collect();
    cluster.kubectl(&set(&fewer).iter().map(String::as_str).collect::<Vec<_>>())?;
    until_so("the API server refuses it", || Ok(!may()))?;
    Ok(undone)
}

/// A rule of a role without a verb, if it is about that resource; nothing where it has no other.
fn less(rule: &Value, verb: &str, resource: &str) -> Option<Value> {
    let list = |field: &str| rule[field].as_array().cloned().unwrap_or_default();
    if !list("resources").contains(&json!(resource)) {
        return Some(rule.clone());
    }
    let verbs: Vec<_> = list("verbs").into_iter().filter(|it| it != verb).collect();
    let mut less = rule.clone();
    less["verbs"] = json!(verbs);
    (!verbs.is_empty()).then_some(less)
}

/// The agent of n1, as whoever has to do with it sees it.
struct Agent<'a> {
    cluster: &'a Cluster,
}

impl Agent<'_> {
    fn pod(&self) -> Result<String> {
        let name = self.cluster.agent_on("n1")?["metadata"]["name"].take();
        name.as_str().map(|name| format!("pod/{name}")).context("its name")
    }

    /// Has another take its place.
    fn replace(&self) -> Result<()> {
        self.cluster.kubectl(&["-n", "kube-system", "delete", &self.pod()?])?;
        self.cluster.rolled_out("sluice")
    }

    /// What it says of itself.
    fn status(&self) -> Result<Value> {
        let of = ["-n", "kube-system", "exec", &self.pod()?, "-c", "agent", "--", "sluicectl", "-o", "json", "status"];
        serde_json::from_str(&self.cluster.kubectl(&of)?).context("understanding sluicectl")
    }

    /// Waits until it has a problem that says all this, in its log too; it is ready all the same.
    fn complains(&self, parts: &[&str]) -> Result<()> {
        let says_all = |text: &str| parts.iter().all(|part| text.contains(part));
        until("the status says it", || {
            let status = self.status()?;
            let problems = status["problems"].as_array().into_iter().flatten().filter_map(Value::as_str);
            ensure!(status["ready"] == true && problems.into_iter().any(says_all), "{status}");
            Ok(())
        })?;
        let log = self.cluster.kubectl(&["-n", "kube-system", "logs", &self.pod()?, "-c", "agent"])?;
        ensure!(log.lines().any(says_all), "{log}");
        self.cluster.rolled_out("sluice").context("its pod is Ready")
    }

    fn is_content(&self) -> Result<()> {
        until("the status has no problem", || {
            let status = self.status()?;
            ensure!(status["ready"] == true && status["problems"] == json!([]), "{status}");
            Ok(())
        })
    }
}

/// `server` lets in who has a role.
fn only(namespace: &Namespace<'_>, role: &str) -> Result<()> {
    namespace.policy(
        "server",
        &format!(
            "podSelector: {{matchLabels: {{role: server}}}}\n\
             ingress: [{{from: [{{podSelector: {{matchLabels: {{role: {role}}}}}}}]}}]"
        ),
    )
}

#[test]
fn an_agent_that_may_not_watch_policies_goes_by_those_it_knows_and_says_so() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "unwatched")?;
    namespace.serve("server", "n1")?;
    namespace.serve("friend", "n2")?;
    namespace.serve("stranger", "n2")?;
    let server = hostname_at(namespace.addresses("server")?[0], 8080);
    only(&namespace, "friend")?;
    namespace.is_cut_off("stranger", &server)?;
    let agent = Agent { cluster: &cluster };
    agent.is_content()?;

    let refused = without(&cluster, "watch", "networkpolicies")?;
    // A watch that goes on is not asked again.
    agent.replace()?;
    agent.complains(&["list and watch on networkpolicies", "cannot watch resource", "stays in force"])?;
    assert_eq!(namespace.fetch("friend", &server)?, "server");
    namespace.is_cut_off("stranger", &server)?;
    namespace.pod("newcomer").on("n1").serve().context("pods still start")?;
    assert_eq!(namespace.fetch("newcomer", &hostname_at(namespace.addresses("friend")?[0], 8080))?, "friend");
    namespace.is_cut_off("newcomer", &server)?;

    only(&namespace, "stranger")?;
    namespace.is_cut_off("stranger", &server).context("it hears of no change")?;
    drop(refused);
    assert_eq!(until("the agent hears of the change", || namespace.fetch("stranger", &server))?, "server");
    namespace.is_cut_off("friend", &server)?;
    agent.is_content()
}

#[test]
fn an_agent_that_may_not_say_the_addresses_of_pods_leaves_it_to_kubelets_and_says_so() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "unsaid")?;
    namespace.serve("server", "n2")?;
    namespace.serve("old", "n1")?;
    only(&namespace, "friend")?;
    let server = hostname_at(namespace.addresses("server")?[0], 8080);
    let agent = Agent { cluster: &cluster };
    agent.is_content()?;

    let refused = without(&cluster, "patch", "pods/status")?;
    let friends: Vec<String> = (1..=4).map(|number| format!("friend-{number}")).collect();
    for name in &friends {
        namespace.pod(name).on("n1").role("friend").start()?;
    }
    namespace.all_ready()?;
    agent.complains(&["say which addresses new pods have", "verb patch on pods/status", "some seconds later"])?;
    for name in &friends {
        assert_eq!(until("its kubelet has said it", || namespace.fetch(name, &server))?, "server");
        let said = namespace.field(&format!("pod/{name}"), ".status.conditions[?(@.type=='sluice.dev/Addresses')]");
        ensure!(said.as_ref().is_ok_and(String::is_empty), "the agent has said it all the same: {said:?}");
    }
    namespace.is_cut_off("old", &server)?;
    assert_eq!(namespace.fetch("server", &hostname_at(namespace.addresses("old")?[0], 8080))?, "old");

    drop(refused);
    namespace.pod("friend-5").on("n1").role("friend").serve()?;
    agent.is_content()?;
    assert_eq!(until("it is let in", || namespace.fetch("friend-5", &server))?, "server");
    Ok(())
}
