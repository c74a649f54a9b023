//! Where objects come from.

mod directory;
mod files;
mod kubernetes;
mod watch;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::Value;
use sluice_policy::cluster_policy::ClusterNetworkPolicy;
use sluice_policy::object::{NamespaceObject, NodeObject as PolicyNode, Policy, PolicyObject};
use sluice_policy::{Kind, ObjectError, ObjectName, Strictness, manifest};
use sluice_service::object::{PodObject, ServiceObject, SliceObject};
use sluice_topology::NodeObject;

pub use directory::Directory;
pub use kubernetes::{Claimant, Kubernetes, Messenger};

/// An object, without all that does not matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A namespace.
    Namespace(NamespaceObject),
    /// A pod, and how it is.
    Pod(PodObject),
    /// A node: as policies know it, and as the ways between nodes need it.
    Node(PolicyNode, NodeObject),
    /// A policy of either kind.
    Policy(PolicyObject),
    /// A Service.
    Service(Box<ServiceObject>),
    /// An EndpointSlice.
    Slice(SliceObject),
}

impl Object {
    /// Its name.
    pub fn name(&self) -> ObjectName {
        match self {
            Self::Namespace(namespace) => ObjectName::new(Kind::Namespace, "", &namespace.name),
            Self::Pod(PodObject { pod, .. }) => ObjectName::new(Kind::Pod, &pod.name.namespace, &pod.name.name),
            Self::Node(node, _) => ObjectName::new(Kind::Node, "", &node.name),
            Self::Policy(policy) => policy.name.clone(),
            Self::Service(service) => service.name.object(),
            Self::Slice(slice) => slice.name.object(),
        }
    }
}

/// A change of what a source knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An object is new, or has changed.
    Is(Object),
    /// An object is gone, if it is the one that had this UID. Empty: whichever it is.
    Gone(ObjectName, String),
    /// An object is new or has changed, but makes no sense: what was known of it still holds.
    Wrong(ObjectError),
    /// Of all that cannot be read: where it is, what is wrong, what to do.
    Problems(Vec<String>),
    /// Of what there is not and need not be: what that means, and how to have it.
    Notes(Vec<String>),
    /// With this, all that there is has been told of.
    Listed,
}

impl TryFrom<&Node> for Object {
    type Error = ObjectError;

    fn try_from(node: &Node) -> Result<Self, ObjectError> {
        let known = PolicyNode::try_from(node)?;
        let object = ObjectName::new(Kind::Node, "", &known.name);
        let ways = NodeObject::try_from(node);
        let ways = ways.map_err(|error| ObjectError { object, field: error.field.into(), what: error.what })?;
        Ok(Self::Node(known, ways))
    }
}

macro_rules! objects {
    ($($object:ty => $variant:ident),* $(,)?) => {$(
        impl TryFrom<&$object> for Object {
            type Error = ObjectError;

            fn try_from(object: &$object) -> Result<Self, ObjectError> {
                object.try_into().map(Self::$variant)
            }
        }
    )*};
}

objects! {
    Namespace => Namespace,
    Pod => Pod,
    EndpointSlice => Slice,
}

impl TryFrom<&Service> for Object {
    type Error = ObjectError;

    fn try_from(service: &Service) -> Result<Self, ObjectError> {
        service.try_into().map(|service| Self::Service(Box::new(service)))
    }
}

impl sluice_manifest_reader::Object for Object {
    fn read(api_version: &str, kind: &str, object: Value) -> Option<Result<Self, String>> {
        let kind = Kind::of(api_version, kind)?;
        Some(written(kind, object).map_err(|error| error.to_string()))
    }
}

/// An object of a manifest.
fn written(kind: Kind, object: Value) -> Result<Object, ObjectError> {
    match kind {
        Kind::Namespace => (&manifest::read::<Namespace>(kind, object)?).try_into(),
        Kind::Pod => (&manifest::read::<Pod>(kind, object)?).try_into(),
        Kind::Node => (&manifest::read::<Node>(kind, object)?).try_into(),
        Kind::NetworkPolicy => {
            manifest::read::<NetworkPolicy>(kind, object)?.read(Strictness::Strict).map(Object::Policy)
        }
        Kind::ClusterNetworkPolicy => {
            manifest::read::<ClusterNetworkPolicy>(kind, object)?.read(Strictness::Strict).map(Object::Policy)
        }
        Kind::Service => (&manifest::read::<Service>(kind, object)?).try_into(),
        Kind::EndpointSlice => (&manifest::read::<EndpointSlice>(kind, object)?).try_into(),
    }
}

/// A source of objects.
pub trait Source: Send {
    /// Tells of all objects, part by part, until all that there are have been told of, and then of every change; until `tell`
    /// says that nobody listens any more.
    ///
    /// # Errors
    /// Where it cannot go on.
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Vec<Change>) -> bool) -> anyhow::Result<()>;
}
