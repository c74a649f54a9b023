//! Objects that somebody writes: read as strictly as `kubectl` has the API server read them.

use std::fmt::Display;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster_policy::ClusterNetworkPolicy;
use crate::index::Event;
use crate::name::{Kind, ObjectError, ObjectName};
use crate::object::Policy;
use crate::path::{FieldError, Path};
use crate::reading::Strictness;

impl Event {
    /// That an object of a manifest is there; `None`: it does not matter to policies.
    ///
    /// # Errors
    /// Where the API server would refuse the object, or somebody who mends manifests should know.
    pub fn written(kind: Kind, object: Value) -> Result<Option<Self>, ObjectError> {
        Ok(Some(match kind {
            Kind::Namespace => Self::Namespace((&read::<Namespace>(kind, object)?).try_into()?),
            Kind::Pod => Self::Pod((&read::<Pod>(kind, object)?).try_into()?),
            Kind::Node => Self::Node((&read::<Node>(kind, object)?).try_into()?),
            Kind::NetworkPolicy => Self::Policy(read::<NetworkPolicy>(kind, object)?.read(Strictness::Strict)?),
            Kind::ClusterNetworkPolicy => {
                Self::Policy(read::<ClusterNetworkPolicy>(kind, object)?.read(Strictness::Strict)?)
            }
            Kind::Service | Kind::EndpointSlice => return Ok(None),
        }))
    }
}

/// Reads an object of a manifest.
///
/// # Errors
/// Where something in it is of another type than it should be, or it has fields that there are not: of kinds in which a
/// misspelt one would be missed.
pub fn read<K: DeserializeOwned + Serialize>(kind: Kind, mut object: Value) -> Result<K, ObjectError> {
    let name = name(kind, &object);
    let wrong = |FieldError { field, what }| name.wrong(field, what);
    if let Some(version) = object.get("apiVersion").and_then(Value::as_str).filter(|it| *it != kind.api_version()) {
        return Err(wrong(Path::root("apiVersion").wrong(format!("{version:?} is not {:?}", kind.api_version()))));
    }
    let metadata = Path::root("metadata");
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    if let Some((key, value)) = labels.into_iter().flatten().find(|(_, value)| !value.is_string()) {
        return Err(wrong(metadata.field("labels").key(key).wrong(no_text(value))));
    }
    write_quantities_out(&mut object);
    let typed: K = serde_path_to_error::deserialize(&object).map_err(|error| {
        let field = match error.path().to_string() {
            root if root == "." => String::new(),
            field => field,
        };
        name.wrong(field, error.inner().to_string())
    })?;
    let is_strict = match kind {
        Kind::NetworkPolicy | Kind::ClusterNetworkPolicy | Kind::Service | Kind::EndpointSlice => true,
        Kind::Namespace | Kind::Pod | Kind::Node => false,
    };
    if is_strict {
        let known = serde_json::to_value(&typed).map_err(|error| name.wrong("", error.to_string()))?;
        // What others say of it, whatever the version.
        let written = object.as_object().into_iter().flatten().filter(|(field, _)| *field != "status");
        for (field, value) in written {
            has_no_other_fields(&Path::root(field), value, known.get(field)).map_err(wrong)?;
        }
    }
    Ok(typed)
}

/// What an object is called, as far as that can be read.
fn name(kind: Kind, object: &Value) -> ObjectName {
    let text = |field| object.pointer(field).and_then(Value::as_str);
    let namespace = if kind.is_namespaced() { text("/metadata/namespace").unwrap_or("default") } else { "" };
    ObjectName::new(kind, namespace, text("/metadata/name").unwrap_or_default())
}

fn no_text(value: &impl Display) -> String {
    format!("{value} is no text; write it as \"{value}\"")
}

