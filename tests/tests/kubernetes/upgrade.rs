//! An upgrade of Sluice and its undoing, while everything goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;
use sluice_tests::kubernetes::{AGNHOST, Asking, Cluster, Namespace, Undone, datagram_to, hostname_at, words};
use sluice_tests::lab::traffic::{Steady, udp};
use sluice_tests::lab::{until, until_so};

/// Where those listen whom only Services lead to: one that pods ask, and one that clients outside do.
const INSIDE: u16 = 7000;
const OUTSIDE: u16 = 7001;

/// Flows of every kind, each of which policies permit.
struct Flows<'a> {
    steady: Vec<(&'static str, Steady)>,
    /// By new connections, whose sockets are translated.
    asking: Asking<'a>,
}

impl<'a> Flows<'a> {
    /// Starts them between `one` and `near` on n1, `two` on n2 and clients outside.
    fn start(cluster: &Cluster, namespace: &'a Namespace<'_>) -> Result<Self> {
        let (one, near, two) = (namespace.network("one")?, namespace.network("near")?, namespace.network("two")?);
        let outside = cluster.network("cp")?;
        let first = |pod: &str| Ok::<_, anyhow::Error>(namespace.addresses(pod)?[0]);
        let (neighbour, remote, outsider) = (first("near")?, first("two")?, cluster.outsider()?);
        let service = namespace.field("service/two", ".spec.clusterIP")?.parse()?;
        let node = cluster.address("n1")?;
        let port = |name: &str| -> Result<u16> {
            let path = format!(".spec.ports[?(@.name=='{name}')].nodePort");
            namespace.field("service/two", &path)?.parse().context("understanding a node port")
        };
        // What is asked is known on all ways, once it is on these.
        let web = hostname_at(service, 80);
        until("the Service is known", || namespace.fetch("one", &web))?;
        let datagram = datagram_to(node, port("udp")?);
        let datagram = datagram.each_ref().map(String::as_str);
        until("the node port is known", || {
            ensure!(cluster.outside(&datagram)? == "two", "no answer");
            Ok(())
        })?;
        until("policies are known", || namespace.fetch("one", &hostname_at(neighbour, 8080)))?;
        until("a node speaks for its pods to others", || {
            assert_eq!(udp(&one, &outside, outsider, 100)?, node);
            Ok(())
        })?;

        let by = |at, port| SocketAddr::new(at, port);
        let steady = vec![
            ("to its neighbour", Steady::start(&one, &near, neighbour)?),
            ("to another node", Steady::start(&one, &two, remote)?),
            ("connected to another node", Steady::stream(&one, &two, remote)?),
            ("to a Service", Steady::by_service(&one, &two, INSIDE, by(service, INSIDE))?),
            ("to the world", Steady::start(&one, &outside, outsider)?),
            ("connected to the world", Steady::stream(&one, &outside, outsider)?),
            ("to a node port", Steady::by_service(&outside, &two, OUTSIDE, by(node, port("outside")?))?),
        ];
        // In less than a second nobody asks twice.
        let asking = Asking::start(namespace, "one", "--connect-timeout 0.9 --max-time 5", &web)?;
        Ok(Self { steady, asking })
    }

    fn go_on(&self, when: &'static str) -> Result<()> {
        self.steady
            .iter()
            .try_for_each(|(what, flow)| flow.goes_on(100).with_context(|| format!("the flow {what}, {when}")))
    }

    /// Ends them; not one packet was lost.
    fn are_whole(self) -> Result<()> {
        for (what, flow) in self.steady {
            let (sent, answered) = flow.stop().with_context(|| format!("the flow {what}"))?;
            ensure!(sent == answered, "the flow {what}: {answered} of {sent} questions were answered");
        }
        let answers = self.asking.stop().context("new connections")?;
        ensure!(answers.len() == 1 && answers["two"] > 10, "new connections: {answers:?}");
        Ok(())
    }
}

/// The pods, a Service of one of them, and policies that permit what goes between them and nothing else.
fn pods(cluster: &Cluster, namespace: &Namespace<'_>) -> Result<()> {
    for (name, node) in [("one", "n1"), ("near", "n1"), ("two", "n2")] {
        namespace.pod(name).on(node).start()?;
    }
    namespace.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: two}}\nspec:\n  type: NodePort\n  selector: {{role: two}}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: 8080}}\n  - {{name: udp, protocol: UDP, port: 81, targetPort: 8081}}\n  \
         - {{name: inside, protocol: UDP, port: {INSIDE}}}\n  - {{name: outside, protocol: UDP, port: {OUTSIDE}}}\n"
    ))?;
    namespace.deny_everything()?;
    let block = |address| format!("{{ipBlock: {{cidr: \"{}\"}}}}", IpNet::from(address));
    let (outsider, node) = (cluster.outsider()?, cluster.address("n1")?);
    namespace.policy(
        "out",
        &format!(
            "podSelector: {{matchLabels: {{role: one}}}}\npolicyTypes: [Egress]\n\
             egress: [{{to: [{{podSelector: {{}}}}, {}]}}]",
            block(outsider)
        ),
    )?;
    namespace.policy(
        "in",
        &format!(
            "podSelector: {{matchExpressions: [{{key: role, operator: In, values: [near, two]}}]}}\n\
             ingress: [{{from: [{{podSelector: {{matchLabels: {{role: one}}}}}}, {}, {}]}}]",
            block(outsider),
            block(node)
        ),
    )?;
    namespace.all_ready()
}

