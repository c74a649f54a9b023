//! The demo: a cluster of three nodes on this machine, who can talk to whom in it, by Services too, and what policies change about
//! that.

mod calls;
mod denials;
mod echo;
mod flows;
mod offline;
mod party;
mod policies;
mod rollout;
mod services;
mod table;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use sluice_api::{Answer, Call};
use sluice_tests::lab::{self, Lab, Plan, Pod, binary};

use calls::{Cell, Rows};
use echo::PORT;
use party::Party;
use policies::{NAMESPACES, POLICIES};
use services::Frontend;
use table::{BOLD, DIM, Heading, Reasons, Table};

/// Name of the demo's cluster: the prefix of its network namespaces.
const NAME: &str = "sluice-demo";

/// The pods: namespace, name, what they are (the label `app`), and the number of the node.
const PODS: [(&str, &str, &str, usize); 5] = [
    ("shop", "front-1", "frontend", 1),
    ("shop", "front-2", "frontend", 2),
    ("shop", "database", "database", 3),
    ("ci", "runner", "runner", 1),
    ("ci", "cache", "cache", 2),
];

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
    step("two Services are declared; served by all nodes, which tell of them (`sluicectl services` on n1)", || {
        lab.tell("services.yaml", services::MANIFESTS)?;
        services::are_served(&lab, &pods)
    })?;
    println!();
    services::print(&lab.nodes[0])?;
    println!();
    let parties = Party::all(&lab, &pods)?;

    let before = everybody_calls(&lab, &parties, "everybody calls everybody, and every Service; no policies yet")?;
    before.show(&parties)?;
    println!(
        "  yes: TCP over IPv4 and IPv6, with every pod of a Service; as node: the same, but who serves, or some of them,"
    );
    println!("  see a node in place of the caller; a dot: not tried\n");

    step(&format!("three policies are written to {}; in force on all nodes", lab.manifests().display()), || {
        POLICIES.iter().try_for_each(|policy| lab.tell(policy.file, policy.text))?;
        policies::are_in_force(&lab, POLICIES.len())
    })?;
    let width = POLICIES.iter().map(|policy| policy.name.len()).max().unwrap_or(0);
    for policy in &POLICIES {
        println!("  {:width$}  {}", policy.name, policy.purpose());
    }
    println!();
    everybody_calls(&lab, &parties, "everybody calls everybody, and every Service, again")?.show(&parties)?;
    println!("  a number: denied; why, as the agents tell it (`sluicectl denials`)");
    println!(
        "  Every cell is what `sluicectl policy` answers offline for the same manifests, of a Service for its pods."
    );
    println!("  Between a pod and its own node no NetworkPolicy stands, but a ClusterNetworkPolicy may.\n");

    flows::show(&lab, &parties)?;
    rollout::show(&lab, &parties, &pods)?;

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
    let after =
        everybody_calls(&lab, &parties, "everybody calls everybody, and every Service, as before the policies")?;
    if after != before {
        after.show(&parties)?;
        anyhow::bail!("without the policies it is not as it was before them");
    }
    Ok(())
}

/// What came of the calls of everybody.
#[derive(PartialEq, Eq)]
struct Outcome {
    /// To everybody,
    direct: Rows,
    /// and to every Service.
    services: Rows,
}

/// Has everybody call everybody, and every Service.
fn everybody_calls(lab: &Lab, parties: &[Party<'_>], what: &str) -> Result<Outcome> {
    step(what, || {
        let direct = calls::everybody(lab, parties)?;
        Ok(Outcome { direct, services: services::everybody(lab, parties)? })
    })
}

impl Outcome {
    /// Shows it.
    ///
    /// # Errors
    /// Where anything is not as it should be.
    fn show(&self, parties: &[Party<'_>]) -> Result<()> {
        let everybody: Vec<Heading<'_>> = parties.iter().map(|party| (party.group, party.name.to_owned())).collect();
        let services = Frontend::all(parties).iter().map(Frontend::heading).collect();
        let rows = || self.direct.iter().chain(&self.services);
        let reasons = Reasons::of(rows());
        for (headings, rows) in [(everybody, &self.direct), (services, &self.services)] {
            println!();
            Table::new(headings, parties, rows, &reasons).print();
        }
        println!();
        reasons.print();
        let wrong = rows().flatten().filter(|cell| matches!(cell, Cell::Wrong(_))).count();
        ensure!(wrong == 0, "{wrong} cells are not as they should be");
        Ok(())
    }
}

/// Adds the pods, and tells of them.
fn wire(lab: &Lab) -> Result<Vec<Pod>> {
    lab.tell("namespaces.yaml", NAMESPACES)?;
    let add = |(namespace, name, app, node): (&str, &str, &str, usize)| {
        let pod = lab.pod_of(namespace, node, name)?;
        lab.declare(&pod, &[("app", app)], &[PORT])?;
        Ok(pod)
    };
    PODS.into_iter().map(add).collect()
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
    let ctl = format!("{} --socket {}", binary("sluicectl").display(), node.socket().display());
    let (database, runner) = (&pods[2], &pods[3]);
    println!("The cluster goes on, with its Services and policies. Does ci reach the database, and why not?");
    println!("  ip netns exec {} ping -c 1 -W 1 {}", runner.place.name, database.addresses[0]);
    println!("  {ctl} denials");
    println!("  {ctl} policy explain --from ci/runner --to shop/database --port ICMP");
    println!("What else the agent of n1 knows:");
    for what in ["status", "endpoints", "services", "flows"] {
        println!("  {ctl} {what}");
    }
    println!("  tail {}", node.directory.join("agent.log").display());
    println!("Its manifests; agents follow each change. And what they say of every pair of pods, offline:");
    println!("  ls {}", lab.manifests().display());
    println!("  {} policy matrix {}", binary("sluicectl").display(), lab.manifests().display());
    println!("End it with:");
    println!("  cargo xtask demo --end");
}
