//! Sequences of changes: what comes of them, and what is there in between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use sluice_abi::{Identity, PolicyDirection, Port, Protocol, RuleSetId};
use sluice_datapath::policy::{Decision, Peer, Verdict, decide};

use super::{Event, Index, Limits, View};
use crate::cluster_policy::ClusterNetworkPolicy;
use crate::name::{Kind, ObjectName, PodName};
use crate::steps::Step;
use crate::tables::Tables;

/// What may be changed, by name: `None` removes.
type Change = (ObjectName, Option<Event>);

fn change(kind: Kind, namespace: &str, name: &str, object: Option<Value>) -> Change {
    let event = object.map(|mut object| {
        object["metadata"]["name"] = json!(name);
        if kind.is_namespaced() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        match kind {
            Kind::Namespace => Event::from(&serde_json::from_value::<Namespace>(object).unwrap()),
            Kind::Pod => Event::from(&serde_json::from_value::<Pod>(object).unwrap()),
            Kind::Node => Event::from(&serde_json::from_value::<Node>(object).unwrap()),
            Kind::NetworkPolicy => Event::from(&serde_json::from_value::<NetworkPolicy>(object).unwrap()),
            Kind::ClusterNetworkPolicy => Event::from(&serde_json::from_value::<ClusterNetworkPolicy>(object).unwrap()),
            Kind::Service | Kind::EndpointSlice => panic!("policies are not about a {}", kind.name()),
        }
    });
    if let Some(Event::Invalid(error)) = &event {
        panic!("{error}");
    }
    (ObjectName::new(kind, namespace, name), event)
}

fn labels() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(select(&["a", "b"][..]), select(&["1", "2"][..]), 0..3).prop_map(|map| json!(map))
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = (select(&["a", "b"][..]), select(&["In", "NotIn", "Exists", "DoesNotExist"][..])).prop_map(
        |(key, operator)| {
            let values: &[&str] = if operator.ends_with("In") { &["1"] } else { &[] };
            json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
        },
    );
    prop_oneof![Just(json!({})), labels().prop_map(|labels| json!({ "matchLabels": labels })), expression]
}

const NETS: [&str; 7] =
    ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.2/32", "fd00::/64", "fd00::2/127"];

fn block() -> impl Strategy<Value = Value> {
    (select(&NETS[..]), any::<bool>()).prop_map(|(net, trimmed)| {
        let excepts: &[&str] = match net {
            "0.0.0.0/0" => &["10.0.0.0/30", "10.0.0.0/8"],
            "10.0.0.0/8" => &["10.0.0.2/31"],
            "10.0.0.0/30" => &["10.0.0.2/32"],
            "fd00::/64" => &["fd00::2/127"],
            _ => &[],
        };
        json!({ "cidr": net, "except": if trimmed { excepts } else { &[] } })
    })
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({ "podSelector": pods })),
        selector().prop_map(|namespaces| json!({ "namespaceSelector": namespaces })),
        (selector(), selector()).prop_map(|(n, p)| json!({ "namespaceSelector": n, "podSelector": p })),
        block().prop_map(|block| json!({ "ipBlock": block })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({ "protocol": "UDP" }),
        json!({ "port": 80 }),
        json!({ "port": 80, "endPort": 90 }),
        json!({ "port": "web" }),
        json!({ "port": "web", "protocol": "UDP" }),
    ])
}

fn rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let blocks = block().prop_map(|block| json!({ "ipBlock": block }));
    let listed = prop_oneof![
        3 => proptest::collection::vec(peer(), 0..3),
        1 => proptest::collection::vec(blocks, 1..4),
    ];
    let rule = (listed, proptest::collection::vec(port(), 0..3))
        .prop_map(move |(listed, ports)| json!({ peers: listed, "ports": ports }));
    proptest::collection::vec(rule, 0..3).prop_map(|rules| json!(rules))
}

