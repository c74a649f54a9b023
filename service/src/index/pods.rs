//! Endpoints where nobody makes EndpointSlices: the pods that Services select.

use std::collections::BTreeMap;

use sluice_policy::Family;
use sluice_policy::{Labels, PodName};

use super::endpoints::{Claim, NodeHints, SliceId};
use crate::object::{Condition, NodeObject, PodObject, PortObject, ServiceObject, Target, family_of};

/// No slice has it.
const NO_SLICE: SliceId = SliceId(0);

/// All pods, by namespace and name.
#[derive(Debug, Default)]
pub struct Pods(BTreeMap<PodName, PodObject>);

impl Pods {
    /// A pod is so now; `None`: gone. As it was before.
    pub fn set(&mut self, name: PodName, pod: Option<PodObject>) -> Option<PodObject> {
        match pod {
            Some(pod) => self.0.insert(name, pod),
            None => self.0.remove(&name),
        }
    }

    /// The endpoints of a Service's port, sorted. `here` is this node: pods without an address of their own have its.
    pub fn claims(
        &self,
        service: &ServiceObject,
        port: &PortObject,
        family: Family,
        (here, node): (&str, Option<&NodeObject>),
    ) -> Vec<Claim> {
        let namespace = PodName::new(&service.name.namespace, "")..;
        let pods = self.0.range(namespace).take_while(|(name, _)| name.namespace == *service.name.namespace);
        let selected = pods.filter(|(_, pod)| selects(&service.selector, &pod.pod.labels) && !pod.pod.ended);
        let claim = |(_, pod): (_, &PodObject)| {
            let is_elsewhere = pod.pod.node.as_deref() != Some(here);
            let addresses = match node {
                Some(node) if pod.pod.host_network && pod.pod.addresses.is_empty() && !is_elsewhere => &node.addresses,
                _ => &pod.pod.addresses,
            };
            Some(Claim {
                address: addresses.iter().copied().find(|address| family_of(*address) == family)?,
                port: target(port, pod)?,
                is_elsewhere,
                condition: condition(pod, service)?,
                nodes: NodeHints::None,
                zones: None,
                slice: NO_SLICE,
            })
        };
        let mut claims: Vec<Claim> = selected.filter_map(claim).collect();
        claims.sort_unstable();
        claims
    }
}

/// Whether a selector selects what has these labels; one without labels selects nothing.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().next().is_some() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// On which port of its own a pod serves a Service's; `None`: it has no port of that name.
fn target(port: &PortObject, pod: &PodObject) -> Option<u16> {
    match &port.target {
        Target::Number(number) => Some(*number),
        Target::Named(name) => {
            let named = pod.pod.named_ports.iter();
            let mut same = named.filter(|own| *own.name == **name && own.transport == port.transport);
            same.next().map(|own| own.port)
        }
    }
}

fn condition(pod: &PodObject, service: &ServiceObject) -> Option<Condition> {
    let is_ready = service.publishes_not_ready || (pod.is_ready && !pod.is_terminating);
    Condition::of(is_ready, pod.is_ready, pod.is_terminating)
}
