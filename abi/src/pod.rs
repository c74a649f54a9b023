//! Permission to copy the types of this crate in and out of maps as bytes.
#![allow(unsafe_code, reason = "aya::Pod is an unsafe trait; this module is its only use here")]

use crate::{
    AddressEntry, Config, Denial, DenialKey, Endpoint, Flow, FlowKey, Fragment, FragmentKey, Ipv4, Ipv6, Node, Prefix,
    Rule, RuleKey, RulePath, RuleSetId, Uplink,
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
    Config,
    Denial,
    DenialKey,
    Endpoint,
    Fragment,
    Node,
    Rule,
    RuleKey,
    RulePath,
    RuleSetId,
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
