//! Live flows, and an edit of the policy that they are judged by.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_abi::Protocol;
use sluice_tests::lab::traffic::Steady;
use sluice_tests::lab::{Lab, until};

use crate::denials::Denials;
use crate::party::Party;
use crate::policies::{EDIT, FRONTEND};
use crate::step;

/// How many questions are answered before and between.
const SOME: u64 = 200;
/// How long each waits for its answer, where there may be none.
const BRIEFLY: Duration = Duration::from_millis(10);

/// Shows how an edit ends one of two flows of a front end, how undoing it lets that go on, and what both have lost.
///
/// # Errors
/// Where it is not as it should be.
pub fn show(lab: &Lab, parties: &[Party<'_>]) -> Result<()> {
    let [frontend, database, world] = ["front-1", "database", "world"].map(|name| {
        let party = parties.iter().find(|party| party.name == name);
        party.with_context(|| format!("nobody is {name}"))
    });
    let (frontend, database, world) = (frontend?, database?, world?);
    let spared = Steady::start(frontend.place, database.place, over_v4(database)?)?;
    let ended = Steady::start_with_patience(frontend.place, world.place, over_v4(world)?, BRIEFLY)?;

    let [before, after] = EDIT;
    let edited = FRONTEND.text.replace(before, after);
    ensure!(edited != FRONTEND.text, "there is no {before:?} in {}", FRONTEND.file);
    let why = step("front-1 asks database and world a question each millisecond; its policy is edited", || {
        for flow in [&spared, &ended] {
            flow.goes_on(SOME)?;
        }
        lab.tell(FRONTEND.file, &edited)?;
        let why = until("the flow to the world is denied", || {
            let denials = Denials::told(lab)?;
            let why = denials.why(frontend, world, over_v4(world)?, Protocol::UDP);
            why.map(str::to_owned).context("nobody tells of a denial")
        })?;
        spared.goes_on(SOME)?;
        Ok(why)
    })?;
    println!("  {}: `{before}` becomes `{after}`", FRONTEND.name);
    step("the edit is undone", || {
        lab.tell(FRONTEND.file, FRONTEND.text)?;
        [&ended, &spared].into_iter().try_for_each(|flow| flow.goes_on(SOME))
    })?;
    let (spared, ended) = (spared.stop()?, ended.stop()?);
    println!();
    for (name, (sent, answered), what) in [
        ("front-1 to database", spared, "allowed throughout"),
        ("front-1 to world", ended, &*format!("denied meanwhile: {why}")),
    ] {
        println!("  {name:20} {sent:>6} sent, {answered:>6} answered  {what}");
    }
    println!();
    ensure!(spared.0 == spared.1, "a flow that is allowed throughout has lost packets");
    ensure!(ended.0 > ended.1, "a flow that is denied has lost no packets");
    Ok(())
}

fn over_v4(party: &Party<'_>) -> Result<IpAddr> {
    let address = party.addresses.iter().find(|address| address.is_ipv4());
    address.copied().with_context(|| format!("{} has no IPv4 address", party.name))
}
