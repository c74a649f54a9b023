//! Everybody calls everybody, and what comes of it is held against what the policies say.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use sluice_abi::Protocol;
use sluice_tests::lab::Lab;

use crate::denials::Denials;
use crate::echo::{self, PATIENCE};
use crate::offline::{self, denied_by};
use crate::party::Party;

/// How many calls there are at a time.
const CALLERS: usize = 16;

/// How long a call waits for a connection that is to be denied. It counts as denied only where an agent says so too.
const BRIEFLY: Duration = Duration::from_millis(300);

/// What came of the calls of one party to another.
pub enum Cell {
    /// There were none.
    Untried,
    /// As it should be, over each family: they pass; the caller was seen at its own address, or at its node's.
    Passed { masqueraded: bool },
    /// As it should be, over each family: they do not, for the reason that an agent tells.
    Denied { why: String },
    /// It is not as it should be; how.
    Wrong(String),
}

/// A call to an address.
struct Call<'a> {
    from: &'a Party<'a>,
    to: &'a Party<'a>,
    address: IpAddr,
}

/// Has everybody call everybody; gives a row for each caller.
///
/// # Errors
/// Where it cannot be found out what came of it.
pub fn everybody(lab: &Lab, parties: &[Party<'_>]) -> Result<Vec<Vec<Cell>>> {
    let mut calls = Vec::new();
    for (from, to) in parties.iter().flat_map(|from| parties.iter().map(move |to| (from, to))) {
        if from.calls(to) {
            calls.extend(to.addresses.iter().map(|address| Call { from, to, address: *address }));
        }
    }
    let asked: Vec<_> = calls.iter().map(|call| (call.from, call.address)).collect();
    let expected = offline::answers(lab, &asked)?;
    let reasons: Vec<Option<&str>> = expected.iter().map(denied_by).collect();
    let outcomes = all(&calls, &reasons);
    let denials = Denials::told(lab)?;

    let mut cells = calls.iter().zip(&reasons).zip(&outcomes).map(|((call, reason), outcome)| {
        let told = denials.why(call.from, call.to, call.address, Protocol::TCP);
        judge(call, *reason, outcome, told)
    });
    let row = |from: &Party<'_>| {
        let cell = |to: &Party<'_>| {
            let count = if from.calls(to) { to.addresses.len() } else { 0 };
            cells.by_ref().take(count).fold(Cell::Untried, Cell::and)
        };
        parties.iter().map(cell).collect()
    };
    Ok(parties.iter().map(row).collect())
}

impl Cell {
    /// Both, of two families.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Untried, cell) | (cell @ Self::Wrong(_), _) | (_, cell @ Self::Wrong(_)) => cell,
            (Self::Passed { masqueraded: a }, Self::Passed { masqueraded: b }) => Self::Passed { masqueraded: a || b },
            (Self::Denied { why: a }, Self::Denied { why: b }) if a == b => Self::Denied { why: a },
            (Self::Denied { why }, _) | (_, Self::Denied { why }) => {
                Self::Wrong(format!("the policies of the demo treat families differently: {why}"))
            }
            (cell, Self::Untried) => cell,
        }
    }
}

/// What came of a call that has or has not a reason not to pass, and what agents tell of it.
fn judge(call: &Call<'_>, reason: Option<&str>, outcome: &Result<IpAddr>, told: Option<&str>) -> Cell {
    let wrong = |what: String| {
        let Call { from, to, address } = call;
        Cell::Wrong(format!("{} to {} ({address}): {what}", from.full_name(), to.full_name()))
    };
    let told_of = told.unwrap_or("no agent tells of a denial");
    match (reason, outcome) {
        (None, Ok(seen)) => Cell::Passed { masqueraded: !call.from.addresses.contains(seen) },
        (None, Err(error)) => wrong(format!("should pass, but does not: {error:#} ({told_of})")),
        (Some(reason), Ok(_)) => wrong(format!("passes; offline it is denied: {reason}")),
        (Some(reason), Err(_)) if told == Some(reason) => Cell::Denied { why: reason.into() },
        (Some(reason), Err(error)) => wrong(format!("{error:#} ({told_of}); offline it is denied: {reason}")),
    }
}

/// Makes calls, many at a time. Those that have a reason not to pass do not wait for long.
fn all(calls: &[Call<'_>], reasons: &[Option<&str>]) -> Vec<Result<IpAddr>> {
    let next = AtomicUsize::new(0);
    let caller = || {
        let mut outcomes = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(call) = calls.get(at) else { return outcomes };
            let patience = if reasons[at].is_some() { BRIEFLY } else { PATIENCE };
            outcomes.push((at, echo::call(call.from.place, call.address, patience)));
        }
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
    });
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
