//! Policies of administrators, whose kind a cluster may have or not.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_tests::kubernetes::{Cluster, Namespace, Undone, hostname_at, words};
use sluice_tests::lab::until;

/// The kind's own name.
const KIND: &str = "clusternetworkpolicies.policy.networking.k8s.io";

/// The kind's definition. API servers before 1.31 do not know what one of its rules asks (`isCIDR`), and refuse it: there the rule
/// is that anything will do.
fn definition(cluster: &Cluster) -> Result<PathBuf> {
    let published = cluster.made("manifests/clusternetworkpolicies.yaml");
    if cluster.minor_version()? >= 31 {
        return Ok(published);
    }
    let text = fs::read_to_string(&published).with_context(|| format!("reading {}", published.display()))?;
    let place = cluster.place("clusternetworkpolicies.yaml");
    fs::write(&place, text.replace("isCIDR(self)", "'true'"))
        .with_context(|| format!("writing {}", place.display()))?;
    Ok(place)
}

/// Has the API server know the kind, until the result goes.
fn introduce(cluster: &Cluster) -> Result<Undone<'_>> {
    let undone = Undone::by(cluster, [words(&format!("delete crd {KIND} --ignore-not-found --timeout=60s"))]);
    // It is too long for the annotation of a client's own apply.
    cluster.kubectl(&["apply", "--server-side", "-f", &definition(cluster)?.display().to_string()])?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{KIND}")])?;
    Ok(undone)
}

#[test]
fn policies_of_administrators_are_enforced_from_when_there_is_such_a_kind_until_it_goes() -> Result<()> {
    let cluster = Cluster::alone()?;
    let (served, guests) = (Namespace::new(&cluster, "admin")?, Namespace::new(&cluster, "guests")?);
    served.serve("server", "n1")?;
    served.serve("friend", "n2")?;
    guests.serve("guest", "n2")?;
    let server = hostname_at(served.addresses("server")?[0], 8080);
    let let_in = |turn: &str| {
        let answer = until("guests are let in", || guests.fetch("guest", &server));
        ensure!(answer? == "server", "{turn}");
        served.fetch("friend", &server).with_context(|| format!("friends, {turn}")).map(|_| ())
    };
    let named = |namespace: &Namespace<'_>| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
    let policy = |name: &str, priority: u16, rules: serde_json::Value| {
        let mut policy = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name},
            "spec": {"tier": "Admin", "priority": priority, "subject": {"namespaces": named(&served)}},
        });
        if let (Some(spec), Some(rules)) = (policy["spec"].as_object_mut(), rules.as_object()) {
            spec.extend(rules.clone());
        }
        until("the API server takes the policy", || cluster.apply(&policy.to_string()))
    };
    let keep_out = json!({"ingress": [{"name": "out", "action": "Deny", "from": [{"namespaces": named(&guests)}]}]});

    let_in("without the kind")?;
    // Twice: what is not there any more may come again.
    for turn in ["at first", "again"] {
        let known = introduce(&cluster)?;
        policy("no-guests", 1, keep_out.clone())?;
        guests.is_cut_off("guest", &server).context(turn)?;
        ensure!(served.fetch("friend", &server)? == "server", "friends are let in, {turn}");
        cluster.kubectl(&["delete", KIND, "no-guests"])?;
        let_in("without the policy")?;
        policy("no-guests", 1, keep_out.clone())?;
        guests.is_cut_off("guest", &server).context(turn)?;
        drop(known);
        let_in("once the kind is gone")?;
    }
    Ok(())
}

#[test]
fn a_policys_status_says_what_of_it_is_not_supported() -> Result<()> {
    let cluster = Cluster::alone()?;
    let _known = introduce(&cluster)?;
    let rule = |to: serde_json::Value| {
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "by-name"},
            "spec": {
                "tier": "Admin", "priority": 7,
                "subject": {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "nowhere"}}},
                "egress": [{"name": "names", "action": "Accept", "to": [to]}],
            },
        })
    };
    let is_said = |status: &str, what: &str| {
        until("the status says it", || {
            let conditions = cluster.get(&[KIND, "by-name"])?["status"]["conditions"].clone();
            let said = conditions.as_array().into_iter().flatten();
            let said = said.filter(|it| it["type"] == "sluice.dev/Supported" && it["status"] == status);
            let message = said.map(|it| it["message"].to_string()).next().with_context(|| conditions.to_string())?;
            ensure!(message.contains(what), "{message}");
            Ok(())
        })
    };
    until("the API server takes the policy", || {
        cluster.apply(&rule(json!({"domainNames": ["example.com."]})).to_string())
    })?;
    is_said("False", "spec.egress[0].to[0].domainNames")?;
    cluster.apply(&rule(json!({"networks": ["192.0.2.0/24"]})).to_string())?;
    is_said("True", "")
}
