//! A socket buffer as the datapath's packet: `unsafe`, because all access to packet memory is here.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6, bpf_tunnel_key,
};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_get_tunnel_key, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use sluice_abi::Reason;
use sluice_datapath::{Checksum, Packet, View};

/// Size of `struct bpf_tunnel_key` up to and including `tunnel_label`: what kernel 5.10 knows, and later ones accept.
pub const TUNNEL_KEY: u32 = 28;

/// Bounds every offset, so that the verifier knows where a pointer can lie.
pub const OFFSET_MASK: usize = 0x3ff;

pub struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    /// Makes sure that the first `bytes` of the packet can be read directly, as far as there are so many.
    #[inline(always)]
    pub fn new(context: &TcContext, bytes: u32) -> Self {
        let this = Self { skb: context.skb.skb };
        let linear = this.end().wrapping_sub(this.start()) as u32;
        let length = this.length();
        if linear < bytes && linear < length {
            // SAFETY: the context is the program's own. Where it fails, views beyond the linear part do.
            unsafe { bpf_skb_pull_data(this.skb, if length < bytes { length } else { bytes }) };
        }
        this
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).data_end as usize }
    }
}

/// Points at `N` bytes that were checked to be there.
pub struct Bytes<const N: usize>(pub *const u8);

impl<const N: usize> View<N> for Bytes<N> {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        const { assert!(AT < N) };
        // SAFETY: within the checked bytes.
        unsafe { *self.0.add(AT) }
    }

    #[inline(always)]
    fn half<const AT: usize>(&self) -> u16 {
        const { assert!(AT + 2 <= N) };
        // SAFETY: within the checked bytes; the kernel loads what is not aligned as well.
        unsafe { *self.0.add(AT).cast() }
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        const { assert!(AT + 4 <= N) };
        // SAFETY: as above.
        unsafe { *self.0.add(AT).cast() }
    }
}

/// The same value, of which the compiler knows nothing: it would otherwise compute it anew at each use, and the verifier
/// would take every copy for a pointer of its own, not covered by the check of the first.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register to itself. (Without an instruction two lines would share one, which the kernel refuses.)
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

#[inline(always)]
fn done(result: i64) -> Result<(), Reason> {
    if result == 0 { Ok(()) } else { Err(Reason::RewriteFailed) }
}

impl Packet for Skb {
    type View<'a, const N: usize> = Bytes<N>;

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn vlan(&self) -> Option<u16> {
        /// The identifier's part of a tag (IEEE 802.1Q).
        const IDENTIFIER: u32 = 0xfff;
        // SAFETY: the context is the program's own.
        let (is_present, tag) = unsafe { ((*self.skb).vlan_present, (*self.skb).vlan_tci) };
        if is_present != 0 { Some((tag & IDENTIFIER) as u16) } else { None }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).mark }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is the program's own.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn tunnel_remote(&self) -> Option<([u32; 4], bool)> {
        // SAFETY: plain data, for which zero is a value.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        // The helper wants to be told which family to answer with, and refuses the other (all kernels up to 6.18).
        // SAFETY: the key is as large as is said.
        unsafe {
            if bpf_skb_get_tunnel_key(self.skb, &mut key, TUNNEL_KEY, 0) == 0 {
                // Unlike everything else in the datapath, the helper speaks host order here.
                return Some(([key.__bindgen_anon_1.remote_ipv4.to_be(), 0, 0, 0], false));
            }
            if bpf_skb_get_tunnel_key(self.skb, &mut key, TUNNEL_KEY, BPF_F_TUNINFO_IPV6.into()) == 0 {
                return Some((key.__bindgen_anon_1.remote_ipv6, true));
            }
        }
        None
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<Bytes<N>> {
        // Masked where it is used: the compiler would keep a masked offset on the stack for the next view, where the
        // verifier of Linux 5.10 forgets the bounds of all that is no pointer (check_stack_write, kernel/bpf/verifier.c).
        let start = opaque(self.start() + (opaque(offset) & OFFSET_MASK));
        // The compiler would make `start >= end` of it for a single byte, which the verifier takes for no check.
        let limit = if N == 1 { opaque(start + N) } else { start + N };
        if limit > self.end() { None } else { Some(Bytes(start as *const u8)) }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), Reason> {
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_skb_store_bytes(self.skb.cast(), offset as u32, bytes.as_ptr().cast(), N as u32, 0) })
    }

    #[inline(always)]
    fn resize(&mut self, length: u32) -> Result<(), Reason> {
        // SAFETY: the context is the program's own.
        done(unsafe { bpf_skb_change_tail(self.skb, length, 0) })
    }

    /// Segments stay as large as they are: who wraps them up sees to it that they fit.
    #[inline(always)]
    fn unwrap(&mut self, bytes: u32) -> Result<(), Reason> {
        // SAFETY: the context is the program's own.
        done(unsafe {
            bpf_skb_adjust_room(self.skb, -(bytes as i32), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO.into())
        })
    }

    #[inline(always)]
    fn fix_header_checksum(&mut self, offset: usize, from: u32, to: u32) -> Result<(), Reason> {
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l3_csum_replace(self.skb, offset as u32, from.into(), to.into(), 4) })
    }

    /// `bpf_l4_csum_replace` corrects `skb->csum` for the changed checksum alone, as is right for IPv4, where the header's
    /// own checksum makes up for the address. For IPv6 that is one change too many where there is a transport checksum
    /// (BPF_F_IPV6 of Linux 6.16 does without; flags that are not known are refused), and the address itself one too few
    /// where there is none. The helper does nothing unless the device has supplied a sum.
    #[inline(always)]
    fn fix_sum_of_all(&mut self, from: [u32; 4], to: [u32; 4]) {
        let word = |at: usize| u64::from(to[at]) + u64::from(!from[at]);
        let sum = word(0) + word(1) + word(2) + word(3);
        let (sum, carry) = (sum as u32).overflowing_add((sum >> 32) as u32);
        // SAFETY: takes no memory of ours.
        unsafe { bpf_csum_update(self.skb, sum + u32::from(carry)) };
    }

    #[inline(always)]
    fn fix_checksum(
        &mut self,
        offset: usize,
        from: u32,
        to: u32,
        part: Checksum,
        optional: bool,
    ) -> Result<(), Reason> {
        let mut flags = 4;
        if part == Checksum::Pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if optional {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, offset as u32, from.into(), to.into(), flags) })
    }
}
