//! Whether policies are enforced, or only tried.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_abi::PolicyMode;

use super::{Note, Severity};

/// Where namespaces and nodes say which mode they want.
const ANNOTATION: &str = "sluice.dev/policy-mode";

/// What an object's annotation asks for, and what is wrong with it. Whoever cannot be understood is protected.
pub(super) fn of(metadata: &ObjectMeta) -> (PolicyMode, Vec<Note>) {
    match metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION)).map(String::as_str) {
        None | Some("enforce") => (PolicyMode::Enforce, Vec::new()),
        Some("audit") => (PolicyMode::Audit, Vec::new()),
        Some(other) => {
            let field = format!("metadata.annotations[{ANNOTATION}]");
            let what = format!("{other:?} is neither \"audit\" nor \"enforce\"; policies are enforced");
            (PolicyMode::Enforce, vec![Note { severity: Severity::Error, field, what }])
        }
    }
}
