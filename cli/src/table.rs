//! Aligned columns.

use std::io;

use anstyle::Style;

use crate::print;

/// Rows under headings.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in a column of a row.
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Text that looks like this on a terminal.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [impl Into<Cell>; N]) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn widths(&self) -> Vec<usize> {
        let cell =
            |column: usize| self.rows.iter().map(move |row| row.get(column).map_or(0, |it| it.text.chars().count()));
        self.headings
            .iter()
            .enumerate()
            .map(|(column, heading)| cell(column).max().unwrap_or(0).max(heading.len()))
            .collect()
    }

    /// The lines, headings bold and cells in their styles.
    fn lines(&self) -> Vec<String> {
        const BOLD: Style = Style::new().bold();
        let widths = self.widths();
        let line = |cells: Vec<(&str, Style)>| {
            let last = cells.len().saturating_sub(1);
            let padded = cells.iter().zip(&widths).enumerate().map(|(at, ((text, style), width))| {
                let padding = if at == last { 0 } else { width.saturating_sub(text.chars().count()) };
                format!("{style}{text}{style:#}{:padding$}", "")
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(line(self.headings.iter().map(|heading| (*heading, BOLD)).collect()))
            .chain(self.rows.iter().map(|row| line(row.iter().map(|cell| (&*cell.text, cell.style)).collect())))
            .collect()
    }

    /// Prints it, in colours on a terminal.
    ///
    /// # Errors
    /// As [`print::lines`].
    pub fn print(&self) -> io::Result<()> {
        print::lines(self.lines())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide cell", "x"]);
        let plain = table.lines().into_iter().map(|line| anstream::adapter::strip_str(&line).to_string());
        assert_eq!(plain.collect::<Vec<_>>(), ["A          LONG", "wide cell  x"]);
    }
}
