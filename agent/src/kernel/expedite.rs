//! Short waits for RCU while programs are attached.
//!
//! Making or ending a TCX link waits for a grace period of RCU with the lock of all network devices held
//! (`tcx_entry_sync`, include/net/tcx.h, Linux 6.6 to 6.18): 10 to 15 ms, in which no other device can be made either.
//! The kernel itself expedites the grace periods of everything else that is done under that lock (`synchronize_net`,
//! net/core/dev.c), the making of the pod's own device among it; `/sys/kernel/rcu_expedited` has it do the same here.

use std::fs;
use std::path::{Path, PathBuf};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// Expedites grace periods until dropped.
pub struct Expedite<'a> {
    marker: Option<&'a Path>,
}

/// Where it is noted that the switch is to be put back, should the agent be killed meanwhile.
pub fn marker(run_dir: &Path) -> PathBuf {
    run_dir.join("rcu-expedited")
}

impl<'a> Expedite<'a> {
    /// Switches it on, unless it is on or cannot be switched: then it takes as long as it takes.
    pub fn on(marker: &'a Path) -> Self {
        let is_off = fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "0");
        let switched = is_off && fs::write(marker, "").is_ok() && fs::write(SWITCH, "1").is_ok();
        if !switched && is_off {
            let _ = fs::remove_file(marker);
        }
        Self { marker: switched.then_some(marker) }
    }
}

impl Drop for Expedite<'_> {
    fn drop(&mut self) {
        if let Some(marker) = self.marker {
            put_back(marker);
        }
    }
}

/// Switches it off, where the marker says that it is on because of an agent; says whether it does.
pub fn put_back(marker: &Path) -> bool {
    let is_due = marker.exists();
    if is_due && fs::write(SWITCH, "0").is_ok() {
        let _ = fs::remove_file(marker);
    }
    is_due
}
