//! Telling a client that nobody serves: its packet becomes the answer to itself.

use sluice_abi::{Protocol, Reason};

use crate::desk::Refusal;
use crate::packet::{Checksum, Packet, View};
use crate::parse::{ETHERNET, Headers, Message, Parse, Piece, tcp};
use crate::rewrite::{self, End};
use crate::sum::{add, add_all, fold};

/// Makes of a packet what tells its sender why it is refused: where nobody serves, a reset of TCP; else an ICMP error.
///
/// # Errors
/// [`Reason::NoBackend`] where there is no answer to it: to a reset, to an error, to a later fragment.
#[inline(always)]
pub fn refuse<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>, refusal: Refusal) -> Result<(), Reason> {
    let is_reset = headers.protocol == Protocol::TCP && refusal == Refusal::Unserved;
    if headers.message == Message::IcmpError || headers.piece == Piece::Later || (is_reset && packet.is_segmented()) {
        return Err(Reason::NoBackend);
    }
    if is_reset {
        reset(packet, headers)?;
        turn_round(packet, headers)?;
    } else {
        unreachable(packet, headers, refusal)?;
    }
    turn_frame_round(packet)
}

/// Makes a reset of a segment (RFC 9293 section 3.10.7.1). Its options and payload stay: a receiver skips both, and the
/// checksum need not be made anew, which a device may have to finish yet.
#[inline(always)]
fn reset<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>) -> Result<(), Reason> {
    let at = headers.transport;
    let (sequence, acknowledged, control, offset, flags) = {
        let segment = packet.view::<20>(at).ok_or(Reason::NoBackend)?;
        let (offset, flags) = (segment.byte::<12>(), segment.byte::<13>());
        (segment.word::<4>(), segment.word::<8>(), segment.word::<12>(), offset, flags)
    };
    if flags & tcp::RST != 0 {
        return Err(Reason::NoBackend);
    }
    let (own_sequence, own_acknowledged, own_flags) = if flags & tcp::ACK != 0 {
        (acknowledged, 0, tcp::RST)
    } else {
        let header = (headers.transport - headers.network) as u32 + u32::from(offset >> 4) * 4;
        let payload = headers.length.saturating_sub(header);
        let controls = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        (0, u32::from_be(sequence).wrapping_add(payload + controls).to_be(), tcp::RST | tcp::ACK)
    };
    let own_control = u32::from_be_bytes([offset & 0xf0, own_flags, 0, 0]).to_be();
    for (place, from, to) in
        [(4, sequence, own_sequence), (8, acknowledged, own_acknowledged), (12, control, own_control)]
    {
        packet.fix_checksum(at + 16, from, to, Checksum::Segment, false)?;
        packet.store(at + place, to.to_ne_bytes())?;
    }
    Ok(())
}

/// Exchanges addresses and ports: no checksum notices.
#[inline(always)]
fn turn_round<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>) -> Result<(), Reason> {
    store_address(packet, headers.network, End::Source, headers.destination)?;
    store_address(packet, headers.network, End::Destination, headers.source)?;
    let ports = u32::from(headers.source_port.0) << 16 | u32::from(headers.destination_port.0);
    // As they stand in the packet: the destination's first now.
    let ports = if cfg!(target_endian = "little") { ports } else { ports.rotate_left(16) };
    packet.store(headers.transport, ports.to_ne_bytes())
}

#[inline(always)]
fn turn_frame_round<P: Packet>(packet: &mut P) -> Result<(), Reason> {
    let (to, from) = {
        let frame = packet.view::<ETHERNET>(0).ok_or(Reason::Truncated)?;
        (frame.mac::<0, 4>(), frame.mac::<6, 10>())
    };
    rewrite::mac(packet, 0, from)?;
    rewrite::mac(packet, 6, to)
}

#[inline(always)]
fn store_address<A: Parse, P: Packet>(packet: &mut P, network: usize, end: End, address: A) -> Result<(), Reason> {
    let at = rewrite::address_offset(A::BITS, network, end);
    let words = address.words();
    let mut word = 0;
    while word < A::BITS as usize / 32 {
        packet.store(at + 4 * word, words[word].to_ne_bytes())?;
        word += 1;
    }
    Ok(())
}

