//! Judging flows: once when they open, and again whenever something that they depend on has changed.

use sluice_abi::{
    AddressEntry, AddressKind, Deliver, DenialKey, Direction, Endpoint, Features, FlowKey, Identity, IpAddress,
    PolicyDirection, PolicyMode, Port, Protocol, Reason, RevisionSlot, Scope, Slot, Verdict,
};

use crate::desk::{Case, Disguise, Plan};
use crate::flows;
use crate::parse::Parse;
use crate::policy::{self, Peer, decide};
use crate::service::Target;
use crate::tables::{FamilyTables, Tables};
use crate::way::{self, Way};

/// Judges the flow of a case, as its opener's: which ways it goes, and whether it may. `interface` is where its packet was
/// seen.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
pub fn judge<A: Parse, T: Tables + FamilyTables<A>>(
    case: &mut Case<A>,
    interface: u32,
    tables: &T,
) -> Result<(), Reason> {
    let standing = case.standing();
    let Case { key, peer, plan, target, is_common, .. } = case;
    let opener = match standing {
        Some(standing) if standing.own.direction == Direction::Reply => &*peer,
        _ => &*key,
    };
    match judge_flow(opener, target, *is_common, interface, plan, tables) {
        Err(Reason::ForgedSource) if standing.is_some() => {
            // The pod that opened it is gone, and another may have its address: what comes next opens another.
            flows::forget(key, peer, tables);
            Err(Reason::NoFlow)
        }
        other => other,
    }
}

/// Judges the flow that a key opens to a target, and finds its ways. Policies are about the target, not about the service
/// that led to it.
///
/// # Errors
/// Why its packets must be dropped.
#[inline(always)]
fn judge_flow<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    target: &Target<A>,
    is_common: bool,
    interface: u32,
    plan: &mut Plan<A>,
    tables: &T,
) -> Result<(), Reason> {
    let is_pods = !(key.scope == Scope::HOST || key.scope == Scope::NET || key.scope == Scope::OVERLAY);
    let is_service = target.is_backend();
    // Before what they guard is read, so that a change in between is noticed at the next packet.
    let routes = way::stamp(RevisionSlot::ROUTES, tables);
    let of_source = RevisionSlot::of_address(key.source);
    let of_target = way::stamp(RevisionSlot::of_address(target.address), tables);
    plan.outsider = if is_pods { of_target } else { way::stamp(of_source, tables) };
    let from = tables.address(key.source);
    let to = tables.address(target.address);

    if is_pods {
        let from = from.endpoint().ok_or(Reason::ForgedSource)?;
        if key.destination.is_multicast() {
            return Err(Reason::Multicast);
        }
        // The stack would take it for the node's own where route_localnet is set (CVE-2020-8558).
        if target.address.is_loopback() {
            return Err(Reason::NoRoute);
        }
        way::to_endpoint(from, key.source, &mut plan.back, tables)?;
        if plan.back.interface != key.scope.0 {
            return Err(Reason::ForgedSource);
        }
        way::to(key.scope.0, key.source, target.address, to, routes, false, &mut plan.forward, tables)?;
    } else {
        let ours = matches!(from.kind, AddressKind::Endpoint | AddressKind::LocalPods | AddressKind::Host);
        let is_martian = ours || key.source.is_multicast() || key.source.is_unspecified();
        if key.scope != Scope::HOST && is_martian {
            return Err(Reason::MartianSource);
        }
        match to.endpoint() {
            Some(slot) => way::to_endpoint(slot, target.address, &mut plan.forward, tables)?,
            None if is_common && is_stranger(from) && way::direct(interface, to, routes, &mut plan.forward, tables) => {
                plan.outsider = of_target;
            }
            None if is_service => {
                // Its source is nobody that a policy here is about.
                plan.outsider = of_target;
                way::to(interface, key.source, target.address, to, routes, true, &mut plan.forward, tables)?;
                // The stack would send it on with its own source, or has it come back to itself.
                let is_own = to.kind == AddressKind::Host && key.scope != Scope::HOST;
                if plan.forward.deliver == Deliver::Stack && !is_own {
                    return Err(Reason::NoRoute);
                }
            }
            None => return Err(Reason::NoEndpoint),
        }
        if key.scope == Scope::HOST {
            plan.back = Way { stamp: routes, ..Way::stack() };
        } else {
            let near = if plan.forward.deliver == Deliver::Pod { plan.forward.interface } else { interface };
            // Answers have the address that the client knows, which is none of a pod.
            let is_nodes = is_service && key.scope == Scope::NET;
            way::to(near, key.destination, key.source, from, routes, is_nodes, &mut plan.back, tables)?;
            // Whoever is reached through the overlay comes from there, where the sender is checked.
            if key.scope == Scope::NET && plan.back.deliver == Deliver::Overlay {
                return Err(Reason::MartianSource);
            }
        }
    }
    police(key, target, is_pods, from, to, plan, tables)?;
    disguise(key, is_service, is_pods, from, to, plan, tables)
}

/// Whether an address is of nobody in the cluster: who is may be on the node that the packet would be sent on to, where it would
/// be a forgery.
#[inline(always)]
fn is_stranger(entry: AddressEntry) -> bool {
    matches!(entry.kind, AddressKind::Outside | AddressKind::Unmasqueraded)
}

