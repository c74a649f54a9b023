//! The kernel programs, as the compiler left them.

use sha2::{Digest, Sha256};

use super::error::KernelError;

/// The compiled object; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice.o"));

/// The object's bytes.
///
/// # Errors
/// [`KernelError::NoObject`] in a build without kernel programs.
pub fn bytes() -> Result<&'static [u8], KernelError> {
    if OBJECT.is_empty() { Err(KernelError::NoObject) } else { Ok(OBJECT) }
}

/// A name for these programs with tables of these sizes.
pub fn generation(sizes: &[u32]) -> String {
    let mut digest = Sha256::new_with_prefix(OBJECT);
    for size in sizes {
        digest.update(size.to_ne_bytes());
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
