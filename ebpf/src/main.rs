//! The kernel programs: each lends `sluice-datapath` a real packet and the real maps, and does what it says.
//!
//! A hook's program is its fast path. Whatever that does not know goes on, by tail calls, to the stages of the slow path
//! for the packet's family, which all hooks share: the control buffer tells them which hook it is.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod act;
mod frame;
mod kernel;
mod maps;
mod skb;
mod socket;

use aya_ebpf::bindings::TC_ACT_SHOT;
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
    ($hook:expr, $program:ident) => {
        #[classifier]
        pub fn $program(context: TcContext) -> i32 {
            if matches!($hook, Hook::FromOverlay) {
                act::receive(&context);
            }
            let mut skb = Skb::new(&context, FAST_BYTES);
            let outcome = fast::$program(&mut skb, &Kernel::new(&context));
            act::act(&context, $hook, outcome)
        }
    };
}

hook!(Hook::FromPod, from_pod);
hook!(Hook::ToPod, to_pod);
hook!(Hook::FromNet, from_net);
hook!(Hook::ToNet, to_net);
hook!(Hook::FromOverlay, from_overlay);

macro_rules! stage {
    ($stage:ident, $program:ident, $address:ty $(, $bytes:expr)?) => {
        #[classifier]
        pub fn $program(context: TcContext) -> i32 {
            // Only the programs of hooks call, and they leave a number.
            let Some(hook) = act::hook(&context) else { return TC_ACT_SHOT };
            let outcome = slow::$stage::<$address, $(stage!(packet $bytes),)? _>(
                hook,
                $(&mut Skb::new(&context, $bytes),)?
                &Kernel::new(&context),
            );
            act::act(&context, hook, outcome)
        }
    };
    (packet $bytes:expr) => { _ };
}

stage!(admit, admit_4, Ipv4, SLOW_BYTES);
stage!(admit, admit_6, Ipv6, SLOW_BYTES);
stage!(relate, relate_4, Ipv4, SLOW_BYTES);
stage!(relate, relate_6, Ipv6, SLOW_BYTES);
stage!(find, find_4, Ipv4);
stage!(find, find_6, Ipv6);
stage!(balance, balance_4, Ipv4);
stage!(balance, balance_6, Ipv6);
stage!(judge, judge_4, Ipv4);
stage!(judge, judge_6, Ipv6);
stage!(carry, carry_4, Ipv4, 0);
stage!(carry, carry_6, Ipv6, 0);

stage!(refuse, refuse_4, Ipv4, SLOW_BYTES);
stage!(refuse, refuse_6, Ipv6, SLOW_BYTES);

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
