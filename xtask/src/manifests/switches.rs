//! What each value of the chart is for, and what values it refuses.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::chart::Chart;
use super::objects::{Objects, list, texts};

/// Who installs may write where plugins are.
const INSTALL: [&str; 1] = ["DAC_OVERRIDE"];
/// Who installs and mounts.
const MOUNT: [&str; 4] = ["DAC_OVERRIDE", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"];
/// Without these there is no agent.
const AGENT: [&str; 3] = ["BPF", "NET_ADMIN", "PERFMON"];
/// With these it enters pods.
const ENTER: [&str; 4] = ["BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN"];

/// Looks at what some values of the chart do.
type Case = fn(&mut Tried) -> Result<()>;

/// What does not do what it is for, or is not looked at here.
///
/// # Errors
/// Where the chart cannot be read.
pub fn problems(chart: &Chart) -> Result<Vec<String>> {
    let mut tried = Tried { chart, values: BTreeSet::new() };
    let cases: [(&str, Case); 13] = [
        ("by default", by_default),
        ("rights", rights),
        ("confinement", confinement),
        ("image", image),
        ("place", place),
        ("labels", labels),
        ("directories", directories),
        ("settings", settings),
        ("probes", probes),
        ("metrics", metrics),
        ("pool", pool),
        ("uninstall", uninstall),
        ("refusals", refusals),
    ];
    let mut problems = Vec::new();
    for (name, case) in cases {
        problems.extend(case(&mut tried).err().map(|error| format!("The chart ({name}): {error:#}")));
    }
    // What comes after something that fails is not tried.
    if !problems.is_empty() {
        return Ok(problems);
    }
    let untried = leaves(&chart.values()?).into_iter().filter(|it| !is_among(it, &tried.values));
    problems
        .extend(untried.map(|it| format!("Nothing tries the chart's {it}: add it to xtask/src/manifests/switches.rs")));
    Ok(problems)
}

/// The chart, and the values that it was given.
struct Tried<'a> {
    chart: &'a Chart,
    values: BTreeSet<String>,
}

impl Tried<'_> {
    /// What comes of values; they are `KEY=VALUE`.
    fn with(&mut self, values: &[&str]) -> Result<Objects> {
        let keys = values.iter().filter_map(|it| it.split_once('=')).map(|(key, _)| key.to_owned());
        self.values.extend(keys);
        let objects = Objects(self.chart.render(values)?.objects()?);
        objects.are_sound().with_context(|| format!("with {values:?}"))?;
        Ok(objects)
    }
}

fn by_default(chart: &mut Tried) -> Result<()> {
    let all = chart.with(&["apiServer=https://[2001:db8::1]:6443"])?;
    let variables = all.get("ConfigMap", "sluice-env").context("there is no ConfigMap sluice-env")?;
    is(&variables["data"]["SLUICE_API_SERVER"], json!("https://[2001:db8::1]:6443"))?;
    ensure!(all.get("DaemonSet", "sluice").is_some(), "there is no DaemonSet sluice");
    for kind in ["Role", "RoleBinding", "Service"] {
        ensure!(all.count(kind) == 0, "there is a {kind} that nobody has asked for");
    }
    Ok(())
}

fn rights(chart: &mut Tried) -> Result<()> {
    let all = chart.with(&["mount=true", "enterPods=true", "lockedMemory=false"])?;
    may(&all, "install", &MOUNT)?;
    may(&all, "agent", &ENTER)?;
    is(all.mounted("install", "/host/proc")?, json!("/proc"))?;
    is(&all.pod()?["spec"]["automountServiceAccountToken"], json!(false))?;
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    ensure!(all.mounted("agent", ACCOUNT).is_ok(), "the agent has no token");
    ensure!(all.mounted("install", ACCOUNT).is_err(), "install has the agent's token");
    is(all.mounted("agent", "/var/run/netns")?, json!("/var/run/netns"))?;

    let all = chart.with(&["mount=false"])?;
    may(&all, "install", &INSTALL)?;
    may(&all, "agent", &ENTER)?;
    ensure!(all.mounted("install", "/host/proc").is_err(), "install has the node's /proc");
    let install = all.container("install")?;
    ensure!(!texts(&install["command"]).any(|it| it.starts_with("--host-proc")), "install is to mount");
    is(&install["securityContext"]["appArmorProfile"], Value::Null)?;

    let all = chart.with(&["enterPods=false"])?;
    may(&all, "install", &MOUNT)?;
    may(&all, "agent", &AGENT)?;
    ensure!(all.mounted("agent", "/var/run/netns").is_err(), "the agent has pods' namespaces");

    let all = chart.with(&["mount=false", "enterPods=false"])?;
    ensure!(!json!(all.0).to_string().contains("SYS_"), "something has SYS_ADMIN or its like");

    let all = chart.with(&["lockedMemory=true"])?;
    may(&all, "agent", &[&ENTER[..], &["SYS_RESOURCE"]].concat())
}

