//! Label selectors.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::labels::{self, Labels};
use crate::path::{FieldError, Path};

/// A label selector: all of its requirements must hold, so an empty one selects everything. Two that say the same are
/// equal, in whatever order they say it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector(Box<[Requirement]>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Requirement {
    key: Box<str>,
    operator: Operator,
}

/// Values are sorted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Operator {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether it selects what has these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        let has = |values: &[Box<str>], value: &str| values.binary_search_by(|other| (**other).cmp(value)).is_ok();
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| has(values, value)),
                // Also where the key is absent.
                Operator::NotIn(values) => value.is_none_or(|value| !has(values, value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    /// Labels one of which everything selected has, as [`fingerprint`](labels::fingerprint)s. `None`: no such labels.
    pub(crate) fn anchors(&self) -> Option<Vec<u64>> {
        let alternatives = self.0.iter().filter_map(|requirement| match &requirement.operator {
            Operator::In(values) => Some((&requirement.key, values)),
            Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
        });
        let (key, values) = alternatives.min_by_key(|(_, values)| values.len())?;
        Some(values.iter().map(|value| labels::fingerprint(key, value)).collect())
    }

    /// A selector as the API has it.
    ///
    /// # Errors
    /// What the API server would refuse: an unknown operator, too many or no values, or keys and values that no label
    /// can have.
    pub(crate) fn of(selector: &LabelSelector, path: &Path<'_>) -> Result<Self, FieldError> {
        let mut requirements = Vec::new();
        let match_labels = path.field("matchLabels");
        for (key, value) in selector.match_labels.iter().flatten() {
            let here = match_labels.key(key);
            labels::check_key(key).map_err(|what| here.wrong(what))?;
            labels::check_value(value).map_err(|what| here.wrong(what))?;
            let operator = Operator::In([value.as_str().into()].into());
            requirements.push(Requirement { key: key.as_str().into(), operator });
        }
        let expressions = path.field("matchExpressions");
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let here = expressions.index(index);
            labels::check_key(&expression.key).map_err(|what| here.field("key").wrong(what))?;
            let listed = expression.values.as_deref().unwrap_or_default();
            for (index, value) in listed.iter().enumerate() {
                labels::check_value(value).map_err(|what| here.field("values").index(index).wrong(what))?;
            }
            let mut values: Vec<Box<str>> = listed.iter().map(|value| value.as_str().into()).collect();
            values.sort_unstable();
            values.dedup();
            let values = values.into_boxed_slice();
            let count = |is_right: bool, what: &str| match is_right {
                true => Ok(()),
                false => Err(here.field("values").wrong(format!("{what} with the operator {}", expression.operator))),
            };
            let operator = match expression.operator.as_str() {
                "In" => count(!values.is_empty(), "must not be empty").map(|()| Operator::In(values))?,
                "NotIn" => count(!values.is_empty(), "must not be empty").map(|()| Operator::NotIn(values))?,
                "Exists" => count(values.is_empty(), "must be empty").map(|()| Operator::Exists)?,
                "DoesNotExist" => count(values.is_empty(), "must be empty").map(|()| Operator::DoesNotExist)?,
                other => {
                    let what = format!("{other:?} is no operator: In, NotIn, Exists or DoesNotExist");
                    return Err(here.field("operator").wrong(what));
                }
            };
            requirements.push(Requirement { key: expression.key.as_str().into(), operator });
        }
        requirements.sort_unstable();
        requirements.dedup();
        Ok(Self(requirements.into()))
    }
}

/// As `kubectl get -l` has it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any labels");
        }
        for (at, Requirement { key, operator }) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn selector(value: Value) -> Result<Selector, String> {
        let selector: LabelSelector = serde_json::from_value(value).unwrap();
        Selector::of(&selector, &Path::root("podSelector")).map_err(|error| format!("{}: {}", error.field, error.what))
    }

    fn matches(value: Value, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        selector(value).unwrap().matches(&Labels::from(Some(&labels)))
    }

    fn expression(operator: &str, values: &[&str]) -> Value {
        json!({ "matchExpressions": [{ "key": "a", "operator": operator, "values": values }] })
    }

    #[test]
    fn operators() {
        assert!(matches(json!({}), &[]));
        assert!(matches(json!({ "matchLabels": { "a": "1" } }), &[("a", "1"), ("b", "2")]));
        assert!(!matches(json!({ "matchLabels": { "a": "1", "b": "1" } }), &[("a", "1")]));
        assert!(matches(expression("In", &["1", "2"]), &[("a", "2")]));
        assert!(!matches(expression("In", &["1", "2"]), &[]));
        assert!(!matches(expression("NotIn", &["1", "2"]), &[("a", "2")]));
        assert!(matches(expression("NotIn", &["1", "2"]), &[("a", "3")]));
        assert!(matches(expression("NotIn", &["1", "2"]), &[]), "NotIn matches where the key is absent");
        assert!(matches(expression("Exists", &[]), &[("a", "")]) && !matches(expression("Exists", &[]), &[]));
        assert!(
            matches(expression("DoesNotExist", &[]), &[]) && !matches(expression("DoesNotExist", &[]), &[("a", "")])
        );
    }

    #[test]
    fn what_says_the_same_is_equal() {
        let a = json!({ "matchLabels": { "a": "1" }, "matchExpressions": [{ "key": "b", "operator": "Exists" }] });
        let b = json!({ "matchExpressions": [
            { "key": "b", "operator": "Exists" }, { "key": "a", "operator": "In", "values": ["1", "1"] },
        ] });
        assert_eq!(selector(a), selector(b));
    }

    #[test]
    fn selectors_are_told_as_kubectl_has_them() {
        let all = json!({ "matchLabels": { "z": "1" }, "matchExpressions": [
            expression("In", &["2", "1"])["matchExpressions"][0], { "key": "b", "operator": "NotIn", "values": ["x"] },
            { "key": "c", "operator": "Exists" }, { "key": "d", "operator": "DoesNotExist" },
        ] });
        assert_eq!(selector(all).unwrap().to_string(), "a in (1,2),b notin (x),c,!d,z=1");
        assert_eq!(Selector::everything().to_string(), "any labels");
    }

    #[test]
    fn nonsense_is_refused_where_it_stands() {
        for (value, field) in [
            (expression("Near", &["1"]), "podSelector.matchExpressions[0].operator"),
            (expression("In", &[]), "podSelector.matchExpressions[0].values"),
            (expression("Exists", &["1"]), "podSelector.matchExpressions[0].values"),
            (expression("In", &["1", "a b"]), "podSelector.matchExpressions[0].values[1]"),
            (
                json!({ "matchExpressions": [{ "key": "", "operator": "Exists" }] }),
                "podSelector.matchExpressions[0].key",
            ),
            (json!({ "matchLabels": { "a b": "1" } }), "podSelector.matchLabels[a b]"),
            (json!({ "matchLabels": { "a": "!" } }), "podSelector.matchLabels[a]"),
        ] {
            let error = selector(value).expect_err("nonsense");
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
    }

    #[test]
    fn anchors_are_the_fewest_alternatives() {
        let of = |value| selector(value).unwrap().anchors();
        assert_eq!(of(expression("NotIn", &["1"])), None);
        assert_eq!(of(expression("In", &["1", "2"])).map(|anchors| anchors.len()), Some(2));
        let both = json!({ "matchLabels": { "z": "1" }, "matchExpressions": [
            { "key": "a", "operator": "In", "values": ["1", "2"] },
        ] });
        assert_eq!(of(both), Some(vec![labels::fingerprint("z", "1")]));
    }
}
