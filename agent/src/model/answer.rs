//! Answers to those who ask.

use std::sync::mpsc::Sender;
use std::time::Instant;

use sluice_api::{Answer, Call, ErrorKind, Failure, NodeStatus, ObjectCounts, Outcome, PolicyStatus, Status};
use sluice_topology::{NodeView, Underlay};

use super::{Model, asked, served};
use crate::host;
use crate::kernel::KernelError;

impl Model {
    /// Answers a call: at once, but for an endpoint whose pod is not known yet.
    pub(super) fn answer(&mut self, call: Call, reply: Sender<Outcome>) {
        let outcome = match call {
            Call::Enforce(record) => match &self.waiting_for {
                Some(what) => failure(ErrorKind::Unavailable, format!("the agent is not ready; it waits for: {what}")),
                None => {
                    // Before the answer, which says that they lead there.
                    self.services.endpoint(&record);
                    self.services.work(&mut self.kernel, Instant::now());
                    return self.policies.admit(&mut self.kernel, record, reply);
                }
            },
            Call::Release { host_interface } => {
                let still_passes = host::is_up(&host_interface);
                self.policies.release(&mut self.kernel, &host_interface, still_passes)
            }
            Call::Status {} => Outcome::Ok(Answer::Status(self.status())),
            Call::Endpoints {} => Outcome::Ok(Answer::Endpoints(self.kernel.endpoints())),
            Call::Nodes {} => Outcome::Ok(Answer::Nodes(self.ready.view.iter().map(node_status).collect())),
            Call::Flows { limit } => match self.kernel.flows(limit) {
                Ok(listed) => {
                    let flows = listed.into_iter().map(|listed| asked::flow(self.policies.index(), listed));
                    Outcome::Ok(Answer::Flows(flows.collect()))
                }
                Err(error) => refused(&error),
            },
            Call::Services {} => Outcome::Ok(Answer::Services(served::ports(self.services.index()))),
            Call::Counters {} => match self.kernel.counters() {
                Ok(counters) => Outcome::Ok(Answer::Counters(counters)),
                Err(error) => refused(&error),
            },
            Call::Denials { limit } => match self.kernel.denials(limit) {
                Ok(denied) => {
                    let denials = denied.iter().map(|denied| asked::denial(self.policies.index(), denied));
                    Outcome::Ok(Answer::Denials(denials.collect()))
                }
                Err(error) => refused(&error),
            },
            Call::Explain { from, to, port } => match asked::explain(self.policies.index(), from, to, &port) {
                Ok(explained) => Outcome::Ok(Answer::Explained(explained)),
                Err(what) => failure(ErrorKind::Invalid, what),
            },
        };
        // Who has asked may have gone.
        let _ = reply.send(outcome);
    }

    fn status(&self) -> Status {
        let local = self.ready.local.as_ref();
        Status {
            ready: self.waiting_for.is_none(),
            waiting_for: self.waiting_for.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            node: self.config.node_name.clone(),
            addresses: local.map_or_else(Vec::new, |local| local.addresses.clone()),
            pod_cidrs: local.map_or_else(Vec::new, |local| local.pod_cidrs.iter().map(ToString::to_string).collect()),
            uplinks: self.ready.uplinks.clone(),
            mtu: self.ready.mtu,
            endpoints: self.kernel.enforced(),
            objects: ObjectCounts {
                nodes: self.nodes.len(),
                pods: self.policies.index().counts().pods,
                namespaces: self.policies.index().namespaces().count(),
                policies: self.policies.index().policies().count(),
                service_ports: self.services.index().ports().len(),
            },
            policy: self.policy_status(),
            problems: self.all_problems().cloned().collect(),
            notes: self.notes.clone(),
        }
    }

    fn policy_status(&self) -> PolicyStatus {
        let (counts, limits) = (self.policies.index().counts(), self.kernel.limits());
        PolicyStatus {
            policies: counts.policies,
            rule_sets: counts.rule_sets,
            identities: counts.identities,
            rules: counts.rules,
            rules_limit: limits.rules,
            prefixes: counts.prefixes,
            prefixes_limit: limits.prefixes,
            closed: counts.closed,
            audited: self.policies.audited(),
        }
    }
}

fn node_status(view: &NodeView) -> NodeStatus {
    NodeStatus {
        name: view.object.name.clone(),
        addresses: view.object.addresses.clone(),
        pod_cidrs: view.object.pod_cidrs.iter().map(ToString::to_string).collect(),
        routing: match view.underlay {
            Underlay::Local => "local",
            Underlay::Native => "native",
            Underlay::Overlay(_) => "vxlan",
        }
        .into(),
    }
}

pub(super) fn done() -> Outcome {
    Outcome::Ok(Answer::Done)
}

pub(super) fn failure(kind: ErrorKind, message: String) -> Outcome {
    Outcome::Error(Failure { kind, message })
}

pub(super) fn refused(error: &KernelError) -> Outcome {
    let kind = match error {
        KernelError::Record { .. } => ErrorKind::Invalid,
        KernelError::Full(_) => ErrorKind::Exhausted,
        KernelError::NoObject
        | KernelError::NoBtf
        | KernelError::NoBpffs(_)
        | KernelError::Layout { .. }
        | KernelError::Failed { .. } => ErrorKind::Internal,
    };
    tracing::warn!(%error, "refused");
    failure(kind, error.to_string())
}
