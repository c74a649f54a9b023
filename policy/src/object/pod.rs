//! Pods.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::labels::Labels;
use crate::name::{Kind, ObjectError, ObjectName, PodName};
use crate::traffic::{NamedPort, Transport};

/// What matters of a Pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodObject {
    /// Its namespace and name.
    pub name: PodName,
    /// Its UID; empty: unknown. Another pod of the same name has another one.
    pub uid: String,
    /// Of a static pod's mirror, the UID by which its kubelet calls it; empty: of any other pod.
    pub config_hash: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, at most one of each family, once it has them.
    pub addresses: Vec<IpAddr>,
    /// Whether these are those that its node's agent announces ([`ADDRESSES`]), for its kubelet has said none yet.
    pub is_announced: bool,
    /// Whether its node's agent announces any, whatever its kubelet says.
    pub is_spoken_for: bool,
    /// The node that it runs on, once it has one.
    pub node: Option<String>,
    /// It uses its node's addresses: to policies it is neither subject nor peer.
    pub host_network: bool,
    /// It has run to its end, well or not. One that is terminating has not.
    pub ended: bool,
    /// Its container ports that have names, those of init containers that keep running among them. Sorted.
    pub named_ports: Arc<[NamedPort]>,
    /// The numbers of all its container ports, named or not. Sorted.
    pub ports: Arc<[(Transport, u16)]>,
    /// When it was made, seconds since 1970: of two that claim an address, the newer has it.
    pub created: i64,
}

/// The condition of a pod whose message is its addresses, from the agent of its node; they count until its kubelet says them.
/// That agent may say there what it likes: who goes by an API server looks whether they are the node's to give.
pub const ADDRESSES: &str = "sluice.dev/Addresses";

/// Where a mirror pod says which static pod it shows.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

impl PodObject {
    /// Whether this may be the pod that has a UID, as the API server or its kubelet calls it. Where either is unknown, it
    /// may.
    pub fn is(&self, uid: &str) -> bool {
        self.uid.is_empty() || uid.is_empty() || uid == self.uid || uid == self.config_hash
    }

    /// Whether it has addresses of its own.
    pub fn is_settled(&self) -> bool {
        self.is_selectable() && !self.addresses.is_empty()
    }

    /// Has what it has in common with another pod be there once, in memory.
    pub(crate) fn share_with(&mut self, other: &Self) {
        if self.labels == other.labels {
            self.labels = other.labels.clone();
        }
        if self.named_ports == other.named_ports {
            self.named_ports = Arc::clone(&other.named_ports);
        }
        if self.ports == other.ports {
            self.ports = Arc::clone(&other.ports);
        }
    }

    /// Whether policies may select it, as subject or as peer.
    pub fn is_selectable(&self) -> bool {
        !self.host_network && !self.ended
    }
}

/// Containers that run beside each other: all but those init containers that must end first.
fn running<'a>(
    containers: &'a [Container],
    init_containers: Option<&'a [Container]>,
) -> impl Iterator<Item = (String, &'a Container)> {
    let keeps_running = |(_, container): &(usize, &Container)| container.restart_policy.as_deref() == Some("Always");
    let init = init_containers.unwrap_or_default().iter().enumerate().filter(keeps_running);
    let named = |list: &'static str| move |(index, container)| (format!("spec.{list}[{index}]"), container);
    containers.iter().enumerate().map(named("containers")).chain(init.map(named("initContainers")))
}