fn cluster_rules(peers: &'static str) -> impl Strategy<Value = Value> {
    let pods = || (selector(), selector()).prop_map(|(n, p)| json!({ "namespaceSelector": n, "podSelector": p }));
    let in_cluster = prop_oneof![
        selector().prop_map(|namespaces| json!({ "namespaces": namespaces })),
        pods().prop_map(|pods| json!({ "pods": pods })),
    ];
    let peer = if peers == "from" {
        in_cluster.boxed()
    } else {
        prop_oneof![
            2 => in_cluster,
            1 => selector().prop_map(|nodes| json!({ "nodes": nodes })),
            1 => select(&NETS[..]).prop_map(|net| json!({ "networks": [net] })),
        ]
        .boxed()
    };
    let protocol = select(vec![
        json!({ "tcp": { "destinationPort": { "number": 80 } } }),
        json!({ "udp": { "destinationPort": { "range": { "start": 1, "end": 90 } } } }),
        json!({ "tcp": { "destinationPort": { "range": { "start": 85, "end": 65535 } } } }),
    ]);
    let action = select(&["Accept", "Deny", "Pass"][..]);
    let rule = (action, proptest::collection::vec(peer, 1..3), proptest::collection::vec(protocol, 0..3)).prop_map(
        move |(action, listed, protocols)| {
            let mut rule = json!({ "action": action, peers: listed });
            if !protocols.is_empty() {
                rule["protocols"] = json!(protocols);
            }
            rule
        },
    );
    proptest::collection::vec(rule, 0..3).prop_map(|rules| json!(rules))
}