/// Makes an ICMP error of a packet: that its port is unreachable (RFC 792, RFC 4443 section 3.1), or that it is too big (RFC
/// 1191 section 4, RFC 4443 section 3.2).
///
/// It quotes the network header and eight bytes more, by which its sender knows it. Where a device was to finish the
/// packet's checksum, the kernel still says so of the error, and takes it for right wherever it stays on the machine.
#[inline(always)]
fn unreachable<A: Parse, P: Packet>(packet: &mut P, headers: &Headers<A>, refusal: Refusal) -> Result<(), Reason> {
    /// Type and code, as they stand.
    const PORT4: u32 = u32::from_be_bytes([3, 3, 0, 0]).to_be();
    const PORT6: u32 = u32::from_be_bytes([1, 4, 0, 0]).to_be();
    const SIZE4: u32 = u32::from_be_bytes([3, 4, 0, 0]).to_be();
    const SIZE6: u32 = u32::from_be_bytes([2, 0, 0, 0]).to_be();
    // What follows type, code and checksum is 0, or the size in its last bytes.
    let (error4, error6, rest) = match refusal {
        Refusal::Unserved => (PORT4, PORT6, 0),
        Refusal::TooLarge(size) => (SIZE4, SIZE6, u32::from(size).to_be()),
    };
    const HOPS: u8 = 64;
    if A::BITS == 32 {
        let quote = words::<7, 28, P>(packet, ETHERNET)?;
        let sum = fold(add(add(add_all(&quote), error4), rest));
        packet.resize((ETHERNET + 20 + 8 + 28) as u32)?;
        let (source, destination) = (headers.destination.words()[0], headers.source.words()[0]);
        let mut header = [
            u32::from_be_bytes([0x45, 0, 0, 20 + 8 + 28]).to_be(),
            u32::from_be_bytes([0, 0, 0x40, 0]).to_be(),
            u32::from_be_bytes([HOPS, Protocol::ICMP.0 as u8, 0, 0]).to_be(),
            source,
            destination,
        ];
        header[2] |= header_checksum(&header);
        store_words(packet, ETHERNET, &header)?;
        store_words(packet, ETHERNET + 20, &[error4 | checksum_word(sum), rest])?;
        store_words(packet, ETHERNET + 28, &quote)
    } else {
        let quote = words::<12, 48, P>(packet, ETHERNET)?;
        let (source, destination) = (headers.destination.words(), headers.source.words());
        let pseudo = add(add_all(&source), add_all(&destination));
        let pseudo = add(add(pseudo, (8 + 48_u32).to_be()), Protocol::ICMPV6.0.to_be());
        let sum = fold(add(add(add(add_all(&quote), error6), rest), pseudo));
        packet.resize((ETHERNET + 40 + 8 + 48) as u32)?;
        let header = [
            u32::from_be_bytes([0x60, 0, 0, 0]).to_be(),
            u32::from_be_bytes([0, 8 + 48, Protocol::ICMPV6.0 as u8, HOPS]).to_be(),
        ];
        store_words(packet, ETHERNET, &header)?;
        store_words(packet, ETHERNET + 8, &source)?;
        store_words(packet, ETHERNET + 24, &destination)?;
        store_words(packet, ETHERNET + 40, &[error6 | checksum_word(sum), rest])?;
        store_words(packet, ETHERNET + 48, &quote)
    }
}

/// What the checksum of a header of IPv4 without options adds to its third word, all as they stand, where it is 0 before.
#[inline(always)]
pub fn header_checksum(header: &[u32; 5]) -> u32 {
    checksum_word(fold(add_all(header)))
}

/// Words of a packet as they stand.
#[inline(always)]
fn words<const N: usize, const BYTES: usize, P: Packet>(packet: &P, offset: usize) -> Result<[u32; N], Reason> {
    const { assert!(BYTES == 4 * N) };
    let mut words = [0; N];
    let mut word = 0;
    while word < N {
        words[word] = packet.view::<4>(offset + 4 * word).ok_or(Reason::NoBackend)?.word::<0>();
        word += 1;
    }
    Ok(words)
}

#[inline(always)]
fn store_words<const N: usize, P: Packet>(packet: &mut P, offset: usize, words: &[u32; N]) -> Result<(), Reason> {
    let mut word = 0;
    while word < N {
        packet.store(offset + 4 * word, words[word].to_ne_bytes())?;
        word += 1;
    }
    Ok(())
}

/// A checksum in the last two of four bytes.
#[inline(always)]
fn checksum_word(sum: u16) -> u32 {
    if cfg!(target_endian = "little") { u32::from(sum) << 16 } else { u32::from(sum) }
}
