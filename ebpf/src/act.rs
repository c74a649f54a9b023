//! Doing what the datapath says: `unsafe`, because it writes to the context and calls helpers of the kernel.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS,
    BPF_F_TUNINFO_IPV6, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh, bpf_tunnel_key,
};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_type,
    bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use sluice_abi::{Hook, Protocol, Reason, Routing, Slot};
use sluice_datapath::{Family, MARK, MARK_MASK, Outcome, Tables};

use crate::kernel::Kernel;
use crate::maps::SLOW_PATHS;
use crate::skb::TUNNEL_KEY;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Carries out an outcome; the result is the program's.
#[inline(always)]
pub fn act(context: &TcContext, hook: Hook, outcome: Outcome) -> i32 {
    match outcome {
        Outcome::Pass => TC_ACT_UNSPEC,
        Outcome::Drop(reason) => drop(context, hook, reason),
        Outcome::Slow(stage, family) => {
            // SAFETY: the context is the program's own, and the array holds programs of this generation only. Volatile,
            // because the verifier takes only stores of the whole field.
            unsafe {
                (&raw mut (*context.skb.skb).cb[0]).write_volatile(hook as u32);
                SLOW_PATHS.tail_call(context, stage.index(family == Family::V6));
            }
            drop(context, hook, Reason::NoSlowPath)
        }
        Outcome::Back => back(context, hook),
        // SAFETY: helpers that take no memory of ours.
        Outcome::Pod { interface } => unsafe { bpf_redirect_peer(interface, 0) as i32 },
        Outcome::Neighbour { interface, family, next_hop } => {
            judged(context);
            match hook {
                Hook::ToNet => routed(interface),
                Hook::FromPod | Hook::ToPod | Hook::FromNet | Hook::FromOverlay => {
                    neighbour(interface, family, next_hop)
                }
            }
        }
        Outcome::Direct { interface, family, next_hop, node } => {
            judged(context);
            match wrap(context, family, node) {
                true => neighbour(interface, family, next_hop),
                false => drop(context, hook, Reason::RewriteFailed),
            }
        }
        Outcome::Overlay { interface, node } => {
            judged(context);
            match overlay(context, node) {
                // SAFETY: helpers that take no memory of ours.
                true => unsafe { bpf_redirect(interface, 0) as i32 },
                false => drop(context, hook, Reason::NoRoute),
            }
        }
    }
}

/// The hook at which a packet came into the slow path.
#[inline(always)]
pub fn hook(context: &TcContext) -> Option<Hook> {
    // SAFETY: the context is the program's own.
    Hook::of(unsafe { (&raw const (*context.skb.skb).cb[0]).read_volatile() })
}

#[inline(always)]
fn drop(context: &TcContext, hook: Hook, reason: Reason) -> i32 {
    Kernel::new(context).count(hook, reason);
    TC_ACT_SHOT
}

/// Sends a packet back where it came from.
#[inline(always)]
fn back(context: &TcContext, hook: Hook) -> i32 {
    // SAFETY: the context is the program's own.
    let interface = unsafe { (*context.skb.skb).ifindex };
    let redirect = |flags: u32| {
        // SAFETY: a helper that takes no memory of ours.
        unsafe { bpf_redirect(interface, flags.into()) as i32 }
    };
    match hook {
        // SAFETY: a helper that takes no memory of ours.
        Hook::FromPod => unsafe { bpf_redirect_peer(interface, 0) as i32 },
        Hook::FromNet | Hook::FromOverlay => {
            judged(context);
            redirect(0)
        }
        // To the node's own stack.
        Hook::ToNet | Hook::ToPod => redirect(BPF_F_INGRESS),
    }
}

/// Marks a packet, so that the program at the uplink lets it out unseen.
#[inline(always)]
fn judged(context: &TcContext) {
    // SAFETY: the context is the program's own. Volatile, because the verifier takes only stores of the whole field, and
    // the compiler would write the half that changes.
    unsafe {
        let mark = &raw mut (*context.skb.skb).mark;
        mark.write_volatile((mark.read_volatile() & !MARK_MASK) | MARK);
    }
}

