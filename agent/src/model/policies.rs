//! Policies, and the endpoints that they are for: what is known of both, made so in the kernel.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::time::Instant;

use sluice_api::{EndpointRecord, EndpointStatus, ErrorKind, Outcome};
use sluice_policy::object::{PodObject, PolicyMode};
use sluice_policy::{Delta, Event, Index, Kind, ObjectName, PodName, Severity};
use sluice_topology::PodPlace;

use super::answer::{done, failure, refused};
use super::local::LocalPods;
use super::pace::Pace;
use super::problems::Problems;
use super::waiting::{PATIENCE, Wait, Waiting};
use crate::kernel::{Kernel, KernelError};
use crate::source::Messenger;

/// What policies need of the kernel; [`Kernel`] says what each of these does.
pub trait Enforcer {
    fn take_over_policy(&mut self, index: &mut Index) -> Result<(), KernelError>;
    fn apply_policy(&mut self, delta: &Delta) -> Result<(), KernelError>;
    fn set_mode(&mut self, pod: &PodName, mode: PolicyMode) -> Result<(), KernelError>;
    fn enforce(&mut self, record: &EndpointRecord) -> Result<EndpointStatus, KernelError>;
    fn release(&mut self, host_interface: &str, still_passes: bool) -> Result<bool, KernelError>;
    fn release_vanished(&mut self) -> Result<Vec<String>, KernelError>;
    fn endpoints(&self) -> Vec<EndpointStatus>;
}

impl Enforcer for Kernel {
    fn take_over_policy(&mut self, index: &mut Index) -> Result<(), KernelError> {
        self.take_over_policy(index)
    }

    fn apply_policy(&mut self, delta: &Delta) -> Result<(), KernelError> {
        self.apply_policy(delta)
    }

    fn set_mode(&mut self, pod: &PodName, mode: PolicyMode) -> Result<(), KernelError> {
        self.set_mode(pod, mode)
    }

    fn enforce(&mut self, record: &EndpointRecord) -> Result<EndpointStatus, KernelError> {
        self.enforce(record)
    }

    fn release(&mut self, host_interface: &str, still_passes: bool) -> Result<bool, KernelError> {
        self.release(host_interface, still_passes)
    }

    fn release_vanished(&mut self) -> Result<Vec<String>, KernelError> {
        self.release_vanished()
    }

    fn endpoints(&self) -> Vec<EndpointStatus> {
        self.endpoints()
    }
}

/// What policies are about, and what the kernel was told of it.
pub struct Policies {
    index: Index,
    /// Whether it has been told of all that there is. Until then, tables stay as an earlier agent has left them.
    is_started: bool,
    local: LocalPods,
    /// Pods that are others than they were.
    touched: BTreeSet<PodName>,
    /// How the policies of local pods are meant, as the kernel knows it.
    modes: BTreeMap<PodName, PolicyMode>,
    /// Endpoints whose pods the source has not told of yet.
    waiting: Waiting<Sender<Outcome>>,
    /// Who asks the source for a pod, and tells it of one; `None`: what it has not told of is not there.
    messenger: Option<Messenger>,
    /// Why the tables are not what they should be: then all of them are made anew.
    failure: Option<String>,
    /// What is wrong with objects,
    problems: Problems,
    /// how many of these are only warnings,
    warnings: usize,
    /// and the index's version of them.
    problems_version: Option<u64>,
    /// What is wrong with the tables.
    table_problems: Problems,
    /// When to try again what has failed, or did not fit.
    pace: Pace,
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

impl Policies {
    /// Nothing is known yet. Without somebody to ask, pods that the source has not told of are assumed to have no labels.
    pub fn new(node: &str, index: Index, messenger: Option<Messenger>) -> Self {
        let local = LocalPods::new(node, messenger.is_none());
        let (modes, waiting, failure, pace, touched) = Default::default();
        let (problems, warnings, problems_version, table_problems) = Default::default();
        Self {
            index,
            is_started: false,
            local,
            touched,
            modes,
            waiting,
            messenger,
            failure,
            problems,
            warnings,
            problems_version,
            table_problems,
            pace,
        }
    }

    /// All objects.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Takes an endpoint that is in force already.
    pub fn adopt(&mut self, record: &EndpointRecord) {
        self.local.add(record, None);
    }