fn a_change() -> impl Strategy<Value = Change> {
    let namespace = || select(&["x", "y"][..]);
    let namespaces = (namespace(), proptest::option::weighted(0.9, labels())).prop_map(|(name, labels)| {
        change(Kind::Namespace, "", name, labels.map(|labels| json!({ "metadata": { "labels": labels } })))
    });
    let pod = (labels(), 1u8..7, 0u8..10, proptest::option::of(80u16..82), 0i64..3).prop_map(
        |(labels, at, state, port, created)| {
            let ports = port.map(|port| json!([{ "name": "web", "containerPort": port }]));
            json!({
                "metadata": { "labels": labels, "creationTimestamp": format!("2024-01-01T00:00:0{created}Z") },
                "spec": {
                    "nodeName": if state > 7 { "n2" } else { "n1" },
                    "hostNetwork": state == 7,
                    "containers": [{ "name": "c", "ports": ports }],
                },
                "status": {
                    "podIPs": if state == 6 { json!([]) } else { json!([{ "ip": format!("10.0.0.{at}") }, { "ip": format!("fd00::{at}") }]) },
                    "phase": if state == 5 { "Failed" } else { "Running" },
                },
            })
        },
    );
    let pods = (namespace(), select(&["a", "b", "c"][..]), proptest::option::weighted(0.85, pod))
        .prop_map(|(namespace, name, pod)| change(Kind::Pod, namespace, name, pod));
    let node = (labels(), 1u8..9).prop_map(|(labels, at)| {
        let address = json!({ "type": "InternalIP", "address": format!("10.0.0.{at}") });
        json!({ "metadata": { "labels": labels }, "status": { "addresses": [address] } })
    });
    let nodes = (select(&["n1", "n2"][..]), proptest::option::weighted(0.8, node))
        .prop_map(|(name, node)| change(Kind::Node, "", name, node));
    let types = select(vec![json!([]), json!(["Ingress"]), json!(["Egress"]), json!(["Ingress", "Egress"])]);
    let policy = (selector(), types, rules("from"), rules("to")).prop_map(|(pods, types, ingress, egress)| {
        json!({ "spec": { "podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress } })
    });
    let policies = (namespace(), select(&["p", "q"][..]), proptest::option::weighted(0.8, policy))
        .prop_map(|(namespace, name, policy)| change(Kind::NetworkPolicy, namespace, name, policy));
    let subject = prop_oneof![
        selector().prop_map(|namespaces| json!({ "namespaces": namespaces })),
        (selector(), selector()).prop_map(|(n, p)| json!({ "pods": { "namespaceSelector": n, "podSelector": p } })),
    ];
    let tier = select(&["Admin", "Baseline"][..]);
    let cluster_policy = (tier, 0..3, subject, cluster_rules("from"), cluster_rules("to")).prop_map(
        |(tier, priority, subject, ingress, egress)| {
            let spec = json!({
                "tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress,
            });
            json!({ "spec": spec })
        },
    );
    let cluster_policies = (select(&["c", "d"][..]), proptest::option::weighted(0.8, cluster_policy))
        .prop_map(|(name, policy)| change(Kind::ClusterNetworkPolicy, "", name, policy));
    prop_oneof![2 => namespaces, 5 => pods, 1 => nodes, 5 => policies, 3 => cluster_policies]
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let batch = prop_oneof![1usize..2, 2usize..6];
    let batch = batch.prop_flat_map(|size| proptest::collection::vec(a_change(), size));
    (proptest::collection::vec(a_change(), 12), proptest::collection::vec(batch, 1..8)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0usize..40, 0usize..12).prop_map(|(rules, prefixes)| Limits { rules, prefixes })
}

type Question = (PodName, PolicyDirection, IpAddr, Protocol, u16);

/// Questions about pods of this node.
fn questions(pods: &BTreeSet<PodName>) -> Vec<Question> {
    let addresses = (1..9).map(|at| format!("10.0.0.{at}")).chain((1..4).map(|at| format!("fd00::{at}")));
    let addresses: Vec<IpAddr> =
        addresses.chain(["192.0.2.1".into(), "10.1.0.1".into()]).map(|text| text.parse().unwrap()).collect();
    let traffic =
        [(Protocol::TCP, 80), (Protocol::TCP, 81), (Protocol::TCP, 85), (Protocol::UDP, 81), (Protocol::ICMP, 0)];
    let mut questions = Vec::new();
    for pod in pods {
        for direction in PolicyDirection::ALL {
            for address in &addresses {
                for (protocol, port) in traffic {
                    questions.push((pod.clone(), direction, *address, protocol, port));
                }
            }
        }
    }
    questions
}

fn judge(tables: &Tables, rule_set: RuleSetId, identity: Identity, question: &Question) -> Decision {
    let (_, direction, _, protocol, port) = question;
    decide(rule_set, *direction, Peer { identity, is_own_node: false }, *protocol, Port::new(*port), tables)
}

fn ask(tables: &Tables, question: &Question) -> (Verdict, u32) {
    let (pod, _, address, ..) = question;
    let decision = judge(tables, tables.rule_set(pod), tables.identity(*address), question);
    (decision.verdict, decision.policy)
}

/// An index, the tables that its steps have led to, and the objects that it has been told of.
struct Followed {
    index: Index,
    limits: Limits,
    tables: Tables,
    objects: BTreeMap<ObjectName, Event>,
    in_flight: HashMap<Question, InFlight>,
}

/// What packets that are being judged may have read, and may be told.
#[derive(Clone, Default)]
struct InFlight {
    rule_sets: BTreeSet<RuleSetId>,
    identities: BTreeSet<Identity>,
    verdicts: BTreeSet<Verdict>,
}

impl InFlight {
    /// Packets read what the tables say, each the one or the other.
    fn read(&mut self, tables: &Tables, (pod, _, address, ..): &Question) {
        self.rule_sets.insert(tables.rule_set(pod));
        self.identities.insert(tables.identity(*address));
    }

    /// Whether a step may change what packets are told.
    fn is_concerned(&self, step: &Step) -> bool {
        match step {
            Step::AddRule(key, _) | Step::RemoveRule(key) => self.rule_sets.contains(&key.rule_set()),
            Step::SetIdentity(..) | Step::SetRuleSet(..) | Step::RemovePrefix(_) | Step::Settle => true,
        }
    }

    /// What packets are told that now go on to read rules.
    fn told(&self, tables: &Tables, question: &Question) -> BTreeSet<Verdict> {
        let pairs = self.rule_sets.iter().flat_map(|set| self.identities.iter().map(|identity| (*set, *identity)));
        pairs.map(|(rule_set, identity)| judge(tables, rule_set, identity, question).verdict).collect()
    }
}

fn view() -> View {
    View::Node("n1".into())
}

impl Followed {
    fn new(limits: Limits) -> Self {
        let (tables, objects, in_flight) = Default::default();
        Self { index: Index::new(view(), limits), limits, tables, objects, in_flight }
    }

    fn pods(&self) -> BTreeSet<PodName> {
        self.index.tables().pods().map(|(pod, _)| pod.clone()).collect()
    }

    /// Changes objects.
    fn note(&mut self, changes: Vec<Change>) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, event) in changes {
            match event {
                Some(event) => {
                    self.objects.insert(name, event.clone());
                    events.push(event);
                }
                None => {
                    self.objects.remove(&name);
                    events.push(Event::Removed(name));
                }
            }
        }
        events
    }

    /// Applies changes, and judges packets meanwhile.
    fn apply(&mut self, changes: Vec<Change>) {
        let events = self.note(changes);
        let (problems, version) = (self.index.problems(), self.index.problems_version());
        let steps = self.index.apply_all(events).steps;
        assert!(self.index.problems_version() != version || self.index.problems() == problems, "nobody would ask");
        self.make(&steps);
    }

    /// Makes steps, and judges packets after each: those that come then, and those that are being judged already.
    fn make(&mut self, steps: &[Step]) {
        let after = self.index.tables();
        let pods = self.tables.pods().chain(after.pods()).map(|(pod, _)| pod.clone()).collect();
        let mut begun: HashMap<Question, InFlight> = HashMap::new();
        for question in questions(&pods) {
            let verdicts = [&self.tables, &after].map(|tables| ask(tables, &question).0).into();
            begun.insert(question, InFlight { verdicts, ..InFlight::default() });
        }
        for (question, new) in &begun {
            let in_flight = self.in_flight.entry(question.clone()).or_default();
            in_flight.verdicts.extend(&new.verdicts);
            in_flight.read(&self.tables, question);
        }
        for (at, step) in steps.iter().enumerate() {
            if let Step::AddRule(key, _) = step {
                assert!(!self.tables.rules().any(|(other, _)| other == key), "a rule changes in place");
            }
            self.tables.apply(step);
            let (rules, prefixes) = (self.tables.rules().count(), self.tables.identities().count());
            assert!(rules <= self.limits.rules && prefixes <= self.limits.prefixes);
            if *step == Step::Settle {
                self.in_flight = begun.clone();
            }
            for (question, in_flight) in self.in_flight.iter_mut().filter(|(_, packets)| packets.is_concerned(step)) {
                in_flight.read(&self.tables, question);
                for verdict in in_flight.told(&self.tables, question) {
                    // What does not fit is denied.
                    let may_deny = verdict == Verdict::Deny && self.limits != Limits::NONE;
                    let is_right = may_deny || in_flight.verdicts.contains(&verdict);
                    assert!(is_right, "{question:?} is told {verdict:?} after step {at} of {steps:#?}");
                }
            }
        }
        assert_same_tables(&after, &self.tables);
    }

    /// Another agent takes over, with these limits, after these changes of objects. The one before has died in the middle
    /// of a change: `made` says after how many of its steps.
    fn restart(&mut self, limits: Limits, last: Vec<Change>, made: prop::sample::Index, away: Vec<Change>) {
        let events = self.note(last);
        let steps = self.index.apply_all(events).steps;
        steps.iter().take(made.index(steps.len() + 1)).for_each(|step| self.tables.apply(step));
        self.note(away);
        self.limits = limits;
        self.index = Index::new(view(), limits).numbered_after(self.tables.numbers());
        self.index.apply_all(self.objects.values().cloned());
        self.in_flight.clear();
        let steps = self.index.take_over(&self.tables).steps;
        self.make(&steps);
    }
}

fn assert_same_tables(a: &Tables, b: &Tables) {
    let rules = |tables: &Tables| tables.rules().map(|(key, rule)| (*key, *rule)).collect::<BTreeMap<_, _>>();
    assert_eq!(rules(a), rules(b));
    let identities = |tables: &Tables| tables.identities().map(|(net, of)| (*net, *of)).collect::<Vec<_>>();
    assert_eq!(identities(a), identities(b));
    // Of pods that are gone, nothing needs to be known.
    for (pod, rule_set) in a.pods() {
        assert_eq!(b.rule_set(pod), *rule_set);
    }
}

#[test]
fn pods_that_stay_see_their_peers_change_too() {
    let pod = |name: &str, at: u8, labels: Value| {
        let object = json!({
            "metadata": { "labels": labels },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c" }] },
            "status": { "podIPs": [{ "ip": format!("10.0.0.{at}") }] },
        });
        change(Kind::Pod, "x", name, Some(object))
    };
    let policy = json!({ "spec": {
        "podSelector": { "matchLabels": { "a": "1" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "b": "1" } } }] }],
    } });
    let selected = || json!({ "a": "1" });
    let mut followed = Followed::new(Limits::NONE);
    followed.apply(vec![
        pod("leaves", 1, selected()),
        pod("stays", 2, selected()),
        pod("peer", 3, json!({})),
        change(Kind::NetworkPolicy, "x", "p", Some(policy)),
    ]);
    let question =
        (PodName::new("x", "stays"), PolicyDirection::Ingress, "10.0.0.3".parse().unwrap(), Protocol::TCP, 80);
    assert_eq!(ask(&followed.tables, &question).0, Verdict::Deny);
    // To the rule set that one pod leaves, the peer must stay a stranger; to the one that stays, it must not.
    followed.apply(vec![pod("leaves", 1, json!({})), pod("peer", 3, json!({ "b": "1" }))]);
    assert_eq!(ask(&followed.tables, &question).0, Verdict::Allow);
}

