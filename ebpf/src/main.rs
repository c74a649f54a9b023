//! The kernel programs: each lends `sluice-datapath` a real packet and the real maps, and does what it says.
//!
//! A hook's program is its fast path. Whatever that does not know goes on, by tail call, to the slow path of the same
//! hook and of the packet's family.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod act;
mod kernel;
mod maps;
mod skb;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use sluice_abi::{Hook, Ipv4, Ipv6};
use sluice_datapath::{fast, slow};

use crate::kernel::Kernel;
use crate::skb::Skb;

/// Bytes that the fast path looks at: Ethernet, IPv6 and TCP headers.
const FAST_BYTES: u32 = 14 + 40 + 20;
/// Bytes that the slow path looks at: extension headers, or a quoted packet with its own.
const SLOW_BYTES: u32 = 512;

macro_rules! hook {
    ($hook:expr, $program:ident, $slow4:ident, $slow6:ident) => {
        #[classifier]
        pub fn $program(context: TcContext) -> i32 {
            if matches!($hook, Hook::FromOverlay) {
                act::receive(&context);
            }
            let mut skb = Skb::new(&context, FAST_BYTES);
            let outcome = fast::$program(&mut skb, &Kernel::new(&context));
            act::act(&context, $hook, outcome)
        }

        #[classifier]
        pub fn $slow4(context: TcContext) -> i32 {
            let mut skb = Skb::new(&context, SLOW_BYTES);
            let outcome = slow::$program::<Ipv4, _, _>(&mut skb, &Kernel::new(&context));
            act::act(&context, $hook, outcome)
        }

        #[classifier]
        pub fn $slow6(context: TcContext) -> i32 {
            let mut skb = Skb::new(&context, SLOW_BYTES);
            let outcome = slow::$program::<Ipv6, _, _>(&mut skb, &Kernel::new(&context));
            act::act(&context, $hook, outcome)
        }
    };
}

hook!(Hook::FromPod, from_pod, slow_from_pod_4, slow_from_pod_6);
hook!(Hook::ToPod, to_pod, slow_to_pod_4, slow_to_pod_6);
hook!(Hook::FromNet, from_net, slow_from_net_4, slow_from_net_6);
hook!(Hook::ToNet, to_net, slow_to_net_4, slow_to_net_6);
hook!(Hook::FromOverlay, from_overlay, slow_from_overlay_4, slow_from_overlay_6);

/// Returns the time that flows are stamped with, so that the agent can read it (by a test run).
#[classifier]
pub fn clock(_context: TcContext) -> i32 {
    kernel::jiffies() as i32
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// bpf_jiffies64 and bpf_redirect_neigh are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