    /// The source says that a pod is new, or has changed. The event that this is to policies.
    pub fn pod_is(&mut self, pod: PodObject) -> Option<Event> {
        self.local.is(pod)
    }

    /// The source says that a pod is gone, by its name and UID (empty: whichever it is). The event that this is to policies.
    pub fn pod_is_gone(&mut self, name: &PodName, uid: &str) -> Option<Event> {
        self.local.gone(name, uid, self.index.pod(name))
    }

    /// Notes whose pods events are about, where somebody is to be told of them.
    fn touch(&mut self, events: &[Event]) {
        if self.messenger.is_some() {
            return;
        }
        self.touched.extend(events.iter().filter_map(named));
    }

    /// Pods that are others than at the last call: of a source that says nothing of who serves.
    pub fn take_touched(&mut self) -> BTreeSet<PodName> {
        std::mem::take(&mut self.touched)
    }

    /// Where pods are that have addresses of their own.
    pub fn places(&self) -> impl Iterator<Item = PodPlace<'_>> {
        self.index.pods().filter_map(place)
    }

    /// How many pods of this node have policies that are only tried.
    pub fn audited(&self) -> usize {
        let is_audited = |mode: &&PolicyMode| match mode {
            PolicyMode::Enforce => false,
            PolicyMode::Audit => true,
        };
        self.modes.values().filter(is_audited).count()
    }

    /// How often addresses of pods were told to the source, and could not be.
    pub fn published(&self) -> [u64; 2] {
        self.messenger.as_ref().map_or([0; 2], Messenger::published)
    }

