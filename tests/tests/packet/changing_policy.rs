//! Changes of policies, one step after the other, and what becomes of packets in between: of those that open flows, and of
//! those whose flows go on.

use anyhow::{Context, Result, ensure};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index as Place;
use sluice_abi::{DenialKey, PolicyDirection, RuleSetId};
use sluice_policy::Step;
use sluice_policy_oracle::compiler::events;
use sluice_policy_oracle::generate::{Change, ProbeDraft, change, cluster, probe};
use sluice_policy_oracle::{Cluster, Verdict};
use sluice_tests::packet::{Build, Native};

use super::cluster::{ClusterNode, Sent, SourcePort, cases, try_all};

/// Sequences of changes; `SLUICE_CASES` asks for more.
const SEQUENCES: u32 = 200;
/// What is asked between any two steps.
const PROBES: usize = 24;

/// What is done to a cluster at once.
type Batch = Vec<Change>;

/// Where an agent dies, and which changes the next one finds.
#[derive(Clone, Debug)]
struct Death {
    /// Of the steps of its last change, so many are made.
    made: Place,
    away: Batch,
}

/// What packets of one kind are told while the tables change.
struct Told {
    sent: Sent,
    /// Its flow, where there was one before.
    standing: Option<SourcePort>,
    /// By which end's policies it was denied, if so: before, and after each step that may matter.
    first: Option<PolicyDirection>,
    later: Vec<(usize, Option<PolicyDirection>)>,
}

fn denied(denial: Option<DenialKey>) -> Option<PolicyDirection> {
    denial.map(|denial| denial.direction)
}

/// A node, the cluster that it is in, and what is asked of it.
struct Followed {
    node: ClusterNode<Native>,
    cluster: Cluster,
    drafts: Vec<ProbeDraft>,
}

impl Followed {
    fn new(cluster: Cluster, drafts: Vec<ProbeDraft>) -> Result<Self> {
        let mut followed = Self { node: ClusterNode::imagined(), cluster, drafts };
        let steps = followed.node.hear(events(&Cluster::default(), &followed.cluster))?;
        followed.make(&steps)?;
        Ok(followed)
    }

    fn change(&mut self, batch: &Batch) -> Result<Vec<Step>> {
        let before = self.cluster.clone();
        batch.iter().for_each(|change| change.apply(&mut self.cluster));
        self.node.hear(events(&before, &self.cluster))
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        let steps = self.change(batch)?;
        self.make(&steps)
    }

    /// An agent dies in the middle of a change, and another takes over.
    fn restart(&mut self, last: &Batch, death: &Death) -> Result<()> {
        let steps = self.change(last)?;
        steps.iter().take(death.made.index(steps.len() + 1)).try_for_each(|step| self.node.make(step))?;
        death.away.iter().for_each(|change| change.apply(&mut self.cluster));
        let steps = self.node.restart(events(&Cluster::default(), &self.cluster))?;
        self.make(&steps)
    }

    /// Makes steps, and sends packets after each.
    fn make(&mut self, steps: &[Step]) -> Result<()> {
        self.node.build.clear()?;
        let probes: Vec<_> = self.drafts.iter().map(|draft| draft.of(&self.cluster)).collect();
        let mut all = Vec::new();
        for probe in &probes {
            all.push(self.begin(Sent::of(probe, &self.cluster))?);
        }
        for (at, step) in steps.iter().enumerate() {
            self.node.make(step)?;
            for told in &mut all {
                if self.is_concerned(step, &told.sent) {
                    self.ask(at, told).with_context(|| format!("{:?} after step {at} of {steps:#?}", told.sent))?;
                }
            }
        }
        for (probe, told) in probes.iter().zip(all) {
            let Told { sent, first, later, .. } = told;
            let last = later.last().map_or(first, |(_, last)| *last);
            // A flow between two pods is judged by both ends, which change one after the other.
            let odd = later.into_iter().find(|(_, told)| first == last && *told != first);
            ensure!(odd.is_none(), "{sent:?} is told {first:?} before and after, but {odd:?} in between: {steps:#?}");
            let said = self.cluster.judge(probe);
            let sides = [
                (PolicyDirection::Egress, self.node.local(sent.from), said.egress),
                (PolicyDirection::Ingress, self.node.local(sent.to), said.ingress),
            ];
            let expected = sides.into_iter().find(|(_, slot, side)| slot.is_some() && side.verdict == Verdict::Deny);
            let expected = expected.map(|(direction, ..)| direction);
            ensure!(last == expected, "{sent:?} is told {last:?} in the end, instead of {expected:?}");
        }
        Ok(())
    }

    /// Opens a flow, and has both ends take part in it where it may be.
    fn begin(&mut self, sent: Sent) -> Result<Told> {
        let (port, first) = self.node.open(&sent)?;
        let is_here = self.node.local(sent.from).or(self.node.local(sent.to)).is_some();
        let first = denied(first);
        let standing = (is_here && first.is_none()).then_some(port);
        if let Some(port) = standing {
            for back in [true, false] {
                ensure!(self.node.go_on(&sent, port, back)?.is_none(), "{sent:?} does not go on");
            }
        }
        Ok(Told { sent, standing, first, later: Vec::new() })
    }

    /// Whether a step may change what a packet is told.
    fn is_concerned(&self, step: &Step, sent: &Sent) -> bool {
        let rule_sets: Vec<RuleSetId> = [sent.from, sent.to]
            .iter()
            .filter_map(|address| self.node.local(*address))
            .map(|slot| self.node.writer.endpoint(slot).rule_set)
            .collect();
        match step {
            Step::AddRule(key, _) | Step::RemoveRule(key) => rule_sets.contains(&key.rule_set()),
            Step::SetIdentity(..) | Step::SetRuleSet(..) | Step::RemovePrefix(_) => !rule_sets.is_empty(),
            Step::Settle => false,
        }
    }

    /// Opens another flow of this kind, and sends on in the one that there was, which must be told the same.
    fn ask(&mut self, at: usize, told: &mut Told) -> Result<()> {
        let new = denied(self.node.open(&told.sent)?.1);
        if let Some(port) = told.standing {
            for back in [false, true] {
                let on = denied(self.node.go_on(&told.sent, port, back)?);
                ensure!(on == new, "a flow that goes on (back: {back}) is told {on:?}, a new one {new:?}");
            }
        }
        told.later.push((at, new));
        Ok(())
    }
}

fn batch() -> impl Strategy<Value = Batch> {
    vec(change(), 1..5)
}

#[test]
fn in_between_packets_are_told_what_they_were_or_what_they_will_be() -> Result<()> {
    let death = (any::<Place>(), vec(change(), 0..4)).prop_map(|(made, away)| Death { made, away });
    let batches = vec((batch(), proptest::option::weighted(0.25, death)), 1..8);
    let drawn = (cluster(), vec(probe(), PROBES), batches);
    try_all(cases(SEQUENCES)?, 400, &drawn, |(cluster, drafts, batches)| {
        let mut followed = Followed::new(cluster, drafts)?;
        batches.iter().try_for_each(|(batch, death)| match death {
            None => followed.apply(batch),
            Some(death) => followed.restart(batch, death),
        })
    })
}
