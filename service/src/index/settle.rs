//! What follows from changed objects.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_policy::Family;

use super::endpoints::{Claim, Key};
use super::frontends::{Claimant, Seniority, Spot};
use super::host_ports::HostPorts;
use super::{Delta, Index, Service, Work};
use crate::compile;
use crate::object::{Condition, PortObject, ServiceObject};
use crate::tables::{Frontend, Health, PortName, ServiceName, ServicePort};

impl Index {
    pub(super) fn settle(&mut self, work: Work) -> Delta {
        let Work { services, host_ports, claims, endpoints } = work;
        let mut dirty = BTreeSet::new();
        let mut unsure: BTreeSet<ServiceName> = BTreeSet::new();
        for (name, claims) in claims {
            if let Some(service) = self.services.get_mut(&name) {
                let changed = service.endpoints.replace(claims);
                let object = service.object.as_deref();
                dirty.extend(changed.into_iter().filter_map(|key| port_of(object?, &key)));
                unsure.insert(name);
            }
        }
        for name in endpoints {
            let object = self.services.get(&name).and_then(|service| service.object.as_deref());
            dirty.extend(object.into_iter().flat_map(ports).map(|(name, ..)| name));
            unsure.insert(name);
        }
        for (name, before) in services {
            let now = self.services.get(&name).and_then(|service| service.object.as_deref());
            let places = |object: Option<&ServiceObject>| -> BTreeSet<(Spot, Claimant)> {
                object.into_iter().flat_map(places).collect()
            };
            let (before_there, now_there) = (places(before.as_deref()), places(now));
            dirty.extend(before.iter().map(|object| &**object).chain(now).flat_map(ports).map(|(name, ..)| name));
            self.move_between(&before_there, &now_there);
            unsure.insert(name);
        }
        for (who, before) in host_ports {
            let now = self.host_ports.get(&who);
            let places = |ports: Option<&HostPorts>| -> BTreeSet<(Spot, Claimant)> {
                ports.into_iter().flat_map(places_of_host_ports).collect()
            };
            let (before_there, now_there) = (places(before.as_ref()), places(now));
            dirty.extend(before.iter().chain(now).flat_map(|ports| ports.ports.keys().cloned()));
            self.move_between(&before_there, &now_there);
        }
        dirty.extend(self.frontends.moved());
        let ports = dirty.into_iter().filter_map(|name| self.compile(name)).collect();
        let mut health = false;
        for name in unsure {
            health |= self.ask_health(&name);
            if self.services.get(&name).is_some_and(|service| service.object.is_none() && service.slices == 0) {
                self.services.remove(&name);
            }
        }
        Delta { ports, health }
    }

    /// Somebody gives some places up, and claims others.
    fn move_between(&mut self, before: &BTreeSet<(Spot, Claimant)>, now: &BTreeSet<(Spot, Claimant)>) {
        let mut is_contested = false;
        for (spot, claimant) in before.difference(now) {
            is_contested |= self.frontends.leave(*spot, claimant);
        }
        for (spot, claimant) in now.difference(before) {
            is_contested |= self.frontends.claim(*spot, claimant.clone());
        }
        if is_contested {
            self.problems.change();
        }
    }

    /// Looks at a port anew; how it is, if it is another now.
    fn compile(&mut self, name: PortName) -> Option<(PortName, Option<Arc<ServicePort>>)> {
        self.compiled += 1;
        let now = self.find(&name);
        if self.ports.get(&name).map(|port| &**port) == now.as_ref() {
            return None;
        }
        let now = now.map(Arc::new);
        match &now {
            Some(port) => self.ports.insert(name.clone(), port.clone()),
            None => self.ports.remove(&name),
        };
        Some((name, now))
    }

    fn find(&self, name: &PortName) -> Option<ServicePort> {
        let won = |frontends: Vec<Frontend>| -> Vec<Frontend> {
            let has = |frontend: &Frontend| self.frontends.owner(&Spot::of(name, frontend)) == Some(name);
            frontends.into_iter().filter(has).collect()
        };
        if name.namespace.is_empty() {
            let port = self.host_ports.get(&name.name)?.ports.get(name)?;
            return Some(port.service_port(won(vec![port.frontend()])));
        }
        let service = self.services.get(&name.service())?;
        let object = service.object.as_deref()?;
        let port = object.ports.iter().find(|port| is_named(port, name))?;
        object.cluster_ip(name.family)?;
        let frontends = won(compile::frontends(object, port, name.family));
        let claims = self.claims(service, object, port, name.family);
        Some(compile::service_port(object, name.family, frontends, &claims, self.node.as_ref()))
    }

