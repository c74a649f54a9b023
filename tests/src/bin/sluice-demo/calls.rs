//! Calls, many at a time, and what comes of them held against what the policies say.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use sluice_abi::Protocol;
use sluice_tests::lab::Lab;

use crate::denials::Denials;
use crate::echo::{self, Heard, PATIENCE, PORT};
use crate::offline::{self, denied_by};
use crate::party::{Party, Role};

/// How many calls there are at a time.
const CALLERS: usize = 16;

/// How long a call waits for a connection that is to be denied. It counts as denied only where an agent says so too.
const BRIEFLY: Duration = Duration::from_millis(300);

/// How often a call is made at most, until all have answered who may.
const TRIES: usize = 200;

/// A call, to be made until all have answered who may.
pub struct Call<'a> {
    /// Who calls,
    pub from: &'a Party<'a>,
    /// and where.
    pub to: SocketAddr,
    /// What that is called.
    pub name: String,
    /// Who may answer, and at which address each is to see the caller.
    pub servers: Vec<(&'a Party<'a>, IpAddr)>,
    /// Whom policies see talk. They treat alike all who may answer.
    pub talks: Vec<Talk<'a>>,
}

/// Somebody who talks to another, at an address.
#[derive(Clone, Copy)]
pub struct Talk<'a> {
    pub from: &'a Party<'a>,
    pub to: &'a Party<'a>,
    pub address: IpAddr,
}

/// What came of the calls of one party to another.
#[derive(PartialEq, Eq)]
pub enum Cell {
    /// There were none.
    Untried,
    /// As it should be, over each family: they pass; the caller was seen at its own address, or at a node's.
    Passed { masqueraded: bool },
    /// As it should be, over each family: they do not, for the reason that an agent tells.
    Denied { why: String },
    /// It is not as it should be; how.
    Wrong(String),
}

/// Rows of cells.
pub type Rows = Vec<Vec<Cell>>;

/// Has everybody call everybody; gives a row for each caller.
///
/// # Errors
/// Where it cannot be found out what came of it.
pub fn everybody(lab: &Lab, parties: &[Party<'_>]) -> Result<Rows> {
    let row = |from| parties.iter().map(|to| directly(from, to)).collect();
    outcomes(lab, &parties.iter().map(row).collect::<Vec<Vec<_>>>())
}

/// The calls of one to another, by each of its addresses.
fn directly<'a>(from: &'a Party<'a>, to: &'a Party<'a>) -> Vec<Call<'a>> {
    let call = |&address: &IpAddr| {
        let seen = match (from.role, to.role) {
            (Role::Pod, Role::World) => from.node_address_like(address),
            _ => from.address_like(address),
        };
        Some(Call {
            from,
            to: (address, PORT).into(),
            name: to.full_name(),
            servers: vec![(to, seen?)],
            talks: vec![Talk { from, to, address }],
        })
    };
    if from.calls(to) { to.addresses.iter().filter_map(call).collect() } else { Vec::new() }
}

/// Makes the calls of all cells; gives what came of them.
///
/// # Errors
/// Where it cannot be found out what came of it.
pub fn outcomes(lab: &Lab, rows: &[Vec<Vec<Call<'_>>>]) -> Result<Rows> {
    let calls: Vec<&Call<'_>> = rows.iter().flatten().flatten().collect();
    let talks: Vec<Talk<'_>> = calls.iter().flat_map(|call| call.talks.iter().copied()).collect();
    let mut answers = offline::answers(lab, &talks)?.into_iter();
    let mut reason = |call: &&Call<'_>| {
        let of_call: Vec<_> = answers.by_ref().take(call.talks.len()).collect();
        of_call.iter().find_map(denied_by)
    };
    let reasons: Vec<Option<String>> = calls.iter().map(&mut reason).collect();
    let before = Denials::told(lab)?;
    let heard = all(&calls, &reasons);
    let denials = Denials::told(lab)?.since(&before);
    let judged = calls.iter().zip(&reasons).zip(heard);
    let mut cells = judged.map(|((call, reason), heard)| judge(call, reason.as_deref(), heard, &denials));
    let mut cell = |calls: &Vec<Call<'_>>| cells.by_ref().take(calls.len()).fold(Cell::Untried, Cell::and);
    Ok(rows.iter().map(|row| row.iter().map(&mut cell).collect()).collect())
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
fn judge(call: &Call<'_>, reason: Option<&str>, heard: Result<Vec<Heard>>, denials: &Denials) -> Cell {
    let wrong = |what: String| {
        let Call { from, to, name, .. } = call;
        Cell::Wrong(format!("{} to {name} ({to}): {what}", from.full_name()))
    };
    let told = call.talks.iter().find_map(|talk| denials.why(talk.from, talk.to, talk.address, Protocol::TCP));
    let told_of = told.unwrap_or("no agent tells of a denial");
    match (reason, heard) {
        (None, Ok(heard)) => passed(call, &heard).unwrap_or_else(wrong),
        (None, Err(error)) => wrong(format!("should pass, but does not: {error:#} ({told_of})")),
        (Some(reason), Ok(_)) => wrong(format!("passes; offline it is denied: {reason}")),
        (Some(reason), Err(_)) if told == Some(reason) => Cell::Denied { why: reason.into() },
        (Some(reason), Err(error)) => wrong(format!("{error:#} ({told_of}); offline it is denied: {reason}")),
    }
}

/// What came of a call that passes, where it was answered by who may, each seeing the caller where it should.
///
/// # Errors
/// With what is wrong.
fn passed(call: &Call<'_>, heard: &[Heard]) -> Result<Cell, String> {
    for Heard { name, seen } in heard {
        match call.servers.iter().find(|(server, _)| server.name == name) {
            Some((_, address)) if address == seen => {}
            Some((_, address)) => return Err(format!("{name} sees {seen} instead of {address}")),
            None => return Err(format!("{name} answers")),
        }
    }
    if let Some((silent, _)) = call.servers.iter().find(|(server, _)| heard.iter().all(|it| it.name != server.name)) {
        return Err(format!("{} has not answered once in {TRIES} calls", silent.name));
    }
    Ok(Cell::Passed { masqueraded: heard.iter().any(|heard| !call.from.addresses.contains(&heard.seen)) })
}

/// Makes calls, many at a time. Those that have a reason not to pass do not wait for long.
fn all(calls: &[&Call<'_>], reasons: &[Option<String>]) -> Vec<Result<Vec<Heard>>> {
    let next = AtomicUsize::new(0);
    let caller = || {
        let mut outcomes = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(call) = calls.get(at) else { return outcomes };
            outcomes.push((at, until_all_have_answered(call, if reasons[at].is_some() { BRIEFLY } else { PATIENCE })));
        }
    };
    let mut outcomes: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
    });
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn until_all_have_answered(call: &Call<'_>, patience: Duration) -> Result<Vec<Heard>> {
    let mut heard: Vec<Heard> = Vec::new();
    for _ in 0..TRIES {
        heard.push(echo::call(call.from.place, call.to, patience)?);
        if call.servers.iter().all(|(server, _)| heard.iter().any(|heard| heard.name == server.name)) {
            break;
        }
    }
    Ok(heard)
}
