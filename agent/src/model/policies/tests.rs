//! With a kernel that only takes notes.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use sluice_api::Failure;
use sluice_policy::object::ADDRESSES;
use sluice_policy::{Limits, ObjectName, View};

use super::*;
use crate::fixture::endpoint_of;
use crate::source::Kubernetes;

/// Takes notes, and fails where it is told to.
#[derive(Default)]
struct Notes {
    said: Vec<String>,
    fails_at: Option<&'static str>,
    endpoints: Vec<EndpointRecord>,
}

impl Notes {
    fn note(&mut self, what: String) -> Result<(), KernelError> {
        let fails = self.fails_at.is_some_and(|start| what.starts_with(start));
        self.said.push(what);
        if fails { Err(KernelError::Full(0)) } else { Ok(()) }
    }

    /// What was said since the last time.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }
}

impl Enforcer for Notes {
    fn take_over_policy(&mut self, _index: &mut Index) -> Result<(), KernelError> {
        self.note("all".into())
    }

    fn apply_policy(&mut self, _delta: &Delta) -> Result<(), KernelError> {
        self.note("change".into())
    }

    fn set_mode(&mut self, pod: &PodName, mode: PolicyMode) -> Result<(), KernelError> {
        self.note(format!("{pod}: {mode:?}"))
    }

    fn enforce(&mut self, record: &EndpointRecord) -> Result<EndpointStatus, KernelError> {
        self.note(format!("enforce {}", record.host_interface))?;
        self.endpoints.push(record.clone());
        Ok(EndpointStatus { record: record.clone(), slot: 1, revision: 0 })
    }

    fn release(&mut self, host_interface: &str, _still_passes: bool) -> Result<bool, KernelError> {
        self.endpoints.retain(|record| record.host_interface != host_interface);
        self.note(format!("release {host_interface}")).map(|()| true)
    }

    fn release_vanished(&mut self) -> Result<Vec<String>, KernelError> {
        self.note("release vanished".into()).map(|()| Vec::new())
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        let status = |record: &EndpointRecord| EndpointStatus { record: record.clone(), slot: 1, revision: 0 };
        self.endpoints.iter().map(status).collect()
    }
}

/// Policies of a node, whose source has listed nothing, and their kernel.
fn started(messenger: Option<Messenger>, limits: Limits) -> (Policies, Notes) {
    let mut policies = Policies::new("n1", Index::new(View::Node("n1".into()), limits), messenger);
    let mut kernel = Notes::default();
    policies.start(&mut kernel, Vec::new());
    assert_eq!(kernel.take(), ["all"]);
    (policies, kernel)
}

/// The same, with an API server that may be asked.
fn with_server() -> (Policies, Notes) {
    started(Some(Kubernetes::new(None).1), Limits::NONE)
}

fn pod(uid: &str, spec: Value, phase: &str) -> PodObject {
    let mut spec = spec;
    spec["nodeName"] = "n1".into();
    spec["containers"] = json!([]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "x", "uid": uid },
        "spec": spec,
        "status": { "phase": phase },
    }))
    .expect("a pod");
    PodObject::try_from(&pod).expect("makes sense")
}

fn running(uid: &str) -> PodObject {
    pod(uid, json!({}), "Running")
}

fn tell(policies: &mut Policies, kernel: &mut Notes, pod: PodObject) {
    let events = policies.pod_is(pod).into_iter().collect();
    policies.change(kernel, events);
}

fn endpoint(interface: &str, uid: &str, address: &str) -> EndpointRecord {
    endpoint_of(&PodName::new("x", "p"), uid, interface, address)
}

fn ask(policies: &mut Policies, kernel: &mut Notes, record: EndpointRecord) -> Receiver<Outcome> {
    let (reply, answer) = mpsc::channel();
    policies.admit(kernel, record, reply);
    answer
}

fn known_addresses(policies: &Policies) -> Option<Vec<String>> {
    let pod = policies.index().pod(&PodName::new("x", "p"))?;
    Some(pod.addresses.iter().map(ToString::to_string).collect())
}

fn error(answer: &Receiver<Outcome>) -> Failure {
    match answer.try_recv().expect("it is answered") {
        Outcome::Error(failure) => failure,
        Outcome::Ok(answer) => panic!("{answer:?}"),
    }
}

