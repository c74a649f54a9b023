//! Who can talk to whom.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sluice_policy::question::{Answered, Expected, Probe, SideAnswer, Traffic, family_name};
use sluice_policy::{Evaluator, Index};

use crate::table::{Cell, Table};

/// A line of a file of probes.
#[derive(Deserialize)]
struct Line {
    from: String,
    to: String,
    protocol: Option<String>,
    port: Option<u16>,
    expect: Option<Expected>,
}

/// Every pair of pods that have addresses, for each port that the receiver declares, or for each of these ports.
///
/// # Errors
/// Where a pair has no answer.
pub fn every_pair(index: &Index, ports: &[Traffic]) -> Result<Vec<Answered>> {
    let evaluator = Evaluator::new(index);
    let mut pods: Vec<_> = index.pods().filter(|pod| !pod.ended && !pod.addresses.is_empty()).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let mut answers = Vec::new();
    for from in &pods {
        for to in &pods {
            let is_shared = |a: &IpAddr| to.addresses.iter().any(|b| a.is_ipv4() == b.is_ipv4());
            if !from.addresses.iter().any(is_shared) {
                continue;
            }
            let declared =
                to.ports.iter().map(|(transport, port)| Traffic { transport: Some(*transport), port: *port });
            let asked: Vec<Traffic> = if ports.is_empty() { declared.collect() } else { ports.to_vec() };
            for traffic in asked {
                let probe = Probe { from: from.name.to_string(), to: to.name.to_string(), traffic, expect: None };
                answers.extend(probe.ask(index, &evaluator).map_err(anyhow::Error::msg)?);
            }
        }
    }
    Ok(answers)
}

/// The probes of a file, or of standard input where its name is `-`; in their order.
///
/// # Errors
/// Where it cannot be read, or some of them make no sense or have no answer: all of those, with their lines.
pub fn probes(index: &Index, file: &Path) -> Result<Vec<Answered>> {
    let reading = || format!("reading probes from {}", file.display());
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(fs::File::open(file).with_context(reading)?))
    };
    let mut probes = Vec::new();
    for (number, text) in input.lines().enumerate() {
        let text = text.with_context(reading)?;
        if text.trim().is_empty() {
            continue;
        }
        probes.push((number, parse(&text)));
    }
    let ends = probes.iter().filter_map(|(_, probe)| probe.as_ref().ok()?.ends().ok());
    let index = index.excerpt(&ends.flatten().collect::<Vec<_>>());
    let evaluator = Evaluator::new(&index);
    let (mut answers, mut wrong) = (Vec::new(), Vec::new());
    for (number, probe) in probes {
        match probe.and_then(|probe| probe.ask_once(&index, &evaluator)) {
            Ok(answer) => answers.push(answer),
            Err(what) => wrong.push(format!("{}:{}: {what}", file.display(), number + 1)),
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(answers)
}

fn parse(text: &str) -> Result<Probe, String> {
    let Line { from, to, protocol, port, expect } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let traffic = Traffic::new(protocol.as_deref(), port)?;
    Ok(Probe { from, to, traffic, expect })
}

/// What differs from what was hoped for, a line each.
pub fn surprises(answers: &[Answered]) -> Vec<String> {
    let differs = |answer: &&Answered| answer.expect.is_some_and(|expect| expect != answer.verdict);
    let tell = |answer: &Answered| {
        let expected = answer.expect.map_or("", Expected::name);
        let said = |side: &SideAnswer| format!("{} ({})", side.verdict.name(), side.reason);
        format!(
            "{} -> {} {}/{} {}: expected {expected}, found {}; egress: {}; ingress: {}",
            answer.from,
            answer.to,
            answer.port,
            answer.protocol,
            family_name(answer.family),
            answer.verdict.name(),
            said(&answer.egress),
            said(&answer.ingress)
        )
    };
    answers.iter().filter(differs).map(tell).collect()
}

/// The answers for people.
pub fn table(answers: &[Answered]) -> Table {
    let mut table = Table::new(&["FROM", "TO", "PORT", "FAMILY", "VERDICT", "EGRESS", "INGRESS"]);
    for answer in answers {
        let port = match &*answer.protocol {
            "ICMP" => "ICMP".to_owned(),
            protocol => format!("{}/{protocol}", answer.port),
        };
        table.row([
            Cell::from(&*answer.from),
            Cell::from(&*answer.to),
            Cell::from(port),
            Cell::from(family_name(answer.family)),
            verdict(answer.verdict, answer.verdict.name()),
            verdict(answer.egress.verdict, &answer.egress.reason),
            verdict(answer.ingress.verdict, &answer.ingress.reason),
        ]);
    }
    table
}

fn verdict(verdict: Expected, text: &str) -> Cell {
    let colour = match verdict {
        Expected::Allow => AnsiColor::Green,
        Expected::Deny => AnsiColor::Red,
    };
    Cell::styled(text, Style::new().fg_color(Some(colour.into())))
}
