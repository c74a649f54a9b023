//! What the status of a ClusterNetworkPolicy says of what is not supported in it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use sluice_policy::cluster_policy::ClusterNetworkPolicy;
use sluice_policy::object::Policy;
use sluice_policy::{ObjectError, Severity, Strictness};

/// Whether all of a policy is supported.
const SUPPORTED: &str = "sluice.dev/Supported";
/// Longest message, bytes; the API server takes 32,768 characters.
const LONGEST: usize = 32_000;

/// What this agent has had written into policies' status, by the policies' UIDs. Agents of another version may say something
/// else: each says it once, and the last one has it.
#[derive(Debug, Default)]
pub struct Conditions(BTreeMap<String, String>);

impl Conditions {
    /// What a policy's status should say and does not. The agents of all nodes come to the same.
    pub fn due(&mut self, policy: &ClusterNetworkPolicy) -> Option<Condition> {
        let (reason, doubts) = doubts(policy);
        let mut conditions = policy.status.iter().flat_map(|status| &status.conditions);
        let shown = conditions.find(|condition| condition.type_ == SUPPORTED);
        let (status, message) = match (doubts.is_empty(), shown) {
            // Nothing to say, and nothing to take back.
            (true, None) => return None,
            (true, Some(_)) => ("True", String::new()),
            (false, _) => ("False", joined(&doubts)),
        };
        let is_shown =
            |shown: &Condition| (&*shown.status, &*shown.reason, &shown.message) == (status, reason, &message);
        if shown.is_some_and(is_shown) {
            return None;
        }
        let uid = policy.uid().unwrap_or_default();
        if self.0.insert(uid, message.clone()).as_ref() == Some(&message) {
            return None;
        }
        let since = shown.filter(|shown| shown.status == status).map(|shown| shown.last_transition_time.clone());
        Some(Condition {
            type_: SUPPORTED.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
            observed_generation: None,
        })
    }
}

/// What of a policy is not in force as it stands there, and in a word, why. The API server takes some that make no sense: its
/// schema knows nothing of what may stand in selectors, for example.
fn doubts(policy: &ClusterNetworkPolicy) -> (&'static str, Vec<String>) {
    match policy.read(Strictness::AsServed) {
        Err(ObjectError { field, what, .. }) => {
            let what = format!("{field}: {what}; none of the policy is in force as it stands here");
            ("Invalid", vec![what])
        }
        Ok(policy) => {
            let notes = policy.notes.iter().filter(|note| note.severity == Severity::Error);
            let notes: Vec<String> = notes.map(|note| format!("{}: {}", note.field, note.what)).collect();
            (if notes.is_empty() { "Supported" } else { "UnsupportedFields" }, notes)
        }
    }
}

/// Notes, one after the other, as many as there is room for.
fn joined(notes: &[String]) -> String {
    let mut text = String::new();
    for (index, note) in notes.iter().enumerate() {
        if text.len() + note.len() > LONGEST {
            return format!("{text}, and {} more", notes.len() - index);
        }
        if index > 0 {
            text.push_str(". ");
        }
        text.push_str(note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(egress: serde_json::Value, conditions: &[Condition]) -> ClusterNetworkPolicy {
        serde_json::from_value(json!({
            "metadata": { "name": "a", "uid": "u1" },
            "spec": { "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": egress },
            "status": { "conditions": conditions },
        }))
        .expect("a policy")
    }

    #[test]
    fn what_is_not_supported_is_said_once_and_taken_back() {
        let names = json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]);
        let mut conditions = Conditions::default();
        assert_eq!(conditions.due(&policy(json!([]), &[])), None, "nothing to say");
        let said = conditions.due(&policy(names.clone(), &[])).expect("something to say");
        assert_eq!((&*said.status, &*said.reason), ("False", "UnsupportedFields"));
        assert!(said.message.starts_with("spec.egress[0].to[0].domainNames: "), "{}", said.message);
        assert_eq!(conditions.due(&policy(names.clone(), std::slice::from_ref(&said))), None, "it is there");
        let other = Condition { message: "of another version".into(), ..said.clone() };
        assert_eq!(conditions.due(&policy(names.clone(), &[other])), None, "no agent is to be fought");
        let more = json!([{ "action": "Deny", "to": [{ "services": ["a"] }] }]);
        let now = conditions.due(&policy(more, std::slice::from_ref(&said))).expect("something else to say");
        let since = [&said, &now].map(|condition| condition.last_transition_time.0.as_second());
        assert_eq!(since[0], since[1], "it was not supported before");
        let back = conditions.due(&policy(json!([]), &[now])).expect("to be taken back");
        assert_eq!((&*back.status, &*back.message), ("True", ""));
        assert_eq!(conditions.due(&policy(json!([]), std::slice::from_ref(&back))), None);
        assert!(conditions.due(&policy(names, &[back])).is_some(), "it is not supported again");
    }

    #[test]
    fn a_policy_that_cannot_be_read_says_so_and_one_that_is_taken_otherwise_does_not() {
        let to = |peer: serde_json::Value| policy(json!([{ "action": "Deny", "to": [peer] }]), &[]);
        let selector = json!({ "namespaces": { "matchLabels": { "a b": "c" } } });
        let said = Conditions::default().due(&to(selector)).expect("something to say");
        assert_eq!((&*said.status, &*said.reason), ("False", "Invalid"));
        assert!(said.message.starts_with("spec.egress[0].to[0].namespaces.matchLabels[a b]: "), "{}", said.message);
        assert_eq!(Conditions::default().due(&to(json!({ "networks": ["10.0.0.1/8"] }))), None);
    }

    #[test]
    fn a_message_has_room_for_as_many_notes_as_it_may() {
        assert_eq!(joined(&["a: b".into(), "c: d".into()]), "a: b. c: d");
        let notes = vec!["x".repeat(LONGEST / 2 - 1); 3];
        assert!(joined(&notes).ends_with("x, and 1 more"));
    }
}
