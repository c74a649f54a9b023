//! Policies: what the source says of them and of pods, made so in the kernel's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::Result;
use sluice_api::{EndpointRecord, ErrorKind, Outcome};
use sluice_policy::object::{PodObject, PolicyMode};
use sluice_policy::{Delta, Event, Index, Kind, ObjectName, PodName};
use sluice_topology::PodPlace;

use super::Model;
use super::answer::{done, failure, refused};
use super::local::LocalPods;
use super::pace::Pace;
use super::problems::Origin;
use super::waiting::{PATIENCE, Wait, Waiting};
use crate::kernel::KernelError;
use crate::source::{Asker, Change, Object};

/// What policies are about, and what the kernel was told of it.
pub struct Policies {
    /// All objects but what only the ways between nodes need.
    pub index: Index,
    pub local: LocalPods,
    /// How the policies of pods are meant, as the kernel knows it.
    pub modes: BTreeMap<PodName, PolicyMode>,
    /// Endpoints whose pods the source has not told of yet.
    pub waiting: Waiting<Sender<Outcome>>,
    /// Who asks the source for a pod; `None`: what it has not told of is not there.
    pub asker: Option<Asker>,
    /// Why the tables are not what they should be: then they are made anew.
    failure: Option<String>,
    /// When to try that again, or what does not fit.
    pub pace: Pace,
}

impl Policies {
    /// Nothing is known yet.
    pub fn new(index: Index, local: LocalPods, asker: Option<Asker>) -> Self {
        let (modes, waiting, failure, pace) = Default::default();
        Self { index, local, modes, waiting, asker, failure, pace }
    }

    /// The pods that have addresses of their own.
    pub fn pods(&self) -> impl Iterator<Item = &PodObject> {
        self.index.pods().filter(|pod| pod.is_selectable() && !pod.addresses.is_empty())
    }

    /// Where they are.
    pub fn places(&self) -> impl Iterator<Item = PodPlace<'_>> {
        self.pods().filter_map(place)
    }
}

fn place(pod: &PodObject) -> Option<PodPlace<'_>> {
    let node = pod.node.as_deref().filter(|_| pod.is_selectable())?;
    Some(PodPlace { node, addresses: &pod.addresses })
}

/// Whether an endpoint may come into force.
enum Admission {
    /// At once.
    Now,
    /// Once its pod, by name and UID, is known.
    Later(PodName, String),
    /// Not at all, for a reason.
    Never(String),
}

impl Model {
    /// Takes what the source says: all there is, the first time, then changes.
    pub(super) fn changed(&mut self, changes: Vec<Change>) {
        let mut matters = !self.is_listed;
        let mut events = Vec::new();
        for change in changes {
            let event = match change {
                Change::Is(Object::Node(node, ways)) => {
                    matters |= self.nodes.get(&ways.name) != Some(&ways);
                    self.nodes.insert(ways.name.clone(), ways);
                    Some(Event::Node(node))
                }
                Change::Is(Object::Pod(pod)) => self.policies.local.is(pod),
                Change::Is(Object::Namespace(namespace)) => Some(Event::Namespace(namespace)),
                Change::Is(Object::Policy(policy)) => Some(Event::Policy(policy)),
                Change::Gone(object, uid) if object.kind == Kind::Pod => {
                    let name = PodName::new(&object.namespace, &object.name);
                    let Policies { local, index, .. } = &mut self.policies;
                    local.gone(&name, &uid, index.pod(&name))
                }
                Change::Gone(object, _) => {
                    matters |= object.kind == Kind::Node && self.nodes.remove(&object.name).is_some();
                    Some(Event::Removed(object))
                }
                Change::Wrong(error) => Some(Event::Invalid(error)),
                Change::Problems(problems) => {
                    self.problems.set(Origin::Source, problems);
                    None
                }
            };
            matters |= event.as_ref().is_some_and(|event| self.has_strayed(event));
            events.extend(event);
        }
        if self.is_listed {
            self.policies_changed(events);
        } else {
            self.is_listed = true;
            events.extend(self.policies.local.events());
            self.policies.index.apply_all(events);
            self.take_over_policies();
        }
        if matters {
            self.apply();
        }
        self.admit_waiting();
    }