#[test]
fn until_all_is_listed_an_endpoint_that_goes_leaves_the_others_as_they_are() {
    let index = Index::new(View::Node("n1".into()), Limits::NONE);
    let mut policies = Policies::new("n1", index, Some(Kubernetes::new(None).1));
    let mut kernel = Notes::default();
    for (name, interface, address) in [("p", "sl1", "10.1.0.1"), ("q", "sl2", "10.1.0.2")] {
        let record = endpoint_of(&PodName::new("x", name), "u1", interface, address);
        policies.adopt(&record);
        kernel.endpoints.push(record);
    }
    assert_eq!(policies.release(&mut kernel, "sl1", false), done());
    assert_eq!((kernel.take(), policies.due()), (vec!["release sl1".to_owned()], None));
    policies.start(&mut kernel, Vec::new());
    assert_eq!(kernel.take(), ["all", "x/q: Enforce"]);
}

#[test]
fn a_pods_policy_comes_before_its_endpoint() {
    let (mut policies, mut kernel) = with_server();
    tell(&mut policies, &mut kernel, running("u1"));
    kernel.take();
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    assert_eq!(answer.try_recv(), Ok(done()));
    assert_eq!(kernel.take(), ["change", "x/p: Enforce", "enforce sl1"]);
    assert_eq!(known_addresses(&policies), Some(vec!["10.1.0.1".into()]), "the API learns of it later");
    assert_eq!(policies.release(&mut kernel, "sl1", false), done());
    assert_eq!(kernel.take(), ["release sl1", "change", "x/p: Enforce"]);
    assert_eq!(known_addresses(&policies), Some(Vec::new()));
}

#[test]
fn other_nodes_learn_a_new_pods_addresses_at_once_and_forget_them_with_its_endpoint() {
    let (mut source, messenger) = Kubernetes::new(None);
    let (mut policies, mut kernel) = started(Some(messenger), Limits::NONE);
    tell(&mut policies, &mut kernel, running("u1"));
    let record = |interface: &str, addresses: &[&str]| EndpointRecord {
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        ..endpoint(interface, "u1", "10.1.0.1")
    };
    let mut said = || {
        let words = source.take_words().into_iter();
        words.map(|word| format!("{} {}: {:?}", word.pod, word.uid, word.addresses)).collect::<Vec<_>>()
    };
    kernel.fails_at = Some("enforce");
    ask(&mut policies, &mut kernel, record("sl1", &["10.1.0.1", "fd00::1"]));
    assert_eq!(said(), ["x/p u1: []"], "what is not in force is not said");
    kernel.fails_at = None;
    ask(&mut policies, &mut kernel, record("sl1", &["10.1.0.1", "fd00::1"]));
    ask(&mut policies, &mut kernel, record("sl2", &["10.1.0.9"]));
    assert_eq!(said(), ["x/p u1: [10.1.0.1, fd00::1]"; 2], "the first of each family");
    policies.release(&mut kernel, "sl2", false);
    assert!(said().is_empty());
    policies.release(&mut kernel, "sl1", false);
    assert_eq!(said(), ["x/p u1: []"]);
}

/// A pod of a name on this node, of which that is announced, and this its kubelet says.
fn told_of(name: &str, announced: Option<&str>, said: Option<&str>) -> PodObject {
    let condition = |message: &str| json!({ "type": ADDRESSES, "status": "True", "message": message });
    let conditions: Vec<Value> = announced.map(condition).into_iter().collect();
    let said: Vec<Value> = said.map(|ip| json!({ "ip": ip })).into_iter().collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "x", "uid": format!("of-{name}") },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "conditions": conditions, "podIPs": said },
    }))
    .expect("a pod");
    PodObject::try_from(&pod).expect("makes sense")
}

/// What a source of those pods is told to say of them, once it has listed them, where an agent has left endpoints of those of
/// these names.
fn made_up(pods: Vec<PodObject>, endpoints: &[&str]) -> Vec<String> {
    let (mut source, messenger) = Kubernetes::new(None);
    let index = Index::new(View::Node("n1".into()), Limits::NONE);
    let mut policies = Policies::new("n1", index, Some(messenger));
    for name in endpoints {
        let (uid, interface) = (format!("of-{name}"), format!("sl-{name}"));
        policies.adopt(&endpoint_of(&PodName::new("x", name), &uid, &interface, "10.1.0.1"));
    }
    let events = pods.into_iter().filter_map(|pod| policies.pod_is(pod)).collect();
    policies.learn(events);
    assert_eq!(source.take_words(), [], "not all is listed");
    policies.start(&mut Notes::default(), Vec::new());
    let words = source.take_words().into_iter();
    words.map(|word| format!("{} {}: {:?}", word.pod, word.uid, word.addresses)).collect()
}

