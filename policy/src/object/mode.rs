//! Whether policies are enforced, or only tried.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Note;

/// What becomes of what policies deny.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicyMode {
    /// It is denied.
    #[default]
    Enforce,
    /// It is let through, and told of.
    Audit,
}

/// Where namespaces and nodes say which mode they want.
const ANNOTATION: &str = "sluice.dev/policy-mode";

impl PolicyMode {
    /// What an object's annotation asks for, and what is wrong with it. Whoever cannot be understood is protected.
    pub(super) fn of(metadata: &ObjectMeta) -> (Self, Vec<Note>) {
        match metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str) {
            None | Some("enforce") => (Self::Enforce, Vec::new()),
            Some("audit") => (Self::Audit, Vec::new()),
            Some(other) => {
                let field = format!("metadata.annotations[{ANNOTATION}]");
                let what = format!("{other:?} is neither \"audit\" nor \"enforce\"; policies are enforced");
                (Self::Enforce, vec![Note { field, what }])
            }
        }
    }
}
