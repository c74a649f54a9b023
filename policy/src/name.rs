//! What objects are called, and what is said of those that make no sense.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use thiserror::Error;

use crate::cluster_policy;
use crate::labels;

/// A kind of object that matters here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A Namespace.
    Namespace,
    /// A Pod.
    Pod,
    /// A Node.
    Node,
    /// A NetworkPolicy.
    NetworkPolicy,
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// A Service.
    Service,
    /// An EndpointSlice.
    EndpointSlice,
}

impl Kind {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
        }
    }

    /// The API group and version that its objects are of.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Pod | Self::Node | Self::Service => "v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::ClusterNetworkPolicy => cluster_policy::API_VERSION,
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }

    /// The kind with a name, of the API group that an object says it is of, whatever the version; without a group, of ours.
    /// `None`: it does not matter here.
    pub fn of(api_version: &str, name: &str) -> Option<Self> {
        const ALL: [Kind; 7] = [
            Kind::Namespace,
            Kind::Pod,
            Kind::Node,
            Kind::NetworkPolicy,
            Kind::ClusterNetworkPolicy,
            Kind::Service,
            Kind::EndpointSlice,
        ];
        let kind = ALL.into_iter().find(|kind| kind.name() == name)?;
        (api_version.is_empty() || group(api_version) == group(kind.api_version())).then_some(kind)
    }

    /// Whether its objects are in namespaces.
    pub const fn is_namespaced(self) -> bool {
        match self {
            Self::Pod | Self::NetworkPolicy | Self::Service | Self::EndpointSlice => true,
            Self::Namespace | Self::Node | Self::ClusterNetworkPolicy => false,
        }
    }
}

/// The group of an API version; empty: the core group.
fn group(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty for kinds without.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl ObjectName {
    /// Names an object; `namespace` is empty for kinds without.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The name in an object's metadata; without a namespace it is in `default`, as everywhere in Kubernetes.
    ///
    /// # Errors
    /// Where the API server would not take that name.
    pub fn of(kind: Kind, metadata: &ObjectMeta) -> Result<Self, ObjectError> {
        let namespace = match &metadata.namespace {
            _ if !kind.is_namespaced() => "",
            Some(namespace) => namespace,
            None => "default",
        };
        let object = Self::new(kind, namespace, metadata.name.as_deref().unwrap_or_default());
        let wrong = |field: &str, what| object.wrong(field, what);
        if object.name.is_empty() {
            return Err(wrong("metadata.name", "it is required".into()));
        }
        if kind.is_namespaced() {
            labels::check_dns_label(namespace).map_err(|what| wrong("metadata.namespace", what))?;
        }
        let check = match kind {
            Kind::Namespace | Kind::Service => labels::check_dns_label,
            Kind::Pod | Kind::Node | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy | Kind::EndpointSlice => {
                labels::check_dns_subdomain
            }
        };
        check(&object.name).map_err(|what| wrong("metadata.name", what))?;
        Ok(object)
    }

    /// Something is wrong in one of its fields.
    pub fn wrong(&self, field: impl fmt::Display, what: String) -> ObjectError {
        ObjectError { object: self.clone(), field: field.to_string(), what }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            f.write_str(self.kind.name())
        } else if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// Names a Pod.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

impl PodName {
    /// Names a Pod.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An object makes no sense: what the API server would refuse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Error)]
#[error("{object}: {field}{}{what}", if .field.is_empty() { "" } else { ": " })]
pub struct ObjectError {
    /// Which object.
    pub object: ObjectName,
    /// Where in it, such as `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What is wrong there.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn kinds_are_those_of_their_groups() {
        assert_eq!(Kind::of("networking.k8s.io/v1", "NetworkPolicy"), Some(Kind::NetworkPolicy));
        assert_eq!(Kind::of("", "NetworkPolicy"), Some(Kind::NetworkPolicy));
        assert_eq!(Kind::of("v1", "Node"), Some(Kind::Node));
        assert_eq!(Kind::of("v1", "Service"), Some(Kind::Service));
        assert_eq!(Kind::of("discovery.k8s.io/v1beta1", "EndpointSlice"), Some(Kind::EndpointSlice));
        for (api_version, name) in [
            ("crd.projectcalico.org/v1", "NetworkPolicy"),
            ("config.openshift.io/v1", "Node"),
            ("v1", "Secret"),
            ("serving.knative.dev/v1", "Service"),
        ] {
            assert_eq!(Kind::of(api_version, name), None, "{api_version} {name}");
        }
    }
}
