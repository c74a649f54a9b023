//! A port of a service that is to be another: what is taken for it, and what is written.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;
use sluice_abi::{
    Backend, BackendId, Frontend, FrontendBit, FrontendFlags, MAGLEV_SIZE, Membership, Port, Position, ServiceId, SetId,
};
use sluice_service::{Choice, FrontendKind, PortName, ServicePort, maglev};

use super::gone::distinct;
use super::members::{self, Members};
use super::stock::Lack;
use super::tables::{Lookup, Place, Tables, read_backend, write_backend, write_membership};
use super::writer::{
    INSIDE, INSIDE_EXTERNAL, OUTSIDE, ROLES, Reached, Writer, Written, bits_of, family_of, place, protocol,
};
use crate::kernel::error::KernelError;

/// A prime already.
const LOOKUP_SIZE: maglev::Size = maglev::Size::at_least(MAGLEV_SIZE);
const _: () = assert!(LOOKUP_SIZE.get() == MAGLEV_SIZE);

/// A set as it is to be.
pub(super) struct SetPlan {
    id: SetId,
    members: Members,
    /// Where members are to stand that stand nowhere yet.
    span: Option<Range<u32>>,
    /// Whether it stays as it is.
    stays: bool,
}

/// What a port is to be, with ids and words taken for it.
pub(super) struct Plan {
    service: ServiceId,
    /// Of all its backends, in order.
    backends: Vec<BackendId>,
    /// Which of them are new.
    new: Vec<usize>,
    /// Each once.
    sets: Vec<SetPlan>,
    /// Which of them is whose.
    roles: [usize; ROLES],
}

impl Plan {
    fn of(&self, role: usize) -> &SetPlan {
        &self.sets[self.roles[role]]
    }
}

/// Whether clients from outside the node are meant to use it.
fn is_external(kind: FrontendKind) -> bool {
    match kind {
        FrontendKind::ClusterIp => false,
        FrontendKind::NodePort | FrontendKind::LoadBalancer | FrontendKind::ExternalIp | FrontendKind::HostPort => true,
    }
}

/// Whether they are spread as on other nodes: a host port is of this node only.
fn is_spread(kind: FrontendKind) -> bool {
    is_external(kind) && kind != FrontendKind::HostPort
}

/// Who is chosen in each role. One that nobody comes in is like another that somebody does.
fn choices(port: &ServicePort) -> [&Choice; ROLES] {
    let has = |external| port.frontends.iter().any(|frontend| is_external(frontend.kind) == external);
    match (has(false), has(true)) {
        (true, true) => [&port.inside, &port.inside_external, &port.outside],
        (false, true) => [&port.inside_external, &port.inside_external, &port.outside],
        (_, false) => [&port.inside; ROLES],
    }
}

/// All places at which a port is reached, each once, and why.
fn reached(name: &PortName, port: &ServicePort) -> Vec<(Reached, FrontendKind)> {
    let mut all: Vec<(Reached, FrontendKind)> = Vec::with_capacity(port.frontends.len());
    for frontend in &port.frontends {
        let (place, kind) = (place(name, frontend), frontend.kind);
        if all.iter().all(|(other, _)| other.place != place) {
            all.push((Reached { place, is_cluster_ip: !is_external(kind) }, kind));
        }
    }
    all
}

/// Who may come to a port's load balancers, as the table has it: without the bits beyond a prefix, and each once.
fn ranges(port: &ServicePort) -> BTreeSet<IpNet> {
    port.source_ranges.iter().map(IpNet::trunc).collect()
}

fn indices(choice: &Choice) -> &[u32] {
    match choice {
        Choice::Among(indices) => indices,
        Choice::Reject | Choice::Drop => &[],
    }
}

