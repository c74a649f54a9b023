//! Namespaces.

use k8s_openapi::api::core::v1::Namespace;

use super::{Note, PolicyMode, mode};
use crate::labels::Labels;
use crate::name::{Kind, ObjectError, ObjectName};

/// What matters of a Namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceObject {
    /// Its name.
    pub name: String,
    /// Its labels, `kubernetes.io/metadata.name` among them.
    pub labels: Labels,
    /// How its pods' policies are meant.
    pub mode: PolicyMode,
    /// What is not supported in it, and what becomes of that.
    pub notes: Vec<Note>,
}

impl NamespaceObject {
    /// A namespace of which nothing is known but that it is there.
    pub(crate) fn unlabelled(name: &str) -> Self {
        let (mode, notes) = Default::default();
        Self { name: name.to_owned(), labels: with_name(Labels::default(), name), mode, notes }
    }
}

/// The API server sets this label; manifests need not have it.
fn with_name(labels: Labels, name: &str) -> Labels {
    labels.with_default("kubernetes.io/metadata.name", name)
}

impl TryFrom<&Namespace> for NamespaceObject {
    type Error = ObjectError;

    fn try_from(namespace: &Namespace) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Namespace, &namespace.metadata)?;
        let labels = with_name(Labels::from(namespace.metadata.labels.as_ref()), &object.name);
        let (mode, notes) = mode::of(&namespace.metadata);
        Ok(Self { name: object.name, labels, mode, notes })
    }
}
