//! What the status of a ClusterNetworkPolicy says of what is not supported in it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::DefaultBackoff;
use kube::{Api, ResourceExt};
use serde_json::json;
use sluice_policy::cluster_policy::{API_VERSION, ClusterNetworkPolicy, KIND};
use sluice_policy::object::Policy;
use sluice_policy::{ObjectError, Severity, Strictness};
use tokio::time::sleep;

use super::MANAGER;
use super::access::{Trouble, passes};
use crate::causes;

/// Whether all of a policy is supported.
const SUPPORTED: &str = "sluice.dev/Supported";
/// Within which time one of all agents writes what all would.
const WITHIN: Duration = Duration::from_secs(2);
/// So many are reckoned with.
const AGENTS: f64 = 10_000.0;
/// Longest message, bytes; the API server takes 32,768 characters.
const LONGEST: usize = 32_000;

/// What there is to write into a policy's status.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// This.
    Condition(Condition),
    /// Nothing, nor what was to be written before.
    Nothing,
    /// Nothing but what was to be written before.
    AsBefore,
}

/// What this agent would have in policies' status, by the policies' UIDs. Agents of another version may say something else: it
/// is said once, and the last one has it.
#[derive(Debug, Default)]
pub struct Conditions {
    said: BTreeMap<String, Said>,
    /// Those of which a list that is under way has not told yet.
    unlisted: BTreeSet<String>,
}

/// A message that has stood in a status, or will.
#[derive(Debug)]
struct Said {
    message: String,
    /// Whether this agent has had it written, or another has.
    is_own: bool,
}

impl Conditions {
    /// All policies are listed anew from here on.
    pub fn list(&mut self) {
        self.unlisted = self.said.keys().cloned().collect();
    }

    /// They are: of those that were not told of, nothing is to be kept.
    pub fn listed(&mut self) {
        for uid in std::mem::take(&mut self.unlisted) {
            self.said.remove(&uid);
        }
    }

    /// A policy is gone.
    pub fn forget(&mut self, policy: &ClusterNetworkPolicy) {
        self.said.remove(&policy.uid().unwrap_or_default());
    }

    /// All are gone.
    pub fn clear(&mut self) {
        self.said.clear();
    }

    /// What a policy's status should say and does not. The agents of all nodes come to the same.
    pub fn due(&mut self, policy: &ClusterNetworkPolicy) -> Due {
        let (reason, doubts) = doubts(policy);
        let mut conditions = policy.status.iter().flat_map(|status| &status.conditions);
        let shown = conditions.find(|condition| condition.type_ == SUPPORTED);
        let uid = policy.uid().unwrap_or_default();
        self.unlisted.remove(&uid);
        let (status, message) = match (doubts.is_empty(), shown) {
            // Nothing to say, and nothing to take back.
            (true, None) => {
                self.said.remove(&uid);
                return Due::Nothing;
            }
            (true, Some(_)) => ("True", String::new()),
            (false, _) => ("False", joined(&doubts)),
        };
        let is_shown =
            |shown: &Condition| (&*shown.status, &*shown.reason, &shown.message) == (status, reason, &message);
        let said = self.said.get(&uid).filter(|said| said.message == message);
        if shown.is_some_and(is_shown) {
            if said.is_none() {
                self.said.insert(uid, Said { message, is_own: false });
            }
            return Due::Nothing;
        }
        // What another had written is to be said again where somebody has removed it.
        if said.is_some_and(|said| said.is_own || shown.is_some()) {
            return Due::AsBefore;
        }
        self.said.insert(uid, Said { message: message.clone(), is_own: true });
        let since = shown.filter(|shown| shown.status == status).map(|shown| shown.last_transition_time.clone());
        Due::Condition(Condition {
            type_: SUPPORTED.into(),
            status: status.into(),
            reason: reason.into(),
            message,
            last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
            observed_generation: None,
        })
    }
}

/// How long an agent waits, by a random number, whether another writes what it would. Most wait long, and the shorter the wait,
/// the fewer: of ten times as many agents the first comes a quarter of [`WITHIN`] earlier, with no more beside it before what it
/// has written is known.
fn delay(random: u64) -> Duration {
    // From 0 up to 1, but for the 0.
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    WITHIN.mul_f64((1.0 + share.ln() / AGENTS.ln()).max(0.0))
}

