//! Who can talk to whom.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sluice_policy::question::{Answered, Expected, Probe, SideAnswer, Traffic, family_name, party};
use sluice_policy::{Evaluator, Index};

use crate::table::{Cell, Table};

/// A line of a file of probes.
#[derive(Clone, Deserialize)]
struct Line {
    from: String,
    to: String,
    protocol: Option<String>,
    port: Option<u16>,
    expect: Option<Expected>,
}

/// What becomes of a question.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// It is answered.
    Answered(Box<Answered>),
    /// It cannot be.
    Unanswered(Unanswered),
}

/// A probe that has no answer.
#[derive(Debug, Default, Serialize)]
pub struct Unanswered {
    /// The number of its line.
    #[serde(skip)]
    line: usize,
    /// As it was written, as far as that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Expected>,
    /// Why not.
    error: String,
}

impl From<Answered> for Reply {
    fn from(answered: Answered) -> Self {
        Self::Answered(Box::new(answered))
    }
}

impl Reply {
    /// The answer, if there is one.
    pub fn answered(&self) -> Option<&Answered> {
        match self {
            Self::Answered(answered) => Some(answered),
            Self::Unanswered(_) => None,
        }
    }

    /// Why there is no answer, with the line of the probe.
    fn error(&self) -> Option<(usize, &str)> {
        match self {
            Self::Answered(_) => None,
            Self::Unanswered(Unanswered { line, error, .. }) => Some((*line, error)),
        }
    }
}

/// Every pair of pods that have addresses, for each port that the receiver declares, or for each of these ports.
///
/// # Errors
/// Where a pair has no answer.
pub fn every_pair(index: &Index, ports: &[Traffic]) -> Result<Vec<Reply>> {
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
                answers.extend(probe.ask(index, &evaluator).map_err(anyhow::Error::msg)?.into_iter().map(Reply::from));
            }
        }
    }
    Ok(answers)
}

/// The probes of a file, or of standard input where its name is `-`; in their order.
///
/// # Errors
/// Where it cannot be read.
pub fn probes(index: &Index, file: &Path) -> Result<Vec<Reply>> {
    let reading = || format!("reading probes from {}", file.display());
    let input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(fs::File::open(file).with_context(reading)?))
    };
    let mut lines: Vec<(usize, Result<Line, String>)> = Vec::new();
    for (number, text) in input.lines().enumerate() {
        let text = text.with_context(reading)?;
        if text.trim().is_empty() {
            continue;
        }
        lines.push((number + 1, serde_json::from_str(&text).map_err(|error| error.to_string())));
    }
    let ends = lines.iter().filter_map(|(_, line)| line.as_ref().ok()).flat_map(|line| [&line.from, &line.to]);
    let index = index.excerpt(&ends.filter_map(|end| party(end).ok()).collect::<Vec<_>>());
    let evaluator = Evaluator::new(&index);
    let reply = |(number, line): (usize, Result<Line, String>)| {
        let reply = match line {
            Ok(line) => answer(line, &index, &evaluator),
            Err(error) => Err(Box::new(Unanswered { error, ..Unanswered::default() })),
        };
        reply.unwrap_or_else(|why| Reply::Unanswered(Unanswered { line: number, ..*why }))
    };
    Ok(lines.into_iter().map(reply).collect())
}

fn answer(line: Line, index: &Index, evaluator: &Evaluator<'_>) -> Result<Reply, Box<Unanswered>> {
    let Line { from, to, protocol, port, expect } = line.clone();
    let answered = Traffic::new(protocol.as_deref(), port)
        .and_then(|traffic| Probe { from, to, traffic, expect }.ask_once(index, evaluator));
    answered.map(Reply::from).map_err(|error| {
        let Line { from, to, protocol, port, expect } = line;
        Box::new(Unanswered { line: 0, from: Some(from), to: Some(to), protocol, port, expect, error })
    })
}

/// What has no answer, a line each.
pub fn errors(replies: &[Reply], file: &Path) -> Vec<String> {
    let errors = replies.iter().filter_map(Reply::error);
    errors.map(|(line, error)| format!("{}:{line}: {error}", file.display())).collect()
}

/// What differs from what was hoped for, a line each.
pub fn surprises(replies: &[Reply]) -> Vec<String> {
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
    replies.iter().filter_map(Reply::answered).filter(differs).map(tell).collect()
}

/// The answers for people.
pub fn table(replies: &[Reply]) -> Table {
    let mut table = Table::new(&["FROM", "TO", "PORT", "FAMILY", "VERDICT", "EGRESS", "INGRESS"]);
    for reply in replies {
        let answer = match reply {
            Reply::Answered(answer) => answer,
            Reply::Unanswered(Unanswered { from, to, error, .. }) => {
                let end = |end: &Option<String>| Cell::from(end.as_deref().unwrap_or("-"));
                let none = || Cell::from("-");
                table.row([end(from), end(to), none(), none(), Cell::from("error"), Cell::from(&**error), none()]);
                continue;
            }
        };
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
