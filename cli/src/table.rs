//! Aligned columns.

use anstyle::Style;

/// Rows under headings.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn widths(&self) -> Vec<usize> {
        let cell =
            |column: usize| self.rows.iter().map(move |row| row.get(column).map_or(0, |cell| cell.chars().count()));
        self.headings
            .iter()
            .enumerate()
            .map(|(column, heading)| cell(column).max().unwrap_or(0).max(heading.len()))
            .collect()
    }

    fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        std::iter::once(line(self.headings.clone()))
            .chain(self.rows.iter().map(|row| line(row.iter().map(String::as_str).collect())))
            .collect()
    }

    /// Prints it: headings bold on a terminal.
    pub fn print(&self) {
        const BOLD: Style = Style::new().bold();
        for (number, line) in self.lines().into_iter().enumerate() {
            if number == 0 {
                anstream::println!("{BOLD}{line}{BOLD:#}");
            } else {
                anstream::println!("{line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["A", "LONG"]);
        table.row(["wide cell".into(), "x".into()]);
        assert_eq!(table.lines(), ["A          LONG", "wide cell  x"]);
    }
}
