//! Checksums of the Internet protocols (RFC 1071), over words as they stand.

/// One's complement sum of two words.
#[inline(always)]
pub fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// That of several.
#[inline(always)]
pub fn add_all<const N: usize>(words: &[u32; N]) -> u32 {
    let mut sum = 0;
    let mut word = 0;
    while word < N {
        sum = add(sum, words[word]);
        word += 1;
    }
    sum
}

/// The checksum that a sum comes to (RFC 1071), as it stands.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