/// Whoever keeps track of problems asks for them only where there may be others.
#[test]
fn problems_are_to_be_asked_for_only_when_there_may_be_others() {
    let mut index = Index::new(view(), Limits::NONE);
    let pod = |name, labels: Value| {
        let spec = json!({ "nodeName": "n1", "containers": [] });
        change(Kind::Pod, "x", name, Some(json!({ "metadata": { "labels": labels }, "spec": spec })))
    };
    let policy = |name, port: u16| {
        let spec = json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": port }] }] });
        change(Kind::NetworkPolicy, "x", name, Some(json!({ "spec": spec })))
    };
    let cluster = |name, priority: u16, egress: Value| {
        let subject = json!({ "namespaces": {} });
        let spec = json!({ "tier": "Admin", "priority": priority, "subject": subject, "egress": egress });
        change(Kind::ClusterNetworkPolicy, "", name, Some(json!({ "spec": spec })))
    };
    let namespace = |mode: &str| {
        let annotations = json!({ "sluice.dev/policy-mode": mode });
        change(Kind::Namespace, "", "x", Some(json!({ "metadata": { "annotations": annotations } })))
    };
    let names = || json!([{ "action": "Accept", "to": [{ "domainNames": ["a.example"] }] }]);
    let gone = |kind: Kind, namespace, name| change(kind, namespace, name, None);
    let mut is_asked = |(name, event): Change| {
        let version = index.problems_version();
        index.apply(event.unwrap_or(Event::Removed(name)));
        (index.problems_version() != version, index.problems().len())
    };
    for quiet in [
        namespace("audit"),
        pod("p", json!({})),
        policy("web", 80),
        policy("web", 81),
        pod("p", json!({ "a": "1" })),
        cluster("c", 1, json!([])),
        cluster("c", 2, json!([])),
        gone(Kind::Pod, "x", "p"),
        gone(Kind::NetworkPolicy, "x", "web"),
    ] {
        assert_eq!(is_asked(quiet.clone()), (false, 0), "{quiet:?}");
    }
    assert_eq!(is_asked(cluster("d", 2, json!([]))), (true, 2), "equal priorities");
    assert_eq!(is_asked(pod("p", json!({}))), (false, 2), "nothing to do with it");
    assert_eq!(is_asked(cluster("d", 3, json!([]))), (true, 0));
    assert_eq!(is_asked(cluster("d", 3, names())), (true, 1), "not supported");
    assert_eq!(is_asked(cluster("d", 4, names())), (false, 1), "the same as before");
    assert_eq!(is_asked(gone(Kind::ClusterNetworkPolicy, "", "d")), (true, 0));
    assert_eq!(is_asked(namespace("off")), (true, 1), "no mode");
    assert_eq!(is_asked(gone(Kind::Namespace, "", "x")), (true, 0));
    let nonsense = ObjectName::new(Kind::Pod, "x", "q");
    let refused = || (nonsense.clone(), Some(Event::Invalid(nonsense.wrong("spec", "makes no sense".into()))));
    assert_eq!([is_asked(refused()), is_asked(refused())], [(true, 1), (false, 1)]);
    assert_eq!(is_asked((nonsense.clone(), None)), (true, 0));
}

