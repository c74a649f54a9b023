//! Short connections through cluster IPs, beside direct ones, few services beside many, and rules that kube-proxy makes.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::cluster::{PORT, WORKERS, any, vip};
use super::kube_proxy::{self, Rules};
use super::roads::{Road, Server, travel};
use super::stage::{FEW, Stage, v4};
use crate::bench::report::{Row, Target};
use crate::lab::Pod;

/// How many services there are where there are many.
const MANY: [usize; 3] = [1_000, 10_000, 30_000];

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
    let name = |count: usize| format!("sluice-bench-s{count}");
    let counts = [FEW, MANY[0], MANY[1], MANY[2]];
    let stages = counts.iter().map(|count| Stage::set(&name(*count), 1, *count, "")).collect::<Result<Vec<_>>>()?;
    let servers = stages.iter().map(|stage| Server::start(&stage.near.place)).collect::<Result<Vec<_>>>()?;
    let rules = [
        ("routed veth", Rules::None, FEW),
        ("iptables", Rules::Iptables, FEW),
        ("iptables", Rules::Iptables, MANY[1]),
        ("nftables", Rules::Nftables, FEW),
        ("nftables", Rules::Nftables, MANY[1]),
    ];
    let make = |(number, (_, rules, count)): (usize, &(&str, Rules, usize))| {
        kube_proxy::Node::make(&format!("sluice-bench-k{number}"), *rules, *count)
    };
    let others = rules.iter().enumerate().map(make).collect::<Result<Vec<_>>>()?;
    let other_servers = others.iter().map(|node| Server::start(&node.server)).collect::<Result<Vec<_>>>()?;
    let mut roads = Vec::new();
    for ((count, stage), server) in counts.iter().zip(&stages).zip(&servers) {
        let to = move |worker, random| any(*count, worker, random);
        roads.push(Road::by(&format!("{count} services"), &stage.client.place, server, to));
    }
    for (((name, rules, count), node), server) in rules.iter().zip(&others).zip(&other_servers) {
        roads.push(match rules {
            Rules::None => Road::to(name, &node.client, server, kube_proxy::SERVER),
            Rules::Iptables | Rules::Nftables => {
                let to = move |worker, random| any(*count, worker, random);
                Road::by(name, &node.client, server, to)
            }
        });
    }
    roads.iter().try_for_each(Road::opens)?;
    travel(&mut roads)?;
    let (own, other) = roads.split_at(counts.len());
    let (few, thousand, ten_thousand, most) = (&own[0], &own[1], &own[2], &own[3]);
    anstream::println!(
        "iptables: rules of the form that kube-proxy makes, loaded by {}; nftables: the same, by nft",
        kube_proxy::iptables_version()?
    );
    let at_least = Target::RatioAtLeast;
    let mut rows = vec![
        row("services_scaling", most, few, at_least(0.97)),
        by_processor("services_scaling", most, few),
        row("services_scaling.10k", ten_thousand, few, Target::None),
        row("services_scaling.1k", thousand, few, Target::None),
        row("short_connections_vs_iptables", few, &other[1], at_least(1.2)),
        row("short_connections_vs_iptables.10k", ten_thousand, &other[2], at_least(2.0)),
        by_processor("short_connections_vs_iptables", few, &other[1]),
        by_processor("short_connections_vs_iptables.10k", ten_thousand, &other[2]),
        row("short_connections_vs_nftables", few, &other[3], Target::None),
        row("short_connections_vs_nftables.10k", ten_thousand, &other[4], Target::None),
        row("short_connections_vs_routed", few, &other[0], Target::None),
    ];
    for (name, road) in [("10", few), ("1k", thousand), ("10k", ten_thousand), ("30k", most)] {
        for (share, name) in [(0.5, format!("connect_p50.{name}")), (0.99, format!("connect_p99.{name}"))] {
            rows.push(latency(&name, road, few, share));
        }
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