#[test]
fn addresses_that_an_agent_before_has_not_come_to_say_are_said() {
    let (right, wrong) = (Some("10.1.0.1"), Some("10.1.0.9"));
    let pods = vec![
        told_of("new", None, None),
        told_of("announced", right, None),
        told_of("said", None, right),
        told_of("again", wrong, wrong),
        told_of("elsewhere", None, wrong),
    ];
    let said = made_up(pods, &["new", "announced", "said", "again", "unlisted"]);
    assert_eq!(said, ["x/again of-again: [10.1.0.1]", "x/new of-new: [10.1.0.1]"]);
}

#[test]
fn what_is_announced_of_pods_whose_endpoints_went_while_no_agent_was_there_is_taken_back() {
    let (old, other) = (Some("10.1.0.1"), Some("10.1.0.2"));
    let pods = vec![
        told_of("stays", old, old),
        told_of("unconfirmed", old, None),
        told_of("confirmed", old, old),
        told_of("of-another-plugin", None, other),
        PodObject { node: Some("n2".into()), ..told_of("elsewhere", other, None) },
        pod("u1", json!({ "hostNetwork": true }), "Running"),
    ];
    let mut said = made_up(pods, &["stays"]);
    said.sort();
    assert_eq!(said, ["x/confirmed of-confirmed: []", "x/unconfirmed of-unconfirmed: []"]);
}

#[test]
fn an_endpoint_waits_for_its_own_pod_and_for_no_other() {
    let (mut policies, mut kernel) = with_server();
    tell(&mut policies, &mut kernel, running("u1"));
    let answer = ask(&mut policies, &mut kernel, endpoint("sl2", "u2", "10.1.0.2"));
    let due = policies.due();
    kernel.take();
    tell(&mut policies, &mut kernel, running("u1"));
    tell(&mut policies, &mut kernel, pod("u2", json!({}), "Failed"));
    assert_eq!(policies.due(), due, "it does not wait longer for that");
    assert!(answer.try_recv().is_err() && !kernel.take().contains(&"enforce sl2".into()), "it has ended");
    tell(&mut policies, &mut kernel, running("u2"));
    assert_eq!(answer.try_recv(), Ok(done()));
    assert_eq!(kernel.take(), ["change", "change", "x/p: Enforce", "enforce sl2"]);
}

#[test]
fn an_endpoint_whose_pod_stays_unknown_is_turned_away() {
    let (mut policies, mut kernel) = with_server();
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    let due = policies.due().expect("it does not wait for ever");
    policies.work(&mut kernel, due - Duration::from_millis(1));
    assert!(answer.try_recv().is_err());
    policies.work(&mut kernel, due);
    let failure = error(&answer);
    assert_eq!(failure.kind, ErrorKind::Unavailable);
    assert!(failure.message.starts_with("pod x/p (UID u1) is not known to the API server"), "{}", failure.message);
    assert_eq!((policies.due(), kernel.take()), (None, Vec::new()));
}

#[test]
fn an_endpoint_that_is_released_waits_no_more() {
    let (mut policies, mut kernel) = with_server();
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    policies.release(&mut kernel, "sl1", false);
    assert_eq!(error(&answer).kind, ErrorKind::Unavailable);
    tell(&mut policies, &mut kernel, running("u1"));
    assert_eq!(kernel.take(), ["release sl1", "change"]);
}

#[test]
fn nobody_is_let_in_where_the_tables_cannot_be_written() {
    let (mut policies, mut kernel) = with_server();
    tell(&mut policies, &mut kernel, running("u1"));
    kernel.fails_at = Some("change");
    let refused = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    assert_eq!(error(&refused).kind, ErrorKind::Exhausted);
    assert!(kernel.endpoints.is_empty() && policies.problems().count() == 1, "{:?}", policies.table_problems);
    assert_eq!(known_addresses(&policies), Some(Vec::new()), "as if it had not been asked for");
    kernel.take();
    tell(&mut policies, &mut kernel, running("u1"));
    assert_eq!(kernel.take(), [""; 0], "steps lead nowhere from tables that are not known");
    let due = policies.due().expect("it is tried again");
    policies.work(&mut kernel, due);
    assert_eq!((kernel.take(), policies.problems().count()), (vec!["all".to_owned()], 0));
    assert_eq!(policies.due(), None);
}