fn memberships(port: &ServicePort) -> Vec<Membership> {
    let mut memberships = vec![Membership::NONE; port.backends.len()];
    let roles = [Membership::CLUSTER_IP, Membership::INSIDE, Membership::OUTSIDE];
    for (choice, role) in choices(port).into_iter().zip(roles) {
        for at in indices(choice) {
            let membership = &mut memberships[*at as usize];
            *membership = membership.with(role);
        }
    }
    memberships
}

impl<T: Tables> Writer<T> {
    /// Takes what a port needs.
    ///
    /// # Errors
    /// Where there is no room; then nothing is taken.
    pub(super) fn plan(&mut self, name: &PortName, port: &ServicePort, before: &Written) -> Result<Plan, Lack> {
        let plan = self.try_plan(name, port, before);
        match plan {
            Ok(_) => self.stock.keep(),
            Err(_) => self.stock.undo(),
        }
        plan
    }

    fn try_plan(&mut self, name: &PortName, port: &ServicePort, before: &Written) -> Result<Plan, Lack> {
        let is_new = |frontend: &&sluice_service::Frontend| {
            let place = place(name, frontend);
            !before.frontends.iter().any(|reached| reached.place == place)
        };
        // Each may bring its cluster IP along.
        let new = 2 * port.frontends.iter().filter(is_new).count();
        let ranges = ranges(port).iter().filter(|range| !before.ranges.contains(range)).count();
        self.has_room(name.family, new, ranges)?;

        let service = if before.service == ServiceId::NONE { self.stock.service()? } else { before.service };
        let known: HashMap<(IpAddr, Port), BackendId> = before
            .backends
            .iter()
            .map(|id| {
                let backend = read_backend(&self.tables, before.family, *id);
                ((backend.address, backend.port), *id)
            })
            .collect();
        let found: Vec<Option<BackendId>> =
            port.backends.iter().map(|b| known.get(&(b.address, Port::new(b.port))).copied()).collect();
        let new: Vec<usize> = (0..found.len()).filter(|at| found[*at].is_none()).collect();
        let mut taken = self.stock.backends(name.family, new.len())?.into_iter();
        let backends: Vec<BackendId> = found.into_iter().filter_map(|id| id.or_else(|| taken.next())).collect();

        let all: Vec<Reached> = reached(name, port).into_iter().map(|(reached, _)| reached).collect();
        // Frontends that go lead to what they have led to until they are gone.
        let loses = before.frontends.iter().any(|old| !all.contains(old));
        let choices = choices(port);
        let (mut sets, mut roles): (Vec<SetPlan>, _) = (Vec::new(), [0; ROLES]);
        for role in 0..ROLES {
            if let Some(same) = (0..role).find(|other| choices[*other] == choices[role]) {
                roles[role] = roles[same];
                continue;
            }
            let id = before.sets[role];
            // Others who have come by the same set so far must not see it change into what is not theirs.
            let is_shared = |other: usize| before.sets[other] == id && choices[other] != choices[role];
            let may_change = !before.is_mixed && !loses && !(0..ROLES).any(is_shared);
            let known = Some(id).filter(|id| *id != SetId::NONE && sets.iter().all(|set| set.id != *id));
            roles[role] = sets.len();
            sets.push(self.plan_set(known, may_change, choices[role], &backends)?);
        }
        Ok(Plan { service, backends, new, sets, roles })
    }

    fn plan_set(
        &mut self,
        known: Option<SetId>,
        may_change: bool,
        choice: &Choice,
        backends: &[BackendId],
    ) -> Result<SetPlan, Lack> {
        let members = match choice {
            Choice::Among(indices) if indices.is_empty() => Members::Nobody(Position::REJECT),
            Choice::Among(indices) => Members::Among(indices.iter().map(|at| backends[*at as usize]).collect()),
            Choice::Reject => Members::Nobody(Position::REJECT),
            Choice::Drop => Members::Nobody(Position::DROP),
        };
        let stays = known.is_some_and(|id| members::read(&self.tables, id) == members);
        let id = match known {
            Some(id) if stays || may_change => id,
            _ => self.stock.set()?,
        };
        let span = match &members {
            Members::Among(members) if !stays => Some(self.stock.members(members.len())?),
            Members::Among(_) | Members::Nobody(_) => None,
        };
        Ok(SetPlan { id, members, span, stays })
    }

