//! Permission to copy the types of this crate in and out of maps as bytes.
#![allow(unsafe_code, reason = "aya::Pod is an unsafe trait; this module is its only use here")]

use crate::{
    AddressEntry, Affinity, AffinityKey, Backend, BackendId, Config, Denial, DenialKey, Endpoint, Flow, FlowKey,
    Fragment, FragmentKey, Frontend, FrontendKey, Ipv4, Ipv6, Node, Position, Prefix, RangePath, Rule, RuleKey,
    RulePath, RuleSetId, SetId, SocketKey, SocketPeer, Uplink,
};

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: repr(C) or transparent, without padding (sizes are asserted beside each definition); the enums
            // inside are written only by this crate's own users, and maps of another LAYOUT are never opened.
            unsafe impl aya::Pod for $type {}
        )*
    };
}

pod!(
    AddressEntry,
    Affinity,
    AffinityKey,
    Backend<Ipv4>,
    Backend<Ipv6>,
    BackendId,
    Config,
    Denial,
    DenialKey,
    Endpoint,
    Fragment,
    Frontend,
    FrontendKey<Ipv4>,
    FrontendKey<Ipv6>,
    Node,
    Position,
    RangePath<Ipv4>,
    RangePath<Ipv6>,
    Rule,
    RuleKey,
    RulePath,
    RuleSetId,
    SetId,
    SocketKey<Ipv4>,
    SocketKey<Ipv6>,
    SocketPeer<Ipv4>,
    SocketPeer<Ipv6>,
    Uplink,
    Ipv4,
    Ipv6,
    Flow<Ipv4>,
    Flow<Ipv6>,
    FlowKey<Ipv4>,
    FlowKey<Ipv6>,
    FragmentKey<Ipv4>,
    FragmentKey<Ipv6>,
    Prefix<Ipv4>,
    Prefix<Ipv6>,
);
