//! The demo: a cluster of three nodes on this machine, who can talk to whom in it, and what policies change about that.

mod calls;
mod denials;
mod echo;
mod flows;
mod offline;
mod party;
mod policies;
mod services;
mod table;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use sluice_api::{Answer, Call};
use sluice_tests::lab::{self, Lab, Plan, Pod, binary};

use calls::Cell;
use echo::PORT;
use party::Party;
use policies::{NAMESPACES, POLICIES};
use table::{BOLD, DIM, Table};

/// Name of the demo's cluster: the prefix of its network namespaces.
const NAME: &str = "sluice-demo";

/// The pods: namespace, name, and the number of the node.
const PODS: [(&str, &str, usize); 5] =
    [("shop", "frontend", 1), ("shop", "backend", 2), ("shop", "database", 3), ("ci", "runner", 1), ("ci", "cache", 2)];

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

/// Does something, and says what and how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    anstream::print!("{BOLD}- {what}{BOLD:#} ... ");
    let _ = std::io::stdout().flush();
    let now = Instant::now();
    let outcome = work();
    if outcome.is_ok() {
        anstream::println!("{DIM}{} ms{DIM:#}", now.elapsed().as_millis());
    } else {
        println!();
    }
    outcome
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
    let lab = step("three nodes, the last one behind a router; loading their programs", || {
        Lab::named(NAME, Plan { nodes: 3, routed: true, ..Plan::default() })
    })?;
    let pods = step("five pods in two namespaces, wired by the plugin, declared as manifests", || wire(&lab))?;
    show_routing(&lab)?;
    let parties = Party::all(&lab, &pods)?;

    show(&lab, &parties, "everybody calls everybody; no policies yet")?;
    println!("  yes: TCP over IPv4 and IPv6; as node: the same, masqueraded; a dot: not tried, no pod takes part\n");

    step(&format!("three policies are written to {}; in force on all nodes", lab.manifests().display()), || {
        POLICIES.iter().try_for_each(|policy| lab.tell(policy.file, policy.text))?;
        policies::are_in_force(&lab, POLICIES.len())
    })?;
    let width = POLICIES.iter().map(|policy| policy.name.len()).max().unwrap_or(0);
    for policy in &POLICIES {
        println!("  {:width$}  {}", policy.name, policy.purpose());
    }
    println!();
    show(&lab, &parties, "everybody calls everybody again")?;
    println!("  a number: denied; why, as the agents tell it (`sluicectl denials`)");
    println!("  Every cell is what `sluicectl policy` answers offline for the same manifests.");
    println!("  Between a pod and its own node no NetworkPolicy stands, but a ClusterNetworkPolicy may.\n");

    flows::show(&lab, &parties)?;

    if keep {
        drop(parties);
        explain(&lab, &pods);
        lab.keep(pods);
        return Ok(());
    }
    step("the policies are removed; gone from all nodes", || {
        POLICIES.iter().try_for_each(|policy| lab.take_back(policy.file))?;
        policies::are_in_force(&lab, 0)
    })?;
    println!();
    show(&lab, &parties, "everybody calls everybody once more")?;
    services::show(&lab, &pods)
}

/// Adds the pods, and tells of them.
fn wire(lab: &Lab) -> Result<Vec<Pod>> {
    lab.tell("namespaces.yaml", NAMESPACES)?;
    let add = |(namespace, name, node): (&str, &str, usize)| {
        let pod = lab.pod_of(namespace, node, name)?;
        lab.declare(&pod, &[("app", name)], &[PORT])?;
        Ok(pod)
    };
    PODS.into_iter().map(add).collect()
}

/// Has everybody call everybody, and shows what came of it.
///
/// # Errors
/// Where anything is not as it should be.
fn show(lab: &Lab, parties: &[Party<'_>], what: &str) -> Result<()> {
    let rows = step(what, || calls::everybody(lab, parties))?;
    println!();
    Table::new(parties, &rows).print();
    println!();
    let wrong = rows.iter().flatten().filter(|cell| matches!(cell, Cell::Wrong(_))).count();
    ensure!(wrong == 0, "{wrong} cells are not as they should be");
    Ok(())
}

fn show_routing(lab: &Lab) -> Result<()> {
    let answer = lab.nodes[0].ask(Call::Nodes {}).context("asking the agent of n1 for its nodes")?;
    if let Answer::Nodes(nodes) = answer {
        let ways: Vec<String> = nodes.iter().map(|node| format!("{} {}", node.name, node.routing)).collect();
        println!("  n1 reaches: {}\n", ways.join(", "));
    }
    Ok(())
}

fn explain(lab: &Lab, pods: &[Pod]) {
    let node = &lab.nodes[0];
    let ctl = format!("{} --socket {}", binary("sluicectl").display(), node.directory.join("run/agent.sock").display());
    let (frontend, database) = (&pods[0], &pods[2]);
    println!("The cluster goes on, with its policies. Does the frontend reach the database, and why not?");
    println!("  ip netns exec {} ping -c 1 -W 1 {}", frontend.place.name, database.addresses[0]);
    println!("  {ctl} denials");
    println!("  {ctl} policy explain --from shop/frontend --to shop/database --port ICMP");
    println!("What else the agent of n1 knows:");
    for what in ["status", "endpoints", "flows"] {
        println!("  {ctl} {what}");
    }
    println!("  tail {}", node.directory.join("agent.log").display());
    println!("Its manifests; agents follow each change. And what they say of every pair of pods, offline:");
    println!("  ls {}", lab.manifests().display());
    println!("  {} policy matrix {}", binary("sluicectl").display(), lab.manifests().display());
    println!("End it with:");
    println!("  cargo xtask demo --end");
}
