//! Services: a front end that is asked from inside and outside, a database that only the front end may ask, and a backend that goes
//! while clients ask.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, ensure};
use sluice_tests::lab::serving::{Heard, Server, ask, ask_in_vain};
use sluice_tests::lab::{Lab, Place, Pod, binary, until};

use crate::step;
use crate::table::{BOLD, DIM};

const SERVICES: &str = include_str!("manifests/services.yaml");
const POLICY: &str = include_str!("manifests/db.yaml");
const FILE: &str = "services.yaml";
const POLICY_FILE: &str = "db.yaml";

/// The pods that serve: name, label and number of the node.
const PODS: [(&str, &str, usize); 3] = [("web-a", "web", 1), ("web-b", "web", 3), ("db", "db", 2)];
const TARGET: u16 = 8080;
const WEB: &[&str] = &["web-a", "web-b"];
const DB: &[&str] = &["db"];
/// How often a Service is asked for a cell: so often that a backend is left out by chance once in a million times.
const ASKED: usize = 20;
/// How many answers clients are to hear before a backend goes, and after it is gone.
const BEFORE_AND_AFTER: usize = 200;

const GOOD: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Yellow.on_default().bold();

/// A way to ask.
struct Column {
    heading: &'static str,
    addresses: Vec<IpAddr>,
    port: u16,
    servers: &'static [&'static str],
}

/// Somebody who asks.
struct Row<'a> {
    name: &'a str,
    place: &'a Place,
    is_inside: bool,
    may_ask_db: bool,
}

/// Shows all of it.
///
/// # Errors
/// Where anything is not as it should be.
pub fn show(lab: &Lab, pods: &[Pod]) -> Result<()> {
    let servers =
        step("three pods more serve: two of a front end, and a database; their Services are written", || {
            let servers = PODS.map(|(name, label, node)| serve(lab, name, label, node));
            let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
            lab.tell(FILE, SERVICES)?;
            Ok(servers)
        })?;
    let address = |text: &str| text.parse::<IpAddr>().context("an address");
    let columns = [
        Column {
            heading: "web, cluster IP",
            addresses: vec![address("10.96.0.10")?, address("fd00:96::a")?],
            port: 80,
            servers: WEB,
        },
        Column { heading: "web, node port", addresses: lab.nodes[1].addresses.clone(), port: 30_080, servers: WEB },
        Column {
            heading: "db, cluster IP",
            addresses: vec![address("10.96.0.11")?, address("fd00:96::b")?],
            port: 5432,
            servers: DB,
        },
    ];
    let pod = |name: &str| pods.iter().chain(servers.iter().map(|(pod, _)| pod)).find(|pod| pod.name == name);
    let place = |name: &str| pod(name).map(|pod| &pod.place).with_context(|| format!("no pod {name}"));
    let inside = |name, place, may_ask_db| Row { name, place, is_inside: true, may_ask_db };
    let rows = [
        inside("shop/web-a", place("web-a")?, true),
        inside("ci/runner", place("runner")?, false),
        inside("n3, a process", &lab.nodes[2].place, false),
        Row { name: "outside", place: &lab.stranger, is_inside: false, may_ask_db: false },
    ];
    step("each asks each Service, over IPv4 and IPv6, until all of its backends have answered", || {
        check(&columns, &rows, false)
    })?;
    print(&columns, &rows, false);
    step("a policy is written: only the front end asks the database", || {
        lab.tell(POLICY_FILE, POLICY)?;
        check(&columns, &rows, true)
    })?;
    print(&columns, &rows, true);
    lose_a_backend(lab, &columns, &rows)?;
    list(lab)?;
    lab.take_back(POLICY_FILE)?;
    lab.take_back(FILE)
}

fn serve(lab: &Lab, name: &str, label: &str, node: usize) -> Result<(Pod, Server)> {
    let pod = lab.pod_of("shop", node, name)?;
    lab.declare(&pod, &[("app", label)], &[TARGET])?;
    let server = Server::start(&pod.place, TARGET, name)?;
    Ok((pod, server))
}

