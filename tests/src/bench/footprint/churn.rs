//! A cluster at work: pods are replaced, their Services' slices follow, and nodes say that they are there.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{Cluster, Life, List};

/// Changes of pods a second.
const PODS: usize = 100;
/// How often kubelets report their node's status though nothing has changed, in seconds.
const REPORT: usize = 300;
/// Times a second that changes are told of.
const TICKS: u32 = 10;
/// Pods that are being replaced at the same time.
const AT_ONCE: usize = 50;
/// From one pod to the next that is replaced: another namespace and app, on another node. Prime.
const STRIDE: usize = 7_919;

/// What becomes of an object.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// It is new,
    Added,
    /// it is another,
    Modified,
    /// or it is gone.
    Deleted,
}

/// Who tells agents what becomes of objects.
pub trait Tell {
    /// Tells of an object of a list, by its number; writes it, with the change's version where that is part of it.
    ///
    /// # Errors
    /// Where it cannot be told.
    fn tell(&self, list: List, number: usize, what: What, write: &dyn Fn(u64, &mut String)) -> Result<()>;

    /// Tells which version all are at, where nobody does so otherwise.
    ///
    /// # Errors
    /// As [`tell`](Self::tell).
    fn bookmark(&self) -> Result<()>;
}

/// Who has the cluster change.
pub struct Churn<'a> {
    cluster: &'a Cluster,
    server: &'a dyn Tell,
    /// Pods that are being replaced, and what is next for each.
    replaced: VecDeque<(usize, Next)>,
    pods: usize,
    nodes: usize,
}

/// What happens to a pod that is replaced, one after the other.
#[derive(Clone, Copy, Debug)]
enum Next {
    IsTold,
    Stops,
    IsGone,
    Comes,
    IsScheduled,
    Runs,
}

impl<'a> Churn<'a> {
    /// Nothing has changed yet.
    pub fn of(cluster: &'a Cluster, server: &'a dyn Tell) -> Self {
        Self { cluster, server, replaced: VecDeque::new(), pods: 0, nodes: 0 }
    }

    /// Has the cluster change for some seconds; gives how many changes there were for a second.
    ///
    /// # Errors
    /// Where changes cannot be told.
    pub fn go_on(&mut self, seconds: u32) -> Result<f64> {
        let (started, mut changes, mut reports) = (Instant::now(), 0, 0);
        for tick in 1..=seconds * TICKS {
            for _ in 0..PODS / TICKS as usize {
                if self.replaced.len() < AT_ONCE {
                    let pod = self.another();
                    self.replaced.push_back((pod, Next::IsTold));
                }
                changes += self.step()?;
            }
            while reports < self.cluster.size.nodes * tick as usize / REPORT / TICKS as usize {
                self.report()?;
                (reports, changes) = (reports + 1, changes + 1);
            }
            if tick % TICKS == 0 {
                self.server.bookmark()?;
            }
            thread::sleep((started + Duration::from_secs(1) / TICKS * tick).saturating_duration_since(Instant::now()));
        }
        Ok(changes as f64 / started.elapsed().as_secs_f64())
    }

    /// Has all pods run that are being replaced.
    ///
    /// # Errors
    /// Where changes cannot be told.
    pub fn settle(&mut self) -> Result<()> {
        while self.step()? > 0 {}
        Ok(())
    }

    /// Goes one step on with a pod; gives how many changes that was.
    fn step(&mut self) -> Result<usize> {
        let Some((pod, next)) = self.replaced.pop_front() else { return Ok(0) };
        let (what, life, then) = match next {
            Next::IsTold => (What::Modified, Life::Terminating, Some(Next::Stops)),
            Next::Stops => (What::Modified, Life::Stopped, Some(Next::IsGone)),
            Next::IsGone => (What::Deleted, Life::Stopped, Some(Next::Comes)),
            Next::Comes => {
                self.cluster.replace(pod);
                (What::Added, Life::Pending, Some(Next::IsScheduled))
            }
            Next::IsScheduled => (What::Modified, Life::Scheduled, Some(Next::Runs)),
            Next::Runs => (What::Modified, Life::Running, None),
        };
        self.replaced.extend(then.map(|then| (pod, then)));
        let cluster = self.cluster;
        self.server.tell(List::Pods, pod, what, &|version, out| cluster.write_pod(pod, life, version, out))?;
        let without = match next {
            Next::IsTold => Some(pod),
            Next::Runs => None,
            Next::Stops | Next::IsGone | Next::Comes | Next::IsScheduled => return Ok(1),
        };
        let service = Cluster::service_of(pod);
        let slice = |version, out: &mut String| cluster.write_slice(service, without, version, out);
        self.server.tell(List::Slices, service, What::Modified, &slice)?;
        Ok(2)
    }

    fn another(&mut self) -> usize {
        loop {
            self.pods += 1;
            let pod = self.pods * STRIDE % self.cluster.size.pods();
            if !Cluster::has_ended(pod) {
                return pod;
            }
        }
    }

    fn report(&mut self) -> Result<()> {
        let node = self.nodes % self.cluster.size.nodes;
        self.nodes += 1;
        let write = |version, out: &mut String| self.cluster.write(List::Nodes, node, version, out);
        self.server.tell(List::Nodes, node, What::Modified, &write)
    }
}
