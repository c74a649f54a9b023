//! Services.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sluice_policy::object::Note;
use sluice_policy::{Family, Kind, Labels, ObjectError, ObjectName, Transport, check_dns_label};

use super::Notes;
use super::address::{address, is_link_local, net, unusable};
use crate::tables::ServiceName;

/// Another proxy serves it, of this name.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// For how long a client keeps its backend where the Service does not say.
const AFFINITY_SECONDS: i32 = 10_800;

/// What matters of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceObject {
    /// Its name.
    pub name: ServiceName,
    /// When it was made, seconds since 1970: of two that claim a frontend, the older has it.
    pub created: i64,
    /// Its cluster IPs, at most one of each family. It has frontends only in families in which it has one; without any it is
    /// headless, an alias, or another proxy's.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<PortObject>,
    /// Its external IPs.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer leaves as they are.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may ask load balancers; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// Its cluster IP is answered by endpoints of the client's node only.
    pub is_internal_local: bool,
    /// Its external frontends are answered by endpoints of the node that is asked only.
    pub is_external_local: bool,
    /// For how many seconds a client keeps its backend, if it does.
    pub affinity: Option<u32>,
    /// Where load balancers ask nodes for its health, if they do.
    pub health_check_port: Option<u16>,
    /// The labels of its pods; of none, somebody else makes its EndpointSlices.
    pub selector: Labels,
    /// Its pods count as ready though they are not.
    pub publishes_not_ready: bool,
    /// What of it is left out.
    pub notes: Vec<Note>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortObject {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Its number.
    pub number: u16,
    /// Its protocol.
    pub transport: Transport,
    /// Its node port, if it has one.
    pub node_port: Option<u16>,
    /// On which port its pods listen.
    pub target: Target,
}

/// On which port pods listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// On this one.
    Number(u16),
    /// On the one that has this name in the pod.
    Named(Box<str>),
}

impl ServiceObject {
    /// The families that it has frontends in.
    pub fn families(&self) -> impl Iterator<Item = Family> + use<> {
        let has = |family| self.cluster_ip(family).is_some().then_some(family);
        [has(Family::V4), has(Family::V6)].into_iter().flatten()
    }

    /// Its cluster IP of a family.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        self.cluster_ips.iter().copied().find(|ip| family_of(*ip) == family)
    }
}

/// The family of an address.
pub fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

impl TryFrom<&Service> for ServiceObject {
    type Error = ObjectError;

    fn try_from(service: &Service) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Service, &service.metadata)?;
        let nothing = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&nothing);
        let mut notes = Notes::default();
        let is_foreign = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
        let type_ = Type::of(spec.type_.as_deref(), &mut notes);
        let cluster_ips =
            if is_foreign || type_ == Type::ExternalName { Vec::new() } else { cluster_ips(spec, &mut notes) };
        let mut read = Self {
            name: ServiceName::new(&object.namespace, &object.name),
            created: service.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            cluster_ips,
            ports: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            is_internal_local: false,
            is_external_local: false,
            affinity: None,
            health_check_port: None,
            selector: Labels::default(),
            publishes_not_ready: spec.publish_not_ready_addresses == Some(true),
            notes: Vec::new(),
        };
        if !read.cluster_ips.is_empty() {
            read.ports = ports(spec, &mut notes);
            read.external_ips = external_ips(spec, &mut notes);
            read.load_balancer_ips = load_balancer_ips(service, &mut notes);
            read.source_ranges = source_ranges(spec, &mut notes);
            if read.source_ranges.is_empty() && spec.load_balancer_source_ranges.iter().flatten().next().is_some() {
                // To let everybody in who was to be kept out would be worse.
                read.load_balancer_ips.clear();
            }
            let is_local = |field, policy: &Option<String>, notes: &mut Notes| match policy.as_deref() {
                Some("Local") => true,
                None | Some("Cluster" | "") => false,
                Some(other) => {
                    notes.error(field, format!("{other:?} is neither Cluster nor Local; it counts as Cluster"));
                    false
                }
            };
            read.is_internal_local = is_local("spec.internalTrafficPolicy", &spec.internal_traffic_policy, &mut notes);
            let is_external = match type_ {
                Type::LoadBalancer | Type::NodePort => true,
                Type::ClusterIp => spec.external_ips.iter().flatten().next().is_some(),
                Type::ExternalName => false,
            };
            read.is_external_local =
                is_external && is_local("spec.externalTrafficPolicy", &spec.external_traffic_policy, &mut notes);
            if type_ == Type::LoadBalancer && read.is_external_local {
                read.health_check_port = health_check_port(spec, &mut notes);
            }
            read.affinity = affinity(spec, &mut notes);
            read.selector = Labels::from(spec.selector.as_ref());
        }
        read.notes = notes.0;
        Ok(read)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

impl Type {
    fn of(name: Option<&str>, notes: &mut Notes) -> Self {
        match name {
            None | Some("ClusterIP" | "") => Self::ClusterIp,
            Some("NodePort") => Self::NodePort,
            Some("LoadBalancer") => Self::LoadBalancer,
            Some("ExternalName") => Self::ExternalName,
            Some(other) => {
                notes.error("spec.type", format!("there is no type {other:?}; it counts as ClusterIP"));
                Self::ClusterIp
            }
        }
    }
}