/// What works on nodes is confined alike, whether it is there to stay or to remove.
fn confinement(chart: &mut Tried) -> Result<()> {
    let values = ["seccompProfile.type=Unconfined", "seLinuxOptions.type=mine_t", "extraCapabilities={FOWNER}"];
    for (uninstall, containers) in [("uninstall=false", &["install", "agent"][..]), ("uninstall=true", &["uninstall"])]
    {
        let all = chart.with(&[uninstall])?;
        is(&all.pod()?["spec"]["securityContext"]["seccompProfile"], json!({ "type": "RuntimeDefault" }))?;
        is(&all.pod()?["spec"]["securityContext"]["seLinuxOptions"], json!({ "type": "spc_t" }))?;
        let all = chart.with(&[&values[..], &[uninstall]].concat())?;
        is(&all.pod()?["spec"]["securityContext"]["seccompProfile"], json!({ "type": "Unconfined" }))?;
        is(&all.pod()?["spec"]["securityContext"]["seLinuxOptions"], json!({ "type": "mine_t" }))?;
        for container in containers {
            let has = all.container(container)?["securityContext"]["capabilities"]["add"].clone();
            ensure!(texts(&has).any(|it| it == "FOWNER"), "{container} may not what was added: {has}");
        }
    }
    Ok(())
}

fn image(chart: &mut Tried) -> Result<()> {
    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let digest = format!("image.digest={DIGEST}");
    let name = ["image.repository=registry.example/net/sluice", "image.tag=v7", "image.pullPolicy=Always"];
    let secrets = "image.pullSecrets={one,two}";
    for (uninstall, container) in [("uninstall=false", "agent"), ("uninstall=true", "done")] {
        // All containers have the same.
        let all = chart.with(&[&name[..], &[uninstall]].concat())?;
        is(&all.container(container)?["image"], json!("registry.example/net/sluice:v7"))?;
        is(&all.container(container)?["imagePullPolicy"], json!("Always"))?;
        let all = chart.with(&[&digest, secrets, uninstall])?;
        let version = env!("CARGO_PKG_VERSION");
        is(&all.container(container)?["image"], json!(format!("sluice.invalid/sluice:{version}@{DIGEST}")))?;
        is(&all.pod()?["spec"]["imagePullSecrets"], json!([{ "name": "one" }, { "name": "two" }]))?;
    }
    Ok(())
}

/// What runs, and what cleans, is on the same nodes.
fn place(chart: &mut Tried) -> Result<()> {
    let place = [
        "priorityClassName=mine",
        "nodeSelector.disk=ssd",
        r"nodeSelector.kubernetes\.io/os=null",
        "tolerations[0].key=gpu",
        "tolerations[0].operator=Exists",
    ];
    const TERM: &str = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]";
    let affinity = [("key", "type"), ("operator", "NotIn"), ("values[0]", "virtual")]
        .map(|(field, value)| format!("{TERM}.matchExpressions[0].{field}={value}"));
    let place: Vec<_> = place.into_iter().chain(affinity.iter().map(String::as_str)).collect();
    for uninstall in ["uninstall=false", "uninstall=true"] {
        let all = chart.with(&[&place[..], &[uninstall]].concat())?;
        let pod = &all.pod()?["spec"];
        is(&pod["priorityClassName"], json!("mine"))?;
        is(&pod["nodeSelector"], json!({ "disk": "ssd" }))?;
        is(&pod["tolerations"], json!([{ "key": "gpu", "operator": "Exists" }]))?;
        let terms = json!([{ "matchExpressions": [{ "key": "type", "operator": "NotIn", "values": ["virtual"] }] }]);
        let required = json!({ "nodeSelectorTerms": terms });
        let affinity = json!({ "requiredDuringSchedulingIgnoredDuringExecution": required });
        is(&pod["affinity"], json!({ "nodeAffinity": affinity }))?;
        is(&pod["hostNetwork"], json!(true))?;
    }
    let all = chart.with(&["maxUnavailable=20%", "resources.requests.cpu=1", "resources.limits.memory=1Gi"])?;
    let set = all.get("DaemonSet", "sluice").context("there is no DaemonSet sluice")?;
    is(&set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], json!("20%"))?;
    let resources = json!({ "requests": { "cpu": 1, "memory": "128Mi" }, "limits": { "memory": "1Gi" } });
    is(&all.container("agent")?["resources"], resources)?;
    let all = chart.with(&["hostAliases[0].ip=192.0.2.1", "hostAliases[0].hostnames={api.example}"])?;
    is(&all.pod()?["spec"]["hostAliases"], json!([{ "ip": "192.0.2.1", "hostnames": ["api.example"] }]))?;
    let all = chart.with(&["resources.requests.memory=null"])?;
    is(&all.container("agent")?["resources"], json!({ "requests": { "cpu": "50m" } }))
}

