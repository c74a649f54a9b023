//! Memory to work in: what a packet's judgement needs at hand would fill most of the kernel's stack of 512 bytes.

use sluice_abi::{
    BackendId, Deliver, Direction, Flow, FlowKey, IpAddress, Mac, Port, Protocol, Rewrites, Scope, Seen, Slot, Stamp,
    TimeoutClass, Verdict,
};

use crate::flows::{Action, Known};
use crate::parse::{Headers, Message, Parse, Piece};
use crate::service::Target;
use crate::standing::Standing;
use crate::tables::Table;
use crate::way::Way;

/// What the slow path works on.
pub struct Desk<A: IpAddress> {
    /// The packet's headers.
    pub(crate) headers: Headers<A>,
    /// The headers of the packet that it quotes, where it is an ICMP error.
    pub(crate) quoted: Headers<A>,
    /// What is to be judged.
    pub(crate) case: Case<A>,
    /// Where the packet was seen.
    pub(crate) scope: Scope,
    /// Index of the interface that it was seen on.
    pub(crate) interface: u32,
    /// Whether it may open a flow.
    pub(crate) may_open: bool,
    /// Whether another node has sent it on, for this one to serve its client.
    pub(crate) is_sent_on: bool,
    /// What its sender is to be told, where it is refused.
    pub(crate) refusal: Refusal,
}

/// What the sender of a packet is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// That nobody serves.
    Unserved,
    /// That packets may be no larger than so many bytes, from the network header on.
    TooLarge(u16),
}

/// A flow under judgement.
pub struct Case<A: IpAddress> {
    /// The key of the packet, or of the direction in which an ICMP error travels.
    pub(crate) key: FlowKey<A>,
    /// The key of the other direction.
    pub(crate) peer: FlowKey<A>,
    /// Whether its flow is known already.
    pub(crate) is_known: bool,
    /// The flow, where it is known.
    pub(crate) standing: Standing,
    /// Whether the flow was judged just now: that is to be written.
    pub(crate) is_judged: bool,
    /// Where the opener's packets go.
    pub(crate) target: Target<A>,
    /// Whether the node that the target is on would choose the same, and may be sent the packets as they are.
    pub(crate) is_common: bool,
    /// What the judgement says.
    pub(crate) plan: Plan<A>,
    /// An entry to be written.
    pub(crate) flow: Flow<A>,
    /// What is to be done with the packet.
    pub(crate) action: Action<A>,
}

impl<A: IpAddress> Case<A> {
    /// The flow, where it is known.
    #[inline(always)]
    pub(crate) fn standing(&self) -> Option<Standing> {
        // No `Option` on the desk: the compiler would write what it never set where there is none, and the verifier refuses
        // that.
        if self.is_known { Some(self.standing) } else { None }
    }
}

/// How the source of a flow is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disguise {
    /// Not at all.
    None,
    /// Its port, where another flow to the same backend has it already.
    Port,
    /// Its address, and its port to one that is set apart for that.
    Node,
}

/// What a judgement says of a flow.
pub struct Plan<A> {
    pub(crate) forward: Way<A>,
    pub(crate) back: Way<A>,
    /// The source address behind translation.
    pub(crate) source: A,
    /// How the source is translated.
    pub(crate) disguise: Disguise,
    /// The revision of who is at the other end of the wire, where somebody is.
    pub(crate) outsider: Stamp,
    /// What the policies of sender and receiver say of it, as [`Flow::policy`].
    pub(crate) policies: [u32; 2],
    pub(crate) verdict: Verdict,
}

impl<A: Parse> Plan<A> {
    /// Of a flow that goes nowhere.
    fn nowhere() -> Self {
        Self {
            forward: Way::stack(),
            back: Way::stack(),
            source: A::default(),
            disguise: Disguise::None,
            outsider: Stamp::default(),
            policies: [0; 2],
            verdict: Verdict::Allow,
        }
    }

    /// Whether the opener's packets are sent on as they are.
    #[inline(always)]
    pub(crate) fn is_direct(&self) -> bool {
        self.forward.deliver == Deliver::Direct
    }

    /// What is translated in a direction of a flow to a target.
    #[inline(always)]
    pub(crate) fn rewrites(&self, direction: Direction, target: &Target<A>) -> Rewrites {
        match (target.is_backend() && !self.is_direct(), self.disguise, direction) {
            (true, ..) => Rewrites::BOTH,
            (false, Disguise::None | Disguise::Port, _) => Rewrites::NONE,
            (false, Disguise::Node, Direction::Forward) => Rewrites::SOURCE,
            (false, Disguise::Node, Direction::Reply) => Rewrites::DESTINATION,
        }
    }

    #[inline(always)]
    pub(crate) fn stamps(&self) -> [Stamp; 3] {
        [self.back.stamp, self.forward.stamp, self.outsider]
    }
}

impl<A: Parse> Default for Desk<A> {
    fn default() -> Self {
        let flow = Flow {
            packets: 0,
            bytes: 0,
            stamps: [Stamp::default(); 3],
            source: A::default(),
            destination: A::default(),
            next_hop: A::default(),
            source_port: Port(0),
            destination_port: Port(0),
            interface: 0,
            peer_scope: Scope::default(),
            node: Slot::NONE,
            backend: BackendId::NONE,
            policy: 0,
            last_seen: 0,
            source_mac: Mac::default(),
            mtu: 0,
            deliver: Deliver::Stack,
            direction: Direction::Forward,
            verdict: Verdict::Allow,
            rewrites: Rewrites::NONE,
            seen: Seen::default(),
            class: TimeoutClass::Transient,
            tail: A::Tail::default(),
        };
        let headers = Headers {
            source: A::default(),
            destination: A::default(),
            source_port: Port(0),
            destination_port: Port(0),
            protocol: Protocol(0),
            network: 0,
            transport: 0,
            length: 0,
            id: 0,
            piece: Piece::Whole,
            message: Message::Plain,
            icmp_type: 0,
            flags: 0,
        };
        Self {
            headers,
            quoted: headers,
            case: Case {
                key: FlowKey::default(),
                peer: FlowKey::default(),
                is_known: false,
                standing: Standing { own: Known::of(Table::Openings, &flow), other: Known::of(Table::Openings, &flow) },
                is_judged: false,
                target: Target::default(),
                is_common: false,
                plan: Plan::nowhere(),
                action: Action::of(&flow),
                flow,
            },
            scope: Scope::default(),
            interface: 0,
            may_open: false,
            is_sent_on: false,
            refusal: Refusal::Unserved,
        }
    }
}
