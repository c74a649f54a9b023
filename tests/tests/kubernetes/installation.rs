//! What becomes of nodes and pods when Sluice is installed, by kubectl and by Helm, and removed.

use anyhow::{Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, Undone, hostname_at, words};
use sluice_tests::lab::until;

/// What cleans nodes.
const UNINSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/overlays/uninstall");
/// The chart.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/helm/sluice");

/// What, in the end, there is again: Sluice as it was installed at first.
fn installed_again(cluster: &Cluster) -> Undone<'_> {
    let and = |command: &str, last: &str| [words(command), vec![last.to_owned()]].concat();
    Undone::by(
        cluster,
        [
            and("delete --ignore-not-found -k", UNINSTALL),
            and("apply -k", &cluster.installation()),
            words("-n kube-system rollout status daemonset/sluice --timeout=240s"),
            words("wait --for=condition=Ready node --all --timeout=120s"),
            // Pods from before have no interface any more.
            words("-n kube-system delete pod -l k8s-app=kube-dns"),
            words("-n kube-system wait --for=condition=Ready pod -l k8s-app=kube-dns --timeout=90s"),
        ],
    )
}

/// What a node has of Sluice, outside the kernel and in it.
fn found(cluster: &Cluster, node: &str) -> Result<Vec<String>> {
    let files = "ls -d /sys/fs/bpf/sluice /run/sluice /var/lib/sluice/* /etc/cni/net.d/*sluice* /opt/cni/bin/* \
                 /usr/local/bin/sluice* 2>/dev/null; ip -o link | grep -oE 'sl[0-9a-f]{12}|sluice_vxlan'; \
                 ip route show table all proto 83; ip -6 route show table all proto 83; true";
    let files = cluster.on(node, &["sh", "-c", files])?;
    Ok(files.lines().map(str::to_owned).chain(cluster.attached(node)?).collect())
}

/// Waits until the DaemonSet that cleans nodes has done so, and looks.
fn nodes_are_clean(cluster: &Cluster) -> Result<()> {
    cluster.rolled_out("sluice-uninstall")?;
    for node in cluster.nodes()? {
        assert_eq!(found(cluster, &node)?, [""; 0], "{node}");
    }
    Ok(())
}

/// Pods on two nodes reach one another.
fn pods_are_connected(cluster: &Cluster) -> Result<()> {
    cluster.nodes_ready()?;
    let namespace = Namespace::new(cluster, "again")?;
    namespace.serve("one", "n1")?;
    namespace.serve("two", "n2")?;
    let two = hostname_at(namespace.addresses("two")?[0], 8080);
    assert_eq!(until("the way is known", || namespace.fetch("one", &two))?, "two");
    Ok(())
}

#[test]
fn removal_leaves_nodes_clean_and_sluice_can_be_installed_again() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "removal")?;
    for node in cluster.nodes()? {
        namespace.serve(&format!("on-{node}"), &node)?;
        let found = found(&cluster, &node)?.join("\n");
        for sign in ["/run/sluice", "/opt/cni/bin/sluice", "eth0", "from_pod", "connect"] {
            ensure!(found.contains(sign), "{sign} is not found on {node} where it should be: {found}");
        }
    }
    let again = installed_again(&cluster);
    cluster.kubectl(&["delete", "-k", &cluster.installation()])?;
    cluster.kubectl(&["apply", "-k", UNINSTALL])?;
    nodes_are_clean(&cluster)?;
    drop(again);
    pods_are_connected(&cluster)
}

#[test]
fn helm_installs_changes_rolls_back_and_removes_sluice() -> Result<()> {
    let cluster = Cluster::alone()?;
    let again = installed_again(&cluster);
    cluster.kubectl(&["delete", "-k", &cluster.installation()])?;
    cluster.kubectl(&["apply", "-k", UNINSTALL])?;
    cluster.rolled_out("sluice-uninstall")?;
    cluster.kubectl(&["delete", "-k", UNINSTALL])?;
    cluster.kubectl(&["wait", "--for=condition=Ready=false", "node", "--all", "--timeout=90s"])?;

    cluster.helm(&["install", "sluice", CHART, "--values", &cluster.values()])?;
    cluster.rolled_out("sluice")?;
    pods_are_connected(&cluster)?;
    let change = |what: &str| {
        cluster.helm(&["upgrade", "sluice", CHART, "--reset-then-reuse-values", "--set", what]).map(|_| ())
    };
    let settings = || cluster.kubectl(&["-n", "kube-system", "get", "configmap", "-o", "yaml"]);
    ensure!(!settings()?.contains("flow_entries: 20000"), "it is another number at first");
    change("config.flow_entries=20000")?;
    cluster.rolled_out("sluice")?;
    ensure!(settings()?.contains("flow_entries: 20000"), "the setting is changed: {}", settings()?);
    pods_are_connected(&cluster)?;
    cluster.helm(&["rollback", "sluice"])?;
    cluster.rolled_out("sluice")?;
    ensure!(!settings()?.contains("flow_entries: 20000"), "the setting is as it was");
    pods_are_connected(&cluster)?;

    let refused = change("config.routing=somehow");
    ensure!(refused.is_err(), "what makes no sense is refused");
    change("uninstall=true")?;
    nodes_are_clean(&cluster)?;
    cluster.helm(&["uninstall", "sluice"])?;
    let left = [
        "-n",
        "kube-system",
        "get",
        "all,serviceaccount,configmap,role,rolebinding,clusterrole,clusterrolebinding,validatingadmissionpolicy,\
         validatingadmissionpolicybinding",
        "-l",
        "app.kubernetes.io/name=sluice",
        "-o",
        "name",
    ];
    until("nothing of it is left", || {
        let left = cluster.kubectl(&left)?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    drop(again);
    pods_are_connected(&cluster)
}