#[test]
fn an_endpoint_may_come_as_soon_as_all_is_written_anew() {
    let (mut policies, mut kernel) = with_server();
    kernel.fails_at = Some("change");
    tell(&mut policies, &mut kernel, running("u1"));
    kernel.fails_at = None;
    kernel.take();
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    assert_eq!(answer.try_recv(), Ok(done()));
    assert_eq!(kernel.take(), ["all", "x/p: Enforce", "enforce sl1"]);
}

#[test]
fn an_endpoint_that_the_kernel_refuses_leaves_nothing_behind() {
    let (mut policies, mut kernel) = started(None, Limits::NONE);
    kernel.fails_at = Some("enforce");
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    assert_eq!(error(&answer).kind, ErrorKind::Exhausted);
    assert_eq!(known_addresses(&policies), None);
}

#[test]
fn pods_that_use_their_nodes_network_have_no_endpoints() {
    let (mut policies, mut kernel) = with_server();
    tell(&mut policies, &mut kernel, pod("u1", json!({ "hostNetwork": true }), "Running"));
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    let failure = error(&answer);
    assert!(failure.kind == ErrorKind::Invalid && failure.message.contains("spec.hostNetwork"), "{}", failure.message);
}

#[test]
fn a_pod_without_a_manifest_is_let_in_and_known() {
    let (mut policies, mut kernel) = started(None, Limits::NONE);
    let answer = ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    assert_eq!(answer.try_recv(), Ok(done()));
    assert_eq!(known_addresses(&policies), Some(vec!["10.1.0.1".into()]));
    policies.release(&mut kernel, "sl1", false);
    assert_eq!(known_addresses(&policies), None);
}

#[test]
fn an_address_that_another_endpoint_had_is_its_no_more() {
    let (mut policies, mut kernel) = started(None, Limits::NONE);
    ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    kernel.endpoints.clear();
    kernel.take();
    ask(&mut policies, &mut kernel, endpoint("sl2", "u2", "10.1.0.1"));
    assert_eq!(kernel.take(), ["release vanished", "change", "x/p: Enforce", "change", "x/p: Enforce", "enforce sl2"]);
}

#[test]
fn a_change_of_mode_is_told_of_once() {
    let (mut policies, mut kernel) = with_server();
    tell(&mut policies, &mut kernel, running("u1"));
    ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    kernel.take();
    let annotations = json!({ "sluice.dev/policy-mode": "audit" });
    let namespace = json!({ "metadata": { "name": "x", "annotations": annotations } });
    let namespace: Namespace = serde_json::from_value(namespace).expect("a namespace");
    policies.change(&mut kernel, vec![Event::from(&namespace)]);
    policies.change(&mut kernel, vec![Event::from(&namespace)]);
    assert_eq!((kernel.take(), policies.audited()), (vec!["change".into(), "x/p: Audit".into(), "change".into()], 1));
    policies.release(&mut kernel, "sl1", false);
    assert_eq!(
        (kernel.take(), policies.audited()),
        (vec!["release sl1".into(), "change".into(), "x/p: Enforce".into()], 0)
    );
}

#[test]
fn what_does_not_fit_is_a_problem_and_tried_again_until_it_does() {
    let (mut policies, mut kernel) = started(None, Limits { rules: 0, prefixes: 0 });
    ask(&mut policies, &mut kernel, endpoint("sl1", "u1", "10.1.0.1"));
    let spec = json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 80 }] }] });
    let policy: NetworkPolicy =
        serde_json::from_value(json!({ "metadata": { "name": "web", "namespace": "x" }, "spec": spec }))
            .expect("a policy");
    policies.change(&mut kernel, vec![Event::from(&policy)]);
    assert_eq!((policies.problems().count(), policies.index().counts().closed), (1, 1));
    kernel.take();
    let due = policies.due().expect("it is tried again");
    policies.work(&mut kernel, due);
    assert_eq!(kernel.take(), ["change"]);
    assert!(policies.due().is_some_and(|next| next > due), "ever less often");
    let name = ObjectName::new(sluice_policy::Kind::NetworkPolicy, "x", "web");
    policies.change(&mut kernel, vec![Event::Removed(name)]);
    assert_eq!((policies.due(), policies.problems().count()), (None, 0));
}
