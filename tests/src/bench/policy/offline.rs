//! What the compiler of policies takes, without a kernel. Each cluster is compiled in a process of its own, so that memory
//! is its own too.

use std::env;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sluice_policy::{Counts, Event, Index, Limits, View};

use super::cluster::{
    NODE, crowd, first_of_crowd, first_policy, many_cidrs, many_excepts, many_policies, many_rules, one_of_many,
    policies, population, wide_ranges,
};
use crate::bench::process::Process;
use crate::bench::report::{Row, Target, median};

/// Compilations from nothing, and edits: the median counts.
const COMPILATIONS: usize = 3;
const EDITS: usize = 11;

/// Something to compile, and one policy of it that changes: `true` gives it as changed.
struct Case {
    name: &'static str,
    policies: fn() -> Box<dyn Iterator<Item = Event>>,
    edited: fn(bool) -> Event,
    /// The room that there is.
    limits: Limits,
}

/// The tables of a node with 16 GiB.
const ROOM: Limits = Limits { rules: 1 << 20, prefixes: 1 << 18 };

/// Something that fits.
const fn case(
    name: &'static str,
    policies: fn() -> Box<dyn Iterator<Item = Event>>,
    edited: fn(bool) -> Event,
) -> Case {
    Case { name, policies, edited, limits: Limits::NONE }
}

const CASES: [Case; 12] = [
    case("policies_10", || Box::new(policies(10)), first_policy),
    case("policies_100", || Box::new(policies(100)), first_policy),
    case("policies_1k", || Box::new(policies(1000)), first_policy),
    case("policies_10k", || Box::new(policies(10_000)), first_policy),
    case("identities_1k", || Box::new(crowd(1000)), |is| first_of_crowd(1000, is)),
    case("identities_10k", || Box::new(crowd(10_000)), |is| first_of_crowd(10_000, is)),
    case("identities_100k", || Box::new(crowd(100_000)), |is| first_of_crowd(100_000, is)),
    case("rules_5k", || Box::new([many_rules(false)].into_iter()), many_rules),
    case("policies_500_of_a_pod", || Box::new(many_policies()), |is| one_of_many(0, if is { 9 } else { 1000 })),
    case("ranges_of_ports", || Box::new([wide_ranges(false)].into_iter()), wide_ranges),
    case("cidrs_100k", || Box::new([many_cidrs(false)].into_iter()), many_cidrs),
    Case { limits: ROOM, ..case("too_large", || Box::new([many_excepts(false)].into_iter()), many_excepts) },
];

/// What one process finds.
#[derive(Serialize, Deserialize)]
struct Found {
    /// Milliseconds from nothing, all objects known.
    compile: f64,
    /// Microseconds from the changed policy to the steps for the tables.
    edit: f64,
    /// MiB that the index takes, objects included.
    memory: f64,
    /// MiB that the process takes at most until it is there.
    peak: f64,
    rules: usize,
    prefixes: usize,
    identities: usize,
}

/// Measures all cases.
///
/// # Errors
/// Where a process fails.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for case in &CASES {
        let found = in_process(case.name)?;
        let row = |what: &str, value, unit| Row::new(&format!("{what}.{}", case.name), value, unit, Target::None);
        let compile = row("compile", found.compile, "ms");
        if case.name == "policies_10k" {
            rows.push(Row { id: "compile_10k_policies".into(), target: Target::AtMost(1000.0), ..compile.clone() });
        }
        rows.push(compile);
        rows.push(row("edit", found.edit, "us").against("from nothing", found.compile * 1e3));
        rows.push(row("memory", found.memory, "MiB"));
        rows.push(row("memory_peak", found.peak, "MiB"));
        rows.push(row("rules", found.rules as f64, "rules"));
        rows.push(row("prefixes", found.prefixes as f64, "prefixes"));
        rows.push(row("identities", found.identities as f64, "identities"));
    }
    Ok(rows)
}

/// Has another process of this program measure a case.
fn in_process(case: &str) -> Result<Found> {
    let program = env::current_exe().context("finding this program")?;
    let mut command = Command::new(&program);
    command.args([super::CASE, case]);
    let output = command.output().with_context(|| format!("starting {} for {case}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "measuring {case} failed ({}): {said}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("reading what was measured of {case}"))
}

/// Measures a case in this process, which should have done nothing else, and prints what it finds.
///
/// # Errors
/// Where there is no such case.
pub fn measure(name: &str) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name).with_context(|| format!("there is no case {name:?}"))?;
    let objects = || population().chain((case.policies)());
    let own = Process::own();
    let before = own.memory("VmRSS")?;
    let mut index = Index::new(View::Node(NODE.into()), case.limits);
    index.apply_all(objects());
    let (memory, peak) = (own.memory("VmRSS")? - before, own.memory("VmHWM")?);
    let Counts { rules, prefixes, identities, .. } = index.counts();
    let edit = |at: usize| {
        let event = (case.edited)(at.is_multiple_of(2));
        let started = Instant::now();
        let delta = index.apply(event);
        let took = started.elapsed();
        // What does not fit stays closed.
        let is_told = !delta.steps.is_empty() || case.limits != Limits::NONE;
        ensure!(is_told, "the edit of {name} concerns nobody here");
        Ok(took.as_secs_f64() * 1e6)
    };
    let mut edits = (0..EDITS).map(edit).collect::<Result<Vec<f64>>>()?;
    drop(index);
    let events: Vec<Event> = objects().collect();
    let compile = |_| {
        let events = events.clone();
        let mut index = Index::new(View::Node(NODE.into()), case.limits);
        let started = Instant::now();
        let delta = index.apply_all(events);
        let took = started.elapsed();
        drop(delta);
        took.as_secs_f64() * 1e3
    };
    let mut compilations: Vec<f64> = (0..COMPILATIONS).map(compile).collect();
    let (compile, edit) = (median(&mut compilations), median(&mut edits));
    let found = Found { compile, edit, memory, peak, rules, prefixes, identities };
    println!("{}", serde_json::to_string(&found).context("writing what was measured")?);
    Ok(())
}