fn cluster_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let many = spec.cluster_ips.as_deref().unwrap_or_default();
    let texts: Vec<&str> = match many {
        [] => spec.cluster_ip.iter().map(String::as_str).collect(),
        many => many.iter().map(String::as_str).collect(),
    };
    if texts.iter().all(|text| text.is_empty()) {
        let what = "it has none, and nobody here finds one for it: it has no frontends";
        notes.warn("spec.clusterIP", what.into());
        return Vec::new();
    }
    if texts == ["None"] {
        return Vec::new();
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let mut cluster_ips: Vec<IpAddr> = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        let Some(ip) = usable(text, &field, notes) else { continue };
        let meant = families.get(index).map(String::as_str);
        if meant.is_some_and(|meant| (meant == "IPv4") != ip.is_ipv4()) {
            notes.error(field, format!("{ip} is of another family than spec.ipFamilies[{index}]; it is left out"));
        } else if cluster_ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            notes.error(field, format!("{ip} is the second address of its family; it is left out"));
        } else {
            cluster_ips.push(ip);
        }
    }
    cluster_ips
}

/// An address that somebody can be asked at.
fn usable(text: &str, field: &str, notes: &mut Notes) -> Option<IpAddr> {
    let address = address(text);
    let why = match address {
        None => format!("{text:?} is no address"),
        Some(address) => match unusable(address) {
            None => return Some(address),
            Some(why) => format!("{address} {why}"),
        },
    };
    notes.error(field, format!("{why}; it is left out"));
    None
}

fn ports(spec: &ServiceSpec, notes: &mut Notes) -> Vec<PortObject> {
    let mut ports: Vec<PortObject> = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        let Some(port) = read_port(port, &field, notes) else { continue };
        let twin = |other: &&PortObject| {
            other.transport == port.transport && (other.number == port.number || other.name == port.name)
        };
        if let Some(twin) = ports.iter().find(twin) {
            let same = if twin.number == port.number { "number" } else { "name" };
            notes.error(field, format!("another port of its protocol has the same {same}; it is left out"));
        } else {
            ports.push(port);
        }
    }
    ports
}

fn read_port(port: &ServicePort, field: &str, notes: &mut Notes) -> Option<PortObject> {
    let name = port.name.as_deref().unwrap_or_default();
    if !name.is_empty()
        && let Err(what) = check_dns_label(name)
    {
        notes.error(format_args!("{field}.name"), format!("{what}; it is left out"));
        return None;
    }
    let number = notes.port(format_args!("{field}.port"), port.port)?;
    let transport = notes.transport(format_args!("{field}.protocol"), port.protocol.as_deref())?;
    let node_port = match port.node_port.unwrap_or_default() {
        0 => None,
        number => notes.port(format_args!("{field}.nodePort"), number),
    };
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => Target::Number(number),
        Some(IntOrString::Int(target)) => Target::Number(notes.port(format_args!("{field}.targetPort"), *target)?),
        Some(IntOrString::String(name)) => Target::Named(name.as_str().into()),
    };
    Some(PortObject { name: name.into(), number, transport, node_port, target })
}

fn external_ips(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpAddr> {
    let mut external_ips = Vec::new();
    for (index, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        let Some(ip) = usable(text, &field, notes) else { continue };
        if is_link_local(ip) {
            notes.error(field, format!("{ip} is a link-local address; it is left out"));
        } else {
            external_ips.push(ip);
        }
    }
    external_ips
}

/// What a proxying load balancer has is its own: it comes to a node port.
fn load_balancer_ips(service: &Service, notes: &mut Notes) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten()).enumerate();
    let read = |(index, ingress): (usize, &k8s_openapi::api::core::v1::LoadBalancerIngress)| {
        let text = ingress.ip.as_deref().filter(|text| !text.is_empty())?;
        let is_left = ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        let field = format!("status.loadBalancer.ingress[{index}].ip");
        is_left.then(|| usable(text, &field, notes))?
    };
    ingress.filter_map(read).collect()
}

fn source_ranges(spec: &ServiceSpec, notes: &mut Notes) -> Vec<IpNet> {
    let texts = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let mut wrong = Vec::new();
    let mut ranges: Vec<IpNet> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match net(text) {
            Some(range) => ranges.push(range),
            None => wrong.push((format!("spec.loadBalancerSourceRanges[{index}]"), text)),
        }
    }
    let left =
        if ranges.is_empty() { "without any other, load balancers have nobody to let in" } else { "it is left out" };
    for (field, text) in wrong {
        notes.error(field, format!("{text:?} is no CIDR; {left}"));
    }
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

fn health_check_port(spec: &ServiceSpec, notes: &mut Notes) -> Option<u16> {
    const FIELD: &str = "spec.healthCheckNodePort";
    match spec.health_check_node_port.unwrap_or_default() {
        0 => {
            notes.warn(FIELD, "it has none: load balancers cannot ask which nodes have endpoints".into());
            None
        }
        number => notes.port(FIELD, number),
    }
}

fn affinity(spec: &ServiceSpec, notes: &mut Notes) -> Option<u32> {
    match spec.session_affinity.as_deref() {
        None | Some("None" | "") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            notes.error("spec.sessionAffinity", format!("{other:?} is neither ClientIP nor None; it counts as None"));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
    match u32::try_from(seconds).ok().filter(|seconds| (1..=86_400).contains(seconds)) {
        Some(seconds) => Some(seconds),
        None => {
            let what = format!("{seconds} is not 1 to 86400; it counts as {AFFINITY_SECONDS}");
            notes.error("spec.sessionAffinityConfig.clientIP.timeoutSeconds", what);
            Some(AFFINITY_SECONDS.unsigned_abs())
        }
    }
}