/// Says which source the target is to see.
///
/// # Errors
/// [`Reason::NoMasqueradeAddress`] where there is none.
#[inline(always)]
fn disguise<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    is_service: bool,
    is_pods: bool,
    from: AddressEntry,
    to: AddressEntry,
    plan: &mut Plan<A>,
    tables: &T,
) -> Result<(), Reason> {
    plan.source = key.source;
    plan.disguise = if is_service { Disguise::Port } else { Disguise::None };
    // The stack would hand what its own service sends to nobody but this flow: a port of its own tells answers apart.
    if is_service && key.scope == Scope::HOST {
        plan.disguise = Disguise::Node;
        return Ok(());
    }
    // A pod that reached itself would answer itself directly.
    let is_itself = is_service && is_pods && from.endpoint() == to.endpoint();
    let is_elsewhere = matches!(plan.forward.deliver, Deliver::Neighbour | Deliver::Overlay);
    let is_disguised = is_itself
        || if is_pods { plan.forward.leaves && masquerades::<A, T>(tables) } else { is_service && is_elsewhere };
    if !is_disguised {
        return Ok(());
    }
    plan.disguise = Disguise::Node;
    let address = if plan.forward.deliver == Deliver::Neighbour {
        let uplink = tables.uplink(plan.forward.interface).ok_or(Reason::NoMasqueradeAddress)?;
        if A::BITS == 32 { uplink.ipv4.words() } else { uplink.ipv6.words() }
    } else {
        let config = tables.config().ok_or(Reason::NoMasqueradeAddress)?;
        if A::BITS == 32 { config.ipv4.words() } else { config.ipv6.words() }
    };
    plan.source = A::from_words(address);
    if plan.source.is_unspecified() { Err(Reason::NoMasqueradeAddress) } else { Ok(()) }
}

/// Asks the policies of the pods at both ends: of the sender where it is a pod's own packet, and of the receiver.
///
/// # Errors
/// [`Reason::Policy`] where they deny it.
#[inline(always)]
fn police<A: Parse, T: Tables + FamilyTables<A>>(
    key: &FlowKey<A>,
    target: &Target<A>,
    is_pods: bool,
    from: AddressEntry,
    to: AddressEntry,
    plan: &mut Plan<A>,
    tables: &T,
) -> Result<(), Reason> {
    plan.policies = [0; 2];
    plan.verdict = Verdict::Allow;
    let (sender, receiver) = (from.endpoint(), to.endpoint());
    let traffic = (key.protocol, target.port);
    // A pod always reaches itself.
    if sender.is_some() && sender == receiver {
        return Ok(());
    }
    if let Some(slot) = sender.filter(|_| is_pods) {
        let is_own_node = to.kind == AddressKind::Host;
        let peer = Peer { identity: identity::<A, T>(to, tables), is_own_node };
        plan.policies[0] =
            ask(slot, PolicyDirection::Egress, peer, target.address, traffic, &mut plan.verdict, tables)?;
    }
    if let Some(slot) = receiver {
        // What the stack only forwards is not its own.
        let is_own_node = key.scope == Scope::HOST && (from.kind == AddressKind::Host || key.source.is_link_local());
        let peer = Peer { identity: identity::<A, T>(from, tables), is_own_node };
        plan.policies[1] = ask(slot, PolicyDirection::Ingress, peer, key.source, traffic, &mut plan.verdict, tables)?;
    }
    Ok(())
}

/// As whom policies know an address.
#[inline(always)]
fn identity<A: Parse, T: Tables>(entry: AddressEntry, tables: &T) -> Identity {
    match entry.endpoint() {
        Some(slot) => tables.endpoint(slot).map_or(Identity::ANYONE, Endpoint::identity::<A>),
        None => entry.identity,
    }
}

/// Asks the policies of a pod about a flow from or to a peer; gives what they say, as [`Flow::policy`].
///
/// # Errors
/// [`Reason::Policy`] where they deny it.
#[inline(always)]
fn ask<A: Parse, T: Tables>(
    slot: Slot,
    direction: PolicyDirection,
    peer: Peer,
    address: A,
    (protocol, port): (Protocol, Port),
    verdict: &mut Verdict,
    tables: &T,
) -> Result<u32, Reason> {
    let endpoint = tables.endpoint(slot).ok_or(Reason::NoEndpoint)?;
    let decision = decide(endpoint.rule_set, direction, peer, protocol, port, tables);
    if decision.verdict == policy::Verdict::Deny {
        tables.denied(&DenialKey {
            endpoint: slot,
            policy: decision.policy,
            direction,
            mode: endpoint.mode,
            peer: DenialKey::peer(address),
            protocol,
            // An identifier says nothing of what was denied.
            port: if protocol.is_icmp() { Port(0) } else { port },
            pad: 0,
        });
        match endpoint.mode {
            PolicyMode::Enforce => return Err(Reason::Policy),
            PolicyMode::Audit => *verdict = Verdict::Audit,
        }
    }
    Ok(decision.policy)
}

#[inline(always)]
fn masquerades<A: Parse, T: Tables>(tables: &T) -> bool {
    let feature = if A::BITS == 32 { Features::MASQUERADE4 } else { Features::MASQUERADE6 };
    tables.config().is_some_and(|config| config.features.has(feature))
}
