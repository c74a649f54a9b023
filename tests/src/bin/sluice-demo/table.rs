//! Tables of who can talk to whom, for people.

use anstyle::{AnsiColor, Style};

use crate::calls::{Cell, Rows};
use crate::party::{Party, Role};

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Yellow.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The width of columns, where names are no longer.
const WIDEST: usize = 7;

/// A column's heading: a word above those that belong together, and its own.
pub type Heading<'a> = (&'a str, String);

/// Reasons of denials, in the order in which they appear in tables; their numbers are marks there.
pub struct Reasons<'a>(Vec<&'a str>);

impl<'a> Reasons<'a> {
    /// Those of all these rows.
    pub fn of(rows: impl IntoIterator<Item = &'a Vec<Cell>>) -> Self {
        let mut reasons: Vec<&str> = Vec::new();
        for cell in rows.into_iter().flatten() {
            if let Cell::Denied { why } = cell
                && !reasons.contains(&&**why)
            {
                reasons.push(why);
            }
        }
        Self(reasons)
    }

    fn mark(&self, why: &str) -> usize {
        self.0.iter().position(|reason| *reason == why).map_or(0, |at| at + 1)
    }

    /// Prints what the marks stand for.
    pub fn print(&self) {
        for (at, why) in self.0.iter().enumerate() {
            anstream::println!("  {DENIED}{}{DENIED:#}  {why}", at + 1);
        }
        if !self.0.is_empty() {
            println!();
        }
    }
}

/// A table.
pub struct Table<'a> {
    headings: Vec<Heading<'a>>,
    labels: Vec<String>,
    rows: &'a Rows,
    reasons: &'a Reasons<'a>,
}

impl<'a> Table<'a> {
    /// A row for each party, and a column for each heading; those who call nobody have no row.
    pub fn new(headings: Vec<Heading<'a>>, callers: &[Party<'_>], rows: &'a Rows, reasons: &'a Reasons<'a>) -> Self {
        Self { headings, labels: callers.iter().map(label).collect(), rows, reasons }
    }

    /// Prints it, in colours on a terminal.
    pub fn print(&self) {
        self.lines().iter().for_each(|line| anstream::println!("{}", format!("  {line}").trim_end()));
    }

    /// The lines, cells in their styles.
    fn lines(&self) -> Vec<String> {
        let first = self.labels.iter().map(String::len).max().unwrap_or(0);
        let line = |heading: &str, cells: Vec<(String, Style)>| {
            let mut line = format!("{BOLD}{heading:first$}{BOLD:#}");
            let mut padding = 0;
            for ((text, style), (_, name)) in cells.iter().zip(&self.headings) {
                line += &format!("{:padding$}  {style}{text}{style:#}", "");
                padding = name.len().max(WIDEST).saturating_sub(text.len());
            }
            line
        };
        let mut above = None;
        let groups = self.headings.iter().map(|(group, _)| {
            let is_new = above.replace(*group) != Some(*group);
            (if is_new { (*group).to_owned() } else { String::new() }, BOLD)
        });
        let groups = groups.collect();
        let names = self.headings.iter().map(|(_, name)| (name.clone(), BOLD)).collect();
        let mut lines = vec![line("", groups), line("from \\ to", names)];
        for (label, row) in self.labels.iter().zip(self.rows) {
            if !row.iter().all(|cell| matches!(cell, Cell::Untried)) {
                lines.push(line(label, row.iter().map(|cell| self.text(cell)).collect()));
            }
        }
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
            Cell::Denied { why } => (self.reasons.mark(why).to_string(), DENIED),
            Cell::Wrong(_) => ("WRONG".into(), BAD),
        }
    }
}

/// How a row begins.
fn label(party: &Party<'_>) -> String {
    match party.node {
        Some(node) if party.role == Role::Pod => format!("{} ({})", party.full_name(), node.name),
        _ => party.full_name(),
    }
}
