//! A cluster at work: pods are replaced, their Services' slices follow, and nodes say that they are there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{Cluster, Life, List};
use super::server::Server;

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

/// Who has the cluster change.
pub struct Churn {
    cluster: Arc<Cluster>,
    server: Server,
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

impl Churn {
    /// Nothing has changed yet.
    pub fn of(cluster: &Arc<Cluster>, server: &Server) -> Self {
        Self { cluster: Arc::clone(cluster), server: server.clone(), replaced: VecDeque::new(), pods: 0, nodes: 0 }
    }

    /// Has the cluster change for some seconds; gives how many changes there were for a second.
    ///
    /// # Errors
    /// Where nobody watches.
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
    /// Where nobody watches.
    pub fn settle(&mut self) -> Result<()> {
        while self.step()? > 0 {}
        Ok(())
    }

    /// Goes one step on with a pod; gives how many changes that was.
    fn step(&mut self) -> Result<usize> {
        let Some((pod, next)) = self.replaced.pop_front() else { return Ok(0) };
        let (what, life, then) = match next {
            Next::IsTold => ("MODIFIED", Life::Terminating, Some(Next::Stops)),
            Next::Stops => ("MODIFIED", Life::Stopped, Some(Next::IsGone)),
            Next::IsGone => ("DELETED", Life::Stopped, Some(Next::Comes)),
            Next::Comes => {
                self.cluster.replace(pod);
                ("ADDED", Life::Pending, Some(Next::IsScheduled))
            }
            Next::IsScheduled => ("MODIFIED", Life::Scheduled, Some(Next::Runs)),
            Next::Runs => ("MODIFIED", Life::Running, None),
        };
        self.replaced.extend(then.map(|then| (pod, then)));
        self.server.say(List::Pods, what, |version, out| self.cluster.write_pod(pod, life, version, out))?;
        let without = match next {
            Next::IsTold => Some(pod),
            Next::Runs => None,
            Next::Stops | Next::IsGone | Next::Comes | Next::IsScheduled => return Ok(1),
        };
        let service = Cluster::service_of(pod);
        let slice = |version, out: &mut String| self.cluster.write_slice(service, without, version, out);
        self.server.say(List::Slices, "MODIFIED", slice)?;
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
        self.server.say(List::Nodes, "MODIFIED", |version, out| self.cluster.write(List::Nodes, node, version, out))
    }
}
