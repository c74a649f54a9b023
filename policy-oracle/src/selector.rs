//! Standard label selector semantics.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether a selector matches labels: "The result of matchLabels and matchExpressions are ANDed. An empty label selector
/// matches all objects."
///
/// # Panics
/// Where an operator is none.
#[must_use]
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let by_labels = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let by_expressions = selector.match_expressions.iter().flatten().all(|expression| meets(expression, labels));
    by_labels && by_expressions
}

fn meets(expression: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&expression.key);
    let is_listed = |value: &String| expression.values.iter().flatten().any(|listed| listed == value);
    match expression.operator.as_str() {
        "In" => value.is_some_and(is_listed),
        // An object without the key has no value that could be listed.
        "NotIn" => !value.is_some_and(is_listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        other => panic!("{other:?} is no operator of a label selector"),
    }
}
