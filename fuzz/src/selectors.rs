//! Label selectors, those that make no sense among them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sluice_policy::{Evaluator, Event, Family, Index, Limits, Party, PodName, Protocol, Verdict, View};
use sluice_policy_oracle::selector::{Labels, matches};

use crate::draw::Draws;

/// 63 characters, as many as there may be, and one more.
const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const TOO_LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const KEYS: [&str; 6] = ["a", "b", "A.b_c-1", "a/a", "example.com/a", LONG];
const NO_KEYS: [&str; 8] = ["", "-a", "a-", "a b", "/a", "a/", "é", TOO_LONG];
const VALUES: [&str; 5] = ["", "1", "2", "a.b", LONG];
const NO_VALUES: [&str; 5] = ["-", " ", "1/2", "é", TOO_LONG];
const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];
const NO_OPERATORS: [&str; 3] = ["", "in", "Gt"];

/// A word that makes sense, rarely one that does not.
fn word(good: &'static [&'static str], bad: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![40 => select(good), 1 => select(bad)].prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = LabelSelectorRequirement> {
    let values = prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        4 => vec(word(&VALUES, &NO_VALUES), 1..4).prop_map(Some),
    ];
    (word(&KEYS, &NO_KEYS), word(&OPERATORS, &NO_OPERATORS), values, any::<bool>()).prop_map(
        |(key, operator, values, is_careful)| {
            let values = if is_careful && operator.contains("Exist") { None } else { values };
            LabelSelectorRequirement { key, operator, values }
        },
    )
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&KEYS[..]).prop_map(str::to_owned), select(&VALUES[..]).prop_map(str::to_owned), 0..5)
}

/// Whether the API server takes a selector.
fn makes_sense(selector: &LabelSelector) -> bool {
    let is_key = |key: &String| KEYS.contains(&key.as_str());
    let is_value = |value: &String| VALUES.contains(&value.as_str());
    let by_labels = selector.match_labels.iter().flatten().all(|(key, value)| is_key(key) && is_value(value));
    let by_expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let values = expression.values.as_deref().unwrap_or_default();
        let takes_values = match expression.operator.as_str() {
            "In" | "NotIn" => true,
            "Exists" | "DoesNotExist" => false,
            _ => return false,
        };
        is_key(&expression.key) && values.iter().all(is_value) && values.is_empty() != takes_values
    });
    by_labels && by_expressions
}

fn policy(name: &str, spec: Value) -> NetworkPolicy {
    let policy = json!({ "metadata": { "namespace": "x", "name": name }, "spec": spec });
    serde_json::from_value(policy).unwrap_or_else(|error| panic!("{error}"))
}

fn pod(name: &str, last: usize, labels: &Labels) -> Event {
    let pod = json!({
        "metadata": { "namespace": "x", "name": name, "labels": labels },
        "status": { "podIP": format!("10.0.0.{last}") },
    });
    Event::from(&serde_json::from_value::<Pod>(pod).unwrap_or_else(|error| panic!("{error}")))
}

/// A selector selects the same pods as subjects and as peers, whether it comes before them or after.
pub(crate) fn check(data: &[u8]) {
    let mut draws = Draws::new(data);
    let (expressions, policies_first) = draws.any(&(0..4_usize, any::<bool>()));
    let selector = LabelSelector {
        match_labels: draws.any(&option::of(btree_map(word(&KEYS, &NO_KEYS), word(&VALUES, &NO_VALUES), 0..3))),
        match_expressions: Some(draws.up_to(expressions, &expression())),
    };
    let pods = draws.up_to(8, &labels());
    let subject = policy("subject", json!({ "podSelector": selector, "policyTypes": ["Ingress"] }));
    let asker = json!({ "matchLabels": { "asker": "1" } });
    let peers = json!({ "podSelector": asker, "egress": [{ "to": [{ "podSelector": selector }] }] });
    let policies = [&subject, &policy("peers", peers)].map(Event::from);
    for event in &policies {
        let refused = match event {
            Event::Invalid(error) => {
                let place = ["spec.podSelector", "spec.egress[0].to[0].podSelector"];
                assert!(place.iter().any(|place| error.field.starts_with(place)), "{error}");
                true
            }
            _ => false,
        };
        assert_eq!(refused, !makes_sense(&selector), "{selector:?}: {event:?}");
        if refused {
            return;
        }
    }
    let asker = pod("asker", 100, &BTreeMap::from([("asker".to_owned(), "1".to_owned())]));
    let named = pods.iter().enumerate().map(|(number, labels)| pod(&format!("pod-{number}"), number + 1, labels));
    let mut events: Vec<Event> = named.chain([asker]).collect();
    let at = if policies_first { 0 } else { events.len() };
    events.splice(at..at, policies);
    let mut index = Index::new(View::Everything, Limits::NONE);
    for event in events {
        index.apply(event);
    }
    let evaluator = Evaluator::new(&index);
    for (number, labels) in pods.iter().enumerate() {
        let name = PodName::new("x", &format!("pod-{number}"));
        let is_subject = index.policies_of(&name).any(|policy| policy.name.name == "subject");
        assert_eq!(is_subject, matches(&selector, labels), "{selector:?} and the labels {labels:?}");
        let (from, to) = (Party::Pod(PodName::new("x", "asker")), Party::Pod(name));
        let answer = evaluator.probe(&from, &to, Protocol::TCP, 80, Family::V4);
        let answer = answer.unwrap_or_else(|error| panic!("{error}"));
        let is_peer = answer.egress.verdict == Verdict::Allow;
        assert_eq!(is_peer, matches(&selector, labels), "{selector:?} as a peer and the labels {labels:?}");
    }
}