/// Writes a condition into the status of a policy, unless another agent has done so meanwhile and this is dropped; again and
/// again, ever less often, until it is done or the server says that it will not be. Who is refused goes on: somebody may let him.
pub async fn write(
    api: Api<ClusterNetworkPolicy>,
    name: String,
    condition: Condition,
    tell: impl Fn(Result<(), Trouble>),
) {
    let patch = Patch::Apply(json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": { "name": name },
        "status": { "conditions": [condition] },
    }));
    let params = PatchParams::apply(MANAGER).force();
    let mut pause = DefaultBackoff::default();
    sleep(delay(RandomState::new().hash_one(&name))).await;
    loop {
        match api.patch_status(&name, &params, &patch).await {
            Ok(_) => return tell(Ok(())),
            Err(kube::Error::Api(status)) if status.is_forbidden() => tell(Err(Trouble::Refused(format!(
                "the API server does not let this agent say in the status of {KIND} {name} what is not supported in it ({}): give its \
                 account the verb patch on clusternetworkpolicies/status, as manifests/base/rbac.yaml does; policies are in force \
                 all the same",
                status.message
            )))),
            Err(error) if passes(&error) => {
                tracing::debug!(%name, %error, "the policy's status is written again later")
            }
            Err(error) => {
                let error = causes::of(&error);
                return tracing::warn!(error, "the status of {KIND} {name} does not say what is not supported in it");
            }
        }
        sleep(pause.next().unwrap_or_default()).await;
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

    fn condition(due: Due) -> Condition {
        match due {
            Due::Condition(condition) => condition,
            Due::Nothing | Due::AsBefore => panic!("there is something to say"),
        }
    }

    #[test]
    fn what_is_not_supported_is_said_once_and_taken_back() {
        let names = json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]);
        let mut conditions = Conditions::default();
        assert_eq!(conditions.due(&policy(json!([]), &[])), Due::Nothing, "nothing to say");
        let said = condition(conditions.due(&policy(names.clone(), &[])));
        assert_eq!((&*said.status, &*said.reason), ("False", "UnsupportedFields"));
        assert!(said.message.starts_with("spec.egress[0].to[0].domainNames: "), "{}", said.message);
        assert_eq!(conditions.due(&policy(names.clone(), std::slice::from_ref(&said))), Due::Nothing, "it is there");
        let other = Condition { message: "of another version".into(), ..said.clone() };
        assert_eq!(conditions.due(&policy(names.clone(), &[other])), Due::AsBefore, "no agent is to be fought");
        let more = json!([{ "action": "Deny", "to": [{ "services": ["a"] }] }]);
        let now = condition(conditions.due(&policy(more, std::slice::from_ref(&said))));
        let since = [&said, &now].map(|condition| condition.last_transition_time.0.as_second());
        assert_eq!(since[0], since[1], "it was not supported before");
        let back = condition(conditions.due(&policy(json!([]), &[now])));
        assert_eq!((&*back.status, &*back.message), ("True", ""));
        assert_eq!(conditions.due(&policy(json!([]), std::slice::from_ref(&back))), Due::Nothing);
        condition(conditions.due(&policy(names.clone(), &[back])));
        assert_eq!(conditions.due(&policy(json!([]), &[])), Due::Nothing, "nobody has ever written it");
        condition(conditions.due(&policy(names, &[])));
    }

    #[test]
    fn what_another_agent_has_said_is_not_said_again_unless_it_is_removed() {
        let names = || json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]);
        let said = condition(Conditions::default().due(&policy(names(), &[])));
        let mut conditions = Conditions::default();
        assert_eq!(conditions.due(&policy(names(), std::slice::from_ref(&said))), Due::Nothing);
        let other = Condition { message: "of another version".into(), ..said.clone() };
        assert_eq!(conditions.due(&policy(names(), std::slice::from_ref(&other))), Due::AsBefore);
        condition(Conditions::default().due(&policy(names(), &[other])));
        condition(conditions.due(&policy(names(), &[])));
        assert_eq!(conditions.due(&policy(names(), &[])), Due::AsBefore, "once");
    }

    #[test]
    fn of_policies_that_are_gone_nothing_is_kept() {
        let names = json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]);
        let known = policy(names, &[]);
        let mut conditions = Conditions::default();
        condition(conditions.due(&known));
        conditions.list();
        conditions.due(&known);
        conditions.listed();
        assert_eq!(conditions.due(&known), Due::AsBefore, "it was listed");
        conditions.list();
        conditions.listed();
        assert!(conditions.said.is_empty(), "it was not");
        condition(conditions.due(&known));
        conditions.forget(&known);
        assert!(conditions.said.is_empty());
        condition(conditions.due(&known));
        conditions.clear();
        assert!(conditions.said.is_empty());
    }

    #[test]
    fn a_policy_that_cannot_be_read_says_so_and_one_that_is_taken_otherwise_does_not() {
        let to = |peer: serde_json::Value| policy(json!([{ "action": "Deny", "to": [peer] }]), &[]);
        let selector = json!({ "namespaces": { "matchLabels": { "a b": "c" } } });
        let said = condition(Conditions::default().due(&to(selector)));
        assert_eq!((&*said.status, &*said.reason), ("False", "Invalid"));
        assert!(said.message.starts_with("spec.egress[0].to[0].namespaces.matchLabels[a b]: "), "{}", said.message);
        assert_eq!(Conditions::default().due(&to(json!({ "networks": ["10.0.0.1/8"] }))), Due::Nothing);
    }

    #[test]
    fn of_any_number_of_agents_few_are_the_first() {
        for agents in [1, 3, 100, 5_000] {
            let mut delays: Vec<Duration> = (0..agents).map(|agent| delay(u64::MAX / agents * agent)).collect();
            delays.sort();
            assert!(delays.last() <= Some(&WITHIN), "{delays:?}");
            let known = delays[0] + Duration::from_millis(200);
            let first = delays.iter().filter(|delay| **delay <= known).count();
            assert!(first <= 5, "{first} of {agents}");
        }
    }

    #[test]
    fn a_message_has_room_for_as_many_notes_as_it_may() {
        assert_eq!(joined(&["a: b".into(), "c: d".into()]), "a: b. c: d");
        let notes = vec!["x".repeat(LONGEST / 2 - 1); 3];
        assert!(joined(&notes).ends_with("x, and 1 more"));
    }
}