/// The addresses that its node's agent says a pod has: none, where it has no node or that node's, or they make no sense.
fn announced(pod: &Pod) -> Vec<IpAddr> {
    let has_own = |spec: &&PodSpec| spec.host_network != Some(true) && spec.node_name.is_some();
    let conditions = pod.spec.as_ref().filter(has_own).and(pod.status.as_ref()).and_then(|it| it.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let said = conditions.find(|condition| condition.type_ == ADDRESSES && condition.status == "True");
    let texts = said.and_then(|condition| condition.message.as_deref()).into_iter().flat_map(|it| it.split(','));
    let addresses: Vec<IpAddr> = texts.map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    let is_one_of_each = [true, false].iter().all(|v4| addresses.iter().filter(|it| it.is_ipv4() == *v4).count() < 2);
    if is_one_of_each { addresses } else { Vec::new() }
}

impl TryFrom<&Pod> for PodObject {
    type Error = ObjectError;

    fn try_from(pod: &Pod) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Pod, &pod.metadata)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        let announced = announced(pod);
        if let Some(status) = &pod.status {
            let many: Vec<&str> = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).collect();
            let texts = if many.is_empty() { status.pod_ip.as_deref().into_iter().collect() } else { many };
            for (index, text) in texts.into_iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                let wrong = |what| object.wrong(format!("status.podIPs[{index}].ip"), what);
                let address: IpAddr = text.parse().map_err(|_| wrong(format!("{text:?} is no address")))?;
                if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                    return Err(wrong(format!("{address} is the second address of its family")));
                }
                addresses.push(address);
            }
        }
        let is_spoken_for = !announced.is_empty();
        let is_announced = is_spoken_for && addresses.is_empty();
        if is_announced {
            addresses = announced;
        }
        let (mut named_ports, mut ports) = (Vec::new(), Vec::new());
        if let Some(spec) = &pod.spec {
            for (at, container) in running(&spec.containers, spec.init_containers.as_deref()) {
                for (index, port) in container.ports.iter().flatten().enumerate() {
                    let wrong = |field: &str, what| object.wrong(format!("{at}.ports[{index}].{field}"), what);
                    let transport = Transport::named(port.protocol.as_deref())
                        .ok_or_else(|| wrong("protocol", format!("{:?} is no protocol", port.protocol)))?;
                    let number = u16::try_from(port.container_port)
                        .ok()
                        .filter(|number| *number > 0)
                        .ok_or_else(|| wrong("containerPort", format!("{} is no port", port.container_port)))?;
                    ports.push((transport, number));
                    if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                        named_ports.push(NamedPort { name: name.into(), transport, port: number });
                    }
                }
            }
        }
        addresses.shrink_to_fit();
        ports.sort_unstable();
        ports.dedup();
        named_ports.sort_unstable();
        named_ports.dedup();
        let config_hash = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONFIG_HASH));
        let spec = pod.spec.as_ref();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        Ok(Self {
            name: PodName { namespace: object.namespace, name: object.name },
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            config_hash: config_hash.cloned().unwrap_or_default(),
            labels: Labels::from(pod.metadata.labels.as_ref()),
            addresses,
            is_announced,
            is_spoken_for,
            node: spec.and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            host_network: spec.is_some_and(|spec| spec.host_network == Some(true)),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
            named_ports: named_ports.into(),
            ports: ports.into(),
            created: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Result<PodObject, String> {
        let pod: Pod = serde_json::from_value(value).unwrap();
        PodObject::try_from(&pod).map_err(|error| error.to_string())
    }

    #[test]
    fn ports_of_containers_that_run_beside_each_other_count() {
        let pod = pod(json!({
            "metadata": { "name": "a" },
            "spec": {
                "containers": [{ "name": "c", "ports": [
                    { "containerPort": 80, "name": "web" }, { "containerPort": 53, "protocol": "UDP", "name": "dns" },
                    { "containerPort": 7 },
                ] }],
                "initContainers": [
                    { "name": "once", "ports": [{ "containerPort": 1, "name": "once" }] },
                    { "name": "sidecar", "restartPolicy": "Always", "ports": [{ "containerPort": 2, "name": "side" }] },
                ],
            },
        }))
        .unwrap();
        let named: Vec<(&str, u16)> = pod.named_ports.iter().map(|port| (&*port.name, port.port)).collect();
        assert_eq!(named, [("dns", 53), ("side", 2), ("web", 80)]);
        assert_eq!(pod.ports.len(), 4);
    }

    #[test]
    fn completed_and_host_network_pods_are_not_selectable_but_terminating_ones_are() {
        let of = |spec: Value, status: Value| {
            let metadata = json!({ "name": "a", "deletionTimestamp": "2024-01-01T00:00:00Z" });
            pod(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap().is_selectable()
        };
        let spec = json!({ "containers": [] });
        assert!(of(spec.clone(), json!({ "phase": "Running" })));
        assert!(!of(spec.clone(), json!({ "phase": "Succeeded" })) && !of(spec, json!({ "phase": "Failed" })));
        assert!(!of(json!({ "containers": [], "hostNetwork": true }), json!({ "phase": "Running" })));
    }

    #[test]
    fn a_pod_is_known_by_both_its_uids() {
        let of = |metadata: Value| pod(json!({ "metadata": metadata })).unwrap();
        let plain = of(json!({ "name": "a", "uid": "u1" }));
        assert!(plain.is("u1") && !plain.is("u2"));
        let mirror = of(json!({ "name": "a", "uid": "u1", "annotations": { "kubernetes.io/config.hash": "h1" } }));
        assert!(mirror.is("u1") && mirror.is("h1") && !mirror.is("h2"));
        assert!(plain.is("") && of(json!({ "name": "a" })).is("u1"), "whoever is unknown may be anyone");
    }

    #[test]
    fn what_the_nodes_agent_says_counts_until_the_kubelet_says_it() {
        let of = |spec: Value, status: &str, message: &str, ips: Value| {
            let condition = json!({ "type": ADDRESSES, "status": status, "message": message });
            let status = json!({ "podIPs": ips, "conditions": [{ "type": "Ready", "status": "False" }, condition] });
            let mut spec = spec;
            spec["containers"] = json!([]);
            let pod = pod(json!({ "metadata": { "name": "a" }, "spec": spec, "status": status })).unwrap();
            let addresses = pod.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            (addresses, pod.is_announced, pod.is_spoken_for)
        };
        let here = || json!({ "nodeName": "n1" });
        assert_eq!(of(here(), "True", "10.0.0.1,fd00::1", json!([])), ("10.0.0.1 fd00::1".into(), true, true));
        let both = of(here(), "True", "10.0.0.1,fd00::1", json!([{ "ip": "10.0.0.2" }]));
        assert_eq!(both, ("10.0.0.2".into(), false, true));
        let nobody = (String::new(), false, false);
        assert_eq!(of(json!({}), "True", "10.0.0.1", json!([])), nobody, "it has no node");
        assert_eq!(of(json!({ "nodeName": "n1", "hostNetwork": true }), "True", "10.0.0.1", json!([])), nobody);
        for nonsense in ["10.0.0", "", "10.0.0.1,10.0.0.2", "10.0.0.1, fd00::1"] {
            assert_eq!(of(here(), "True", nonsense, json!([])), nobody, "{nonsense:?}");
        }
        assert_eq!(of(here(), "False", "10.0.0.1", json!([])), nobody);
    }

    #[test]
    fn nonsense_is_refused() {
        let with = |status: Value| pod(json!({ "metadata": { "name": "a", "namespace": "x" }, "status": status }));
        assert!(with(json!({ "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }] })).is_ok());
        let error = with(json!({ "podIPs": [{ "ip": "10.0.1" }] })).expect_err("no address");
        assert_eq!(error, "Pod x/a: status.podIPs[0].ip: \"10.0.1\" is no address");
        assert!(with(json!({ "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }] })).is_err());
    }
}
