//! Short connections through cluster IPs, beside direct ones, few services beside many, and rules that kube-proxy makes.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::cluster::{PORT, WORKERS, any, vip};
use super::kube_proxy::{self, Rules};
use super::roads::{Road, Server, travel};
use super::stage::{FEW, Stage, v4};
use crate::bench::report::{Row, Target};
use crate::lab::Pod;

/// How many services there are, and what that is called.
const COUNTS: [(usize, &str); 4] = [(FEW, "10"), (1_000, "1k"), (10_000, "10k"), (30_000, "30k")];

/// Measures all of them, in turns.
///
/// # Errors
/// Where a lab does not start, or a connection is not made.
pub fn run() -> Result<Vec<Row>> {
    let mut rows = direct("socket", "")?;
    rows.extend(direct("packet", "socket_lb: false\n")?);
    rows.extend(many()?);
    Ok(rows)
}

/// Connections through cluster IPs and direct ones, on one node and on two.
fn direct(how: &str, settings: &str) -> Result<Vec<Row>> {
    let stage = Stage::set("sluice-bench", 2, FEW, settings)?;
    let far = stage.far.as_ref().context("another node's pod")?;
    let servers = |pod: &Pod| Ok::<_, anyhow::Error>((Server::start(&pod.place)?, Server::start_apart(&pod.place)?));
    let ((near, near_apart), (away, away_apart)) = (servers(&stage.near)?, servers(far)?);
    let to = |first: usize| move |worker: usize, _| SocketAddr::new(vip(first + worker).into(), PORT);
    let client = &stage.client.place;
    let mut roads = [
        Road::to("direct", client, &near_apart, v4(&stage.near)),
        Road::by("cluster IP", client, &near, to(WORKERS)),
        Road::to("direct", client, &away_apart, v4(far)),
        Road::by("cluster IP", client, &away, to(0)),
    ];
    roads.iter().try_for_each(Road::opens)?;
    travel(&mut roads)?;
    let [direct, vip, direct_away, vip_away] = &roads;
    let is_socket = settings.is_empty();
    let target = || if is_socket { Target::RatioAtLeast(0.97) } else { Target::None };
    let id = |what: &str| format!("short_connections_clusterip.{how}.{what}");
    let mut rows = vec![
        row(&id("one_node"), vip, direct, target()),
        row(&id("two_nodes"), vip_away, direct_away, target()),
        by_processor(&id("one_node"), vip, direct),
        by_processor(&id("two_nodes"), vip_away, direct_away),
        latency(&id("one_node.connect_p50"), vip, direct, 0.5),
        latency(&id("one_node.connect_p99"), vip, direct, 0.99),
    ];
    if is_socket {
        let ratio = |row: &Row| row.ratio().unwrap_or(0.0);
        let worst = rows[..2].iter().min_by(|one, other| ratio(one).total_cmp(&ratio(other)));
        let worst = worst.map(|row| Row { id: "short_connections_clusterip".into(), ..row.clone() });
        rows.splice(0..0, worst);
    }
    Ok(rows)
}

/// Few services and many, and the same by the rules of others.
fn many() -> Result<Vec<Row>> {
    let set = |(count, name)| Stage::set(&format!("sluice-bench-s{name}"), 1, count, "");
    let stages = COUNTS.map(set).into_iter().collect::<Result<Vec<_>>>()?;
    let servers = stages.iter().map(|stage| Server::start(&stage.near.place)).collect::<Result<Vec<_>>>()?;
    let each = |rules| COUNTS.map(|(count, _)| (rules, count));
    let rules = [&[(Rules::None, FEW)], &each(Rules::Iptables)[..], &each(Rules::Nftables)].concat();
    let make = |(number, (rules, count)): (usize, &(Rules, usize))| {
        anstream::eprintln!("a node with {count} services by {}", rules.name());
        kube_proxy::Node::make(&format!("sluice-bench-k{number}"), *rules, *count)
    };
    let others = rules.iter().enumerate().map(make).collect::<Result<Vec<_>>>()?;
    let other_servers = others.iter().map(|node| Server::start(&node.server)).collect::<Result<Vec<_>>>()?;
    let mut roads = Vec::new();
    for (((count, name), stage), server) in COUNTS.iter().zip(&stages).zip(&servers) {
        let to = move |worker, random| any(*count, worker, random);
        roads.push(Road::by(&format!("{name} services"), &stage.client.place, server, to));
    }
    for (((rules, count), node), server) in rules.iter().zip(&others).zip(&other_servers) {
        roads.push(match rules {
            Rules::None => Road::to(rules.name(), &node.client, server, kube_proxy::SERVER),
            Rules::Iptables | Rules::Nftables => {
                let to = move |worker, random| any(*count, worker, random);
                Road::by(rules.name(), &node.client, server, to)
            }
        });
    }
    roads.iter().try_for_each(Road::opens)?;
    travel(&mut roads)?;
    anstream::println!(
        "iptables: rules of the form that kube-proxy makes, loaded by {}; nftables: the same, by nft",
        kube_proxy::iptables_version()?
    );
    let (own, others) = roads.split_at(COUNTS.len());
    let (few, most) = (&own[0], &own[COUNTS.len() - 1]);
    let at_least = Target::RatioAtLeast;
    let mut rows = vec![
        row("services_scaling", most, few, at_least(0.97)),
        by_processor("services_scaling", most, few),
        row("services_scaling.10k", &own[2], few, Target::None),
        row("services_scaling.1k", &own[1], few, Target::None),
        row("short_connections_vs_routed", few, &others[0], Target::None),
    ];
    for (road, (_, name)) in own.iter().zip(COUNTS) {
        rows.push(latency(&format!("connect_p50.{name}"), road, few, 0.5));
        rows.push(latency(&format!("connect_p99.{name}"), road, few, 0.99));
    }
    for (number, other) in others[1..].iter().enumerate() {
        let (own, (_, count)) = (&own[number % COUNTS.len()], COUNTS[number % COUNTS.len()]);
        let target = match (other.name(), count) {
            ("iptables", "10") => at_least(1.2),
            ("iptables", "10k") => at_least(2.0),
            _ => Target::None,
        };
        let many = if own.name() == few.name() { String::new() } else { format!(".{count}") };
        let id = format!("short_connections_vs_{}{many}", other.name());
        rows.extend([
            row(&id, own, other, target),
            by_processor(&id, own, other),
            latency(&format!("{id}.connect_p50"), own, other, 0.5),
            latency(&format!("{id}.connect_p99"), own, other, 0.99),
        ]);
    }
    Ok(rows)
}

/// What a road carries beside another: the ratio is the median of those of their turns.
fn row(id: &str, own: &Road<'_>, other: &Road<'_>, target: Target) -> Row {
    Row::new(id, own.rate(), "/s", target).against(other.name(), own.rate() / own.ratio(other))
}

/// The same for a second of processor time.
fn by_processor(id: &str, own: &Road<'_>, other: &Road<'_>) -> Row {
    let (rate, ratio) = own.by_processor(other);
    Row::new(&format!("{id}.by_processor_time"), rate, "/s", Target::None).against(other.name(), rate / ratio)
}

fn latency(id: &str, own: &Road<'_>, other: &Road<'_>, share: f64) -> Row {
    Row::new(id, own.latency(share), "us", Target::None).against(other.name(), other.latency(share))
}