/// Has pods come and go on all nodes until it is told to stop; gives how often they did.
fn come_and_go(namespace: &Namespace<'_>, stop: &AtomicBool) -> Result<u32> {
    namespace.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  replicas: 0\n  \
         selector: {{matchLabels: {{role: many}}}}\n  template:\n    metadata: {{labels: {{role: many}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      \
         topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, \
         labelSelector: {{matchLabels: {{role: many}}}}}}]\n      containers: [{{name: c, image: \"{AGNHOST}\", args: [pause]}}]\n"
    ))?;
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        namespace.kubectl(&["scale", "deployment/many", "--replicas=4"])?;
        namespace.kubectl(&["rollout", "status", "deployment/many", "--timeout=120s"])?;
        namespace.kubectl(&["scale", "deployment/many", "--replicas=0"])?;
        until_so("they are gone", || {
            Ok(namespace.kubectl(&["get", "pods", "-l", "role=many", "-o", "name"])?.is_empty())
        })?;
        turns += 1;
    }
    Ok(turns)
}

/// What nodes have of an image: the plugin, and the generation of the programs.
fn installed(cluster: &Cluster) -> Result<Vec<[String; 2]>> {
    let on = |node: &String, command: &str| cluster.on(node, &["sh", "-c", command]);
    let each = |node: &String| {
        Ok([on(node, "sha256sum </opt/cni/bin/sluice")?, on(node, "ls /sys/fs/bpf/sluice/v*/programs")?])
    };
    cluster.nodes()?.iter().map(each).collect()
}

/// Since when each node is Ready.
fn ready_since(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let nodes = cluster.get(&["nodes"])?["items"].clone();
    let since = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.into_iter().find(|it| it["type"] == "Ready" && it["status"] == "True");
        let ready = ready.with_context(|| format!("{} is not Ready", node["metadata"]["name"]))?;
        Ok((node["metadata"]["name"].to_string(), ready["lastTransitionTime"].to_string()))
    };
    nodes.as_array().into_iter().flatten().map(since).collect()
}

#[test]
fn an_upgrade_and_its_undoing_cost_no_packet() -> Result<()> {
    let cluster = Cluster::alone()?;
    let another = cluster.load_another_image()?;
    let namespace = Namespace::new(&cluster, "upgrade")?;
    pods(&cluster, &namespace)?;
    let flows = Flows::start(&cluster, &namespace)?;
    flows.go_on("at first")?;
    let before = installed(&cluster)?;
    let since = ready_since(&cluster)?;

    let images = |install: &str, agent: &str| {
        words(&format!("-n kube-system set image daemonset/sluice install={install} agent={agent}"))
    };
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let own = cluster.kubectl(&["-n", "kube-system", "get", "daemonset", "sluice", "-o", path])?;
    let undone = Undone::by(
        &cluster,
        [images(&own, &own), words("-n kube-system rollout status daemonset/sluice --timeout=240s")],
    );
    let change = |command: &[&str]| {
        cluster.kubectl(command)?;
        cluster.rolled_out("sluice")
    };
    let stop = AtomicBool::new(false);
    let turns = thread::scope(|scope| {
        let churn = scope.spawn(|| come_and_go(&namespace, &stop));
        let outcome = (|| {
            let upgrade = images(another, another);
            change(&upgrade.iter().map(String::as_str).collect::<Vec<_>>()).context("the upgrade")?;
            for (node, (old, new)) in before.iter().zip(installed(&cluster)?).enumerate() {
                ensure!(old[0] != new[0] && old[1] != new[1], "node {node} has what it had: {new:?}");
            }
            flows.go_on("by another image")?;
            change(&["-n", "kube-system", "rollout", "undo", "daemonset/sluice"]).context("its undoing")?;
            until("nodes have again what they had", || {
                let now = installed(&cluster)?;
                ensure!(now == before, "{now:?} instead of {before:?}");
                Ok(())
            })?;
            flows.go_on("by the first image again")
        })();
        stop.store(true, Ordering::Relaxed);
        let turns = churn.join().expect("no panic").context("pods that come and go");
        outcome.and(turns)
    })?;
    ensure!(turns > 0, "pods came and went meanwhile");
    flows.are_whole()?;
    let now = ready_since(&cluster)?;
    ensure!(now == since, "nodes were NotReady meanwhile: {now:?} instead of {since:?}");
    drop(undone);
    Ok(())
}