/// Whether somebody is answered by a Service.
fn is_answered(row: &Row<'_>, column: &Column, with_policy: bool) -> Option<bool> {
    let is_db = column.servers == DB;
    // Cluster IPs are for the cluster.
    if !row.is_inside && column.port != 30_080 { None } else { Some(!(is_db && with_policy && !row.may_ask_db)) }
}

/// Asks all that there is to be asked.
fn check(columns: &[Column], rows: &[Row<'_>], with_policy: bool) -> Result<()> {
    for row in rows {
        for column in columns {
            let Some(is_answered) = is_answered(row, column, with_policy) else { continue };
            for address in &column.addresses {
                until(&format!("{} asks {} at {address}", row.name, column.heading), || {
                    if !is_answered {
                        ensure!(ask_in_vain(row.place, *address, column.port)? == Heard::Nothing, "it is answered");
                        return Ok(());
                    }
                    let answers = (0..ASKED * column.servers.len())
                        .map(|_| Ok(ask(row.place, *address, column.port)?.said()?.name));
                    let heard = answers.collect::<Result<BTreeSet<String>>>()?;
                    ensure!(heard.iter().map(String::as_str).eq(column.servers.iter().copied()), "heard {heard:?}");
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

fn print(columns: &[Column], rows: &[Row<'_>], with_policy: bool) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let heading = columns.iter().map(|column| format!("{:16}", column.heading)).collect::<Vec<_>>().join("  ");
    anstream::println!("\n  {BOLD}{:width$}  {}{BOLD:#}", "asks", heading.trim_end());
    for row in rows {
        let mut line = format!("{BOLD}{:width$}{BOLD:#}", row.name);
        for column in columns {
            let (text, style) = match is_answered(row, column, with_policy) {
                Some(true) => (column.servers.join(", "), GOOD),
                Some(false) => ("denied".into(), DENIED),
                None => (".".into(), DIM),
            };
            line += &format!("  {style}{text:16}{style:#}");
        }
        anstream::println!("  {}", line.trim_end());
    }
    println!();
}

/// Has clients inside and outside ask without a pause while a pod of the front end goes: first from its Service, then altogether.
fn lose_a_backend(lab: &Lab, columns: &[Column], rows: &[Row<'_>]) -> Result<()> {
    let (cluster_ip, node_port) = (&columns[0], &columns[1]);
    let (runner, outside) = (&rows[1], &rows[3]);
    let clients = [(runner, cluster_ip), (outside, node_port)];
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    step("clients inside and outside ask on and on; web-b leaves the Service meanwhile", || {
        std::thread::scope(|scope| {
            let asking = clients.map(|(row, column)| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        ask(row.place, column.addresses[0], column.port)?.said()?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok::<(), anyhow::Error>(())
                })
            });
            let more = |goal: usize| {
                until("clients are answered", || {
                    ensure!(count.load(Ordering::Relaxed) >= goal || asking.iter().any(|client| client.is_finished()));
                    Ok(())
                })
            };
            let changed = more(BEFORE_AND_AFTER)
                .and_then(|()| lab.take_back("shop-web-b.json"))
                .and_then(|()| more(count.load(Ordering::Relaxed) + BEFORE_AND_AFTER));
            stop.store(true, Ordering::Relaxed);
            for client in asking {
                client.join().expect("no panic").context("a connection fails while web-b leaves")?;
            }
            changed
        })
    })?;
    let asked = count.load(Ordering::Relaxed);
    anstream::println!("  {asked} connections, {GOOD}none of them failed{GOOD:#}\n");
    Ok(())
}

/// Shows how `sluicectl` tells of it.
fn list(lab: &Lab) -> Result<()> {
    let socket = lab.nodes[0].directory.join("run/agent.sock");
    let output = std::process::Command::new(binary("sluicectl"))
        .args(["services", "--namespace", "shop", "--socket"])
        .arg(&socket)
        .output()
        .context("running sluicectl")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("shop/web"), "sluicectl services says {said:?}");
    anstream::println!("  {DIM}sluicectl services --namespace shop{DIM:#}, on n1 (*: a backend of this node)");
    said.lines().for_each(|line| println!("  {line}"));
    println!();
    Ok(())
}
