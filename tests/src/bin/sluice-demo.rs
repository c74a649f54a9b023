//! The demo: a cluster of three nodes on this machine, and who can talk to whom in it.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Instant;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use sluice_tests::lab::traffic::tcp;
use sluice_tests::lab::{self, Lab, Place, Plan, Pod, binary};

/// Name of the demo's cluster: the prefix of its namespaces.
const NAME: &str = "sluice-demo";
/// Bytes that are sent there and back for each cell of the table.
const BYTES: usize = 100_000;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const BOLD: Style = Style::new().bold();

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(false),
        ["--keep"] => run(true),
        ["--end"] => {
            lab::clean(NAME);
            println!("the demo's cluster is gone");
            Ok(())
        }
        _ => Err(anyhow::anyhow!("usage: sluice-demo [--keep | --end]")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Somebody who talks.
struct Party<'a> {
    label: String,
    place: &'a Place,
    addresses: Vec<IpAddr>,
}

fn step(what: &str) {
    anstream::print!("{BOLD}-{BOLD:#} {what} ... ");
    let _ = std::io::stdout().flush();
}

fn done(since: Instant) {
    println!("{} ms", since.elapsed().as_millis());
}

/// Ends the cluster where somebody ends the demo: nothing would be dropped then.
fn clean_when_told_to_end() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    // Before any other thread is: all inherit it.
    signals.thread_block().context("blocking signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            lab::clean(NAME);
            println!("\nthe demo's cluster is gone");
            std::process::exit(130);
        }
    });
    Ok(())
}

fn run(keep: bool) -> Result<()> {
    clean_when_told_to_end()?;
    let now = Instant::now();
    step("three nodes, the last one behind a router: loading their programs");
    let lab = Lab::named(NAME, Plan { nodes: 3, routed: true, ..Plan::default() })?;
    done(now);
    let now = Instant::now();
    step("two pods on each, wired by the plugin");
    let mut pods: Vec<(usize, Pod)> = Vec::new();
    for node in 1..=3 {
        for name in ["a", "b"] {
            pods.push((node, lab.pod(node, &format!("{name}{node}"))?));
        }
    }
    done(now);

    let now = Instant::now();
    step("everybody calls everybody, over IPv4 and IPv6");
    let mut parties: Vec<Party<'_>> = pods
        .iter()
        .map(|(node, pod)| Party {
            label: format!("{} (n{node})", pod.place.name.rsplit('-').next().unwrap_or("pod")),
            place: &pod.place,
            addresses: pod.addresses.clone(),
        })
        .collect();
    for node in &lab.nodes {
        parties.push(Party { label: node.name.clone(), place: &node.place, addresses: node.addresses.clone() });
    }
    parties.push(Party { label: "stranger".into(), place: &lab.stranger, addresses: lab.stranger_addresses() });
    let rows: Vec<Vec<Cell>> = parties.iter().map(|from| parties.iter().map(|to| call(from, to)).collect()).collect();
    done(now);
    println!();
    show(&parties, &rows);
    show_routing(&lab)?;

    let failed = rows.iter().flatten().filter(|cell| matches!(cell, Cell::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} calls failed");
    }
    if keep {
        explain(&lab, &pods);
        lab.keep(pods.into_iter().map(|(_, pod)| pod).collect());
    }
    Ok(())
}

/// What came of a call.
enum Cell {
    /// Nobody is expected to call this way.
    Skipped,
    /// It worked; the caller was seen under its own address, or under its node's.
    Worked { masqueraded: bool },
    /// It did not.
    Failed(String),
}

fn call(from: &Party<'_>, to: &Party<'_>) -> Cell {
    // A stranger knows no way to pods, and hosts talk to hosts without us.
    let is_pod = |party: &Party<'_>| party.label.contains('(');
    if !is_pod(from) && !is_pod(to) || from.label == "stranger" {
        return Cell::Skipped;
    }
    let mut masqueraded = false;
    for address in &to.addresses {
        match tcp(from.place, to.place, *address, BYTES) {
            Ok(seen) => masqueraded |= !from.addresses.contains(&seen),
            Err(error) => return Cell::Failed(format!("{error:#}")),
        }
    }
    Cell::Worked { masqueraded }
}

fn show(parties: &[Party<'_>], rows: &[Vec<Cell>]) {
    let width = parties.iter().map(|party| party.label.len()).max().unwrap_or(0);
    anstream::print!("{BOLD}{:width$}{BOLD:#}", "from \\ to");
    for party in parties {
        anstream::print!("  {BOLD}{:>8}{BOLD:#}", party.label);
    }
    println!();
    for (party, row) in parties.iter().zip(rows) {
        anstream::print!("{BOLD}{:width$}{BOLD:#}", party.label);
        for cell in row {
            match cell {
                Cell::Skipped => anstream::print!("  {:>8}", "."),
                Cell::Worked { masqueraded: false } => anstream::print!("  {GOOD}{:>8}{GOOD:#}", "yes"),
                Cell::Worked { masqueraded: true } => anstream::print!("  {GOOD}{:>8}{GOOD:#}", "as node"),
                Cell::Failed(_) => anstream::print!("  {BAD}{:>8}{BAD:#}", "NO"),
            }
        }
        println!();
    }
    println!();
    println!("yes: TCP over IPv4 and IPv6, seen with its own address; as node: masqueraded; a dot: not tried");
    for cell in rows.iter().flatten() {
        if let Cell::Failed(why) = cell {
            anstream::println!("{BAD}{why}{BAD:#}");
        }
    }
}

fn show_routing(lab: &Lab) -> Result<()> {
    let answer = lab.nodes[0].ask(sluice_api::Call::Nodes {}).context("asking the agent of n1 for its nodes")?;
    if let sluice_api::Answer::Nodes(nodes) = answer {
        let ways: Vec<String> = nodes.iter().map(|node| format!("{} {}", node.name, node.routing)).collect();
        println!("n1 reaches: {}", ways.join(", "));
    }
    Ok(())
}

fn explain(lab: &Lab, pods: &[(usize, Pod)]) {
    let (_, pod) = &pods[0];
    let node = &lab.nodes[0];
    let socket = node.directory.join("run/agent.sock");
    println!();
    println!("The cluster goes on. Look around:");
    println!("  ip netns exec {} ping {}", pod.place.name, pods[2].1.addresses[0]);
    let ctl = binary("sluicectl");
    for what in ["flows", "endpoints"] {
        println!("  {} --socket {} {what}", ctl.display(), socket.display());
    }
    println!("  bpftool map dump pinned /sys/fs/bpf/sluice-lab-{NAME}/n1/v2/maps/flows4");
    println!("  tail {}", node.directory.join("agent.log").display());
    println!("End it with:");
    println!("  cargo xtask demo --end");
}