fn labels(chart: &mut Tried) -> Result<()> {
    let usual = chart.with(&[])?;
    let all = chart.with(&["podLabels.team=net", r"podAnnotations.example\.com/owner=us"])?;
    let metadata = &all.pod()?["metadata"];
    is(&metadata["labels"]["team"], json!("net"))?;
    is(&metadata["annotations"]["example.com/owner"], json!("us"))?;
    let selector = |of: &Objects| of.get("DaemonSet", "sluice").map(|it| it["spec"]["selector"].clone());
    // A DaemonSet's cannot be changed.
    ensure!(selector(&all) == selector(&usual), "the selector changes with podLabels");
    Ok(())
}

fn directories(chart: &mut Tried) -> Result<()> {
    let all = chart.with(&["hostPaths.plugins=/p", "hostPaths.bin=/b", "hostPaths.namespaces=/n"])?;
    is(all.mounted("install", "/host/plugins")?, json!("/p"))?;
    is(all.mounted("install", "/host/bin")?, json!("/b"))?;
    is(all.mounted("agent", "/n")?, json!("/n"))?;
    let all = chart.with(&["config.run_dir=/r", "config.cni_conf_dir=/c", "config.bpf_dir=/sys/fs/bpf/b"])?;
    for own in ["/r", "/c", "/sys/fs/bpf"] {
        is(all.mounted("agent", own)?, json!(own))?;
    }
    Ok(())
}

fn settings(chart: &mut Tried) -> Result<()> {
    let all = chart.with(&["config.routing=vxlan", "config.ipam.type=host-local", "config.log.level=debug"])?;
    let settings = all.settings()?;
    is(&settings["routing"], json!("vxlan"))?;
    is(&settings["ipam"], json!({ "type": "host-local" }))?;
    is(&settings["log"], json!({ "format": "text", "level": "debug" }))?;
    let named: BTreeSet<_> = settings.as_object().context("there are no settings")?.keys().cloned().collect();
    let values = chart.chart.values()?;
    let there: BTreeSet<_> =
        values["config"].as_object().context("the chart has no settings")?.keys().cloned().collect();
    ensure!(named == there, "of the settings {there:?} there are {named:?}");
    // With others there are other pods.
    let sum = |of: &Objects| anyhow::Ok(of.pod()?["metadata"]["annotations"]["checksum/config"].clone());
    let usual = sum(&chart.with(&[])?)?;
    ensure!(sum(&all)? != usual, "pods do not notice that settings change");
    let elsewhere = chart.with(&["apiServer=https://192.0.2.2:6443"])?;
    ensure!(sum(&elsewhere)? != usual, "pods do not notice that the API server moves");
    Ok(())
}

fn probes(chart: &mut Tried) -> Result<()> {
    const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];
    for (address, host, port) in [
        ("127.0.0.1:9921", "127.0.0.1", 9921),
        ("0.0.0.0:9900", "127.0.0.1", 9900),
        ("[::]:9900", "::1", 9900),
        ("192.0.2.7:80", "192.0.2.7", 80),
        ("[2001:db8::7]:80", "2001:db8::7", 80),
    ] {
        let all = chart.with(&[&format!("config.metrics_address={address}")])?;
        let agent = all.container("agent")?;
        for probe in PROBES {
            let get = &agent[probe]["httpGet"];
            is(&json!([get["host"], get["port"]]), json!([host, port]))
                .with_context(|| format!("{probe} at {address}"))?;
        }
        is(&agent["ports"][0]["hostPort"], json!(port))?;
    }
    let all = chart.with(&["config.metrics_address=off"])?;
    let agent = all.container("agent")?;
    ["ports"].iter().chain(&PROBES).try_for_each(|it| is(&agent[it], Value::Null))
}

