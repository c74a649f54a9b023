//! A frame that no stack has seen as the datapath's packet: `unsafe`, because all access to its memory is here.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sluice_abi::Reason;
use sluice_datapath::express::{self, Express};
use sluice_datapath::{Checksum, Packet};

use crate::kernel::Kernel;
use crate::skb::{Bytes, OFFSET_MASK, opaque};

/// Sends packets of established flows to backends on other nodes, and their answers back, before the stack sees them.
#[xdp]
pub fn xdp_lb(context: XdpContext) -> u32 {
    let mut frame = Frame(&context);
    match express::xdp_lb(&mut frame, &Kernel::new(&context)) {
        Express::Pass => XDP_PASS,
        Express::Back => XDP_TX,
    }
}

struct Frame<'a>(&'a XdpContext);

impl Frame<'_> {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut u8> {
        let start = opaque(self.0.data() + (opaque(offset) & OFFSET_MASK));
        let limit = if N == 1 { opaque(start + N) } else { start + N };
        if limit > self.0.data_end() { None } else { Some(start as *mut u8) }
    }

    /// Corrects a checksum for a word that changes (RFC 1624, equation 3).
    #[inline(always)]
    fn fix(&mut self, offset: usize, from: u32, to: u32, optional: bool) -> Result<(), Reason> {
        let place = self.at::<2>(offset).ok_or(Reason::RewriteFailed)?.cast::<u16>();
        // SAFETY: two bytes that were checked to be there; the kernel loads and stores what is not aligned as well.
        let old = unsafe { *place };
        if optional && old == 0 {
            return Ok(());
        }
        let mut sum = u64::from(!old) + u64::from(!from) + u64::from(to);
        sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        let mut new = !(sum as u16);
        if optional && new == 0 {
            new = 0xffff;
        }
        // SAFETY: as above.
        unsafe { *place = new };
        Ok(())
    }
}

impl Packet for Frame<'_> {
    type View<'a, const N: usize>
        = Bytes<N>
    where
        Self: 'a;

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.data_end().wrapping_sub(self.0.data()) as u32
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn vlan(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn tunnel_remote(&self) -> Option<([u32; 4], bool)> {
        None
    }

    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<Bytes<N>> {
        self.at::<N>(offset).map(|start| Bytes(start))
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), Reason> {
        let place = self.at::<N>(offset).ok_or(Reason::RewriteFailed)?;
        // SAFETY: `N` bytes that were checked to be there.
        unsafe { place.cast::<[u8; N]>().write_unaligned(bytes) };
        Ok(())
    }

    /// Frames are never made longer or shorter here.
    #[inline(always)]
    fn resize(&mut self, _: u32) -> Result<(), Reason> {
        Err(Reason::RewriteFailed)
    }

    #[inline(always)]
    fn unwrap(&mut self, _: u32) -> Result<(), Reason> {
        Err(Reason::RewriteFailed)
    }

    #[inline(always)]
    fn fix_header_checksum(&mut self, offset: usize, from: u32, to: u32) -> Result<(), Reason> {
        self.fix(offset, from, to, false)
    }

    /// No device's sum goes with a frame.
    #[inline(always)]
    fn fix_sum_of_all(&mut self, _: [u32; 4], _: [u32; 4]) {}

    #[inline(always)]
    fn fix_checksum(&mut self, offset: usize, from: u32, to: u32, _: Checksum, optional: bool) -> Result<(), Reason> {
        self.fix(offset, from, to, optional)
    }
}