/// Quantities may be written as numbers, which their type does not take.
fn write_quantities_out(value: &mut Value) {
    const LISTS: [&str; 5] = ["limits", "requests", "overhead", "capacity", "allocatable"];
    let write = |value: &mut Value| {
        if let Value::Number(number) = value {
            *value = number.to_string().into();
        }
    };
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::Object(quantities) if LISTS.contains(&&**field) => quantities.values_mut().for_each(write),
                    Value::Number(_) if field == "sizeLimit" => write(value),
                    other => write_quantities_out(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_quantities_out),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether all that is written was understood: `known` is what of it was.
fn has_no_other_fields(path: &Path<'_>, written: &Value, known: Option<&Value>) -> Result<(), FieldError> {
    match (written, known) {
        (Value::Null, _) => Ok(()),
        (_, None) => Err(path.unknown()),
        (Value::Object(fields), Some(known)) => {
            fields.iter().try_for_each(|(name, value)| has_no_other_fields(&path.field(name), value, known.get(name)))
        }
        (Value::Array(items), Some(known)) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, item)| has_no_other_fields(&path.index(index), item, known.get(index)))
        }
        (Value::Bool(_) | Value::Number(_) | Value::String(_), Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(kind: Kind, object: Value) -> Result<Event, String> {
        let read = Event::written(kind, object).map_err(|error| error.to_string())?;
        Ok(read.expect("a kind that matters to policies"))
    }

    fn policy(spec: Value) -> Result<Event, String> {
        written(Kind::NetworkPolicy, json!({ "metadata": { "name": "p", "namespace": "x" }, "spec": spec }))
    }

    #[test]
    fn fields_that_there_are_not_are_named() {
        let rule = json!({ "from": [{ "podSelector": {} }], "ports": [{ "port": 80, "endPort": null }] });
        let all = json!({ "podSelector": { "matchLabels": { "a": "b" } }, "policyTypes": [], "ingress": [rule] });
        assert!(policy(all).is_ok());
        for (spec, field) in [
            (json!({ "podselector": {} }), "spec.podselector"),
            (json!({ "policytypes": ["Egress"] }), "spec.policytypes"),
            (json!({ "podSelector": { "matchLabel": {} } }), "spec.podSelector.matchLabel"),
            (json!({ "ingress": [{}, { "port": [] }] }), "spec.ingress[1].port"),
            (json!({ "egress": [{ "to": [{ "podSelector": {}, "name": "a" }] }] }), "spec.egress[0].to[0].name"),
        ] {
            let error = policy(spec).expect_err("there is no such field");
            assert!(error.starts_with(&format!("NetworkPolicy x/p: {field}: ")), "{error}");
        }
        let selector = json!({ "matchExpressions": [{ "key": "a", "operator": "Exists", "value": "b" }] });
        let spec = json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": selector }, "ingress": [] });
        let error = written(Kind::ClusterNetworkPolicy, json!({ "metadata": { "name": "c" }, "spec": spec }));
        let error = error.expect_err("there is no such field");
        let field = "spec.subject.namespaces.matchExpressions[0].value";
        assert!(error.starts_with(&format!("ClusterNetworkPolicy c: {field}: ")), "{error}");
    }

    #[test]
    fn what_is_of_another_type_is_named_with_its_object() {
        for (spec, field) in [
            (json!({ "ingress": [{ "ports": [{ "port": [] }] }] }), "spec.ingress[0].ports[0].port"),
            (json!({ "podSelector": { "matchLabels": { "a": 1 } } }), "spec.podSelector.matchLabels.a"),
            (json!([]), "spec"),
        ] {
            let error = policy(spec).expect_err("another type");
            assert!(error.starts_with(&format!("NetworkPolicy x/p: {field}: invalid type: ")), "{error}");
        }
        let metadata = written(Kind::Pod, json!({ "metadata": [] })).expect_err("another type");
        assert!(metadata.starts_with("Pod: metadata: invalid type: "), "{metadata}");
        for (kind, value, shown) in [(Kind::Pod, json!(true), "Pod default/o"), (Kind::Node, json!(1), "Node o")] {
            let object = json!({ "metadata": { "name": "o", "labels": { "a": "b", "example.com/c": value } } });
            let error = written(kind, object).expect_err("labels are text");
            let what = format!("{shown}: metadata.labels[example.com/c]: {value} is no text; write it as \"{value}\"");
            assert_eq!(error, what);
        }
    }

    #[test]
    fn versions_are_told_apart_and_quantities_may_be_numbers() {
        let object = json!({ "apiVersion": "networking.k8s.io/v2", "metadata": { "name": "p" } });
        let error = written(Kind::NetworkPolicy, object).expect_err("another version");
        assert_eq!(
            error,
            "NetworkPolicy default/p: apiVersion: \"networking.k8s.io/v2\" is not \"networking.k8s.io/v1\""
        );
        let resources = json!({ "limits": { "cpu": 1, "memory": "1Gi" }, "requests": { "cpu": 0.5 } });
        let volume = json!({ "name": "v", "emptyDir": { "sizeLimit": 1024 } });
        let spec = json!({ "containers": [{ "name": "c", "resources": resources }], "volumes": [volume] });
        assert!(written(Kind::Pod, json!({ "metadata": { "name": "p" }, "spec": spec })).is_ok());
    }
}
