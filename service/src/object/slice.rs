//! EndpointSlices.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use sluice_policy::object::Note;
use sluice_policy::{Family, Kind, ObjectError, ObjectName, Transport};

use super::Notes;
use super::address::{address, is_link_local, unusable};
use crate::tables::ServiceName;

/// Of which Service a slice has endpoints.
const SERVICE: &str = "kubernetes.io/service-name";
/// That Service is headless: its clients find endpoints by its name.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Names an EndpointSlice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SliceName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name there.
    pub name: Arc<str>,
}

impl SliceName {
    /// The same among the names of all objects.
    pub fn object(&self) -> ObjectName {
        ObjectName::new(Kind::EndpointSlice, &self.namespace, &self.name)
    }
}

/// What matters of an EndpointSlice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceObject {
    /// Its name.
    pub name: SliceName,
    /// The Service that its endpoints are of; `None`: of none that has frontends. Then it has no endpoints here.
    pub service: Option<ServiceName>,
    /// The family of its endpoints.
    pub family: Family,
    /// The ports of each of its endpoints.
    pub ports: Vec<SlicePort>,
    /// Those of its endpoints that may serve.
    pub endpoints: Vec<EndpointObject>,
    /// What of it is left out.
    pub notes: Vec<Note>,
}

/// A port of all endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlicePort {
    /// The name of the Service's port; may be empty.
    pub name: Arc<str>,
    /// Its protocol.
    pub transport: Transport,
    /// On which port its endpoints listen.
    pub number: u16,
}

/// An endpoint that may serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointObject {
    /// Its address.
    pub address: IpAddr,
    /// The node that it is on, if it is on one.
    pub node: Option<Box<str>>,
    /// How it is.
    pub condition: Condition,
    /// The nodes whose clients it is meant for; of none, it does not say.
    pub for_nodes: Names,
    /// The zones whose clients it is meant for; of none, it does not say.
    pub for_zones: Names,
}

/// Some names, sorted. Endpoints of a slice that have the same share them.
pub type Names = Arc<[Box<str>]>;

/// How an endpoint is that may serve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Condition {
    /// It is ready.
    Ready,
    /// It is terminating, and serves nevertheless: where nobody is ready.
    Draining,
}

impl Condition {
    /// How one is of which this is known; `None`: it is not to serve.
    pub const fn of(is_ready: bool, is_serving: bool, is_terminating: bool) -> Option<Self> {
        match (is_ready, is_serving, is_terminating) {
            (true, _, _) => Some(Self::Ready),
            (false, true, true) => Some(Self::Draining),
            (false, _, _) => None,
        }
    }
}

impl TryFrom<&EndpointSlice> for SliceObject {
    type Error = ObjectError;

    fn try_from(slice: &EndpointSlice) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::EndpointSlice, &slice.metadata)?;
        let namespace: Arc<str> = object.namespace.as_str().into();
        let label = |key| slice.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            // Names of hosts, which nobody can be sent to.
            "FQDN" => None,
            other => return Err(object.wrong("addressType", format!("{other:?} is not IPv4, IPv6 or FQDN"))),
        };
        let service = label(SERVICE).filter(|name| !name.is_empty() && label(HEADLESS).is_none() && family.is_some());
        let service = service.map(|name| ServiceName { namespace: namespace.clone(), name: name.as_str().into() });
        let family = family.unwrap_or(Family::V4);
        let mut notes = Notes::default();
        let (mut ports, mut endpoints) = (Vec::new(), Vec::new());
        if service.is_some() {
            for (index, port) in slice.ports.iter().flatten().enumerate() {
                let number = notes.port(format_args!("ports[{index}].port"), port.port.unwrap_or_default());
                let transport = notes.transport(format_args!("ports[{index}].protocol"), port.protocol.as_deref());
                if let (Some(number), Some(transport)) = (number, transport) {
                    ports.push(SlicePort { name: port.name.as_deref().unwrap_or_default().into(), transport, number });
                }
            }
            let mut known = BTreeSet::new();
            let listed = slice.endpoints.iter().enumerate();
            let read = |(index, endpoint)| read(endpoint, family, index, &mut known, &mut notes);
            endpoints = listed.filter_map(read).collect();
        }
        let name = SliceName { namespace, name: object.name.into() };
        Ok(Self { name, service, family, ports, endpoints, notes: notes.0 })
    }
}

/// Reads an endpoint; `None`: it is not to serve.
fn read(
    endpoint: &Endpoint,
    family: Family,
    index: usize,
    known: &mut BTreeSet<Names>,
    notes: &mut Notes,
) -> Option<EndpointObject> {
    // Its others are of no use: what each may mean has never been said.
    let text = endpoint.addresses.first().map_or("", String::as_str);
    let address = usable(text, family)
        .map_err(|what| notes.error(format_args!("endpoints[{index}].addresses[0]"), format!("{what}; it is left out")))
        .ok()?;
    let says = |condition: fn(&_) -> Option<bool>| endpoint.conditions.as_ref().and_then(condition);
    let is_ready = says(|conditions| conditions.ready).unwrap_or(true);
    let is_serving = says(|conditions| conditions.serving).unwrap_or(true);
    let is_terminating = says(|conditions| conditions.terminating).unwrap_or(false);
    let hints = endpoint.hints.as_ref();
    let for_nodes = hints.into_iter().flat_map(|hints| hints.for_nodes.iter().flatten());
    let for_zones = hints.into_iter().flat_map(|hints| hints.for_zones.iter().flatten());
    Some(EndpointObject {
        address,
        node: endpoint.node_name.as_deref().map(Into::into),
        condition: Condition::of(is_ready, is_serving, is_terminating)?,
        for_nodes: names(for_nodes.map(|node| &*node.name), known),
        for_zones: names(for_zones.map(|zone| &*zone.name), known),
    })
}

fn names<'a>(names: impl Iterator<Item = &'a str>, known: &mut BTreeSet<Names>) -> Names {
    let mut names: Vec<Box<str>> = names.map(Into::into).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(same) = known.get(&*names) {
        return same.clone();
    }
    let names = Names::from(names);
    known.insert(names.clone());
    names
}

fn usable(text: &str, family: Family) -> Result<IpAddr, String> {
    let address = address(text).ok_or_else(|| format!("{text:?} is no address"))?;
    if address.is_ipv4() != (family == Family::V4) {
        return Err(format!("{address} is of another family than its slice"));
    }
    match unusable(address) {
        Some(why) => Err(format!("{address} {why}")),
        None if is_link_local(address) => Err(format!("{address} is a link-local address")),
        None => Ok(address),
    }
}
