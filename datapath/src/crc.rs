//! SCTP's checksum (CRC32c, RFC 9260 appendix A), corrected for what changes, without a look at the rest.
//!
//! The checksum of a sum is the sum of checksums: a change of some bytes adds that of a message which has the change there,
//! and else only zeros. That is the change, as a polynomial, times a power of x that the length gives.

/// The generator polynomial, its highest coefficient in the lowest bit, as all here.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Lengths have so many bits.
const BITS: usize = 16;
/// x to the power of 8, of 16, of 32 and so on.
const POWERS: [u32; BITS] = powers();

const fn powers() -> [u32; BITS] {
    let mut powers = [0; BITS];
    // x to the power of 8.
    let mut power = 1 << (31 - 8);
    let mut at = 0;
    while at < BITS {
        powers[at] = power;
        power = times(power, power);
        at += 1;
    }
    powers
}

/// The product of two polynomials, less what the generator divides.
#[inline(always)]
const fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut at = 0;
    while at < 32 {
        if a & (1 << (31 - at)) != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ if b & 1 != 0 { POLYNOMIAL } else { 0 };
        at += 1;
    }
    product
}

/// What the checksum of a packet of so many bytes changes by where its first four do, all as they stand in it.
#[inline(always)]
pub const fn change(from: u32, to: u32, length: u16) -> u32 {
    let mut change = u32::from_le(from ^ to);
    let mut at = 0;
    while at < BITS {
        if length >> at & 1 != 0 {
            change = times(change, POWERS[at]);
        }
        at += 1;
    }
    change.to_le()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::{POLYNOMIAL, change};

    /// The checksum as it stands, bit by bit.
    fn checksum(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            }
        }
        (!crc).to_le()
    }

    #[test]
    fn a_change_of_ports_changes_the_checksum_as_if_it_were_made_anew() {
        // A well-known value (RFC 3720 appendix B.4: 32 bytes of zeros).
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa_u32.to_le());
        for length in [12_usize, 16, 20, 333, 1480, 65_515] {
            let mut packet: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let (before, from) = (checksum(&packet), u32::from_ne_bytes([packet[0], packet[1], packet[2], packet[3]]));
            packet[..4].copy_from_slice(&[0x1f, 0x90, 0x00, 0x50]);
            let to = u32::from_ne_bytes([0x1f, 0x90, 0x00, 0x50]);
            assert_eq!(before ^ change(from, to, length as u16), checksum(&packet), "{length} bytes");
        }
    }
}
