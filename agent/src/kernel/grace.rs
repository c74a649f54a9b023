//! Waiting until no packet is at work any more that has begun before: it may have read what was in the tables by then.
//!
//! Programs run in read-side critical sections of RCU; `MEMBARRIER_CMD_GLOBAL` waits for a grace period
//! (`synchronize_rcu`, kernel/sched/membarrier.c, Linux 4.16 to 6.18), an expedited one where that is switched on.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

use super::expedite::Expedite;

/// Where CPUs are isolated (`nohz_full`), the kernel refuses; so long no program takes for a packet.
const LONGEST: Duration = Duration::from_millis(100);

/// Waits. `marker` is that of [`Expedite`].
pub fn wait(marker: &Path) {
    let _quick = Expedite::on(marker);
    if membarrier(MembarrierCommand::Global).is_err() {
        thread::sleep(LONGEST);
    }
}
