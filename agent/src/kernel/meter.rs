//! What the programs have counted, read beside the one who writes their tables: through handles of its own.

use std::collections::HashMap;

use aya::maps::{MapData, PerCpuArray};
use sluice_abi::{Denial, DenialKey, Hook, PolicyDirection, PolicyMode, Reason, maps};

use super::error::{Doing, KernelError};
use super::layout::{DENIALS, Pins};
use super::open;

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The table.
    pub table: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// How many are to be in it at most.
    pub capacity: usize,
}

/// A counter of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The program.
    pub hook: Hook,
    /// What it counted.
    pub reason: Reason,
    /// How often.
    pub packets: u64,
}

/// All counters.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn counts(counters: &PerCpuArray<MapData, u64>) -> Result<Vec<Count>, KernelError> {
    let all = Hook::ALL.into_iter().flat_map(|hook| Reason::ALL.iter().map(move |reason| (hook, *reason)));
    all.map(|(hook, reason)| Ok(Count { hook, reason, packets: count(counters, hook, reason)? })).collect()
}

fn count(counters: &PerCpuArray<MapData, u64>, hook: Hook, reason: Reason) -> Result<u64, KernelError> {
    let index = reason.index(hook);
    let values = counters.get(&index, 0).doing(|| format!("reading counter {index}"))?;
    Ok(values.iter().sum())
}

/// What a meter reads.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Every counter.
    pub counts: Vec<Count>,
    /// What policies have denied, or would have, as far as it was seen.
    pub denied: Vec<(PolicyDirection, PolicyMode, u64)>,
    /// How full the table of it is.
    pub denials: Fill,
}

/// Reads how often one thing has happened, in all programs together.
pub struct Tally {
    counters: PerCpuArray<MapData, u64>,
    reason: Reason,
}

impl Tally {
    /// Opens the counters.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn open(pins: &Pins, reason: Reason) -> Result<Self, KernelError> {
        Ok(Self { counters: open(pins, maps::COUNTERS)?, reason })
    }

    /// Reads.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn read(&self) -> Result<u64, KernelError> {
        Hook::ALL.into_iter().map(|hook| count(&self.counters, hook, self.reason)).sum()
    }
}

/// Reads what programs count.
pub struct Meter {
    counters: PerCpuArray<MapData, u64>,
    denials: aya::maps::HashMap<MapData, DenialKey, Denial>,
    account: Account,
}

impl Meter {
    /// Opens the tables. What is in them by now was denied before.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let (counters, denials) = (open(pins, maps::COUNTERS)?, open(pins, maps::DENIALS)?);
        let mut account = Account::default();
        if let Some(before) = look(&denials) {
            account.seen = before;
        }
        Ok(Self { counters, denials, account })
    }

    /// Reads.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn read(&mut self) -> Result<Reading, KernelError> {
        let counts = counts(&self.counters)?;
        if let Some(now) = look(&self.denials) {
            self.account.add(now);
        }
        let denials = Fill { table: maps::DENIALS, entries: self.account.seen.len(), capacity: DENIALS as usize };
        Ok(Reading { counts, denied: self.account.totals().collect(), denials })
    }
}

/// What the table of denials holds; `None`: it changes faster than it can be read.
fn look(denials: &aya::maps::HashMap<MapData, DenialKey, Denial>) -> Option<HashMap<DenialKey, u64>> {
    // A key that goes while it is the last one listed has the kernel begin again from the start.
    const LONGEST: usize = 2 * DENIALS as usize;
    let mut seen = HashMap::new();
    for (number, entry) in denials.iter().enumerate() {
        let (key, denial) = entry.ok().filter(|_| number < LONGEST)?;
        seen.insert(key, denial.packets);
    }
    Some(seen)
}

/// Adds up what a table tells that forgets: never more than there was.
#[derive(Debug, Default)]
struct Account {
    /// What was in it at the last look.
    seen: HashMap<DenialKey, u64>,
    /// By direction and mode.
    totals: [[u64; 2]; 2],
}

impl Account {
    fn add(&mut self, now: HashMap<DenialKey, u64>) {
        for (key, packets) in &now {
            // Fewer than before: it was forgotten in between, and begun anew.
            let before = self.seen.get(key).copied().filter(|before| before <= packets);
            self.totals[key.direction as usize][key.mode as usize] += packets - before.unwrap_or(0);
        }
        self.seen = now;
    }

    fn totals(&self) -> impl Iterator<Item = (PolicyDirection, PolicyMode, u64)> {
        PolicyDirection::ALL.into_iter().flat_map(|direction| {
            let of = |mode| (direction, mode, self.totals[direction as usize][mode as usize]);
            [PolicyMode::Enforce, PolicyMode::Audit].map(of)
        })
    }
}

#[cfg(test)]
mod tests {
    use sluice_abi::{Ipv6, Port, Protocol, Slot};

    use super::*;

    fn key(direction: PolicyDirection, mode: PolicyMode, port: u16) -> DenialKey {
        let (endpoint, peer, protocol) = (Slot(1), Ipv6::default(), Protocol::TCP);
        DenialKey { endpoint, policy: 1, direction, mode, peer, protocol, port: Port::new(port), pad: 0 }
    }

    #[test]
    fn what_the_table_forgets_stays_in_the_account() {
        use PolicyDirection::{Egress, Ingress};
        use PolicyMode::{Audit, Enforce};
        let (web, dns) = (key(Ingress, Enforce, 80), key(Egress, Audit, 53));
        let mut account = Account { seen: [(web, 5)].into(), ..Account::default() };
        let mut look = |now: &[(DenialKey, u64)]| {
            account.add(now.iter().copied().collect());
            account.totals().map(|(.., packets)| packets).collect::<Vec<_>>()
        };
        let order = [(Ingress, Enforce), (Ingress, Audit), (Egress, Enforce), (Egress, Audit)];
        assert_eq!(look(&[(web, 7), (dns, 1)]), [2, 0, 0, 1], "what was there before is not of now");
        assert_eq!(look(&[(dns, 4)]), [2, 0, 0, 4], "web is forgotten");
        assert_eq!(look(&[(web, 3), (dns, 2)]), [5, 0, 0, 6], "both were begun anew");
        assert!(account.totals().map(|(direction, mode, _)| (direction, mode)).eq(order));
    }
}
