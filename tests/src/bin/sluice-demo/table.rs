//! Tables of who can talk to whom, for people.

use anstyle::{AnsiColor, Style};

use crate::calls::Cell;
use crate::party::Party;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Yellow.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The width of columns, where names are no longer.
const WIDEST: usize = 7;

/// A table's rows, and what its marks stand for.
pub struct Table<'a> {
    parties: &'a [Party<'a>],
    rows: &'a [Vec<Cell>],
    /// Reasons, in the order in which they appear.
    reasons: Vec<&'a str>,
}

impl<'a> Table<'a> {
    /// A row and a column for each party; those who call nobody have no row.
    pub fn new(parties: &'a [Party<'a>], rows: &'a [Vec<Cell>]) -> Self {
        let mut reasons: Vec<&str> = Vec::new();
        for cell in rows.iter().flatten() {
            if let Cell::Denied { why } = cell
                && !reasons.contains(&&**why)
            {
                reasons.push(why);
            }
        }
        Self { parties, rows, reasons }
    }

    /// Prints it, in colours on a terminal.
    pub fn print(&self) {
        self.lines().iter().for_each(|line| anstream::println!("{}", format!("  {line}").trim_end()));
    }

    /// The lines, cells in their styles.
    fn lines(&self) -> Vec<String> {
        let labels: Vec<String> = self.parties.iter().map(label).collect();
        let first = labels.iter().map(String::len).max().unwrap_or(0);
        let line = |heading: &str, cells: Vec<(String, Style)>| {
            let mut line = format!("{BOLD}{heading:first$}{BOLD:#}");
            let mut padding = 0;
            for ((text, style), party) in cells.iter().zip(self.parties) {
                line += &format!("{:padding$}  {style}{text}{style:#}", "");
                padding = party.name.len().max(WIDEST).saturating_sub(text.len());
            }
            line
        };
        let mut above = None;
        let groups = self.parties.iter().map(|party| {
            let is_new = above.replace(party.group) != Some(party.group);
            (if is_new { party.group.to_owned() } else { String::new() }, BOLD)
        });
        let groups = groups.collect();
        let names = self.parties.iter().map(|party| (party.name.to_owned(), BOLD)).collect();
        let mut lines = vec![line("", groups), line("from \\ to", names)];
        for (label, row) in labels.iter().zip(self.rows) {
            if !row.iter().all(|cell| matches!(cell, Cell::Untried)) {
                lines.push(line(label, row.iter().map(|cell| self.text(cell)).collect()));
            }
        }
        if !self.reasons.is_empty() {
            lines.push(String::new());
        }
        lines.extend(self.reasons.iter().enumerate().map(|(at, why)| format!("{DENIED}{}{DENIED:#}  {why}", at + 1)));
        for cell in self.rows.iter().flatten() {
            if let Cell::Wrong(how) = cell {
                lines.push(format!("{BAD}{how}{BAD:#}"));
            }
        }
        lines
    }

    fn text(&self, cell: &Cell) -> (String, Style) {
        match cell {
            Cell::Untried => (".".into(), DIM),
            Cell::Passed { masqueraded: false } => ("yes".into(), GOOD),
            Cell::Passed { masqueraded: true } => ("as node".into(), GOOD),
            Cell::Denied { why } => {
                let mark = self.reasons.iter().position(|reason| reason == why).map_or(0, |at| at + 1);
                (mark.to_string(), DENIED)
            }
            Cell::Wrong(_) => ("WRONG".into(), BAD),
        }
    }
}

/// How a row begins.
fn label(party: &Party<'_>) -> String {
    let name = party.full_name();
    party.node.map_or_else(|| name.clone(), |node| format!("{name} ({node})"))
}
