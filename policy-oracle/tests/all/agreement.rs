//! The compiler, its tables and the datapath's code for them say the same as the documentation, whatever happens.
//!
//! Objects come and change one by one, and everything is asked again in between.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Place;
use sluice_policy::{Evaluator, Event, Index, Limits, Match, Part, Party, ProbeError, Reasoning, Transport, View};
use sluice_policy_oracle::compiler::{Question, agrees, events, name, party};
use sluice_policy_oracle::generate::{ProbeDraft, change, cluster, probe};
use sluice_policy_oracle::{Cluster, Decider, Probe, Side};

/// Whether an explanation has all that decides a side, and says of nothing else that it does, or that it is asked after.
fn explains(steps: &[Reasoning], side: &Side) -> bool {
    let is = |step: &Reasoning, decider: &Decider| match step {
        Reasoning::Policy { policy, isolates, .. } => {
            *isolates && decider.rule.is_none() && name(policy) == decider.policy
        }
        Reasoning::Rule { policy, index, matches, .. } => {
            *matches == Match::Yes && decider.rule == Some(*index) && name(policy) == decider.policy
        }
    };
    let deciding: Vec<&Reasoning> = steps.iter().filter(|step| step.part() == Part::Decides).collect();
    let rule = steps.iter().position(|step| step.part() == Part::Decides && matches!(step, Reasoning::Rule { .. }));
    let after = rule.map_or(&[][..], |rule| &steps[rule + 1..]);
    side.deciders.iter().all(|decider| steps.iter().any(|step| is(step, decider)))
        && deciding.iter().all(|step| side.deciders.iter().any(|decider| is(step, decider)))
        && deciding.is_empty() == side.deciders.is_empty()
        && after.iter().all(|step| step.part() == Part::NotAsked)
}

/// Asks both about a probe.
fn ask(cluster: &Cluster, evaluator: &Evaluator<'_>, probe: &Probe) -> Result<(), TestCaseError> {
    let expected = cluster.judge(probe);
    let Question { by_name, by_address, protocol, port, family } = Question::of(probe, cluster);
    let ask = |[from, to]: &[Party; 2]| evaluator.probe(from, to, protocol, port, family);
    let asked_by_address = ask(&by_address);
    // A pod that has ended has no address that it could be asked about; whoever has it now has.
    let by_name = match ask(&by_name) {
        Err(ProbeError::Ended(_)) => asked_by_address.clone(),
        other => other,
    };
    for answer in [by_name, asked_by_address] {
        let answer = answer.map_err(|error| TestCaseError::fail(format!("{probe:?}: {error}")))?;
        prop_assert!(agrees(&answer, &expected), "{probe:?}\nfound    {answer:?}\nexpected {expected:?}\n{cluster:?}");
    }
    let transport = Transport::ALL.into_iter().find(|transport| Some(transport.name()) == probe.protocol.name());
    let [from, to] = &by_address;
    let explained = evaluator.explain(from, to, transport, port, family);
    let explained = explained.map_err(|error| TestCaseError::fail(format!("{probe:?}: {error}")))?;
    for (steps, side) in explained.iter().zip([&expected.egress, &expected.ingress]) {
        prop_assert!(explains(steps, side), "{probe:?}\nfound    {steps:?}\nexpected {side:?}\n{cluster:?}");
    }
    Ok(())
}

/// `SLUICE_CASES=100000` asks some ten million times.
fn cases() -> ProptestConfig {
    let cases = std::env::var("SLUICE_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(768);
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_tables_say_what_the_documentation_says(
        mut cluster in cluster(),
        first in any::<Place>(),
        changes in vec(change(), 0..8),
        probes in vec(probe(), 1..=48),
    ) {
        let probes: Vec<ProbeDraft> = probes;
        let mut index = Index::new(View::Everything, Limits::NONE);
        let mut all = events(&Cluster::default(), &cluster);
        if !all.is_empty() {
            // In any order, all the same.
            let middle = first.index(all.len());
            all.rotate_left(middle);
        }
        for event in all {
            index.apply(event);
        }
        for probe in &probes {
            ask(&cluster, &Evaluator::new(&index), &probe.of(&cluster))?;
        }
        for change in changes {
            let before = cluster.clone();
            change.apply(&mut cluster);
            for event in events(&before, &cluster) {
                prop_assert!(!matches!(event, Event::Invalid(_)), "{event:?}");
                index.apply(event);
            }
            let evaluator = Evaluator::new(&index);
            for probe in &probes {
                ask(&cluster, &evaluator, &probe.of(&cluster))?;
            }
            // What matters of it to a single probe, or to some, says the same.
            for some in [&probes[..1], &probes[..probes.len().div_ceil(2)]] {
                let asked: Vec<Probe> = some.iter().map(|probe| probe.of(&cluster)).collect();
                let ends: Vec<Party> = asked.iter().flat_map(|probe| [party(&probe.from), party(&probe.to)]).collect();
                let excerpt = index.excerpt(&ends);
                let evaluator = Evaluator::new(&excerpt);
                for probe in &asked {
                    ask(&cluster, &evaluator, probe)?;
                }
            }
        }
    }
}