fn metrics(chart: &mut Tried) -> Result<()> {
    let there = ["metricsService.enabled=true", "config.metrics_address=0.0.0.0:9900"];
    let annotations = ["metricsService.annotations.a=b", r"metricsService.annotations.prometheus\.io/scrape=null"];
    let all = chart.with(&[there, annotations].concat())?;
    let service = all.get("Service", "sluice-metrics").context("there is no Service sluice-metrics")?;
    let annotations = &service["metadata"]["annotations"];
    is(annotations, json!({ "a": "b", "prometheus.io/port": "9900" }))?;
    let (ports, of_agent) = (&service["spec"]["ports"], &all.container("agent")?["ports"]);
    is(&json!([ports[0]["port"], ports[0]["targetPort"]]), json!([9900, of_agent[0]["name"]]))?;
    let labels = &all.pod()?["metadata"]["labels"];
    let selector = service["spec"]["selector"].as_object().context("it selects nothing")?;
    ensure!(selector.iter().all(|(key, value)| labels[key] == *value), "it does not select agents");
    let all = chart.with(&[&there[..], &["uninstall=true"]].concat())?;
    ensure!(all.count("Service") == 0, "there is a Service of agents that are not there");
    Ok(())
}

fn pool(chart: &mut Tried) -> Result<()> {
    let range = ["config.pod_cidr_pool[0].cidr=fd00:78::/48", "config.pod_cidr_pool[0].block=64"];
    let all = chart.with(&range)?;
    is(&all.settings()?["pod_cidr_pool"], json!([{ "cidr": "fd00:78::/48", "block": 64 }]))?;
    let role = all.get("Role", "sluice-agent").context("there is no Role for Leases")?;
    is(&role["metadata"]["namespace"], json!("kube-system"))?;
    is(&role["rules"][0]["resources"], json!(["leases"]))?;
    let bound = all.get("RoleBinding", "sluice-agent").context("nobody has the Role")?;
    is(&bound["roleRef"]["name"], json!("sluice-agent"))?;
    is(&bound["subjects"][0]["name"], all.pod()?["spec"]["serviceAccountName"].clone())?;
    let policy = all.get("ValidatingAdmissionPolicy", "sluice-agent-pool").context("the Role is not narrowed")?;
    is(&policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"], json!(["leases"]))?;
    let bound = all
        .get("ValidatingAdmissionPolicyBinding", "sluice-agent-pool")
        .context("the policy is in force for nobody")?;
    is(&bound["spec"]["policyName"], json!("sluice-agent-pool"))?;
    ensure!(
        chart.with(&[])?.get("ValidatingAdmissionPolicy", "sluice-agent-pool").is_none(),
        "it is there without a pool"
    );
    Ok(())
}

fn uninstall(chart: &mut Tried) -> Result<()> {
    let directories = [
        "uninstall=true",
        "config.run_dir=/r",
        "config.cni_conf_dir=/c",
        "config.bpf_dir=/sys/fs/bpf/b",
        "config.state_dir=/s",
        "hostPaths.plugins=/p",
        "hostPaths.bin=/b",
    ];
    // Nothing else, whatever else there would be.
    let more =
        ["config.pod_cidr_pool[0].cidr=10.0.0.0/8", "config.pod_cidr_pool[0].block=24", "metricsService.enabled=true"];
    let all = chart.with(&[&directories[..], &more].concat())?;
    ensure!(all.0.len() == 1 && all.get("DaemonSet", "sluice-uninstall").is_some(), "there is more than what removes");
    let uninstall = all.container("uninstall")?;
    let command: BTreeSet<_> = texts(&uninstall["command"]).collect();
    for own in [
        "--run-dir=/r",
        "--cni-conf-dir=/c",
        "--bpf-dir=/sys/fs/bpf/b",
        "--state-dir=/s",
        "--cni-bin-dir=/p",
        "--bin-dir=/b",
    ] {
        ensure!(command.contains(own), "it is not told {own}");
    }
    is(&all.pod()?["spec"]["automountServiceAccountToken"], json!(false))?;
    ensure!(list(&all.container("done")?["volumeMounts"]).is_empty(), "who waits has something of the node");
    // Two DaemonSets' pods are to be told apart, by each.
    let agents = chart.with(&[])?;
    let component = |of: &Objects| anyhow::Ok(of.pod()?["metadata"]["labels"]["app.kubernetes.io/component"].clone());
    ensure!(component(&all)? != component(&agents)?, "pods that clean look like agents");
    Ok(())
}

/// What makes no sense, and what is said of it.
fn refusals(chart: &mut Tried) -> Result<()> {
    let cases: [(&[&str], &str); 20] = [
        (&["apiServer="], "apiServer is required"),
        (&["apiServer=192.0.2.1"], "/apiServer"),
        (&["aipServer=x"], "aipServer"),
        (&["image.digest=sha256:12"], "/image/digest"),
        (&["maxUnavailable=0%"], "/maxUnavailable"),
        (&[r"podLabels.app\.kubernetes\.io/name=mine"], "app.kubernetes.io/name"),
        (&["podAnnotations.checksum/config=1"], "checksum/config"),
        (&["extraCapabilities={CAP_FOWNER}"], "/extraCapabilities/0"),
        (&["hostPaths.bin=bin"], "/hostPaths/bin"),
        (&["metricsService.enabled=true"], "metricsService needs config.metrics_address"),
        (&["metricsService.enabled=true", "config.metrics_address=off"], "metricsService needs config.metrics_address"),
        (&["config.no_such=1"], "no_such"),
        (&["config.source=file:/etc/sluice/manifests"], "/config/source"),
        (&["config.source=null"], "source"),
        (&["config.metrics_address=localhost:9921"], "/config/metrics_address"),
        (&["config.healthz_address=:10256"], "/config/healthz_address"),
        (&["config.bpf_dir=/run/bpf"], "/config/bpf_dir"),
        (&["config.masquerade.port_first=30000"], "are no range of ports"),
        (&["config.dsr=ipip", "config.maglev=false"], "dsr needs config.maglev"),
        (&["config.pod_cidr_pool[0].cidr=10.78.0.0/16", "config.pod_cidr_pool[0].block=15"], "are to be of /16 to /30"),
    ];
    for (values, said) in cases {
        let Err(error) = chart.chart.render(values) else { anyhow::bail!("{values:?} are taken") };
        ensure!(format!("{error:#}").contains(said), "of {values:?} it is not said that {said}: {error:#}");
    }
    Ok(())
}

fn is(value: &Value, expected: Value) -> Result<()> {
    ensure!(*value == expected, "{value} is to be {expected}");
    Ok(())
}

/// A container has these capabilities and no others.
fn may(all: &Objects, container: &str, capabilities: &[&str]) -> Result<()> {
    let has = all.capabilities(container)?;
    ensure!(has == capabilities.iter().copied().collect(), "{container} has {has:?}, and is to have {capabilities:?}");
    Ok(())
}

/// The values that there are, but for the agent's settings: those have tests of their own (agent/src/chart.rs).
fn leaves(values: &Value) -> BTreeSet<String> {
    let mut leaves = BTreeSet::new();
    let mut under = vec![(String::new(), values)];
    while let Some((path, value)) = under.pop() {
        match value.as_object().filter(|it| !it.is_empty()) {
            Some(_) if path == "config" => {}
            Some(map) => under.extend(map.iter().map(|(key, value)| {
                (if path.is_empty() { key.clone() } else { format!("{path}.{}", key.replace('.', "\\.")) }, value)
            })),
            None => {
                leaves.insert(path);
            }
        }
    }
    leaves
}

/// Whether a value was set, or something of it.
fn is_among(leaf: &str, set: &BTreeSet<String>) -> bool {
    set.iter().any(|it| it.strip_prefix(leaf).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_nothing_sets_is_noticed() {
        let values = json!({
            "mount": true,
            "image": { "tag": "", "tags": "" },
            "labels": {},
            "secrets": [],
            "config": { "mtu": 0 },
            "selector": { "kubernetes.io/os": "linux" },
        });
        let set = ["image.tag", "labels.a", "secrets[0].name"].map(str::to_owned).into();
        let untried: Vec<_> = leaves(&values).into_iter().filter(|it| !is_among(it, &set)).collect();
        assert_eq!(untried, ["image.tags", "mount", r"selector.kubernetes\.io/os"]);
    }
}