    /// Writes what is planned, and notes what is gone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn carry_out(
        &mut self,
        name: &PortName,
        port: &ServicePort,
        before: &Written,
        plan: &Plan,
    ) -> Result<Written, KernelError> {
        let family = name.family;
        let memberships = memberships(port);
        for at in &plan.new {
            let sluice_service::Backend { address, port: number, .. } = port.backends[*at];
            let number = Port::new(number);
            if self.own.contains(&address) {
                self.set_bit(FrontendBit::of_host_backend(number, protocol(name)));
            }
            let backend = Backend { address, port: number, membership: memberships[*at], service: plan.service };
            write_backend(&mut self.tables, family, plan.backends[*at], &backend);
        }
        for set in &plan.sets {
            if let (Some(span), Members::Among(members)) = (&set.span, &set.members) {
                members::write(&mut self.tables, span.clone(), members);
            }
        }
        let is_spread = self.spread(name, port, before, plan)?;
        for set in plan.sets.iter().filter(|set| !set.stays) {
            // A set that is new may have a word from before.
            let is_new = !before.sets.contains(&set.id);
            let old = if is_new { None } else { members::span(&self.tables, set.id) };
            let position = match (&set.span, &set.members) {
                (Some(span), _) => Position(span.start),
                (None, Members::Nobody(position)) => *position,
                (None, Members::Among(_)) => Position::REJECT,
            };
            members::lead(&mut self.tables, set.id, position);
            if let Some(old) = old {
                self.stock.rest_members(old);
            }
        }
        let ranges = ranges(port);
        for range in ranges.iter().filter(|range| !before.ranges.contains(range)) {
            self.tables.set_range(plan.service, *range, true)?;
            self.ranges += 1;
        }
        let frontends = self.reach(name, port, before, plan, is_spread)?;
        self.change_memberships(before, plan, &memberships);
        let now = Written {
            service: plan.service,
            family,
            protocol: protocol(name),
            sets: std::array::from_fn(|role| plan.of(role).id),
            backends: plan.backends.clone().into(),
            frontends,
            ranges: ranges.into_iter().collect(),
            is_spread,
            is_left: false,
            is_mixed: false,
        };
        self.drop_rest(before, &now);
        Ok(now)
    }

    /// Writes a set's Maglev table, where it is to have one: `true`.
    fn spread(
        &mut self,
        name: &PortName,
        port: &ServicePort,
        before: &Written,
        plan: &Plan,
    ) -> Result<bool, KernelError> {
        self.unspread.remove(name);
        let set = plan.of(OUTSIDE);
        let is_wanted = self.spreads && port.frontends.iter().any(|frontend| is_spread(frontend.kind));
        if !is_wanted || set.members.len() < 2 {
            return Ok(false);
        }
        let has_one = before.is_spread && before.sets[OUTSIDE] == set.id;
        if has_one && set.stays && !before.is_left {
            return Ok(true);
        }
        if !has_one && !self.has_room_to_spread() {
            self.unspread.insert(name.clone());
            return Ok(false);
        }
        let table = maglev::table(&port.backends, indices(choices(port)[OUTSIDE]), LOOKUP_SIZE);
        let mut lookup: Box<Lookup> = Box::new([BackendId::NONE; MAGLEV_SIZE]);
        for (entry, at) in lookup.iter_mut().zip(table) {
            *entry = plan.backends[at as usize];
        }
        let old = self.tables.maglev(set.id)?;
        if old.as_ref() != Some(&lookup) {
            self.tables.insert_maglev(set.id, &lookup)?;
            self.lookups += usize::from(old.is_none());
        }
        Ok(true)
    }

    /// Writes the frontends, each after what says that it may be there.
    fn reach(
        &mut self,
        name: &PortName,
        port: &ServicePort,
        before: &Written,
        plan: &Plan,
        is_spread_now: bool,
    ) -> Result<Box<[Reached]>, KernelError> {
        let all = reached(name, port);
        for (reached, kind) in &all {
            if !before.frontends.contains(reached) {
                bits_of(reached).for_each(|bit| self.set_bit(bit));
                if reached.is_cluster_ip {
                    self.cluster_ips.add(reached.place.address);
                }
            }
            let mut flags = FrontendFlags::NONE;
            if reached.is_cluster_ip {
                flags = flags.with(FrontendFlags::CLUSTER_IP);
            }
            if *kind == FrontendKind::LoadBalancer && !port.source_ranges.is_empty() {
                flags = flags.with(FrontendFlags::SOURCE_RANGES);
            }
            if *kind == FrontendKind::HostPort {
                flags = flags.with(FrontendFlags::HOST_PORT);
            }
            if is_spread_now && is_spread(*kind) {
                flags = flags.with(FrontendFlags::MAGLEV);
            }
            let roles = if is_external(*kind) { [INSIDE_EXTERNAL, OUTSIDE] } else { [INSIDE; 2] };
            let [inside, outside] = roles.map(|role| plan.of(role).id);
            let affinity = port.affinity.unwrap_or(0);
            let entry = Frontend { service: plan.service, inside, outside, affinity, flags };
            self.put_frontend(&reached.place, &entry)?;
        }
        Ok(all.into_iter().map(|(reached, _)| reached).collect())
    }

    pub(super) fn put_frontend(&mut self, place: &Place, frontend: &Frontend) -> Result<(), KernelError> {
        let old = self.tables.frontend(place)?;
        if old.as_ref() == Some(frontend) {
            return Ok(());
        }
        if old.is_none_or(|old| old.service != frontend.service) {
            self.owe(place.address);
        }
        self.tables.insert_frontend(place, frontend)?;
        self.frontends[family_of(place.address) as usize] += usize::from(old.is_none());
        Ok(())
    }

    /// Says of backends that stay which sets they are in now.
    fn change_memberships(&mut self, before: &Written, plan: &Plan, memberships: &[Membership]) {
        let mut new = plan.new.iter().peekable();
        for (at, (id, membership)) in plan.backends.iter().zip(memberships).enumerate() {
            if new.next_if(|new| **new == at).is_some() {
                continue;
            }
            let old = read_backend(&self.tables, before.family, *id);
            if old.membership == *membership {
                continue;
            }
            if !membership.has(old.membership) {
                self.owe(old.address);
            }
            write_membership(&mut self.tables, before.family, *id, old.port, *membership);
        }
    }

    /// Notes what a port has no longer.
    fn drop_rest(&mut self, before: &Written, now: &Written) {
        let gone = &mut self.gone;
        let left = before.frontends.iter().filter(|reached| !now.frontends.contains(reached));
        let is_there = |place| now.frontends.iter().any(|reached| reached.place == place);
        gone.frontends.extend(left.map(|old| (*old, (!is_there(old.place)).then_some(before.service))));
        let ranges = before.ranges.iter().filter(|range| !now.ranges.contains(range));
        gone.ranges.extend(ranges.map(|range| (before.service, *range)));
        let stays = now.is_spread && now.sets[OUTSIDE] == before.sets[OUTSIDE];
        gone.lookups.extend((before.is_spread && !stays).then_some(before.sets[OUTSIDE]));
        gone.sets.extend(distinct(before.sets).filter(|set| !now.sets.contains(set)));
        let kept: HashSet<BackendId> = now.backends.iter().copied().collect();
        let ended = before.backends.iter().filter(|id| !kept.contains(id));
        gone.backends.extend(ended.map(|id| (before.family, *id, before.protocol)));
    }
}
