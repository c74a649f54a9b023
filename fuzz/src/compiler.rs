//! Sequences of changes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sluice_policy::{Delta, Evaluator, Event, Index, Limits, ProbeError, Tables, Verdict, View, Why};
use sluice_policy_oracle::Cluster;
use sluice_policy_oracle::compiler::{Question, agrees, events};
use sluice_policy_oracle::generate::{ProbeDraft, change, cluster, probe};

use crate::draw::Draws;

/// How much happens, and how much is asked each time.
const BATCHES: usize = 8;
const PROBES: usize = 16;

fn view() -> impl Strategy<Value = View> {
    prop_oneof![Just(View::Everything), select(vec!["n0", "n1"]).prop_map(|node| View::Node(node.into()))]
}

fn limits() -> impl Strategy<Value = Limits> {
    option::of((0..200_usize, 0..40_usize))
        .prop_map(|few| few.map_or(Limits::NONE, |(rules, prefixes)| Limits { rules, prefixes }))
}

/// The tables of an index that goes through changes say what those of a new index say, never have more than may be, and
/// close only what does not fit.
pub(crate) fn check(data: &[u8]) {
    let mut draws = Draws::new(data);
    let (view, limits) = draws.any(&(view(), limits()));
    let mut now = draws.any(&cluster());
    let probes = draws.up_to(PROBES, &probe());
    let mut followed = Followed::new(view, limits);
    followed.apply(events(&Cluster::default(), &now));
    followed.ask(&now, &probes);
    for batch in draws.up_to(BATCHES, &vec(change(), 1..4)) {
        let before = now.clone();
        batch.iter().for_each(|change| change.apply(&mut now));
        followed.apply(events(&before, &now));
        followed.ask(&now, &probes);
    }
    followed.retry();
    followed.ask(&now, &probes);
    followed.apply(events(&now, &Cluster::default()));
    let left = followed.index.tables();
    assert_eq!(left.rules().count() + left.identities().count() + left.pods().count(), 0, "something is left behind");
}

/// An index, and the tables that its steps have led to.
struct Followed {
    index: Index,
    tables: Tables,
    view: View,
    limits: Limits,
}

impl Followed {
    fn new(view: View, limits: Limits) -> Self {
        Self { index: Index::new(view.clone(), limits), tables: Tables::default(), view, limits }
    }

    fn apply(&mut self, events: Vec<Event>) {
        if let Some(error) = events.iter().find(|event| matches!(event, Event::Invalid(_))) {
            panic!("{error:?}");
        }
        let delta = self.index.apply_all(events);
        self.follow(&delta);
    }

    fn retry(&mut self) {
        let delta = self.index.retry();
        self.follow(&delta);
    }

    /// Makes the steps, none of which may lead beyond the limits.
    fn follow(&mut self, delta: &Delta) {
        for step in &delta.steps {
            self.tables.apply(step);
            let (rules, prefixes) = (self.tables.rules().count(), self.tables.identities().count());
            assert!(rules <= self.limits.rules, "{rules} rules after {step:?}");
            assert!(prefixes <= self.limits.prefixes, "{prefixes} prefixes after {step:?}");
        }
        let told = self.index.tables();
        let rules = |tables: &Tables| tables.rules().map(|(key, rule)| (*key, *rule)).collect::<BTreeMap<_, _>>();
        assert_eq!(rules(&told), rules(&self.tables));
        assert!(told.identities().eq(self.tables.identities()), "other prefixes than the steps led to");
        // Of pods that are gone, nothing needs to be known.
        for (pod, rule_set) in told.pods() {
            assert_eq!(self.tables.rule_set(pod), *rule_set, "{pod}");
        }
    }

    /// Asks a new index the same, and, where all pods' policies are compiled, the documentation.
    fn ask(&self, cluster: &Cluster, probes: &[ProbeDraft]) {
        let mut fresh = Index::new(self.view.clone(), Limits::NONE);
        fresh.apply_all(events(&Cluster::default(), cluster));
        let (now, then) = (Evaluator::new(&self.index), Evaluator::new(&fresh));
        for probe in probes {
            let probe = probe.of(cluster);
            let Question { by_name, by_address, protocol, port, family } = Question::of(&probe, cluster);
            for [from, to] in [by_name, by_address] {
                let (found, expected) = match (
                    now.probe(&from, &to, protocol, port, family),
                    then.probe(&from, &to, protocol, port, family),
                ) {
                    (Ok(found), Ok(expected)) => (found, expected),
                    (Err(ProbeError::Ended(found)), Err(ProbeError::Ended(expected))) if found == expected => continue,
                    (found, expected) => panic!("{probe:?}: {found:?} and {expected:?}"),
                };
                let is_closed = [&found.egress, &found.ingress].iter().any(|side| side.why == Why::Closed);
                if is_closed && self.limits != Limits::NONE {
                    assert_eq!(found.verdict, Verdict::Deny, "{probe:?}");
                    continue;
                }
                assert_eq!(found, expected, "{probe:?} of {cluster:?}");
                if self.view == View::Everything {
                    let said = cluster.judge(&probe);
                    assert!(agrees(&found, &said), "{probe:?}: {found:?}, not {said:?}, of {cluster:?}");
                }
            }
        }
    }
}