    /// The endpoints of a port, sorted: of slices, if any name its Service.
    fn claims<'a>(
        &self,
        service: &'a Service,
        object: &ServiceObject,
        port: &PortObject,
        family: Family,
    ) -> Cow<'a, [Claim]> {
        if self.view.standalone && service.slices == 0 {
            let here = (self.view.node.as_str(), self.node.as_ref());
            return self.pods.claims(object, port, family, here).into();
        }
        let key = Key { name: port.name.clone(), transport: port.transport, family };
        service.endpoints.get(&key).into()
    }

    /// Counts again what load balancers are told of a Service. Whether it is another number.
    fn ask_health(&mut self, name: &ServiceName) -> bool {
        let now = self.services.get(name).and_then(|service| self.health_of(name, service));
        if self.health.get(name) == now.as_ref() {
            return false;
        }
        match now {
            Some(health) => self.health.insert(name.clone(), health),
            None => self.health.remove(name),
        };
        true
    }

    /// Only those that are ready count: a node where they all terminate is to be passed over, though they serve. Each counts
    /// once, however many ports it has, and of a pod with addresses of both families one.
    fn health_of(&self, name: &ServiceName, service: &Service) -> Option<Health> {
        let object = service.object.as_deref()?;
        let port = object.health_check_port.filter(|_| !object.ports.is_empty())?;
        let mut here: BTreeMap<Family, BTreeSet<IpAddr>> = BTreeMap::new();
        for (_, port, family) in ports(object) {
            let claims = self.claims(service, object, port, family);
            let ready = claims.iter().filter(|claim| !claim.is_elsewhere && claim.condition == Condition::Ready);
            here.entry(family).or_default().extend(ready.map(|claim| claim.address));
        }
        let local_endpoints = here.values().map(BTreeSet::len).max().unwrap_or_default();
        Some(Health { service: name.clone(), port, local_endpoints })
    }
}

fn is_named(port: &PortObject, name: &PortName) -> bool {
    (port.number, port.transport, &port.name) == (name.number, name.transport, &name.port)
}

/// The ports of a Service, in each of its families.
fn ports(service: &ServiceObject) -> impl Iterator<Item = (PortName, &PortObject, Family)> {
    service
        .ports
        .iter()
        .flat_map(move |port| service.families().map(move |family| (name_of(service, port, family), port, family)))
}

fn name_of(service: &ServiceObject, port: &PortObject, family: Family) -> PortName {
    PortName {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        port: port.name.clone(),
        number: port.number,
        transport: port.transport,
        family,
    }
}

/// The port of a Service that endpoints of such a key are of.
fn port_of(service: &ServiceObject, key: &Key) -> Option<PortName> {
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.name == key.name && port.transport == key.transport)?;
    service.cluster_ip(key.family)?;
    Some(name_of(service, port, key.family))
}

/// All places that a Service claims.
fn places(service: &ServiceObject) -> impl Iterator<Item = (Spot, Claimant)> {
    ports(service).flat_map(move |(name, port, family)| {
        let claim = move |frontend: Frontend| {
            let seniority = Seniority::Service(service.created);
            (Spot::of(&name, &frontend), Claimant { seniority, port: name.clone(), kind: frontend.kind })
        };
        compile::frontends(service, port, family).into_iter().map(claim)
    })
}

/// All places that somebody's host ports claim.
fn places_of_host_ports(ports: &HostPorts) -> impl Iterator<Item = (Spot, Claimant)> {
    ports.ports.iter().map(|(name, port)| {
        let frontend = port.frontend();
        let seniority = Seniority::HostPort(ports.arrival);
        (Spot::of(name, &frontend), Claimant { seniority, port: name.clone(), kind: frontend.kind })
    })
}
