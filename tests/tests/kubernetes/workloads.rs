//! What controllers make of pods: names that last, pods that end, containers that come before others.

use anyhow::{Result, ensure};
use sluice_tests::kubernetes::{AGNHOST, Cluster, Namespace, hostname_at};
use sluice_tests::lab::{until, until_so};

#[test]
fn members_of_a_stateful_set_are_found_by_name_whatever_their_addresses() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "stateful")?;
    namespace.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{clusterIP: None, selector: {{role: web}}, ports: [{{port: 8080}}]}}\n\
         ---\napiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec:\n  serviceName: web\n  replicas: 2\n  \
         podManagementPolicy: Parallel\n  selector: {{matchLabels: {{role: web}}}}\n  template:\n    \
         metadata: {{labels: {{role: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      \
         topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, \
         labelSelector: {{matchLabels: {{role: web}}}}}}]\n      containers:\n      - {{name: c, image: \"{AGNHOST}\", \
         args: [netexec], readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}}}\n"
    ))?;
    namespace.kubectl(&["rollout", "status", "statefulset/web", "--timeout=90s"])?;
    let (first, second) = (".spec.nodeName", "pod/web-1");
    assert_ne!(namespace.field("pod/web-0", first)?, namespace.field(second, first)?, "one on each node");
    let calls = |from: &str, to: &str| -> Result<()> {
        let answer =
            until("the name leads there", || namespace.fetch(from, &format!("http://{to}.web:8080/hostname")))?;
        ensure!(answer == to, "{answer}");
        Ok(())
    };
    calls("web-0", "web-1")?;
    calls("web-1", "web-0")?;
    let before = (namespace.addresses("web-0")?, namespace.field("pod/web-0", ".metadata.uid")?);
    namespace.kubectl(&["delete", "pod", "web-0"])?;
    until_so("there is another", || {
        Ok(namespace.field("pod/web-0", ".metadata.uid").is_ok_and(|uid| uid != before.1))
    })?;
    namespace.ready("pod/web-0")?;
    ensure!(namespace.addresses("web-0")? != before.0, "addresses that were just given back rest");
    calls("web-0", "web-1")?;
    calls("web-1", "web-0")
}

#[test]
fn the_address_of_a_pod_that_has_ended_is_anothers_with_its_policies() -> Result<()> {
    let cluster = Cluster::alone()?;
    let namespace = Namespace::new(&cluster, "ended")?;
    let begin_anew = || cluster.on("n1", &["sh", "-c", "rm -f /var/lib/sluice/addresses/.last-*"]);
    namespace.serve("server", "n2")?;
    let server = hostname_at(namespace.addresses("server")?[0], 8080);
    let from = |role: &str| {
        namespace.policy(
            role,
            &format!(
                "podSelector: {{matchLabels: {{role: server}}}}\ningress: [{{from: [{{podSelector: {{matchLabels: \
                 {{role: {role}}}}}}}]}}]"
            ),
        )
    };
    from("worker")?;
    begin_anew()?;
    namespace.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: job}}\nspec:\n  template:\n    metadata: {{labels: {{role: worker}}}}\n    \
         spec:\n      nodeName: n1\n      restartPolicy: Never\n      containers:\n      - name: c\n        \
         image: \"{AGNHOST}\"\n        command: [curl, -sSfg, --retry, \"5\", --retry-all-errors, --connect-timeout, \"2\", \"{server}\"]\n"
    ))?;
    namespace.kubectl(&["wait", "--for=condition=Complete", "--timeout=90s", "job/job"])?;
    let worker = namespace.kubectl(&["get", "pod", "-l", "role=worker", "-o", "name"])?;
    let worker = worker.trim().trim_start_matches("pod/");
    assert_eq!(namespace.kubectl(&["logs", worker])?, "server");
    let address = namespace.addresses(worker)?[0];
    let kept = format!("/var/lib/sluice/addresses/{address}");
    until_so("its address is given back", || Ok(cluster.on("n1", &["test", "-e", &kept]).is_err()))?;

    begin_anew()?;
    namespace.serve("newcomer", "n1")?;
    assert_eq!(namespace.addresses("newcomer")?[0], address);
    assert_eq!(namespace.addresses(worker)?[0], address, "the ended one has it too");
    namespace.is_cut_off("newcomer", &server)?;
    from("newcomer")?;
    assert_eq!(until("the newcomer is let in", || namespace.fetch("newcomer", &server))?, "server");
    let newcomer = hostname_at(address, 8080);
    assert_eq!(namespace.fetch("server", &newcomer)?, "newcomer");
    namespace.kubectl(&["delete", "job", "job"])?;
    until_so("the ended one is gone", || Ok(namespace.field(&format!("pod/{worker}"), ".metadata.name").is_err()))?;
    assert_eq!(namespace.fetch("server", &newcomer)?, "newcomer");
    assert_eq!(namespace.fetch("newcomer", &server)?, "server");
    Ok(())
}

#[test]
fn containers_that_come_before_others_have_the_network_and_its_policies() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "init")?;
    namespace.deny_everything()?;
    namespace.serve("open", "n1")?;
    namespace.serve("closed", "n1")?;
    namespace.service("open", "")?;
    namespace.policy(
        "in",
        "podSelector: {matchLabels: {role: open}}\ningress: [{from: [{podSelector: {matchLabels: {role: prepared}}}]}]",
    )?;
    namespace.policy(
        "out",
        "podSelector: {matchLabels: {role: prepared}}\npolicyTypes: [Egress]\n\
         egress: [{to: [{podSelector: {matchLabels: {role: open}}}]}]",
    )?;
    let (open, closed) = (namespace.addresses("open")?[0], namespace.addresses("closed")?[0]);
    let service = namespace.field("service/open", ".spec.clusterIP")?.parse()?;
    let ask = |url: &str| format!("test \"$(curl -sSfg --max-time 8 {url})\" = ");
    let script = [
        format!("{}open", ask(&hostname_at(open, 8080))),
        format!("{}open", ask(&hostname_at(service, 80))),
        format!("{}prepared", ask("http://localhost:8090/hostname")),
        format!("! curl -sSfg --connect-timeout 1 {}", hostname_at(closed, 8080)),
    ];
    let script = script.join(" && ");
    namespace
        .pod("prepared")
        .on("n2")
        .with(&format!(
            "restartPolicy: Never\ninitContainers:\n- name: sidecar\n  image: \"{AGNHOST}\"\n  restartPolicy: Always\n  \
             args: [netexec, --http-port=8090, --udp-port=8091]\n  \
             startupProbe: {{httpGet: {{path: /, port: 8090}}, periodSeconds: 1, failureThreshold: 30}}\n\
             - name: init\n  image: \"{AGNHOST}\"\n  command: [sh, -xc, '{script}']"
        ))
        .start()?;
    let outcome = namespace.kubectl(&[
        "wait",
        "--for=jsonpath={.status.initContainerStatuses[1].state.terminated}",
        "--timeout=90s",
        "pod/prepared",
    ]);
    let code = ".status.initContainerStatuses[1].state.terminated.exitCode";
    assert_eq!(
        namespace.field("pod/prepared", code)?,
        "0",
        "{outcome:?} {}",
        namespace.kubectl(&["logs", "prepared", "-c", "init"])?
    );
    namespace.ready("pod/prepared")?;
    assert_eq!(
        namespace.fetch("prepared", "http://localhost:8090/hostname")?,
        "prepared",
        "the sidecar is there still"
    );
    assert_eq!(namespace.fetch("prepared", &hostname_at(open, 8080))?, "open");
    Ok(())
}
