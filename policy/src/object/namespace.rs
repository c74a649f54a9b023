//! Namespaces.

use k8s_openapi::api::core::v1::Namespace;

use crate::labels::Labels;
use crate::name::{Kind, ObjectError, ObjectName};

/// What matters of a Namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceObject {
    /// Its name.
    pub name: String,
    /// Its labels, `kubernetes.io/metadata.name` among them.
    pub labels: Labels,
}

impl NamespaceObject {
    /// A namespace of which nothing is known but that it is there.
    pub(crate) fn unlabelled(name: &str) -> Self {
        Self::with_labels(name, Labels::default())
    }

    fn with_labels(name: &str, labels: Labels) -> Self {
        // The API server sets this one; manifests need not have it.
        Self { name: name.to_owned(), labels: labels.with_default("kubernetes.io/metadata.name", name) }
    }
}

impl TryFrom<&Namespace> for NamespaceObject {
    type Error = ObjectError;

    fn try_from(namespace: &Namespace) -> Result<Self, ObjectError> {
        let object = ObjectName::of(Kind::Namespace, &namespace.metadata)?;
        Ok(Self::with_labels(&object.name, Labels::from(namespace.metadata.labels.as_ref())))
    }
}