/// `SLUICE_CASES=10000` tries more.
fn cases() -> ProptestConfig {
    let cases = std::env::var("SLUICE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_sequence_of_changes_leads_where_its_outcome_does(batches in changes()) {
        let mut followed = Followed::new(Limits::NONE);
        for batch in batches {
            followed.apply(batch);
            let mut scratch = Index::new(view(), Limits::NONE);
            scratch.apply_all(followed.objects.values().cloned());
            prop_assert_eq!(followed.index.counts(), scratch.counts());
            prop_assert_eq!(followed.index.problems(), scratch.problems());
            let tables = scratch.tables();
            for question in questions(&followed.pods()) {
                let (verdict, policy) = ask(&followed.tables, &question);
                let (expected, reason) = ask(&tables, &question);
                prop_assert_eq!(verdict, expected, "{:?}", question);
                prop_assert_eq!(followed.index.reason(policy), scratch.reason(reason), "{:?}", question);
            }
        }
        let all: Vec<Change> = followed.objects.keys().map(|name| (name.clone(), None)).collect();
        followed.apply(all);
        let counts = followed.index.counts();
        let empty = Index::new(view(), Limits::NONE).counts();
        prop_assert_eq!(counts, empty, "nothing is left behind");
        prop_assert_eq!(followed.tables.rules().count() + followed.tables.identities().count(), 0);
    }

    #[test]
    fn in_between_everything_is_as_before_or_as_after(batches in changes()) {
        let mut followed = Followed::new(Limits::NONE);
        batches.into_iter().for_each(|batch| followed.apply(batch));
    }

    #[test]
    fn a_takeover_is_one_change_too(
        before in changes(),
        last in proptest::collection::vec(a_change(), 1..6),
        made in any::<prop::sample::Index>(),
        away in proptest::collection::vec(a_change(), 0..4),
        limits in prop_oneof![2 => Just(Limits::NONE), 1 => limits()],
        after in proptest::collection::vec(proptest::collection::vec(a_change(), 1..4), 0..3),
    ) {
        let mut followed = Followed::new(limits);
        before.into_iter().for_each(|batch| followed.apply(batch));
        followed.restart(limits, last, made, away);
        after.into_iter().for_each(|batch| followed.apply(batch));
    }

    #[test]
    fn what_does_not_fit_is_closed_and_heals(batches in changes(), limits in limits()) {
        let mut followed = Followed::new(limits);
        for batch in batches {
            followed.apply(batch);
            let closed = followed.tables.pods().filter(|(pod, rule_set)| {
                **rule_set == RuleSetId::CLOSED && followed.index.rule_set(pod).is_some()
            });
            let told = followed.index.problems().into_iter().filter(|problem| problem.object.kind == Kind::Pod);
            prop_assert_eq!(closed.count(), told.count());

            // What is open is as it would be with more room.
            let mut scratch = Index::new(view(), Limits::NONE);
            scratch.apply_all(followed.objects.values().cloned());
            let tables = scratch.tables();
            for question in questions(&followed.pods()) {
                if followed.tables.rule_set(&question.0) != RuleSetId::CLOSED {
                    prop_assert_eq!(ask(&followed.tables, &question).0, ask(&tables, &question).0, "{:?}", question);
                }
            }
        }
        let policies: Vec<Change> = followed.objects.keys().filter(|name| name.kind >= Kind::NetworkPolicy)
            .map(|name| (name.clone(), None)).collect();
        followed.apply(policies);
        let is_open = |(pod, rule_set): (&PodName, &RuleSetId)| {
            *rule_set == RuleSetId::OPEN || followed.index.rule_set(pod).is_none()
        };
        let all_open = followed.tables.pods().all(is_open);
        prop_assert!(all_open);
        prop_assert_eq!(followed.tables.rules().count() + followed.tables.identities().count(), 0);
    }
}
