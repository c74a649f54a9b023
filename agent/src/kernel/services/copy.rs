//! Arrays that take the places of others of another size.

use std::path::Path;

use aya::maps::MapData;

use super::mapped::Mapped;
use crate::kernel::error::{Doing, KernelError};

/// Copies as much of a pinned array as another has room for, which holds nothing yet. Whoever is led beyond the smaller one
/// finds nothing there (`array_map_lookup_elem`, kernel/bpf/arraymap.c): nobody serves.
///
/// # Errors
/// Where one of them cannot be opened or mapped.
pub fn copy(name: &'static str, from: &Path, to: &Path) -> Result<(), KernelError> {
    let open = |path: &Path| {
        let map = MapData::from_pin(path).doing(|| format!("opening the pinned map {}", path.display()))?;
        Mapped::<u32>::of(map, name)
    };
    let (from, to) = (open(from)?, open(to)?);
    for at in 0..from.words().min(to.words()) {
        let word = from.load(at);
        if word != 0 {
            to.store(at, word);
        }
    }
    Ok(())
}