/// Takes a packet from the overlay as one for this node, whatever its frame is addressed to: pods address it to their
/// gateway. (The devices cannot all have the gateway's address: VXLAN drops what carries its own device's address as
/// source, drivers/net/vxlan/vxlan_core.c in all kernels up to 6.18, and the host's own packets would.)
#[inline(always)]
pub fn receive(context: &TcContext) {
    const PACKET_HOST: u32 = 0;
    // SAFETY: the context is the program's own.
    unsafe {
        if (*context.skb.skb).pkt_type != PACKET_HOST {
            bpf_skb_change_type(context.skb.skb, PACKET_HOST);
        }
    }
}

#[inline(always)]
fn neighbour(interface: u32, family: Family, next_hop: [u32; 4]) -> i32 {
    // SAFETY: plain data, for which zero is a value.
    let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    hop.nh_family = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    hop.__bindgen_anon_1.ipv6_nh = next_hop;
    // SAFETY: the parameters are as large as is said.
    unsafe { bpf_redirect_neigh(interface, &mut hop, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

/// As [`neighbour`], of what the stack has routed already, to where it was going before: a neighbour that has just been found
/// hands the packets that have waited for it to the next hop of their own routes (`neigh_update`). The kernel routes it anew.
#[inline(always)]
fn routed(interface: u32) -> i32 {
    // SAFETY: the helper takes no memory of ours.
    unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Wraps a packet up in a header of its own family, from this node to another; `false` where that fails.
#[inline(always)]
fn wrap(context: &TcContext, family: Family, node: Slot) -> bool {
    const HOPS: u8 = 64;
    /// Ethernet.
    const NETWORK: u32 = 14;
    let kernel = Kernel::new(context);
    let (Some(config), Some(node)) = (kernel.config(), kernel.node(node)) else { return false };
    // SAFETY: the context is the program's own.
    let length = unsafe { (*context.skb.skb).len } - NETWORK;
    match family {
        Family::V4 => {
            let mut header = [
                u32::from_be_bytes([0x45, 0, 0, 0]).to_be() | (length + 20).to_be(),
                // May not be cut up (RFC 2003 section 3.1): who sends too much is told.
                u32::from_be_bytes([0, 0, 0x40, 0]).to_be(),
                u32::from_be_bytes([HOPS, Protocol::IPIP.0 as u8, 0, 0]).to_be(),
                config.ipv4.0,
                node.ipv4.0,
            ];
            header[2] |= sluice_datapath::header_checksum(&header);
            put_before(context, &header, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO)
        }
        Family::V6 => {
            let ([a, b, c, d], [e, f, g, h]) = (config.ipv6.0, node.ipv6.0);
            let size = (length as u16).to_be_bytes();
            let header = [
                u32::from_be_bytes([0x60, 0, 0, 0]).to_be(),
                u32::from_be_bytes([size[0], size[1], Protocol::IPV6.0 as u8, HOPS]).to_be(),
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
            ];
            put_before(context, &header, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_FIXED_GSO)
        }
    }
}

/// Puts a network header before that of a packet.
#[inline(always)]
fn put_before<const WORDS: usize>(context: &TcContext, header: &[u32; WORDS], flags: u32) -> bool {
    const NETWORK: u32 = 14;
    let length = 4 * WORDS as u32;
    // SAFETY: the helper checks what it is told, and the header is as long as is said.
    unsafe {
        bpf_skb_adjust_room(context.skb.skb, length as i32, BPF_ADJ_ROOM_MAC, flags.into()) == 0
            && bpf_skb_store_bytes(context.skb.skb.cast(), NETWORK, header.as_ptr().cast(), length, 0) == 0
    }
}

/// Says where the VXLAN device is to send a packet; `false` where the node is unknown.
#[inline(always)]
fn overlay(context: &TcContext, node: Slot) -> bool {
    let kernel = Kernel::new(context);
    let (Some(config), Some(node)) = (kernel.config(), kernel.node(node)) else { return false };
    // SAFETY: plain data, for which zero is a value.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = config.vni;
    key.tunnel_ttl = 64;
    let flags = match node.routing {
        Routing::Overlay4 => {
            // Unlike everything else in the datapath, the helper wants host order here.
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(node.ipv4.0);
            0
        }
        Routing::Overlay6 => {
            key.__bindgen_anon_1.remote_ipv6 = node.ipv6.0;
            u64::from(BPF_F_TUNINFO_IPV6)
        }
        Routing::Unknown | Routing::Native => return false,
    };
    // SAFETY: the key is as large as is said.
    unsafe { bpf_skb_set_tunnel_key(context.skb.skb, &mut key, TUNNEL_KEY, flags) == 0 }
}