    /// Whether an event changes where addresses are that no node's pod CIDR tells of.
    fn has_strayed(&self, event: &Event) -> bool {
        let (name, after) = match event {
            Event::Pod(pod) => (pod.name.clone(), place(pod)),
            Event::Removed(ObjectName { kind: Kind::Pod, namespace, name }) => (PodName::new(namespace, name), None),
            Event::Removed(_) | Event::Namespace(_) | Event::Node(_) | Event::Policy(_) | Event::Invalid(_) => {
                return false;
            }
        };
        let before = self.policies.index.pod(&name).and_then(place);
        let strays = |place: PodPlace<'_>| {
            let node = self.nodes.get(place.node);
            place.node != self.config.node_name && node.is_none_or(|node| node.strays(place.addresses).next().is_some())
        };
        before != after && [before, after].into_iter().flatten().any(strays)
    }

    /// Makes what follows from events so, as far as the tables are what they should be; else all is made at the next attempt.
    fn policies_changed(&mut self, events: Vec<Event>) {
        let delta = self.policies.index.apply_all(events);
        if self.policies.failure.is_none() {
            // It is a problem now, and tried again.
            let _ = self.write_policies(&delta);
        } else {
            self.review_policies();
        }
    }

    /// Makes the tables what they should be, whatever they are.
    fn take_over_policies(&mut self) {
        self.policies.failure = Some("they have not been looked at yet".into());
        let _ = self.write_policies(&Delta::default());
    }

    /// Makes the steps of a change; where an earlier one has failed, all tables anew.
    fn write_policies(&mut self, delta: &Delta) -> Result<(), KernelError> {
        let written = if self.policies.failure.is_none() {
            self.kernel.apply_policy(delta)
        } else {
            self.policies.modes.clear();
            self.kernel.take_over_policy(&mut self.policies.index)
        };
        let result = written.and_then(|()| self.write_modes());
        self.policies.failure = result.as_ref().err().map(ToString::to_string);
        self.review_policies();
        result
    }

    /// Says how the policies of local pods are meant, where that has changed.
    fn write_modes(&mut self) -> Result<(), KernelError> {
        let Policies { index, local, modes, .. } = &mut self.policies;
        let now: BTreeMap<PodName, PolicyMode> = local.names().map(|pod| (pod.clone(), index.mode(pod))).collect();
        modes.retain(|pod, _| now.contains_key(pod));
        for (pod, mode) in now {
            if modes.get(&pod) != Some(&mode) {
                self.kernel.set_mode(&pod, mode)?;
                modes.insert(pod, mode);
            }
        }
        Ok(())
    }

    /// Tells what is wrong, and sees to it that it is tried again.
    fn review_policies(&mut self) {
        let Policies { index, failure, pace, .. } = &mut self.policies;
        let mut problems: Vec<String> = index.problems().iter().map(ToString::to_string).collect();
        let is_whole = failure.is_none() && index.counts().closed == 0;
        problems.extend(failure.as_ref().map(|error| {
            format!("policies are not in force as they are now: {error}; all of them are written again soon, new pods wait for that")
        }));
        self.problems.set(Origin::Policies, problems);
        let now = Instant::now();
        if is_whole {
            pace.succeeded();
        } else if pace.next().is_none_or(|due| due <= now) {
            pace.failed(now);
        }
    }

    /// Tries again what has failed, or did not fit.
    pub(super) fn retry_policies(&mut self) {
        let delta = self.policies.index.retry();
        let _ = self.write_policies(&delta);
    }

    /// Puts an endpoint in force and answers: once its pod is known.
    pub(super) fn admit(&mut self, record: EndpointRecord, reply: Sender<Outcome>) {
        let outcome = match self.admission(&record) {
            Admission::Now => self.put_in_force(&record).map_or_else(|error| refused(&error), |()| done()),
            Admission::Never(why) => failure(ErrorKind::Invalid, why),
            Admission::Later(pod, uid) => {
                tracing::info!(%pod, uid, "asking the API server for a pod that it has not told of");
                if let Some(asker) = &self.policies.asker {
                    asker.ask(pod.clone(), uid.clone());
                }
                self.policies.waiting.push(Wait { record, pod, uid, reply, until: Instant::now() + PATIENCE });
                return;
            }
        };
        // Who has asked may have gone.
        let _ = reply.send(outcome);
    }

    fn admission(&self, record: &EndpointRecord) -> Admission {
        let Some(pod) = &record.pod else { return Admission::Now };
        let name = PodName::new(&pod.namespace, &pod.name);
        let uid = pod.uid.clone().unwrap_or_default();
        let Policies { index, local, asker, .. } = &self.policies;
        match (local.find(&name, &uid, index.pod(&name)), asker) {
            (Some(pod), _) if pod.host_network => {
                Admission::Never(format!("pod {name} uses its node's network (spec.hostNetwork), and has no endpoint"))
            }
            // One that has ended is about to go.
            (Some(PodObject { ended: true, .. }) | None, Some(_)) => Admission::Later(name, uid),
            (Some(_), _) | (None, None) => Admission::Now,
        }
    }

    /// Puts in force the endpoints whose pods are known by now.
    fn admit_waiting(&mut self) {
        let Policies { index, local, waiting, .. } = &mut self.policies;
        let is_known =
            |wait: &Wait<_>| local.find(&wait.pod, &wait.uid, index.pod(&wait.pod)).is_some_and(|pod| !pod.ended);
        for Wait { record, reply, .. } in waiting.take(is_known) {
            self.admit(record, reply);
        }
    }

    /// Answers for endpoints that have waited for too long.
    pub(super) fn turn_away(&mut self, now: Instant) {
        for wait in self.policies.waiting.take(|wait| wait.until <= now) {
            let message = format!(
                "pod {} (UID {}) is not known to the API server after {} s; has it been deleted, does the server answer?",
                wait.pod,
                wait.uid,
                PATIENCE.as_secs()
            );
            tracing::warn!("refused: {message}");
            let _ = wait.reply.send(failure(ErrorKind::Unavailable, message));
        }
    }

    /// First the pod's policy, then the endpoint: nothing is unprotected for a moment.
    fn put_in_force(&mut self, record: &EndpointRecord) -> Result<(), KernelError> {
        if self.policies.local.contend(record) {
            // Whoever had the address and is gone is not to count for it.
            self.end_vanished()?;
        }
        let result = self.write_pod(record).and_then(|()| self.kernel.enforce(record).map(drop));
        match &result {
            Ok(()) => {
                tracing::info!(interface = record.host_interface, addresses = ?record.addresses, "endpoint is in force");
            }
            Err(_) => self.forget_ended(),
        }
        result
    }

    /// Has policies know a pod as its endpoint says it is.
    fn write_pod(&mut self, record: &EndpointRecord) -> Result<(), KernelError> {
        let Some(pod) = &record.pod else { return Ok(()) };
        let Policies { index, local, .. } = &mut self.policies;
        let event = local.add(record, index.pod(&PodName::new(&pod.namespace, &pod.name)));
        let delta = index.apply_all(event);
        self.write_policies(&delta)
    }

    /// Takes an endpoint out of force; whoever waits for it waits no more.
    pub(super) fn release(&mut self, host_interface: &str, still_passes: bool) -> Outcome {
        for wait in self.policies.waiting.take(|wait| wait.record.host_interface == host_interface) {
            let gone = format!("endpoint {host_interface} of pod {} was released while it waited", wait.pod);
            let _ = wait.reply.send(failure(ErrorKind::Unavailable, gone));
        }
        let released = self.kernel.release(host_interface, still_passes);
        self.forget_ended();
        released.map_or_else(|error| refused(&error), |_| done())
    }

    /// Ends the endpoints whose interface is gone.
    pub(super) fn end_vanished(&mut self) -> Result<(), KernelError> {
        let vanished = self.kernel.release_vanished();
        self.forget_ended();
        for interface in vanished? {
            tracing::info!(interface, "endpoint is gone");
        }
        Ok(())
    }

    /// Has policies go by what the source says of pods whose endpoints are gone.
    fn forget_ended(&mut self) {
        let there: BTreeSet<String> =
            self.kernel.endpoints().into_iter().map(|endpoint| endpoint.record.host_interface).collect();
        let events = self.policies.local.retain(|host_interface| there.contains(host_interface));
        if !events.is_empty() {
            self.policies_changed(events);
        }
    }
}
