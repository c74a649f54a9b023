//! What was measured: rows for machines, a table for people.

use std::path::PathBuf;
use std::{env, fs};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use serde_json::{Value, json};

const GOOD: Style = AnsiColor::Green.on_default();
const SHORT: Style = AnsiColor::Yellow.on_default();

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// The value, at most.
    AtMost(f64),
    /// The ratio, at least.
    RatioAtLeast(f64),
    /// Nothing: it is told for comparison.
    None,
}

/// One number.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub id: String,
    /// The number.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What it is compared with, and its value.
    pub baseline: Option<(String, f64)>,
    /// What is to be reached.
    pub target: Target,
}

impl Row {
    /// A number that stands for itself.
    pub fn new(id: &str, value: f64, unit: &'static str, target: Target) -> Self {
        Self { id: id.into(), value, unit, baseline: None, target }
    }

    /// Compares it.
    pub fn against(mut self, what: &str, value: f64) -> Self {
        self.baseline = Some((what.into(), value));
        self
    }

    /// How many times the baseline it is; of durations, how many times as fast.
    pub fn ratio(&self) -> Option<f64> {
        let (_, baseline) = self.baseline.as_ref()?;
        let faster = matches!(self.unit, "ms" | "us" | "ns");
        Some(if faster { baseline / self.value } else { self.value / baseline })
    }

    fn is_reached(&self) -> Option<bool> {
        match self.target {
            Target::AtMost(most) => Some(self.value <= most),
            Target::RatioAtLeast(least) => self.ratio().map(|ratio| ratio >= least),
            Target::None => None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline.as_ref().map(|(what, value)| json!({ "what": what, "value": value })),
            "ratio": self.ratio(),
        })
    }
}

/// Writes the rows of a bench to its file, and shows them.
///
/// # Errors
/// Where the file cannot be written.
pub fn publish(name: &str, rows: &[Row]) -> Result<()> {
    let directory = env::var_os("SLUICE_BENCH_DIR").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join(format!("{name}.json"));
    let values: Vec<Value> = rows.iter().map(Row::json).collect();
    fs::write(&path, format!("{:#}\n", Value::from(values))).with_context(|| format!("writing {}", path.display()))?;
    table(rows.iter());
    anstream::println!("\nwritten to {}", path.display());
    Ok(())
}

/// Shows again what is to be reached, of all benches.
pub fn summarize(rows: &[Row]) {
    anstream::println!("\nWhat is to be reached:");
    table(rows.iter().filter(|row| !matches!(row.target, Target::None)));
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>) {
    anstream::println!("\n{:<46} {:>12}  {:<34} {:>7}  target", "id", "value", "baseline", "ratio");
    for row in rows {
        let value = format!("{:.1} {}", row.value, row.unit);
        let baseline = row.baseline.as_ref().map_or(String::new(), |(what, value)| format!("{what}: {value:.1}"));
        let ratio = row.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let target = match row.target {
            Target::AtMost(most) => format!("<= {most} {}", row.unit),
            Target::RatioAtLeast(least) => format!(">= {least} x"),
            Target::None => String::new(),
        };
        let style = match row.is_reached() {
            Some(true) => GOOD,
            Some(false) => SHORT,
            None => Style::new(),
        };
        anstream::println!("{:<46} {style}{value:>12}{style:#}  {baseline:<34} {ratio:>7}  {target}", row.id);
    }
}

/// The middle of some values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_greater_where_we_are_better() {
        let slower = Row::new("add", 4.0, "ms", Target::RatioAtLeast(4.0)).against("bridge", 8.0);
        assert_eq!((slower.ratio(), slower.is_reached()), (Some(2.0), Some(false)));
        let more = Row::new("throughput", 9.0, "Gbit/s", Target::RatioAtLeast(0.9)).against("veth", 10.0);
        assert_eq!((more.ratio(), more.is_reached()), (Some(0.9), Some(true)));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }
}