    /// What is wrong.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        self.problems.all().iter().chain(self.table_problems.all())
    }

    /// How many of the problems are only warnings: objects that are enforced as they stand.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether the tables are what they should be, as far as there is room.
    pub fn are_in_force(&self) -> bool {
        self.is_started && self.failure.is_none()
    }

    /// When something is to be done though nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.pace.next().into_iter().chain(self.waiting.next()).min()
    }

    /// Does what is due.
    pub fn work(&mut self, kernel: &mut impl Enforcer, now: Instant) {
        if self.pace.is_retry_due(now) {
            // Until it turns out well.
            self.pace.failed(now);
            let delta = self.index.retry();
            let _ = self.write(kernel, &delta);
        }
        self.turn_away(now);
    }

    /// Takes a part of what there is at first: nothing follows from it before the last one.
    pub fn learn(&mut self, events: Vec<Event>) {
        self.touch(&events);
        self.index.learn(events);
    }

    /// Takes the last part of what there is at first, and makes the tables what follows from all of it, whatever they hold.
    pub fn start(&mut self, kernel: &mut impl Enforcer, events: Vec<Event>) {
        let events: Vec<Event> = events.into_iter().chain(self.local.events()).collect();
        self.touch(&events);
        self.index.apply_all(events);
        self.is_started = true;
        self.failure = Some("nothing was written yet".into());
        let _ = self.write(kernel, &Delta::default());
        self.make_up();
    }

    /// Has the objects of pods say what an agent before this one has not come to: which addresses those have that it left here, and
    /// that others do not have any more what was announced.
    fn make_up(&self) {
        let Some(messenger) = &self.messenger else { return };
        for (pod, addresses) in self.local.unsaid() {
            messenger.publish(pod.name.clone(), pod.uid.clone(), &addresses);
        }
        for pod in self.index.pods().filter(|pod| pod.is_spoken_for && self.local.is_homeless(pod)) {
            messenger.publish(pod.name.clone(), pod.uid.clone(), &[]);
        }
    }

    /// Makes what follows from events so, as far as the tables are what they should be; else all is made at the next attempt.
    /// When that was done, if the tables were changed by it.
    pub fn change(&mut self, kernel: &mut impl Enforcer, events: Vec<Event>) -> Option<Instant> {
        self.touch(&events);
        let delta = self.index.apply_all(events);
        let mut written = None;
        if self.failure.is_none() {
            let is_written = self.write(kernel, &delta).is_ok() && !delta.steps.is_empty();
            written = is_written.then(Instant::now);
        } else {
            self.review();
        }
        self.admit_waiting(kernel);
        written
    }

    /// Makes the steps of a change; where an earlier one has failed, all tables anew. What fails is a problem then, and tried
    /// again.
    fn write(&mut self, kernel: &mut impl Enforcer, delta: &Delta) -> Result<(), KernelError> {
        let written = if self.failure.is_none() {
            kernel.apply_policy(delta)
        } else {
            self.modes.clear();
            kernel.take_over_policy(&mut self.index)
        };
        let result = written.and_then(|()| self.write_modes(kernel));
        self.failure = result.as_ref().err().map(ToString::to_string);
        self.review();
        result
    }

    /// Says how the policies of local pods are meant, where that has changed. Of pods that are gone, nothing is to be kept.
    fn write_modes(&mut self, kernel: &mut impl Enforcer) -> Result<(), KernelError> {
        let now: BTreeMap<PodName, PolicyMode> =
            self.local.names().map(|pod| (pod.clone(), self.index.mode(pod))).collect();
        for (pod, _) in self.modes.extract_if(.., |pod, _| !now.contains_key(pod)) {
            kernel.set_mode(&pod, PolicyMode::Enforce)?;
        }
        for (pod, mode) in now {
            if self.modes.get(&pod) != Some(&mode) {
                kernel.set_mode(&pod, mode)?;
                self.modes.insert(pod, mode);
            }
        }
        Ok(())
    }

    /// Tells what is wrong, and sees to it that it is tried again.
    fn review(&mut self) {
        if self.problems_version != Some(self.index.problems_version()) {
            self.problems_version = Some(self.index.problems_version());
            let problems = self.index.problems();
            self.warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
            self.problems.set(problems.iter().map(ToString::to_string).collect());
        }
        let of_tables = self.failure.iter().map(|error| {
            format!("the kernel's tables are not what policies say: {error}; they are made anew soon, no pod is added before")
        });
        self.table_problems.set(of_tables.collect());
        if self.failure.is_none() && self.index.counts().closed == 0 {
            self.pace.succeeded();
        } else if self.pace.next().is_none() {
            self.pace.failed(Instant::now());
        }
    }

    /// Puts an endpoint in force and answers, once its pod is known.
    pub fn admit(&mut self, kernel: &mut impl Enforcer, record: EndpointRecord, reply: Sender<Outcome>) {
        let outcome = match self.admission(&record) {
            Admission::Now => self.put_in_force(kernel, &record).map_or_else(|error| refused(&error), |()| done()),
            Admission::Never(why) => failure(ErrorKind::Invalid, why),
            Admission::Later(pod, uid) => {
                tracing::info!(%pod, uid, "asking the API server for a pod that it has not told of");
                if let Some(messenger) = &self.messenger {
                    messenger.ask(pod.clone(), uid.clone());
                }
                return self.waiting.push(Wait { record, pod, uid, reply, until: Instant::now() + PATIENCE });
            }
        };
        // Who has asked may have gone.
        let _ = reply.send(outcome);
    }

    fn admission(&self, record: &EndpointRecord) -> Admission {
        let Some(pod) = &record.pod else { return Admission::Now };
        let name = PodName::new(&pod.namespace, &pod.name);
        let uid = pod.uid.clone().unwrap_or_default();
        match (self.local.find(&name, &uid, self.index.pod(&name)), &self.messenger) {
            (Some(pod), _) if pod.host_network => {
                Admission::Never(format!("pod {name} uses its node's network (spec.hostNetwork): it has no endpoints"))
            }
            // One that has ended is as good as gone.
            (Some(PodObject { ended: true, .. }) | None, Some(_)) => Admission::Later(name, uid),
            (Some(_), _) | (None, None) => Admission::Now,
        }
    }

    /// Puts in force the endpoints whose pods are known by now.
    fn admit_waiting(&mut self, kernel: &mut impl Enforcer) {
        let Self { index, local, waiting, .. } = self;
        let is_known =
            |wait: &Wait<_>| local.find(&wait.pod, &wait.uid, index.pod(&wait.pod)).is_some_and(|pod| !pod.ended);
        for Wait { record, reply, .. } in waiting.take(is_known) {
            self.admit(kernel, record, reply);
        }
    }

    /// Answers for endpoints that have waited for too long.
    fn turn_away(&mut self, now: Instant) {
        for wait in self.waiting.take(|wait| wait.until <= now) {
            let message = format!(
                "pod {}{} is not known to the API server after {} s, or has ended; see what became of it, and whether the server \
                 answers",
                wait.pod,
                if wait.uid.is_empty() { String::new() } else { format!(" (UID {})", wait.uid) },
                PATIENCE.as_secs()
            );
            tracing::warn!("refused: {message}");
            let _ = wait.reply.send(failure(ErrorKind::Unavailable, message));
        }
    }

    /// First the pod's policy, then the endpoint: nothing is unprotected for a moment.
    fn put_in_force(&mut self, kernel: &mut impl Enforcer, record: &EndpointRecord) -> Result<(), KernelError> {
        if self.local.contend(record) {
            // Who had its addresses and is gone is not to count for it.
            self.end_vanished(kernel)?;
        }
        let result = self.write_pod(kernel, record).and_then(|()| kernel.enforce(record).map(drop));
        match &result {
            Ok(()) => {
                tracing::info!(interface = record.host_interface, addresses = ?record.addresses, "endpoint is in force");
                self.publish(record);
            }
            Err(_) => self.forget_ended(kernel),
        }
        result
    }

    /// Has the other nodes learn the addresses of a pod before its kubelet tells of them.
    fn publish(&self, record: &EndpointRecord) {
        let pod = record.pod.as_ref().and_then(|pod| self.index.pod(&PodName::new(&pod.namespace, &pod.name)));
        if let (Some(messenger), Some(pod)) = (&self.messenger, pod) {
            messenger.publish(pod.name.clone(), pod.uid.clone(), &pod.addresses);
        }
    }

    /// Has policies know a pod as its endpoint says that it is.
    fn write_pod(&mut self, kernel: &mut impl Enforcer, record: &EndpointRecord) -> Result<(), KernelError> {
        let Some(pod) = &record.pod else { return Ok(()) };
        let event = self.local.add(record, self.index.pod(&PodName::new(&pod.namespace, &pod.name)));
        self.touch(event.as_slice());
        let delta = self.index.apply_all(event);
        self.write(kernel, &delta)
    }

    /// Takes an endpoint out of force; if it still waits, it does so no more.
    pub fn release(&mut self, kernel: &mut impl Enforcer, host_interface: &str, still_passes: bool) -> Outcome {
        for wait in self.waiting.take(|wait| wait.record.host_interface == host_interface) {
            let gone = format!("endpoint {host_interface} of pod {} was released while it waited", wait.pod);
            let _ = wait.reply.send(failure(ErrorKind::Unavailable, gone));
        }
        let released = kernel.release(host_interface, still_passes);
        self.forget_ended(kernel);
        released.map_or_else(|error| refused(&error), |_| done())
    }

    /// Ends the endpoints whose interface is gone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn end_vanished(&mut self, kernel: &mut impl Enforcer) -> Result<(), KernelError> {
        let vanished = kernel.release_vanished();
        self.forget_ended(kernel);
        for interface in vanished? {
            tracing::info!(interface, "endpoint is gone");
        }
        Ok(())
    }

    /// Has policies go by what the source says of pods whose endpoints are gone.
    fn forget_ended(&mut self, kernel: &mut impl Enforcer) {
        let there: BTreeSet<String> =
            kernel.endpoints().into_iter().map(|endpoint| endpoint.record.host_interface).collect();
        let events = self.local.retain(|host_interface| there.contains(host_interface));
        if let Some(messenger) = &self.messenger {
            // Of whom nothing is here any more, by who he was until now.
            let homeless =
                events.iter().filter_map(named).filter(|name| !self.local.names().any(|local| local == name));
            for pod in homeless.filter_map(|name| self.index.pod(&name)) {
                messenger.publish(pod.name.clone(), pod.uid.clone(), &[]);
            }
        }
        if !self.is_started {
            self.learn(events);
        } else if !events.is_empty() {
            self.change(kernel, events);
        }
    }
}

/// The pod that an event is about.
fn named(event: &Event) -> Option<PodName> {
    match event {
        Event::Pod(pod) => Some(pod.name.clone()),
        Event::Removed(ObjectName { kind: Kind::Pod, namespace, name }) => Some(PodName::new(namespace, name)),
        Event::Removed(_) | Event::Namespace(_) | Event::Node(_) | Event::Policy(_) | Event::Invalid(_) => None,
    }
}

/// Where a pod is, if it has addresses of its own.
pub fn place(pod: &PodObject) -> Option<PodPlace<'_>> {
    let node = pod.node.as_deref().filter(|_| pod.is_settled())?;
    Some(PodPlace { node, addresses: &pod.addresses })
}
