//! Answers to those who ask.

use sluice_api::{Answer, Call, EndpointRecord, ErrorKind, Failure, NodeStatus, ObjectCounts, Outcome, Status};
use sluice_topology::{NodeView, Underlay};

use super::Model;
use crate::host;
use crate::kernel::KernelError;

impl Model {
    pub(super) fn answer(&mut self, call: Call) -> Outcome {
        match call {
            Call::Enforce(record) => self.enforce(&record),
            Call::Release { host_interface } => {
                let still_passes = host::is_up(&host_interface);
                match self.kernel.release(&host_interface, still_passes) {
                    Ok(_) => Outcome::Ok(Answer::Done),
                    Err(error) => refused(&error),
                }
            }
            Call::Status {} => Outcome::Ok(Answer::Status(self.status())),
            Call::Endpoints {} => Outcome::Ok(Answer::Endpoints(self.kernel.endpoints())),
            Call::Nodes {} => Outcome::Ok(Answer::Nodes(self.ready.view.iter().map(node_status).collect())),
            Call::Flows { limit } => match self.kernel.flows(limit) {
                Ok(flows) => Outcome::Ok(Answer::Flows(flows)),
                Err(error) => refused(&error),
            },
            Call::Counters {} => match self.kernel.counters() {
                Ok(counters) => Outcome::Ok(Answer::Counters(counters)),
                Err(error) => refused(&error),
            },
        }
    }

    fn enforce(&mut self, record: &EndpointRecord) -> Outcome {
        if let Some(what) = &self.waiting_for {
            return failure(ErrorKind::Unavailable, format!("the agent is not ready; it waits for: {what}"));
        }
        match self.kernel.enforce(record) {
            Ok(_) => {
                tracing::info!(interface = record.host_interface, addresses = ?record.addresses, "endpoint is in force");
                Outcome::Ok(Answer::Done)
            }
            Err(error) => refused(&error),
        }
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
            endpoints: self.kernel.endpoints().len(),
            objects: self.objects.as_ref().map_or_else(ObjectCounts::default, |objects| ObjectCounts {
                nodes: objects.nodes.len(),
                pods: objects.pods.len(),
                namespaces: objects.namespaces.len(),
            }),
            problems: self.ready.problems.clone(),
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

pub(super) fn failure(kind: ErrorKind, message: String) -> Outcome {
    Outcome::Error(Failure { kind, message })
}

fn refused(error: &KernelError) -> Outcome {
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
