//! Where the bytes of a packet come from and go to.

use sluice_abi::{Mac, Reason};

/// `N` bytes of a packet whose presence has been checked.
///
/// Positions are constants, so that a read beyond the view does not compile.
pub trait View<const N: usize> {
    /// The byte at `AT`.
    fn byte<const AT: usize>(&self) -> u8;
    /// The two bytes at `AT` as they stand, that is in network byte order.
    fn half<const AT: usize>(&self) -> u16;
    /// The four bytes at `AT` as they stand, that is in network byte order.
    fn word<const AT: usize>(&self) -> u32;

    /// The six bytes at `AT` as a link-layer address.
    #[inline(always)]
    fn mac<const AT: usize, const LOW: usize>(&self) -> Mac {
        const { assert!(LOW == AT + 4) };
        Mac { high: self.word::<AT>(), low: self.half::<LOW>(), pad: 0 }
    }
}

/// Which parts of a transport checksum a change concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// Changed bytes are part of the pseudo header (addresses). The kernel tracks them even where a device fills in
    /// the rest of the checksum.
    Pseudo,
    /// Changed bytes are part of the segment itself.
    Segment,
}

/// A packet that starts with an Ethernet header.
pub trait Packet {
    /// See [`view`](Packet::view).
    type View<'a, const N: usize>: View<N>
    where
        Self: 'a;

    /// Length in bytes, link-layer header included; of a large packet, all its segments.
    fn length(&self) -> u32;
    /// Bytes of payload of each of the segments that the kernel or the device will cut it into; 0: it is not cut.
    fn segment(&self) -> u32;
    /// The VLAN that its tag names, where it has one beside its bytes; 0 is a tag with a priority alone.
    fn vlan(&self) -> Option<u16>;
    /// The packet's mark.
    fn mark(&self) -> u32;
    /// Whether it will be cut into segments, so that its length says nothing of the wire.
    #[inline(always)]
    fn is_segmented(&self) -> bool {
        self.segment() != 0
    }
    /// Index of the interface that it was seen on.
    fn interface(&self) -> u32;
    /// The node at the other end of the tunnel that it came through, as [`words`](sluice_abi::IpAddress::words):
    /// IPv4 in word 0 with `false`, IPv6 with `true`. `None`: it did not come through a tunnel.
    fn tunnel_remote(&self) -> Option<([u32; 4], bool)>;

    /// `N` bytes from `offset` on; `None` where the packet is shorter. `offset` is below 1024.
    fn view<const N: usize>(&self, offset: usize) -> Option<Self::View<'_, N>>;

    /// Overwrites bytes from `offset` on. Checksums are the caller's.
    ///
    /// # Errors
    /// [`Reason::RewriteFailed`] where the packet is shorter or cannot be changed.
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Result<(), Reason>;

    /// Cuts it off, or adds to its end, so that it has so many bytes. What is added is not defined.
    ///
    /// # Errors
    /// As [`store`](Packet::store).
    fn resize(&mut self, length: u32) -> Result<(), Reason>;

    /// Takes so many bytes away behind the Ethernet header: what it was wrapped up in.
    ///
    /// # Errors
    /// As [`store`](Packet::store).
    fn unwrap(&mut self, bytes: u32) -> Result<(), Reason>;

    /// Corrects the IPv4 header checksum at `offset` for a word that changes, both in network byte order.
    ///
    /// # Errors
    /// As [`store`](Packet::store).
    fn fix_header_checksum(&mut self, offset: usize, from: u32, to: u32) -> Result<(), Reason>;

    /// Corrects the sum over the whole packet that a device may have supplied, for words that change and that no checksum
    /// of the same kind makes up for: such as an address of IPv6, as [`words`](sluice_abi::IpAddress::words), whether
    /// [`fix_checksum`](Packet::fix_checksum) is called for it or not.
    fn fix_sum_of_all(&mut self, from: [u32; 4], to: [u32; 4]);

    /// Corrects the transport checksum at `offset` for a word that changes, both in network byte order.
    /// `optional`: 0 says that there is none (UDP), it then stays so, and a result of 0 is written as 0xffff.
    ///
    /// # Errors
    /// As [`store`](Packet::store).
    fn fix_checksum(&mut self, offset: usize, from: u32, to: u32, part: Checksum, optional: bool)
    -> Result<(), Reason>;
}
